"""Named sets of tools, and the one place that says which modules make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from contexten_tools import (
    authoring,
    control,
    explaining,
    insight,
    listing,
    reference,
    running,
    scheduling,
    status,
)
from contexten_tools.app import App
from contexten_tools.toolserver import ToolServer

Register = Callable[[ToolServer, App], None]

TOOLSETS: dict[str, tuple[Register, ...]] = {
    "default": (
        authoring.register,
        running.register,
        status.register,
        listing.register,
        control.register,
        explaining.register,
        scheduling.register,
        insight.register,
        reference.register,
    ),
}
"""What `--toolsets` takes, in the order in which tools are listed."""

_LATER = ("triggers",)


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
        later = [name for name in unknown if name in _LATER]
        why = f"not available in this version: {', '.join(later)}" if later else f"unknown: {', '.join(unknown)}"
        raise UnknownToolset(f"toolset {why}; this version has: {', '.join(TOOLSETS)}")
    return wanted


def register(server: ToolServer, app: App) -> None:
    """Add the tools of the app's toolsets. Raises UnknownToolset."""
    for name in resolve_toolsets(app.toolsets):
        for add in TOOLSETS[name]:
            add(server, app)
