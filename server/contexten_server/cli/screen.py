"""What commands print: text for people with rich, or JSON for programs. Errors go to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from contexten.extensions.flow.errors import FlowError
from contexten_server.cli.next_steps import next_step
from contexten_server.cli.printable import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

    from contexten.extensions.flow.views import View

STATE_STYLES = {
    "completed": "green",
    "running": "cyan",
    "retrying": "yellow",
    "waiting": "blue",
    "paused": "blue",
    "scheduled": "bright_black",
    "pending": "bright_black",
    "idle": "bright_black",
    "skipped": "bright_black",
    "failed": "bold red",
    "cancelled": "magenta",
}

STATE_MARKS = {
    "completed": "✓",
    "running": "▶",
    "retrying": "↻",
    "waiting": "◷",
    "paused": "‖",
    "scheduled": "·",
    "pending": "·",
    "idle": "·",
    "skipped": "→",
    "failed": "✗",
    "cancelled": "■",
}


_NO_EDGE = 2000


def state_text(state: str) -> Text:
    """A state with its mark, in its colour."""
    from rich.text import Text

    return Text(f"{STATE_MARKS.get(state, ' ')} {state}", style=STATE_STYLES.get(state, ""))


def whole(text: str) -> Text:
    """Text that is never broken into lines: an id that must stay whole to be copied."""
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="fold")


def duration_text(seconds: float | None) -> str:
    """`0.04 s`, `12.3 s`, `4 min 05 s`; empty where there is none."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def plain_table(*columns: str) -> Table:
    """A table without a frame, its cells folded rather than cut."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console(stream: TextIO) -> Console:
    """A console that wraps at a terminal's edge, and nowhere where a program or a file reads. Whatever is printed,
    only its own styles and cursor movements reach the terminal."""
    from rich.console import Console

    class SafeConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    width = None if stream.isatty() else _NO_EDGE
    return SafeConsole(file=stream, highlight=False, markup=False, emoji=False, width=width)


class Screen:
    """Standard output and standard error of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    @cached_property
    def out(self) -> Console:
        """Answers."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> Console:
        """Progress, notes and errors."""
        return _console(sys.stderr)

    def show(self, *renderables: RenderableType) -> None:
        """Print for people; nothing where JSON was asked for."""
        if not self.as_json:
            for renderable in renderables:
                self.out.print(renderable, markup=False)

    def answer(self, view: View, line: str) -> None:
        """Print an answer: whole as JSON where that was asked for, else a line for people."""
        if self.as_json:
            self.data(view.data())
        else:
            self.show(line)

    def page(self, rows: RenderableType, next_page: str | None) -> None:
        """Print a page of a list for people: a table, or words where there is nothing to list."""
        if isinstance(rows, str):
            self.note(rows)
        else:
            self.show(rows)
        if next_page:
            self.note(f"more: --page {next_page}")

    def data(self, data: Any) -> None:
        """Print JSON data: indented on a terminal or for a person's file, one value in all."""
        sys.stdout.write(json_text(data, indent=2) + "\n")

    def line(self, data: Any) -> None:
        """Print JSON data on a line of its own, at once."""
        sys.stdout.write(json_text(data) + "\n")
        sys.stdout.flush()

    def note(self, text: str, *, style: str = "bright_black") -> None:
        """Say something beside the answer."""
        self.err.print(text, style=style, markup=False)

    def error(self, error: FlowError) -> None:
        """Tell of an error: on standard error for people, and as JSON on standard output where that was asked for."""
        step = next_step(error)
        if self.as_json:
            self.data({"error": error.as_dict() | ({"next": step} if step else {})})
        from rich.text import Text

        self.err.print(Text.assemble(("error: ", "bold red"), error.message))
        for issue in error.issues:
            self.issue(issue.as_dict(), style="red")
        if step:
            self.err.print(Text.assemble(("next: ", "bold"), step))

    def issue(self, issue: dict[str, Any], *, style: str) -> None:
        """One problem of a definition or of arguments, on standard error."""
        from rich.text import Text

        self.err.print(
            Text.assemble(
                "  ", (issue["path"] or "/", "bold"), "  ", (issue["code"], style), "  ", str(issue["message"])
            )
        )
        if issue.get("suggestion"):
            self.err.print(Text.assemble("      ", ("did you mean: ", "bright_black"), str(issue["suggestion"])))
