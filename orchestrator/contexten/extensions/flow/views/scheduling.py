"""What is answered about the queue, and the strategy and the servers that serve it."""

from __future__ import annotations

from pydantic import Field

from .runs import RunView
from .view import View


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


class QueuedView(View):
    """A run that waits to start."""

    run: RunView
    waiting_for: list[str] = Field(description="what keeps it from starting, and who holds that")


class QueueView(View):
    """The runs that wait to start."""

    strategy: str
    max_concurrent_flows: int
    queued: int = Field(description="runs in the queue")
    held: int = Field(description="runs kept out of it by dependencies or limits")
    runs: list[QueuedView] = Field(description="the first of the queue, in its order, then those kept out of it")
