"""`contexten-flow demo`."""

from __future__ import annotations

import re
import sys
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Json
from contexten_server.cli.screen import Screen

if TYPE_CHECKING:
    from rich.console import Console

PICTURE_WIDTH = 104
"""Columns of a recorded picture: as wide as the widest line, so that a page shows it without scrolling."""


def demo(
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the database and the report there, to look at afterwards.")
    ] = None,
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="Save what is shown as an SVG picture.")] = None,
    as_json: Json = False,
) -> None:
    """Show the main job end to end, over MCP: a flow on real data, a server killed in mid-run, its resumption.

    Needs no network: the data comes from a small server on this machine. Takes about ten seconds.

    Exit codes: 0 everything happened as told, 1 something did not.
    """
    screen = Screen(as_json=as_json)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with nullcontext(str(folder)) if folder else tempfile.TemporaryDirectory(prefix="contexten-demo-") as place:
        conduct(screen, partial(_demo, screen, Path(place).resolve(), record, kept=folder is not None))


async def _demo(screen: Screen, folder: Path, record: Path | None, *, kept: bool) -> Exit:
    import io

    import anyio
    from rich.console import Console

    from contexten_server.cli.demo.story import tell

    console = Console(
        highlight=False,
        file=io.StringIO() if screen.as_json else sys.stdout,
        record=record is not None,
        width=PICTURE_WIDTH if record else None,
    )
    proof = await tell(console, folder)
    if kept:
        console.print(f"Kept for you: contexten-flow list --db {folder / 'flow.sqlite3'}", style="bright_black")
    if record:
        await anyio.Path(record).write_text(_picture(console), encoding="utf-8")
    if screen.as_json:
        screen.data(proof)
    return Exit.OK


def _picture(console: Console) -> str:
    """What was shown, as an SVG that loads nothing from elsewhere: any monospace font will do."""
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="contexten-flow demo"), flags=re.DOTALL)
