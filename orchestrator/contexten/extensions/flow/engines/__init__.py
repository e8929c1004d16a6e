"""Engines: what makes the attempts of a run's agent work."""

from __future__ import annotations

from .choice import AGENT, ENGINES, NATIVE, EngineReference, choose_engine
from .engines import Engines
from .protocol import Engine, EngineParts

__all__ = [
    "AGENT",
    "ENGINES",
    "NATIVE",
    "Engine",
    "EngineParts",
    "EngineReference",
    "Engines",
    "choose_engine",
]
