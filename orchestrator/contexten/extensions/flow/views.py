"""What the service answers: the shapes that Python, MCP, the CLI and HTTP show.

Every view dumps to JSON data with `data()`, absent fields left out. Times are ISO 8601 in UTC, durations seconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Detail = Literal["summary", "tasks", "events", "output", "definition"]
"""What is told of a run."""

Action = Literal["cancel", "pause", "resume", "retry", "rerun_from"]
"""What is done to a run."""


class View(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def data(self) -> dict[str, Any]:
        """The view as JSON data, without fields that are absent."""
        return self.model_dump(mode="json", exclude_none=True)


class IssueView(View):
    """One problem in what was given."""

    path: str = Field(description="JSON Pointer into what was given")
    code: str
    message: str
    expected: Any = None
    got: Any = None
    suggestion: str | None = None
    patch: list[dict[str, Any]] | None = Field(None, description="RFC 6902 operations that mend it")


class PlanView(View):
    """A definition's plan in brief."""

    stages: int
    tasks: int = Field(description="without those of on_failure")
    waves: list[list[str]] = Field(description="tasks that may start together, in order; cut after 50 waves")
    more_waves: int | None = Field(None, description="how many waves were cut")
    on_failure: list[str] | None = Field(None, description="tasks that run after a failure only; they are in no wave")
    tools: list[str]
    warnings: list[str] = []


class FlowSaved(View):
    """The answer to create_flow and update_flow."""

    flow_id: str
    name: str
    version: int = Field(description="from 1; 0 where only validated")
    existing: bool = Field(False, description="the same content was saved before; nothing changed")
    validate_only: bool = False
    plan: PlanView
    warnings: list[IssueView] = []
    next: str | None = Field(None, description="the call to make now")


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
    reason: str | None = Field(None, description="why it was skipped or cancelled, or what keeps it from starting")
    error: RunError | None = None
    items: dict[str, int] | None = Field(None, description="of a for_each: items by state")
    child_run_id: str | None = Field(None, description="the run of a sub-flow")
    output_bytes: int | None = None
    taken_over: bool | None = Field(None, description="its output was recorded by the run that this one repeats")


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
    events: list[EventView] | None = None
    more_events: bool | None = Field(None, description="more events follow the last one; ask again with its cursor")
    reset: bool | None = Field(None, description="since= was pruned or of another database; this is a snapshot")
    output: Any = None
    has_output: bool | None = None
    output_truncated: dict[str, Any] | None = Field(None, description="what was left out and how to get it")
    definition: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None


class FlowView(View):
    """A flow with its latest run."""

    flow_id: str
    name: str
    description: str | None = None
    version: int
    tags: list[str] = []
    state: str = Field(description="its latest run's state; idle if none")
    created_at: str
    updated_at: str
    latest_run: RunView | None = None
    runs: int = 0
    definition: dict[str, Any] | None = None


class FlowPage(View):
    """A page of flows."""

    flows: list[FlowView]
    next_page: str | None = None


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


class EstimateView(View):
    """How long something takes, in seconds."""

    task: str | None = None
    p50_s: float
    p90_s: float
    samples: int = Field(description="how many runs this comes from; 0: a guess from the declared complexity")
    source: str = Field(description="version or flow (its history), or complexity (a guess)")


class Explanation(View):
    """The answer to explain_flow."""

    subject: Literal["definition", "flow", "run"]
    flow_id: str | None = None
    run_id: str | None = None
    name: str
    state: str | None = None
    summary: str = Field(description="the answer in a sentence or two")
    plan: PlanView | None = None
    critical_path: list[str] | None = None
    estimate: EstimateView | None = Field(None, description="how long a run will probably take")
    slowest: list[EstimateView] | None = Field(None, description="the tasks that take longest, at most 10")
    side_effects: list[str] | None = Field(None, description="what outside this program the flow touches")
    waiting_for: list[str] | None = Field(None, description="what a run that does not move is waiting for")
    failure: dict[str, Any] | None = Field(
        None, description="root task, kind, attempts, what recovery did, the same failure in the history, skipped tasks"
    )
    next: list[str] | None = Field(None, description="calls to make now")
    warnings: list[IssueView] = []


