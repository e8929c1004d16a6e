"""Built-in tools: named capabilities with typed parameters, one module each."""

from __future__ import annotations

from typing import Any

from ...settings import FlowSettings
from .data_processor import DataProcessor
from .file_reader import FileReader
from .file_writer import FileWriter
from .http_client import HttpClient
from .json_parser import JsonParser
from .python import ENABLE_FUNCTIONS, Python
from .shell import ENABLE_COMMANDS, Shell
from .tool import ABSENT, Absent, Tool, ToolEnvironment, ToolParameters, body_of
from .wait import Wait

__all__ = [
    "ABSENT",
    "Absent",
    "Tool",
    "ToolEnvironment",
    "ToolParameters",
    "body_of",
    "builtin_tools",
    "disabled_tools",
]


def builtin_tools(settings: FlowSettings) -> dict[str, Tool[Any]]:
    """The tools that these settings allow, by name."""
    tools: list[Tool[Any]] = [
        HttpClient(settings),
        JsonParser(),
        DataProcessor(),
        FileReader(settings),
        FileWriter(settings),
        Wait(),
    ]
    if settings.allow_commands:
        tools.append(Shell(settings))
    if settings.allow_functions:
        tools.append(Python(settings))
    return {tool.name: tool for tool in tools}


def disabled_tools(settings: FlowSettings) -> dict[str, str]:
    """The built-in tools that these settings do not allow, each with what enables it."""
    disabled: dict[str, str] = {}
    if not settings.allow_commands:
        disabled[Shell.name] = ENABLE_COMMANDS
    if not settings.allow_functions:
        disabled[Python.name] = ENABLE_FUNCTIONS
    return disabled
