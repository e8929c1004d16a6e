"""`contexten-flow worker`: makes attempts for servers on other machines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from contexten_server.cli.conduct import conduct, load_settings, tell_operator
from contexten_server.cli.exits import Exit
from contexten_server.cli.screen import Screen
from contexten_server.cli.serve import Level
from contexten_server.logs import configure_logging

if TYPE_CHECKING:
    from contexten.extensions.flow.prefect.api import PrefectApi
    from contexten.extensions.flow.prefect.worker import PoolWorker


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
    configure_logging(settings)
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
            await _say_where_it_is_away(api)
            await _work(worker, stop.event)
    except AttemptError as error:
        raise FlowError(error.message) from None
    finally:
        await workshop.aclose()
        watchdog.cancel()
    return Exit.OK


async def _say_where_it_is_away(api: PrefectApi) -> None:
    """Raises PrefectError where asking again would not help."""
    from contexten.extensions.flow.prefect.api import PrefectError

    try:
        await api.check()
    except PrefectError as error:
        if error.is_lasting:
            raise
        tell_operator(f"{error.message} The worker goes on asking.")


async def _work(worker: PoolWorker, stop: anyio.Event) -> None:
    """Until `stop` is set; at once where the worker has not begun by then."""
    async with anyio.create_task_group() as group:

        async def give_up() -> None:
            await stop.wait()
            if not worker.is_ready.is_set():
                group.cancel_scope.cancel()

        group.start_soon(give_up)
        await worker.run(stop)
        group.cancel_scope.cancel()
