"""The engine as the seam sees it."""

from __future__ import annotations

from ..agents.protocol import Agent
from ..engines.choice import installed_version
from ..engines.protocol import EngineParts
from ..models.access import ModelAccess
from ..views import EngineView
from .models import Models
from .worker import ModelWorker


class StrandsEngine:
    """Tasks of type `agent`, and free-text ones, by language models through Strands."""

    name = "strands"

    def __init__(self, parts: EngineParts) -> None:
        self._model = parts.settings.model
        self._access = ModelAccess(parts.settings)
        self._models = Models(parts.settings, self._access)
        self.worker: Agent = ModelWorker(parts, self._access, self._models)
        parts.registry.hire(self.worker)

    def problem(self, model: str | None = None) -> str | None:
        return self._access.problem(model)

    async def view(self) -> EngineView:
        problem = self.problem()
        return EngineView(
            name=self.name,
            available=problem is None,
            version=installed_version(self.name),
            note=f"{problem}." if problem is not None else f"tasks for models go to {self._model}",
        )

    async def aclose(self) -> None:
        await self._models.aclose()
