"""What the expressions of a task can see when they are evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

ROOTS = ("inputs", "context", "tasks", "run", "item", "index", "failure", "secrets")
"""The names that a template may begin with; `item` and `index` only in a for_each, `failure` only in an on_failure
task, `secrets` only in parameters."""

ROOTS_BUT_SECRETS = tuple(root for root in ROOTS if root != "secrets")
"""Those of every other place: what stands there is recorded."""

TASK_FIELDS = ("output", "state", "error")
"""What `tasks.<name>` has."""

FAILURE_FIELDS = ("task", "kind", "message")
"""What `failure` has: the failed task (empty where the flow's output could not be made), and why it failed."""


def _no_task(name: str) -> Mapping[str, Any]:
    raise LookupError(f"no task {name!r} is in scope")


def _no_secret(name: str) -> str:
    raise LookupError(f"no secret {name!r} is in scope")


class Scope:
    """Values by name. `task` and `secret` are asked only for the names that an expression uses.

    `task(name)` answers `{"output", "state", "error"}`, `secret(name)` the secret's value; either raises
    LookupError where there is none. The values are read, never changed.
    """

    __slots__ = ("secret", "task", "values")

    def __init__(
        self,
        *,
        inputs: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        task: Callable[[str], Mapping[str, Any]] = _no_task,
        secret: Callable[[str], str] = _no_secret,
        **others: Any,
    ) -> None:
        """`others` are further names: `item` and `index` in a for_each, or those of another place with expressions."""
        self.values: dict[str, Any] = {"inputs": inputs or {}, "context": context or {}, "run": run or {}, **others}
        self.task = task
        self.secret = secret

    def with_values(self, **values: Any) -> Scope:
        """The same scope with further names: `item` and `index` of a for_each, or `failure`."""
        scope = Scope.__new__(Scope)
        scope.values = {**self.values, **values}
        scope.task, scope.secret = self.task, self.secret
        return scope

    def with_secrets(self, secret: Callable[[str], str]) -> Scope:
        """The same scope with other text in the place of secrets."""
        scope = self.with_values()
        scope.secret = secret
        return scope
