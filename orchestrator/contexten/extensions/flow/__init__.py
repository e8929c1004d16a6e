"""Durable workflow orchestration: flows as data, checked, run, watched and repaired; nothing acknowledged is lost.

The names below are imported when they are first used: a server lists its tools before it needs the engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import FlowError, FlowTimeout
    from .facades.manager import FlowManager
    from .facades.orchestrator import FlowOrchestrator
    from .facades.scheduler import FlowScheduler
    from .recovery.executor import FlowExecutor
    from .scheduling.priorities import FlowPriority
    from .service import FlowService
    from .settings import FlowSettings
    from .strategies import SchedulingStrategy

__all__ = [
    "FlowError",
    "FlowExecutor",
    "FlowManager",
    "FlowOrchestrator",
    "FlowPriority",
    "FlowScheduler",
    "FlowService",
    "FlowSettings",
    "FlowTimeout",
    "SchedulingStrategy",
]

_HOMES = {
    "FlowError": "errors",
    "FlowExecutor": "recovery.executor",
    "FlowManager": "facades.manager",
    "FlowOrchestrator": "facades.orchestrator",
    "FlowPriority": "scheduling.priorities",
    "FlowScheduler": "facades.scheduler",
    "FlowService": "service",
    "FlowSettings": "settings",
    "FlowTimeout": "errors",
    "SchedulingStrategy": "strategies",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
