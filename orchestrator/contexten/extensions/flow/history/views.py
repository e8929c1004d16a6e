"""What history answers."""

from __future__ import annotations

from pydantic import Field

from ..views import View


class HistoryRow(View):
    """What ended under one key. Durations and waits are seconds; a percentile is the nearest rank."""

    key: str = Field(description="a flow, agent or tool, a day in UTC, or a kind of error")
    runs: int | None = Field(None, description="by flow, day or kind: runs that ended; a sub-flow's count to its root")
    tasks: int | None = Field(None, description="by agent or tool: tasks that ended; each item of a for_each is one")
    attempts: int | None = Field(None, description="by agent or tool: tries of these tasks")
    completed: int
    failed: int
    cancelled: int
    success_rate: float | None = Field(None, description="completed of completed and failed, 0 to 1")
    p50_s: float | None = Field(None, description="from the start to the end; half took no longer")
    p95_s: float | None = None
    wait_p50_s: float | None = Field(None, description="of runs: from the submission to the start")
    wait_p95_s: float | None = None
    retries: int = Field(description="tries of tasks after their first")
    failures: dict[str, int] = Field({}, description="those that failed, by kind of error, the most frequent first")
    input_tokens: int | None = Field(None, description="of language models; absent where none was used")
    output_tokens: int | None = None
    cost_usd: float | None = Field(None, description="where the setting model_prices has a price")


class HistoryView(View):
    """The answer to get_history."""

    by: str
    since: str | None = Field(None, description="what ended at that time or later; absent: from the beginning")
    until: str | None = Field(None, description="what ended before that time; absent: until now")
    flow_id: str | None = None
    rows: list[HistoryRow] = Field(description="the most frequent first; days the latest first")
    is_cut: bool | None = Field(
        None, description="more ended than is looked at: only what ended last counts; choose a shorter span for all"
    )
