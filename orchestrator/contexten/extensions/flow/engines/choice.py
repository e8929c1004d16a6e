"""Which engine a run gets: `framework` as callers give it, and the reference under which a run keeps the answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from ..definition import WorkflowDefinition
from ..definition.model import KINDS, Task
from ..errors import EngineUnavailable, InvalidArguments, Issue
from ..nearest import nearest_name

AGENT = "agent"
"""The kind of task that is a language model's on every engine."""
NATIVE = "native"
AUTO = "auto"
LIBRARIES = {"strands": "strands-agents", "controlflow": "controlflow", "prefect": "prefect"}
"""The engines that are extras, each with the distribution that it needs."""
ENGINES = (NATIVE, *LIBRARIES)
MAX_POOL_CHARS = 128

_OF_FREE_TEXT = frozenset({"strands", "controlflow"})
_POOL = re.compile(r"[^\x00-\x1f/%&<>:]+")  # what Prefect allows in names, less our separator


@dataclass(frozen=True, slots=True)
class EngineReference:
    """An engine, and of prefect the work pool that the run is submitted to. As text: `native`, `prefect:POOL`."""

    name: str
    pool: str | None = None

    @classmethod
    def parse(cls, text: str) -> EngineReference:
        """Read what `str` gave."""
        name, _, pool = text.partition(":")
        return cls(name, pool or None)

    @property
    def is_alone(self) -> bool:
        """Whether the engine's worker takes every attempt: tools and agents of this process take none."""
        return self.pool is not None

    def does(self, task: Task) -> bool:
        """Whether the task is the engine's worker's, where no agent given from Python goes before it; else it is for
        the built-in agents. A worker of Strands and ControlFlow does free-text tasks too."""
        return self.is_alone or task.type == AGENT or (self.name in _OF_FREE_TEXT and task.type not in KINDS)

    def __str__(self) -> str:
        return self.name if self.pool is None else f"{self.name}:{self.pool}"


@cache
def installed_version(engine: str) -> str | None:
    """The version of the engine's library, None where it is not installed. Imports nothing of it; asked once."""
    try:
        return version(LIBRARIES[engine])
    except PackageNotFoundError:
        return None


def how_to_install(engine: str) -> str:
    """The command that gets the engine's library."""
    return f"pip install 'contexten-flow[{engine}]'"


def check_installed(engine: str) -> None:
    """Raises EngineUnavailable where the engine's library is not installed, with the command that gets it."""
    if installed_version(engine) is None:
        raise EngineUnavailable(
            f"The engine {engine!r} is not installed.",
            next=f"Install it where the server runs: {how_to_install(engine)}.",
        )


def choose_engine(
    framework: object,
    definition: WorkflowDefinition,
    *,
    pool: object = None,
    enabled: Collection[str] = (),
    forbidden: Collection[str] = (),
    has_prefect: bool = False,
) -> EngineReference:
    """The engine for a run of that definition.

    `auto`, or None, takes ControlFlow for complex_orchestration, Prefect for monitoring_required where an API is
    configured (`has_prefect`), each only where it is `enabled` and installed, else the native engine. Raises
    InvalidArguments for an engine or pool that cannot be, EngineUnavailable for one that is not installed, or
    `forbidden`.
    """
    name = AUTO if framework is None else framework.strip().lower() if isinstance(framework, str) else ""
    if name == AUTO and pool is None:
        wanted = []
        if definition.complex_orchestration:
            wanted.append("controlflow")
        if definition.monitoring_required and has_prefect:
            wanted.append("prefect")
        usable = (one for one in wanted if one in enabled and one not in forbidden and installed_version(one))
        return EngineReference(next(usable, NATIVE))
    if name == NATIVE and pool is None:
        return EngineReference(NATIVE)
    if name not in (*ENGINES, AUTO):
        raise _unknown(framework, name)
    _check_pool(name, pool)
    if name in forbidden:
        raise EngineUnavailable(
            f"The engine {name!r} is switched off here (enable_{name}=False).",
            next="Use framework='auto' or 'native', or switch it on.",
        )
    check_installed(name)
    return EngineReference(name, pool if isinstance(pool, str) else None)


def _unknown(framework: object, name: str) -> InvalidArguments:
    known = [AUTO, *ENGINES]
    return InvalidArguments(
        f"There is no engine {str(framework)[:100]!r}; framework is one of {', '.join(known)}.",
        issues=[
            Issue(
                path="/framework",
                code="unknown_engine",
                message="no such engine",
                expected=known,
                got=str(framework)[:100],
                suggestion=nearest_name(name, known),
            )
        ],
    )


def _check_pool(name: str, pool: object) -> None:
    if pool is None:
        return
    if name != "prefect":
        problem = "work_pool needs framework='prefect'"
    elif not isinstance(pool, str) or not _POOL.fullmatch(pool) or len(pool) > MAX_POOL_CHARS:
        problem = "work_pool is the name of a Prefect work pool"
    else:
        return
    raise InvalidArguments(
        f"{problem}; it was {str(pool)[:100]!r}.",
        next="Pass framework='prefect' and the pool's name as `prefect work-pool ls` shows it, or no work_pool.",
        issues=[Issue(path="/work_pool", code="invalid_work_pool", message=problem, got=str(pool)[:100])],
    )
