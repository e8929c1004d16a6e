"""The seam of built-in tools."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from ...clock import Clock
from ...definition.catalog import ToolSpec
from ...errors import Issue
from ...settings import FlowSettings
from ..protocol import AttemptContext, Json
from ..secrets import SecretVault


class ToolParameters(BaseModel):
    """Base of the parameter models: typed, bounded, nothing besides."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Absent(enum.Enum):
    """Tells that nothing came before from an output of null."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

ParametersT = TypeVar("ParametersT", bound=ToolParameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEnvironment:
    """What a tool call may use besides its parameters."""

    settings: FlowSettings
    clock: Clock
    vault: SecretVault
    secret_names: frozenset[str] = frozenset()
    """The secrets in this call's parameters; the tool may have them, `http_client` guards which host gets them."""


class Tool(ABC, Generic[ParametersT]):
    """One named capability that a task can require.

    A tool is shared by all attempts of a process: it keeps no state of a call. A failure is raised as
    AttemptError with its kind; `invalid` where another attempt with the same parameters cannot do better.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    """For the agent that must choose: what it does, what it gives back."""
    piped: ClassVar[frozenset[str]] = frozenset()
    """Parameters that default to the output of the tool before."""
    code: ClassVar[frozenset[str]] = frozenset()
    """Parameters that are programs, parsed where they are checked."""
    parameters: type[ParametersT]

    @abstractmethod
    async def run(
        self, parameters: ParametersT, previous: Json | Absent, context: AttemptContext, environment: ToolEnvironment
    ) -> Json:
        """One call. `previous` is the output of the tool before, or ABSENT. Raises AttemptError."""

    def warnings(self, _parameters: Mapping[str, Any], /) -> Sequence[Issue]:
        """What is doubtful about parameters as they are written, templates still in place."""
        return ()

    async def aclose(self) -> None:
        """Let go of what the tool holds; the next call takes it again."""

    @property
    def spec(self) -> ToolSpec:
        """The tool as the checker of definitions sees it."""
        return ToolSpec(
            name=self.name,
            description=self.description,
            parameters=self.parameters,
            piped=self.piped,
            code=self.code,
            warnings=self.warnings,
        )


def body_of(output: Json) -> Json:
    """The body of an output of http_client; any other value as it is."""
    if isinstance(output, dict) and output.keys() == {"status", "headers", "body"}:
        return output["body"]
    return output
