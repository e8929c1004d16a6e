"""`contexten-flow config HOST`: the entry that makes a host start this server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contexten_server.cli.conduct import end, load_settings
from contexten_server.cli.exits import Exit
from contexten_server.cli.host_entry import Host, entry_text, host_file, merge_into, server_entry
from contexten_server.cli.options import Db, Json
from contexten_server.cli.screen import Screen


def config(
    host: Annotated[Host, typer.Argument(help="The program that shall start the server.", show_default=False)],
    write: Annotated[
        bool, typer.Option("--write", help="Merge the entry into the host's file; the old file is kept as a backup.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The host's file, where it is not in its usual place.")
    ] = None,
    name: Annotated[str, typer.Option(help="The entry's name.")] = "contexten-flow",
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Print a host's entry for this server, or write it into the host's configuration.

    Exit codes: 0 printed, written or there already, 2 wrong usage or the host's file cannot be merged.
    """
    screen = Screen(as_json=as_json)
    end(screen, lambda: _config(screen, host, file, name, db, write=write))


def _config(screen: Screen, host: Host, file: Path | None, name: str, db: Path | None, *, write: bool) -> Exit:
    if db is not None:
        load_settings(db)
    entry = server_entry(host, db)
    place = file.expanduser() if file else host_file(host)
    merged = merge_into(host, place, name, entry) if write else None
    if screen.as_json:
        written = merged is not None and merged.has_changed
        answer = {"host": host.value, "file": str(place), "name": name, "entry": entry, "written": written}
        screen.data(answer | ({"backup": str(merged.backup)} if merged and merged.backup else {}))
        return Exit.OK
    if merged is None:
        screen.note(f"# for {place}")
        screen.out.file.write(entry_text(host, name, entry))
        return Exit.OK
    if not merged.has_changed:
        screen.note(f"nothing to change: {place} has this entry", style="green")
        return Exit.OK
    screen.note(f"written: {place}" + (f" (before: {merged.backup})" if merged.backup else ""), style="green")
    screen.note("restart the host, or let it reload its MCP servers")
    return Exit.OK
