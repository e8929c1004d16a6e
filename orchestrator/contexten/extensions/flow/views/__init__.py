"""What the service answers: the shapes that Python, MCP, the CLI and HTTP show.

Every view dumps to JSON data with `data()`, absent fields left out. Times are ISO 8601 in UTC, durations seconds.
"""

from .agents import AgentsView, AgentView, CircuitView, EngineView, ToolView
from .explanations import EstimateView, Explanation
from .flows import FlowPage, FlowSaved, FlowView, PlanView
from .reports import BackupReport, MetricsView, VerifyReport
from .runs import (
    Action,
    ControlResult,
    DeadlineView,
    DependencyView,
    Detail,
    EventList,
    EventView,
    GraphTask,
    Progress,
    RunError,
    RunPage,
    RunView,
    TaskView,
    UsageView,
)
from .scheduling import (
    QueuedView,
    QueueView,
    SchedulerView,
    ServerView,
    StrategyChange,
    StrategyFigures,
    StrategyForecast,
    StrategyState,
)
from .view import IssueView, View

__all__ = [
    "Action",
    "AgentView",
    "AgentsView",
    "BackupReport",
    "CircuitView",
    "ControlResult",
    "DeadlineView",
    "DependencyView",
    "Detail",
    "EngineView",
    "EstimateView",
    "EventList",
    "EventView",
    "Explanation",
    "FlowPage",
    "FlowSaved",
    "FlowView",
    "GraphTask",
    "IssueView",
    "MetricsView",
    "PlanView",
    "Progress",
    "QueueView",
    "QueuedView",
    "RunError",
    "RunPage",
    "RunView",
    "SchedulerView",
    "ServerView",
    "StrategyChange",
    "StrategyFigures",
    "StrategyForecast",
    "StrategyState",
    "TaskView",
    "ToolView",
    "UsageView",
    "VerifyReport",
    "View",
]
