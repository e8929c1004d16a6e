"""The calls that may mend a failed run, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..definition import MAX_S, Plan, TaskNode
from ..definition.templates import Template
from ..recovery.kinds import AGENT_FAILURE, INTERRUPTED, NETWORK, RATE_LIMIT, RESOURCE, TIMEOUT
from ..recovery.retry import RetryPolicy
from ..views import RunView

PASSING = frozenset({TIMEOUT, NETWORK, RATE_LIMIT, RESOURCE, AGENT_FAILURE, INTERRUPTED})
"""Kinds whose cause may be gone by the next attempt."""

_LONGER = 2  # times the limit that was too short


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """Words the calls for one failed run."""

    run: RunView
    plan: Plan
    version: int | None
    """The flow's latest version; None where the flow is gone."""
    default_retry: RetryPolicy
    """The policy of tasks that state none."""

    def of_dependencies(self, run_ids: list[str]) -> list[str]:
        """Where the run never started, since these runs had failed or were cancelled."""
        return [*(f"explain_flow(run_id={run_id!r})" for run_id in run_ids), self._retry()]

    def of_time_limit(self, called_s: float | None, latest: Mapping[str, Any] | None) -> list[str]:
        """Where the run's own time was up: the call's `timeout_s`, or the definition's `context.timeout`; `latest` is
        the flow's definition now."""
        limits = [limit for limit in (called_s, self.plan.definition.context.get("timeout")) if limit is not None]
        if self.version is None or latest is None or not limits:
            return [self._retry()]
        longer_s, version, calls = _longer(min(limits)), self.version, []
        stated_s = (latest.get("context") or {}).get("timeout")
        if stated_s is not None and stated_s < longer_s:
            calls.append(self._update("replace", "/context/timeout", longer_s))
            version += 1
        other_s = longer_s if called_s is not None and called_s < longer_s else None
        return [*calls, self._retry(version if version > self.run.version else None, other_s)]

    def of_output(self, message: str) -> list[str]:
        """Where all tasks are done and the flow's output cannot be made."""
        if newer := self._newer():
            return [newer, self._retry()]
        given = self.plan.output
        path = _named(message, given) or "/output"
        return [self._update("add" if given is None else "replace", path, ...), *self._retry_next()]

    def of_task(self, name: str, failure: Mapping[str, Any]) -> list[str]:
        """Where a task failed; `failure` is its error with `attempts`, `item` and `history`."""
        node, kind = self.plan.tasks.get(name), failure["kind"]
        newer = self._newer()
        if kind not in PASSING:
            return [newer, self._retry()] if newer else self._corrections(name, node, failure)
        if newer:
            return [self._retry(), newer]
        if kind == INTERRUPTED:
            return [self._retry(), *(self._after_crash(node) if node is not None else ())]
        mend = self._more_patience(node, failure) if node is not None else []
        history = failure["history"]
        is_hopeless = history["failed"] > 1 and not (history["mended_by_retry"] or history["mended_by_rerun"])
        return [*mend, self._retry()] if is_hopeless else [self._retry(), *mend]

    def _corrections(self, name: str, node: TaskNode | None, failure: Mapping[str, Any]) -> list[str]:
        patches = [self._update(op, path, ...) for op, path in self._places(node, failure)] if node is not None else []
        return [self._events(name), *patches, *self._retry_next()]

    def _places(self, node: TaskNode, failure: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What in the definition may be wrong, each with the operation that puts something else there."""
        message = failure["message"]
        stage = next((stage for stage in self.plan.stages if stage.name == node.stage), None)
        conditions = (stage.when if stage else None, node.when, node.for_each, node.cache_key, node.parameters)
        expression = _named(message, *conditions)
        if expression is not None:
            yield "replace", expression
            return
        if node.for_each is not None and not failure["attempts"] and "item" not in failure:
            yield "replace", f"{node.path}/for_each"
            return
        yield "replace" if node.task.parameters else "add", f"{node.path}/parameters"
        if node.task.output_schema is not None and message.startswith("The output does not fit output_schema"):
            yield "replace", f"{node.path}/output_schema"

    def _after_crash(self, node: TaskNode) -> list[str]:
        if node.task.on_interrupt != "fail":
            return [self._events(node.name)]
        anew = self._update("replace", f"{node.path}/on_interrupt", "retry")
        return [
            f"{anew}  # warning: after a crash the task may run twice",
            *self._retry_next(),
        ]

    def _more_patience(self, node: TaskNode, failure: Mapping[str, Any]) -> list[str]:
        """The calls that give the task more time or more attempts, and run it with them."""
        if self.version is None:
            return []
        task = node.task
        if failure["kind"] == TIMEOUT and task.timeout_s is not None:
            given_s = (failure.get("details") or {}).get(
                "timeout_s"
            )  # as recovery raised it; an agent's own is anything
            tried_s = max(task.timeout_s, given_s) if isinstance(given_s, int | float) else task.timeout_s
            patch = self._update("replace", f"{node.path}/timeout_s", _longer(tried_s))
        elif task.retry is None:
            attempts = self.default_retry.max_attempts * 2
            patch = self._update("add", f"{node.path}/retry", {"max_attempts": attempts})
        else:
            attempts = RetryPolicy.of(task.retry, self.default_retry).max_attempts * 2
            patch = self._update("add", f"{node.path}/retry/max_attempts", attempts)
        return [patch, *self._retry_next()]

    def _retry(self, version: int | None = None, timeout_s: float | None = None) -> str:
        """It keeps what was done; without `timeout_s` it keeps the call's limit too."""
        other = "" if version is None else f", version={version}"
        other += "" if timeout_s is None else f", timeout_s={timeout_s!r}"
        return f"control_flow(run_id={self.run.run_id!r}, action='retry'{other})"

    def _newer(self) -> str | None:
        return self._retry(self.version) if self.version is not None and self.version > self.run.version else None

    def _retry_next(self) -> list[str]:
        """With the version that an update makes."""
        return [self._retry(self.version + 1)] if self.version is not None else []

    def _events(self, task: str) -> str:
        return f"get_flow_status(run_id={self.run.run_id!r}, detail='events', task={task!r})"

    def _update(self, op: str, path: str, value: Any) -> str:
        shown = "..." if value is ... else repr(value)
        patch = f"{{'op': {op!r}, 'path': {path!r}, 'value': {shown}}}"
        return f"update_flow(flow_id={self.run.flow_id!r}, patch=[{patch}])"


def _longer(seconds: float) -> float:
    return min(seconds * _LONGER, MAX_S)


def _named(message: str, *templates: Template | None) -> str | None:
    """The place of the expression that a message names."""
    places = (path for template in templates if template is not None for path, _ in template.expressions())
    return next((path for path in places if f" at {path}: " in message), None)
