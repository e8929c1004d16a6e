"""What crosses the store's seam: rows and moves, as values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from ..states import RunState, TaskState

UPSTREAM = "upstream_failed"
"""How the reason of a skip begins that is due to a failure before it: such a skip does not satisfy dependents."""

INLINE_BYTES = 64 << 10  # larger texts are stored once, under their digest, and referred to


class StoredText(NamedTuple):
    """JSON text as a row keeps it: inline, or by the digest of a blob."""

    text: str
    digest: str | None
    size: int

    @classmethod
    def of(cls, text: str) -> StoredText:
        """Decide where a text goes; `size` is in bytes of UTF-8."""
        size = len(text) if text.isascii() else len(text.encode())
        digest = hashlib.sha256(text.encode()).hexdigest() if size > INLINE_BYTES else None
        return cls(text, digest, size)


@dataclass(slots=True)
class TaskRow:
    """A task of a run, or one item of its for_each, as the state table has it. Its run's owner alone changes it."""

    task: str
    item: int = -1
    state: TaskState = TaskState.PENDING
    attempts: int = 0
    interruptions: int = 0
    agent: str | None = None
    items: StoredText | None = None
    child_run_id: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    wake_at: float | None = None
    reason: str | None = None
    error: str | None = None
    output: StoredText | None = None
    taken_over: bool = False

    @property
    def has_failed_items(self) -> bool:
        """Whether it completed though items of its for_each had failed: then its `reason` tells how many."""
        return self.state is TaskState.COMPLETED and self.reason is not None

    @property
    def is_done(self) -> bool:
        """Whether it counts as progress: completed, or skipped for another reason than a failure before it."""
        if self.state is TaskState.SKIPPED:
            return not (self.reason or "").startswith(UPSTREAM)
        return self.state is TaskState.COMPLETED


class TaskMove(NamedTuple):
    """A task's legal move: the row as it will be, and the state in which it must be found."""

    row: TaskRow
    before: TaskState
    data: str | None = None
    """JSON text for the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be recorded. `queue_key` orders the queue; lower starts first."""

    run_id: str
    flow_id: str
    version: int
    name: str
    framework: str
    priority: int
    queue_key: float
    inputs: str
    total: int
    created_at: float
    keys: str | None = None
    """Whose key `queue_key` is: when the run is recorded it must be of those in the queue. None: it is not queued."""
    timeout_s: float | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None
    rerun_of: str | None = None
    parent_run_id: str | None = None
    parent_task: str | None = None
    parent_item: int | None = None
    taken_over: tuple[TaskRow, ...] = ()
    is_latest: bool = False
    """The version must be the flow's latest when the run is recorded."""
    deadline: float | None = None
    on_deadline: str | None = None
    """"continue" or "cancel"; only with a deadline."""
    estimate_s: float | None = None
    """How long it will probably take, in seconds; None where nothing is known."""
    demands: str | None = None
    """JSON text: how much of which pool it holds while it has a slot."""
    dependencies: tuple[str, ...] = ()
    """Runs, or flows, that must have ended before it starts."""
    on_dependency_failure: str = "fail"
    """"fail" or "run"."""
    actor: str | None = None
    trace: str | None = None
    """The W3C `traceparent` of the call that asked for it."""


class Submitted(NamedTuple):
    """What became of a request for a run."""

    run_id: str
    is_existing: bool
    """An earlier run answers for the request's idempotency key."""
    cursor: int
    has_started: bool = False
    """It was recorded as running, owned by this process."""


class CacheEntry(NamedTuple):
    """An output to keep for equal tasks."""

    key: str
    """Digest of what makes tasks equal."""
    output: StoredText
    ttl_s: float


class CachedOutput(NamedTuple):
    """An output that was kept, the run that recorded it, and when."""

    output: StoredText
    run_id: str
    recorded_at: float


class Remark(NamedTuple):
    """What else happened to a task, for the journal."""

    place: int
    """How many moves of the change stand before it."""
    type: str
    task: str
    item: int | None
    attempt: int | None
    data: str
    """JSON text."""


class RunMove(NamedTuple):
    """What happens to an owned run in one change: moves of its tasks, and perhaps one of its own.

    The change is refused where the run is no longer running under `fence`.
    """

    run_id: str
    flow_id: str
    fence: int
    at: float
    before: RunState = RunState.RUNNING
    to: RunState | None = None
    tasks: tuple[TaskMove, ...] = ()
    children: tuple[NewRun, ...] = ()
    completed: int = 0
    """Tasks that this change brings to completed or skipped."""
    wake_at: float | None = None
    error: str | None = None
    failed_tasks: str | None = None
    output: StoredText | None = None
    reason: str | None = None
    logs: tuple[Remark, ...] = ()
    """Other entries for the journal, in order."""
    cached: tuple[CacheEntry, ...] = ()
    cache_hits: int = 0
    """Tasks that this change completes with kept outputs."""
    actor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRun:
    """A run that this process owns from now on, with all it needs to go on.

    Among `children` there may be sub-flows that have ended, with their output, whose end was not recorded here yet.
    """

    run_id: str
    flow_id: str
    version: int
    name: str
    framework: str
    priority: int
    fence: int
    inputs: str
    timeout_s: float | None
    request: str | None
    reason: str | None
    completed: int
    created_at: float
    started_at: float
    paused_s: float
    parent_run_id: str | None = None
    parent_task: str | None = None
    parent_item: int | None = None
    rerun_of: str | None = None
    state: RunState = RunState.RUNNING
    output: StoredText | None = None
    error: str | None = None
    read_at: int = 0
    """The journal's last entry when it was read: what is asked for later, `request` does not know."""
    tasks: list[TaskRow] = field(default_factory=list)
    children: list[ClaimedRun] = field(default_factory=list)

    @classmethod
    def of(cls, run: NewRun) -> ClaimedRun:
        """The run as it will be once it is recorded and claimed in one change."""
        return cls(
            run_id=run.run_id,
            flow_id=run.flow_id,
            version=run.version,
            name=run.name,
            framework=run.framework,
            priority=run.priority,
            fence=1,
            inputs=run.inputs,
            timeout_s=run.timeout_s,
            request=None,
            reason=None,
            completed=len(run.taken_over),
            created_at=run.created_at,
            started_at=run.created_at,
            paused_s=0.0,
            rerun_of=run.rerun_of,
            parent_run_id=run.parent_run_id,
            parent_task=run.parent_task,
            parent_item=run.parent_item,
            tasks=list(run.taken_over),
        )
