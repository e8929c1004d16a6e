"""What can go wrong, as an agent or a person is told it.

One base, few leaves. A message says what was wrong, where, and what to do next; it carries no
paths of this machine, no SQL and no stack. `contexten_server` maps a `FlowError` to MCP in one place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One problem in a definition or in arguments.

    `path` is a JSON Pointer (RFC 6901) into what was given; `patch` an RFC 6902 list that mends it
    (it itself validates), or None where no mechanical mend is known.
    """

    path: str
    code: str
    message: str
    expected: Any = None
    got: Any = None
    suggestion: str | None = None
    patch: list[dict[str, Any]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The issue as JSON data, without what is absent (`path`, `code` and `message` are always there)."""
        data: dict[str, Any] = {"path": self.path, "code": self.code, "message": self.message}
        for name in ("expected", "got", "suggestion", "patch"):
            value = getattr(self, name)
            if value is not None:
                data[name] = value
        return data


class FlowError(Exception):
    """Base of all errors that this library raises on purpose.

    `code` names the error for programs, `retryable` says whether the same call may succeed later,
    `next` is the call or step to take now, `issues` lists what was wrong with what was given.
    """

    code: ClassVar[str] = "flow_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, next: str | None = None, issues: Sequence[Issue] = ()) -> None:  # noqa: A002 - the word of the error format
        super().__init__(message)
        self.message = message
        self.next = next
        self.issues = tuple(issues)

    @property
    def may_pass(self) -> bool:
        """Whether work that nobody waits for is put off until it succeeds, rather than given up."""
        return self.retryable

    def as_dict(self) -> dict[str, Any]:
        """`{code, message, retryable, next?, issues?}`, as every entrance shows it."""
        data: dict[str, Any] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.next is not None:
            data["next"] = self.next
        if self.issues:
            data["issues"] = [issue.as_dict() for issue in self.issues]
        return data


class InvalidDefinition(FlowError):
    """The workflow definition has problems; `issues` lists all of them."""

    code = "invalid_definition"


class InvalidArguments(FlowError):
    """The arguments of a call are wrong; `issues` lists all that is wrong."""

    code = "invalid_arguments"


class InvalidInputs(FlowError):
    """The inputs of a run do not fit the flow's `inputs` schema."""

    code = "invalid_inputs"


class NotFound(FlowError):
    """Nothing has that id. Subclasses say what was looked for."""

    code = "not_found"


class FlowNotFound(NotFound):
    """No flow has that id (or not that version)."""

    code = "flow_not_found"


class RunNotFound(NotFound):
    """No run has that id."""

    code = "run_not_found"


class TaskNotFound(NotFound):
    """The run's definition has no task of that name."""

    code = "task_not_found"


class TriggerNotFound(NotFound):
    """No trigger has that id."""

    code = "trigger_not_found"


class DeliveryNotFound(NotFound):
    """No delivery has that id; it may have been pruned."""

    code = "delivery_not_found"


class NotificationNotFound(NotFound):
    """No notification has that id."""

    code = "notification_not_found"


class DispatchNotFound(NotFound):
    """No dispatch has that id."""

    code = "dispatch_not_found"


class FlowExists(FlowError):
    """A flow with that id and other content exists already."""

    code = "flow_exists"


class IdempotencyConflict(FlowError):
    """The idempotency key was used before for another request."""

    code = "idempotency_conflict"


class IllegalMove(FlowError):
    """The run is in a state in which that action makes no sense."""

    code = "illegal_move"


class HandlerFailed(FlowError):
    """A program's function that decides what an event starts raised an error of its own, or answered what it must
    not."""

    code = "handler_failed"


class TooManyDeliveries(FlowError):
    """As many deliveries wait for that trigger as it lets wait; nothing was recorded."""

    code = "too_many_deliveries"
    retryable = True


class EngineUnavailable(FlowError):
    """The engine asked for by name is not installed or not enabled."""

    code = "engine_unavailable"


class FlowTimeout(FlowError, TimeoutError):
    """The run did not end in the time given and was cancelled."""

    code = "timeout"


class StoreError(FlowError):
    """The database cannot be used; the message says why."""

    code = "store_error"

    @property
    def may_pass(self) -> bool:
        """Disks are freed, and files given back."""
        return True


class StoreBusy(StoreError):
    """Others keep a change from being made: another process has the database locked, or what the change depends on is
    changed again and again."""

    code = "store_busy"
    retryable = True


class StoreReadOnly(StoreError):
    """The database file or its folder cannot be written."""

    code = "store_read_only"


class StoreCorrupt(StoreError):
    """The file is not a database, or its content is damaged."""

    code = "store_corrupt"


class StoreTooNew(StoreError):
    """The database was written by a newer version of this program."""

    code = "store_too_new"


class StoreConflict(StoreError):
    """A change met rows that it did not expect: its commit had happened although it was said to have failed, or it has
    a defect. Making it again meets them again."""

    code = "store_conflict"

    @property
    def may_pass(self) -> bool:
        """It will not."""
        return False


class StoreFull(StoreError):
    """No space is left for the database; what was acknowledged before is safe."""

    code = "store_full"
    retryable = True


class Closing(FlowError):
    """The service is stopping and takes no more work."""

    code = "closing"
    retryable = True


class AttemptError(Exception):
    """An attempt failed, with the kind of failure said by who knows it best (a tool or an agent).

    `kind` is one of timeout, agent_failure, resource, network, rate_limit, invalid, interrupted,
    unknown, or a kind of one's own; `invalid` is never retried. `details` is JSON data for the journal.
    """

    def __init__(self, message: str, *, kind: str = "unknown", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.details = details
