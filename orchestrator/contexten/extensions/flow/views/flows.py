"""What is answered about flows and their plans."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .runs import RunView
from .view import IssueView, View


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
