"""Telemetry: measures folded from the journal, readings, and traces of runs made from it."""

from .measures import Measures, Names
from .readings import AgentReading, Readings
from .telemetry import Telemetry

__all__ = ["AgentReading", "Measures", "Names", "Readings", "Telemetry"]
