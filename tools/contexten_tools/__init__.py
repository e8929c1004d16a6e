"""The tools that an agent calls: one module a tool, or a family of tools, each with `register(server, app)`."""

from contexten_tools.app import App
from contexten_tools.toolserver import FlowTool, ToolServer
from contexten_tools.toolsets import TOOLSETS, UnknownToolset, register, resolve_toolsets

__all__ = ["TOOLSETS", "App", "FlowTool", "ToolServer", "UnknownToolset", "register", "resolve_toolsets"]
