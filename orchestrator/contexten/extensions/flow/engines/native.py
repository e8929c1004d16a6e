"""The native engine: embedded, complete alone."""

from __future__ import annotations

from collections.abc import Callable

from ..agents.protocol import Agent
from ..errors import EngineUnavailable
from ..views import EngineView
from .choice import NATIVE
from .protocol import Engine


class NativeEngine:
    """Tools and agents of this process make all attempts; tasks of type `agent` are the configured model's."""

    name = NATIVE

    def __init__(self, models: Callable[[], Engine]) -> None:
        """`models` gives the engine that talks to the configured model."""
        self._models = models

    @property
    def worker(self) -> Agent:
        return self._models().worker

    def problem(self, model: str | None = None) -> str | None:
        return self._models().problem(model)

    async def view(self) -> EngineView:
        note = "embedded; runs every kind of task"
        if not self._has_model():
            note += ", those of type agent once they have a model: the engine strands tells what that lacks"
        return EngineView(name=self.name, available=True, note=note)

    def _has_model(self) -> bool:
        try:
            return self.problem() is None
        except EngineUnavailable:
            return False

    async def aclose(self) -> None:
        """It holds nothing."""
