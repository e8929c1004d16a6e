"""An attempt as data: what a worker is told of it, and what it answers. Secrets travel as references only."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..agents.protocol import AttemptContext, Json, TaskCall
from ..errors import AttemptError

FORMAT = 1
"""Grows when an older worker could not read an attempt any more."""


class SecretReferences:
    """Text that stands for secrets until a worker puts their values in their places.

    `mark` is drawn at random by whoever renders the parameters, so that no data can hold a reference by chance or by
    intent: only what was rendered with a secret is replaced.
    """

    __slots__ = ("_pattern", "mark")

    def __init__(self, mark: str | None = None) -> None:
        self.mark = secrets.token_hex(16) if mark is None else mark
        self._pattern = re.compile(rf"<secret ([A-Za-z_][A-Za-z0-9_]{{0,63}}) {re.escape(self.mark)}>")

    def text(self, name: str) -> str:
        """What stands for the secret of that name; it may be a part of longer text."""
        return f"<secret {name} {self.mark}>"

    def resolve(
        self, parameters: dict[str, Json], names: Mapping[str, frozenset[str]], value: Callable[[str], str]
    ) -> dict[str, Json]:
        """The parameters with the values that `value` gives in place of references.

        Only parameters and secrets that `names` tells are looked at. Raises what `value` raises, and AttemptError
        (invalid) where an expression changed a reference, so that the value cannot be put in its place.
        """
        resolved = {}
        for parameter, given in parameters.items():
            allowed = names.get(parameter, frozenset())
            resolved[parameter] = self._resolve(given, allowed, value) if allowed else given
            if allowed and self.mark.casefold() in json.dumps(resolved[parameter]).casefold():
                raise AttemptError(
                    f"The parameter {parameter!r} computes with a secret. On a work pool the value is known to the "
                    "worker only: a secret can stand in text there, and nothing else.",
                    kind="invalid",
                )
        return resolved

    def _resolve(self, given: Json, allowed: frozenset[str], value: Callable[[str], str]) -> Json:
        if isinstance(given, str):
            return self._pattern.sub(lambda found: value(found[1]) if found[1] in allowed else found[0], given)
        if isinstance(given, dict):
            return {key: self._resolve(item, allowed, value) for key, item in given.items()}
        if isinstance(given, list):
            return [self._resolve(item, allowed, value) for item in given]
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAttempt:
    """One attempt on its way to a worker."""

    task: TaskCall
    context: AttemptContext
    mark: str
    """That of the SecretReferences with which the parameters were rendered."""
    lease_ttl_s: float
    """How long the worker may be silent before it is taken for dead."""

    def as_text(self) -> str:
        """The attempt as JSON text. Raises nothing: tasks and contexts are JSON data."""
        task, context = self.task, self.context
        data = {
            "format": FORMAT,
            "task": {
                "name": task.name,
                "type": task.type,
                "description": task.description,
                "required_tools": list(task.required_tools),
                "parameters": task.parameters,
                "complexity": task.complexity,
                "preferred_agent_type": task.preferred_agent_type,
                "output_schema": task.output_schema,
                "secrets": {parameter: sorted(names) for parameter, names in task.secrets.items()},
                "upstream": dict(task.upstream),
                "flow_name": task.flow_name,
                "flow_description": task.flow_description,
            },
            "context": {
                "run_id": context.run_id,
                "flow_id": context.flow_id,
                "task": context.task,
                "attempt": context.attempt,
                "attempt_id": context.attempt_id,
                "inputs": dict(context.inputs),
                "context": dict(context.context),
                "item_index": context.item_index,
                "timeout_s": context.timeout_s,
            },
            "mark": self.mark,
            "lease_ttl_s": self.lease_ttl_s,
        }
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | None) -> PoolAttempt:
        """Read what `as_text` gave. Raises AttemptError (invalid) for what this version does not understand."""
        try:
            data = json.loads(text or "")
            if data["format"] != FORMAT:
                raise AttemptError(
                    f"The attempt has format {data['format']}, this worker reads {FORMAT}: run the same version of "
                    "contexten-flow on the server and on its workers.",
                    kind="invalid",
                )
            task = dict(data["task"])
            task["required_tools"] = tuple(task["required_tools"])
            task["secrets"] = {parameter: frozenset(names) for parameter, names in task["secrets"].items()}
            return cls(
                task=TaskCall(**task),
                context=AttemptContext(**data["context"]),
                mark=str(data["mark"]),
                lease_ttl_s=float(data["lease_ttl_s"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AttemptError(
                f"The flow run holds no attempt that this worker understands ({type(error).__name__}). Attempts come "
                "from contexten-flow; do not start this deployment by hand.",
                kind="invalid",
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How an attempt ended on a worker: with an output, or with a failure."""

    output: Json = None
    failure: AttemptError | None = None
    tool: str | None = None
    """The tool that was at work when it failed."""
    lines: int = 0
    """Lines of the log that the attempt has in all."""
    usage: tuple[dict[str, Json], ...] = ()
    """What its models used, as `task.usage` entries of the journal."""

    def as_text(self) -> str:
        """The verdict as JSON text."""
        data: dict[str, Any] = {"lines": self.lines, "usage": self.usage}
        if self.failure is None:
            data["output"] = self.output
        else:
            failure = {"kind": self.failure.kind, "message": self.failure.message, "details": self.failure.details}
            data |= {"failure": failure, "tool": self.tool}
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Verdict:
        """Read what `as_text` gave. Raises ValueError, KeyError or TypeError where it is none."""
        data = json.loads(text)
        told = data.get("failure")
        usage = tuple(dict(one) for one in data.get("usage", ()))
        about: dict[str, Any] = {"lines": int(data["lines"]), "usage": usage}
        if told is None:
            return cls(output=data["output"], **about)
        failure = AttemptError(str(told["message"]), kind=str(told["kind"]), details=told["details"])
        return cls(failure=failure, tool=data["tool"], **about)
