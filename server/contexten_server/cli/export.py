"""`contexten-flow export runs|events`: runs and the journal as files for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from contexten_server.cli.conduct import conduct
from contexten_server.cli.exits import Exit, UsageProblem
from contexten_server.cli.lookup import asking
from contexten_server.cli.options import Db, FlowOfRuns, Since, Until
from contexten_server.cli.screen import Screen


class What(StrEnum):
    """What is exported."""

    RUNS = "runs"
    EVENTS = "events"


class Format(StrEnum):
    """What the lines are."""

    JSONL = "jsonl"
    CSV = "csv"


def export(
    what: Annotated[What, typer.Argument(help="Runs, or the journal's events.", show_default=False)],
    format: Annotated[Format, typer.Option(help="JSON, one value a line; or CSV with a header.")] = Format.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write there. [default: standard output]", show_default=False
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    flow: FlowOfRuns = None,
    db: Db = None,
) -> None:
    """Write runs or journal events, oldest first, as JSON Lines or CSV. Works while a server holds the database.

    A file that is there is replaced when all is written. Inputs and outputs are left out; docs/observability.md tells
    the columns. Text that a spreadsheet would take for a formula gets an apostrophe before it.
    Exit codes: 0 written, 1 no flow has the id of --flow, 2 wrong usage, 3 database not usable.
    """
    screen = Screen()
    question = {"what": what.value, "format": format.value, "since": since, "until": until, "flow_id": flow}
    conduct(screen, partial(_export, screen, db, output, question))


async def _export(screen: Screen, db: Path | None, output: Path | None, question: dict[str, Any]) -> Exit:
    lines = 0
    async with asking(db) as service:
        pages = await service.history.export(**question)
        with _opened(output) as file:
            async for page in pages:
                file.write(page)
                lines += page.count("\n")
    if output is not None:
        screen.note(f"{lines} lines written to {output}")
    return Exit.OK


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """The file beside its place until all is written, then in it; or standard output. Raises UsageProblem."""
    if output is None:
        yield sys.stdout
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
        part.replace(output)
    except OSError as error:
        raise UsageProblem(f"{output} cannot be written: {error.strerror}.", next="Choose another --output.") from error
    finally:
        part.unlink(missing_ok=True)
