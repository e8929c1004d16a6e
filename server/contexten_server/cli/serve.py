"""`contexten-flow serve`: the MCP server."""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from contexten_server.cli.conduct import end, load_settings, tell_operator
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db
from contexten_server.cli.screen import Screen
from contexten_server.running import termination_interrupts

_LINGER_S = 0.3  # for threads to end


class Transport(StrEnum):
    """How clients reach the server."""

    STDIO = "stdio"
    SSE = "sse"
    HTTP = "http"


class Level(StrEnum):
    """How much the server tells on standard error."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    transport: Annotated[
        Transport, typer.Option(help="stdio for a host that starts the server; http or sse for clients that connect.")
    ] = Transport.STDIO,
    host: Annotated[str, typer.Option(help="With http and sse: the address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="With http and sse: the port.")] = 8377,
    db: Db = None,
    log_level: Annotated[
        Level | None, typer.Option(case_sensitive=False, help="[default: the setting `log_level`]", show_default=False)
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Offer callers only what changes nothing; triggers, hooks among them, still start runs."
        ),
    ] = False,
    toolsets: Annotated[str, typer.Option(metavar="NAME,...", help="The sets of tools to offer.")] = "default",
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Order the queue so, from now on. [default: as the database remembers]"),
    ] = None,
    max_concurrent_flows: Annotated[
        int | None,
        typer.Option(metavar="N", help="Runs under way at once, from now on. [default: as the database remembers]"),
    ] = None,
) -> None:
    """Serve MCP. Standard output carries MCP only; logs go to standard error.

    Exit codes: 0 stopped by its client or by a signal, 1 failed, 2 wrong usage, 3 database not usable.
    """
    screen = Screen()
    work = partial(_serve, transport, host, port, db, log_level, toolsets, read_only=read_only)
    end(screen, partial(_to_the_end, partial(work, strategy=strategy, max_concurrent_flows=max_concurrent_flows)))


def _to_the_end(work: Callable[[], int]) -> int:
    """Serve; a signal ends it in order at any moment. Afterwards one more changes nothing, and no thread that hangs
    keeps the process."""
    try:
        with termination_interrupts():
            code = work()
    except KeyboardInterrupt:
        code = Exit.OK
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    from contexten_server.stopping import Watchdog

    Watchdog(code).start(_LINGER_S)
    return code


def _serve(
    transport: Transport,
    host: str,
    port: int,
    db: Path | None,
    log_level: Level | None,
    toolsets: str,
    *,
    read_only: bool,
    strategy: str | None,
    max_concurrent_flows: int | None,
) -> int:
    from contexten.extensions.flow.settings import settings_files
    from contexten_server import run_server
    from contexten_server.cli.setting_sources import files_text

    settings = load_settings(db, log_level=log_level.value if log_level else None)
    if settings.log_level in ("DEBUG", "INFO"):
        tell_operator(f"settings from {files_text(settings_files())}, the environment and flags")
    names = tuple(name.strip() for name in toolsets.split(",") if name.strip())
    if strategy is not None:
        from contexten.extensions.flow.strategies import strategy_named

        strategy_named(strategy, aging_interval_s=settings.aging_interval_s)  # a typo is told before anything starts
    if max_concurrent_flows is not None:
        from contexten.extensions.flow.scheduling.in_force import check_limit

        check_limit(max_concurrent_flows)
    return run_server(
        settings,
        transport=transport.value,
        host=host,
        port=port,
        read_only=read_only,
        toolsets=names,
        strategy=strategy,
        max_concurrent_flows=max_concurrent_flows,
    )
