"""`contexten-flow worker`: makes attempts for servers on other machines."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Annotated

import typer

from contexten_server.cli.conduct import conduct, load_settings, tell_operator
from contexten_server.cli.exits import Exit
from contexten_server.cli.screen import Screen
from contexten_server.cli.serve import Level


def worker(
    pool: Annotated[str, typer.Option(metavar="NAME", help="The Prefect work pool; made where it is missing.")],
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Attempts that it makes at once.")] = 10,
    name: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What Prefect calls it. [default: host and process]", show_default=False),
    ] = None,
    log_level: Annotated[
        Level | None, typer.Option(case_sensitive=False, help="[default: the setting `log_level`]", show_default=False)
    ] = None,
) -> None:
    """Make attempts of runs that were submitted with framework=prefect and this work pool, with the settings, secrets
    and tools of this machine. Only Prefect's API is shared with the server: PREFECT_API_URL says where it is.

    Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage.
    """
    conduct(Screen(), partial(_worker, pool, concurrency, name, log_level))


async def _worker(pool: str, concurrency: int, name: str | None, log_level: Level | None) -> Exit:
    from contexten.extensions.flow.errors import AttemptError, FlowError

    settings = load_settings(log_level=log_level.value if log_level else None)
    _show_log(settings.log_level)
    from contexten.extensions.flow.prefect.access import required_api
    from contexten.extensions.flow.prefect.worker import PoolWorker
    from contexten.extensions.flow.prefect.workshop import Workshop
    from contexten_server.stopping import Stop, Watchdog

    workshop = Workshop(settings)
    api = required_api()
    worker = PoolWorker(pool, api, workshop, concurrency=concurrency, name=name)
    watchdog = Watchdog()
    stop = Stop(settings.stop_grace_s, watchdog)
    try:
        with stop.on_signals():
            tell_operator(f"worker {worker.name} of work pool {pool} at {api.address.shown}")
            await worker.run(stop.event)
    except AttemptError as error:
        raise FlowError(error.message) from None
    finally:
        await workshop.aclose()
        watchdog.cancel()
    return Exit.OK


def _show_log(level: str) -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("contexten", "contexten_server"):
        logging.getLogger(name).setLevel(level)
