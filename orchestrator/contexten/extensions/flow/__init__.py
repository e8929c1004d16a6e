"""Durable workflow orchestration: flows as data, checked, run, watched and repaired; nothing acknowledged is lost."""

from __future__ import annotations

from .errors import FlowError, FlowTimeout
from .executor import FlowExecutor
from .manager import FlowManager
from .orchestrator import FlowOrchestrator
from .priorities import FlowPriority
from .scheduler import FlowScheduler
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