class StrategyState(View):
    """Strategy and limit of the database's scheduler."""

    strategy: str
    max_concurrent_flows: int


class StrategyFigures(View):
    """What one strategy would have done with the runs that were replayed. Times in seconds, utilisations 0 to 1."""

    strategy: str
    mean_wait_s: float
    p95_wait_s: float
    urgent_wait_s: float = Field(description="mean wait of the runs with the most urgent priority that there is")
    longest_wait_s: float
    starved: int = Field(description="runs that waited over an hour")
    makespan_s: float
    missed_deadlines: int
    slot_utilisation: float


class StrategyForecast(View):
    """Recent history and the queue, replayed through every strategy."""

    runs: int
    from_history: int
    queued: int
    slots: int
    strategies: list[StrategyFigures]
    recommended: str | None = None
    reason: str


class StrategyChange(View):
    """The answer to set_strategy."""

    before: StrategyState
    after: StrategyState
    effect: str = Field(description="what the change means for the queue")
    dry_run: bool | None = Field(None, description="nothing was changed")
    forecast: StrategyForecast | None = Field(None, description="of a dry run: every strategy side by side")


class CircuitView(View):
    """A circuit that is not closed: what it stands for failed several times in a row, and is left alone for a while."""

    state: str = Field(description="open; half_open once one attempt may try")
    until: str = Field(description="when it lets an attempt through")


class AgentView(View):
    """One agent of this process."""

    name: str
    agent_type: str
    tools: list[str]
    capacity: int
    running: int
    load: float = Field(description="outstanding complexity per capacity")
    lowered_to: int | None = Field(None, description="places now, for a while, after failures for want of resources")
    state: str | None = Field(None, description="of an MCP server: connected, connecting, or failed, and why")
    circuit: CircuitView | None = None


class ToolView(View):
    """One tool that a task may require."""

    name: str
    description: str
    parameters: dict[str, Any] | None = Field(None, description="JSON Schema of its parameters")
    agents: list[str]
    circuit: CircuitView | None = None
    rate_limit: str | None = Field(None, description="attempts an interval, such as 10/1s")


class EngineView(View):
    """One engine, by the name that `framework` takes."""

    name: str
    available: bool = Field(description="whether runs can use it now")
    version: str | None = Field(None, description="of its library, where that is installed")
    note: str | None = Field(None, description="why it is not available, with what mends that; or what it reaches")


class AgentsView(View):
    """The answer to list_agents."""

    agents: list[AgentView]
    tools: list[ToolView]
    engines: list[EngineView]
    disabled_tools: dict[str, str] = Field({}, description="tools that are off, and how to enable them")
    note: str | None = Field(None, description="whose agents these are, where several servers drive the database")


class ServerView(View):
    """One server that drives the database."""

    server_id: str
    holder: str = Field(description="what the process is")
    host: str
    pid: int
    started_at: str
    heard_at: str = Field(description="when it last showed that it lives")
    runs: int = Field(description="slots that it holds")


class SchedulerView(View):
    """The scheduler's state: the resource flow://scheduler."""

    strategy: str
    max_concurrent_flows: int
    running: int
    queued: int
    waiting: int
    paused: int
    next_runs: list[str] = Field(description="the first queued runs, in the order in which they will start")
    servers: list[ServerView] = Field(description="the servers that drive the database now")


class MetricsView(View):
    """The answer to get_metrics and the resource flow://metrics."""

    scheduler: dict[str, Any]
    flows: dict[str, Any]
    tasks: dict[str, Any]
    agents: dict[str, Any]
    store: dict[str, Any]


class VerifyReport(View):
    """The answer to `contexten-flow verify`."""

    ok: bool
    runs: int
    events: int
    integrity: str
    problems: list[str] = []
