"""What is answered to who asks why and how long."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .flows import PlanView
from .view import IssueView, View


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
