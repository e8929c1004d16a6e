"""The Prefect engine: runs that Prefect shows, and whose attempts the workers of a work pool may make."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..agents.protocol import Agent
from ..engines.choice import installed_version
from ..engines.protocol import Engine, EngineParts
from ..views import EngineView
from .access import PrefectAccess, no_api
from .api import PrefectError
from .configuration import api_url
from .pool import PoolAgent

logger = logging.getLogger(__name__)


class PrefectEngine:
    """Without a work pool attempts are made here, as by the native engine; with one, by its workers."""

    name = "prefect"

    def __init__(
        self, parts: EngineParts, pool: str | None, models: Callable[[], Engine], access: PrefectAccess
    ) -> None:
        """`models` gives the engine that talks to the configured model; whoever made `access` closes it."""
        self._parts = parts
        self._models = models
        self._access = access
        self._agent: PoolAgent | None = None
        if pool is not None:
            self._agent = PoolAgent(pool, self._access.api, parts.clock, lease_ttl_s=parts.settings.lease_ttl_s)
            parts.registry.hire(self._agent)

    @property
    def worker(self) -> Agent:
        return self._agent or self._models().worker

    def problem(self, model: str | None = None) -> str | None:
        if self._agent is None:
            return self._models().problem(model)
        if self._access.is_possible:
            return None
        error = no_api()
        return f"{error.message} {error.next}"

    async def view(self) -> EngineView:
        version = installed_version(self.name)
        url = api_url()
        if url is None and self._access.is_possible:
            note = "starts a Prefect server of its own when it is first used"
            return EngineView(name=self.name, available=True, version=version, note=note)
        try:
            server = await (await self._access.api()).check()
        except PrefectError as error:
            note = f"{error.message} {error.next}"
            return EngineView(name=self.name, available=False, version=version, note=note)
        note = f"the API at {url} answers (Prefect {server})"
        return EngineView(name=self.name, available=True, version=version, note=note)

    async def aclose(self) -> None:
        if self._agent is not None:
            await self._agent.aclose()
