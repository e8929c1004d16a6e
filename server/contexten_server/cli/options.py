"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Db = Annotated[
    Path | None,
    typer.Option(
        "--db", metavar="FILE", help="The database file. [default: the setting `database`]", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="A run's id, or a flow's id for its latest run.", show_default=False),
]
DefinitionFile = Annotated[
    str,
    typer.Argument(metavar="FILE", help="A workflow definition as JSON; - reads standard input.", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="From then on: ISO 8601, or so long ago, such as 24h or 7d.", show_default=False),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before that time.", show_default=False)]
FlowOfRuns = Annotated[
    str | None, typer.Option("--flow", metavar="FLOW_ID", help="Only this flow's runs.", show_default=False)
]
