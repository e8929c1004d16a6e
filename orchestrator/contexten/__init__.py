"""Contexten: durable workflow orchestration that LLM agents drive themselves.

The names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import ContextenApp
    from .events import StartFlow

__all__ = ["ContextenApp", "StartFlow"]

_HOMES = {"ContextenApp": "app", "StartFlow": "events"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
