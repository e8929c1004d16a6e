"""The Prefect API of this process: the configured one, else a server of its own where the settings allow it."""

from __future__ import annotations

from ..engines.choice import check_installed
from ..settings import FlowSettings
from .api import PrefectApi, PrefectError
from .configuration import configured_api
from .server import OwnServer


class PrefectAccess:
    """Finds the API when it is needed. Used on one event loop."""

    name = "prefect"

    def __init__(self, settings: FlowSettings) -> None:
        self._server = OwnServer.beside(settings.database) if settings.prefect_server else None

    @property
    def is_possible(self) -> bool:
        """Whether there is an API, or may be one."""
        return self._server is not None or configured_api() is not None

    async def api(self) -> PrefectApi:
        """The API; the own server is started, or started again, where it does not run. Raises PrefectError."""
        address = configured_api()
        if address is None and self._server is not None:
            address = await self._server.start()
        if address is None:
            raise no_api()
        return PrefectApi(address)

    async def aclose(self) -> None:
        """End the own server, if this process started it."""
        if self._server is not None:
            await self._server.stop()


def required_api() -> PrefectApi:
    """The API that is configured. Raises EngineUnavailable where Prefect is not installed, PrefectError where there is
    no API."""
    check_installed("prefect")
    address = configured_api()
    if address is None:
        raise no_api()
    return PrefectApi(address)


def no_api() -> PrefectError:
    """What is told where there is no API."""
    return PrefectError(
        "No Prefect API is configured.",
        next="Set PREFECT_API_URL (and PREFECT_API_KEY for Prefect Cloud), log in with `prefect cloud login`, or let "
        "this server start one of its own: CONTEXTEN_FLOW_PREFECT_SERVER=true.",
        is_lasting=True,
    )
