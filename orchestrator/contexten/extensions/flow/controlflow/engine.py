"""The engine controlflow."""

from __future__ import annotations

from collections.abc import Callable

from ..agents.protocol import Agent
from ..engines.choice import installed_version
from ..engines.protocol import EngineParts
from ..models.keys import Keys
from ..views import EngineView
from .keeper import Keeper, RecordingApi
from .worker import ControlFlowWorker


class ControlFlowEngine:
    """Its worker makes agent work by ControlFlow, in a child process that starts when it is first needed."""

    name = "controlflow"

    def __init__(self, parts: EngineParts, recording_api: Callable[[], RecordingApi | None]) -> None:
        """`recording_api` gives the Prefect API that is configured now."""
        self._parts = parts
        self._recording_api = recording_api
        self._keys = Keys("Prefect's key")
        self._keeper = Keeper(parts.clock, api=self._api, mask=self._mask)
        self._worker = ControlFlowWorker(parts.settings, parts.toolbox, self._keeper)
        parts.registry.hire(self._worker)

    @property
    def worker(self) -> Agent:
        return self._worker

    def problem(self, model: str | None = None) -> str | None:
        return self._worker.problem(model)

    async def view(self) -> EngineView:
        pid = self._keeper.pid
        process = "its process starts with the first agent task (about 10 s)" if pid is None else f"process {pid} runs"
        api = self._api()
        recorded = "" if api is None else f"; its work is recorded by the Prefect API at {api.shown}"
        problem, model = self.problem(), self._parts.settings.model
        return EngineView(
            name=self.name,
            available=problem is None,
            version=installed_version(self.name),
            note=f"{problem}." if problem is not None else f"tasks for models go to {model}; {process}{recorded}",
        )

    async def aclose(self) -> None:
        await self._keeper.aclose()

    def _api(self) -> RecordingApi | None:
        """The Prefect API that is to see ControlFlow's work: a variable alone sends nothing to Prefect."""
        api = self._recording_api() if "prefect" in self._parts.enabled else None
        if api is not None:
            self._keys.note(api.api_key, api.auth_string)
        return api

    def _mask(self, text: str) -> str:
        """The text without the secrets of the settings, and without the keys that the child knows."""
        return str(self._parts.vault.mask(self._keys.mask(self._worker.mask(text))))
