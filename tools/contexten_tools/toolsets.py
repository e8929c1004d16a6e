"""Named sets of tools, and the one place that says which modules make them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from contexten_tools.app import App
from contexten_tools.toolserver import ToolServer

TOOLSETS: dict[str, tuple[str, ...]] = {
    "default": (
        "authoring",
        "running",
        "status",
        "listing",
        "control",
        "explaining",
        "scheduling",
        "insight",
        "reference",
    ),
    "history": ("history",),
    "triggers": ("triggers",),
    "notifications": ("notifications",),
}
"""What `--toolsets` takes, and the modules of this package with their tools, in the order in which these are listed.
They are imported where they are asked for: a host waits for the list."""

TOOLS: dict[str, tuple[str, ...]] = {
    "default": (
        "create_flow",
        "update_flow",
        "execute_flow",
        "wait_for_flow",
        "get_flow_status",
        "list_flows",
        "control_flow",
        "explain_flow",
        "set_strategy",
        "list_agents",
        "get_metrics",
        "get_reference",
    ),
    "history": ("get_history",),
    "triggers": (
        "create_trigger",
        "update_trigger",
        "list_triggers",
        "delete_trigger",
        "test_trigger",
        "list_deliveries",
        "redeliver",
    ),
    "notifications": (
        "create_notification",
        "update_notification",
        "list_notifications",
        "delete_notification",
        "test_notification",
        "list_dispatches",
        "retry_dispatch",
    ),
}
"""The tools of each toolset, so that a server knows those that it does not offer without importing them."""


class UnknownToolset(ValueError):
    """A toolset was asked for that does not exist; the message lists those that do."""


def resolve_toolsets(names: Sequence[str] | str | None) -> tuple[str, ...]:
    """The toolsets meant by a list, or by a comma-separated text; `default` where none is named.

    Raises UnknownToolset.
    """
    parts = names.split(",") if isinstance(names, str) else list(names or ())
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in parts if part.strip())) or ("default",)
    unknown = [name for name in wanted if name not in TOOLSETS]
    if unknown:
        raise UnknownToolset(f"toolset unknown: {', '.join(unknown)}; this version has: {', '.join(TOOLSETS)}")
    return wanted


def register(server: ToolServer, app: App) -> None:
    """Add the tools of the app's toolsets. Raises UnknownToolset."""
    offered = resolve_toolsets(app.toolsets)
    for name in offered:
        for module in TOOLSETS[name]:
            import_module(f"contexten_tools.{module}").register(server, app)
    for name, tools in TOOLS.items():
        if name not in offered:
            server.know_of(tools, toolset=name, start=f"--toolsets {','.join([*offered, name])}")
