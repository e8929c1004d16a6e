"""Live state, metrics and reference texts as MCP resources: `register(server, app)`, and their live updates."""

from contexten_resources.catalog import register
from contexten_resources.served import Served
from contexten_resources.updates import LiveUpdates

__all__ = ["LiveUpdates", "Served", "register"]
