"""What is answered about runs and their tasks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .view import View

Detail = Literal["summary", "tasks", "graph", "events", "output", "definition"]
"""What is told of a run."""

Action = Literal["cancel", "pause", "resume", "retry", "rerun_from"]
"""What is done to a run."""


class Progress(View):
    """How many of a run's tasks are completed or skipped by their own condition, of how many."""

    completed: int
    total: int


class RunError(View):
    """Why a run or a task failed."""

    kind: str
    message: str
    task: str | None = None
    attempt: int | None = None
    details: dict[str, Any] | None = None


class TaskView(View):
    """One task of a run."""

    name: str
    stage: str = Field(description="empty for an on_failure task")
    on_failure_of: str | None = Field(
        None, description="of an on_failure task: the task for whose failure it runs; empty where it is the flow's"
    )
    state: str
    attempts: int = 0
    agent: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    duration_s: float | None = None
    next_attempt_at: str | None = Field(None, description="when a retrying or waiting task moves on")
    reason: str | None = Field(
        None, description="why it was skipped or cancelled, what holds it up, or how many items failed"
    )
    error: RunError | None = None
    items: dict[str, int] | None = Field(None, description="of a for_each: items by state")
    child_run_id: str | None = Field(None, description="the run of a sub-flow")
    output_bytes: int | None = None
    taken_over: bool | None = Field(None, description="its output was recorded by the run that this one repeats")


class GraphTask(View):
    """One task of a run's graph: what it is, and what comes before it."""

    task: str
    stage: str = Field(description="empty for an on_failure task")
    type: str
    depends_on: list[str] = Field(
        description="what must end before it, named by the definition, its templates or the order of its stage: tasks, "
        "and stage:NAME for all the tasks of a stage"
    )
    description: str | None = None


class EventView(View):
    """One entry of the journal."""

    cursor: str
    type: str
    at: str
    run_id: str | None = None
    task: str | None = None
    attempt: int | None = None
    item: int | None = None
    details: dict[str, Any] | None = None
    actor: str | None = Field(None, description="who asked: client/transport/tool")


class EventList(list[EventView]):
    """Entries of the journal, oldest first."""

    reset = False
    """Whether `since` was pruned or of another database, so that these are a snapshot: entries may be missing."""


class DeadlineView(View):
    """By when a run should be done."""

    at: str
    on_deadline: str = Field(description="what happens when it passes: continue or cancel")
    missed: bool
    slack_s: float | None = Field(None, description="what is left beyond the time that the run probably still needs")
    at_risk: bool | None = Field(None, description="it will probably be missed")


class DependencyView(View):
    """What a queued run waits for."""

    id: str = Field(description="the run or flow, as it was named")
    run_id: str | None = Field(None, description="the run that is meant; absent while its flow has none")
    state: str = Field(description="how that ended; waiting while it has not")
    on_failure: str


class UsageView(View):
    """What language models used."""

    model: str
    calls: int = Field(description="model calls")
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(None, description="by the setting model_prices; absent where it has no price")


class RunView(View):
    """One execution of a flow. The fields after `error` are there as asked for."""

    run_id: str
    flow_id: str
    name: str
    version: int
    state: str
    progress: Progress
    cursor: str = Field(description="place in the journal; pass it as since= to get only what came after")
    next_poll_s: float = Field(description="seconds after which asking again makes sense; 0 when the run has ended")
    error: RunError | None = None
    failed_tasks: list[str] | None = Field(None, description="failures, tolerated or not")
    existing: bool | None = Field(None, description="an earlier run answered for the same idempotency key")
    framework: str | None = None
    work_pool: str | None = Field(None, description="the Prefect work pool that the run was submitted to")
    monitor_url: str | None = Field(None, description="the run's page in Prefect")
    usage: list[UsageView] | None = Field(None, description="what language models used, by model")
    priority: int | None = None
    created_at: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    duration_s: float | None = None
    rerun_of: str | None = None
    parent_run_id: str | None = None
    root_run_id: str | None = Field(None, description="of a paused sub-flow: the run with which it is resumed")
    deadline: DeadlineView | None = None
    dependencies: list[DependencyView] | None = None
    held_by: str | None = Field(
        None, description="what keeps a queued run out of the queue: dependencies, flow:ID or tag:TAG"
    )
    reason: str | None = Field(None, description="why it was paused or cancelled, as given")
    note: str | None = Field(None, description="what a reader should know, such as: a cancellation is under way")
    active: list[str] | None = Field(None, description="tasks under way now")
    tasks: list[TaskView] | None = None
    graph: list[GraphTask] | None = Field(None, description="in the order of the definition; left out with since=")
    events: list[EventView] | None = None
    more_events: bool | None = Field(None, description="more events follow the last one; ask again with its cursor")
    reset: bool | None = Field(None, description="since= was pruned or of another database; this is a snapshot")
    output: Any = None
    has_output: bool | None = None
    output_truncated: dict[str, Any] | None = Field(None, description="what was left out and how to get it")
    definition: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None


class RunPage(View):
    """A page of runs."""

    runs: list[RunView]
    next_page: str | None = None


class ControlResult(View):
    """The answer to control_flow."""

    run_id: str = Field(description="the run acted on; of retry and rerun_from the new run")
    flow_id: str
    action: str
    state: str
    rerun_of: str | None = None
    taken_over: list[str] | None = Field(None, description="tasks whose recorded outputs the new run takes over")
    note: str | None = None
    cursor: str
    next_poll_s: float
