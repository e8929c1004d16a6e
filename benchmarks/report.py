"""The table of what was measured: on the terminal, and between markers of docs/performance.md."""

from __future__ import annotations

import os
import platform
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

MAIN = "bench"
"""The name of the table of `make bench`; each table stands between markers of its name."""
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One yardstick: our figure, the figure it is held against, and the bar that their ratio must reach.

    `against` is None for an absolute bar; the ratio is then our figure itself. `bar_is_floor` says whether
    the ratio must be at least the bar (throughput) or at most (time, memory). Without a bar it is there to be known.
    """

    name: str
    ours: float
    unit: str
    against: float | None = None
    against_name: str = ""
    bar: float | None = None
    bar_is_floor: bool = False

    @property
    def ratio(self) -> float:
        """Ours divided by theirs; ours alone where the bar is absolute."""
        return self.ours if self.against is None else self.ours / self.against

    @property
    def ok(self) -> bool:
        """Whether the bar is reached."""
        if self.bar is None:
            return True
        return self.ratio >= self.bar if self.bar_is_floor else self.ratio <= self.bar

    def cells(self) -> tuple[str, ...]:
        """The row as text: name, ours, against, ratio, bar, verdict."""
        suffix = "x" if self.against is not None else f" {self.unit}"
        sign = "≥" if self.bar_is_floor else "≤"
        return (
            self.name,
            f"{_number(self.ours)} {self.unit}",
            "" if self.against is None else f"{_number(self.against)} {self.unit} ({self.against_name})",
            f"{_number(self.ratio)}{suffix}",
            *(("", "") if self.bar is None else (f"{sign} {self.bar:g}{suffix}", "yes" if self.ok else "no")),
        )


HEADINGS = ("yardstick", "ours", "against", "ratio", "bar", "reached")


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine(folder: Path) -> str:
    """The shape of what was measured on: cores, memory, file system of `folder`, versions; no names or places."""
    memory_gib = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"{_file_system(folder)}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def _file_system(folder: Path) -> str:
    place = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown file system"


def print_table(rows: list[Row], where: str) -> None:
    """Show the rows on the terminal."""
    table = Table(title="Yardsticks", caption=where)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in {"yardstick", "against"} else "right")
    for row in rows:
        table.add_row(*row.cells(), style="" if row.ok else "red")
    Console().print(table)


def markdown(rows: list[Row], where: str) -> str:
    """The rows as a Markdown table under a line that says where and when they were measured."""
    day = datetime.now(UTC).date().isoformat()
    head = f"| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}"
    body = "\n".join(f"| {' | '.join(row.cells())} |" for row in rows)
    return f"Measured {day} on {where}.\n\n{head}\n{body}"


def write_page(rows: list[Row], where: str, page: Path = PAGE, name: str = MAIN) -> None:
    """Replace what stands between the markers of that name; they are added at the page's end where missing."""
    keep_on_page(markdown(rows, where), page, name)


def keep_on_page(measured: str, page: Path, name: str = MAIN) -> None:
    """The same for any text."""
    begin, end = markers(name)
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if begin not in text or end not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    before, rest = text.split(begin, 1)
    after = rest.split(end, 1)[1]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n{measured}\n{end}{after}", encoding="utf-8")


def markers(name: str) -> tuple[str, str]:
    """The lines between which a page keeps what is named so."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
