"""The engines of a process: made when they are first used, each with the agents that may take its runs' tasks."""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from ..agents.registry import Worker
from ..agents.staff import Staff
from ..definition import WorkflowDefinition
from ..definition.model import Task
from ..errors import EngineUnavailable, Issue
from ..views import EngineView
from .choice import AGENT, LIBRARIES, NATIVE, EngineReference, check_installed, choose_engine
from .native import NativeEngine
from .options import misfits
from .protocol import Engine, EngineParts

if TYPE_CHECKING:
    from ..prefect.access import PrefectAccess

logger = logging.getLogger(__name__)


class Engines:
    """Used on the event loop only."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts
        self._engines: dict[str, Engine] = {}
        self._staff: dict[str, Staff] = {}
        self._prefect: PrefectAccess | None = None
        parts.enabled.update(parts.settings.engines)

    def enable(self, name: str) -> None:
        """From now on `auto` may choose that engine, where it is installed."""
        self._parts.enabled.add(name)

    def choose(
        self,
        framework: object,
        definition: WorkflowDefinition,
        *,
        pool: object = None,
        forbidden: Collection[str] = (),
    ) -> str:
        """The engine for a run, as the text that the run keeps. Raises InvalidArguments, EngineUnavailable."""
        has_prefect = "prefect" in self._parts.enabled and self._has_prefect()
        reference = choose_engine(
            framework, definition, pool=pool, enabled=self._parts.enabled, forbidden=forbidden, has_prefect=has_prefect
        )
        if reference.name == "prefect" and not self._has_prefect() and not self._parts.settings.prefect_server:
            from ..prefect.access import no_api

            error = no_api()
            raise EngineUnavailable(error.message, next=error.next)
        return str(reference)

    def staff(self, reference: str) -> Staff:
        """The agents that may take tasks of the runs that keep this text as their engine."""
        staff = self._staff.get(reference)
        if staff is None:
            staff = self._staff[reference] = self._make_staff(EngineReference.parse(reference))
        return staff

    def _make_staff(self, reference: EngineReference) -> Staff:
        return Staff(
            self._parts.registry,
            partial(self._worker, reference),
            partial(self._problem, reference),
            partial(self._misfits, reference),
        )

    def _worker(self, reference: EngineReference, task: Task) -> Worker | None:
        if not reference.does(task):
            return None
        try:
            agent = self.engine(reference).worker
        except EngineUnavailable:  # `_problem` tells it
            agent = None
        return Worker(agent, is_alone=reference.is_alone, is_for_models=task.type == AGENT)

    def _problem(self, reference: EngineReference, task: Task) -> str | None:
        if not reference.does(task):
            return None
        try:
            return self.engine(reference).problem()
        except EngineUnavailable as error:
            return f"{error.message} {error.next}"

    def _misfits(self, reference: EngineReference, task: Task) -> list[Issue]:
        if reference.is_alone or not reference.does(task):  # a work pool's machines have engines of their own
            return []
        return misfits(task, reference.name, self.engine(reference).problem)

    def engine(self, reference: EngineReference) -> Engine:
        """An engine of this process. Raises EngineUnavailable where its library is not installed."""
        kept = self._engines.get(str(reference))
        if kept is None:
            kept = self._engines[str(reference)] = self._make(reference)
        return kept

    def _make(self, reference: EngineReference) -> Engine:
        name = reference.name
        if name == NATIVE:
            return NativeEngine(self._models)
        check_installed(name)
        if name == "strands":
            from ..strands.engine import StrandsEngine

            return StrandsEngine(self._parts)
        if name == "controlflow":
            from ..controlflow.engine import ControlFlowEngine
            from ..prefect.configuration import configured_api

            return ControlFlowEngine(self._parts, configured_api)
        from ..prefect.engine import PrefectEngine

        return PrefectEngine(self._parts, reference.pool, self._models, self.prefect())

    def prefect(self) -> PrefectAccess:
        """The way to Prefect's API, one for all that use it."""
        if self._prefect is None:
            from ..prefect.access import PrefectAccess

            self._prefect = PrefectAccess(self._parts.settings)
        return self._prefect

    def _models(self) -> Engine:
        """The engine that talks to the configured model."""
        return self.engine(EngineReference("strands"))

    def _has_prefect(self) -> bool:
        """Whether a Prefect API is configured."""
        from ..prefect.configuration import api_url

        return api_url() is not None

    async def views(self) -> list[EngineView]:
        """All engines, those too that are not installed."""
        return [await self._view(name) for name in (NATIVE, *LIBRARIES)]

    async def _view(self, name: str) -> EngineView:
        try:
            return await self.engine(EngineReference(name)).view()
        except EngineUnavailable as error:
            return EngineView(name=name, available=False, note=f"{error.message} {error.next}")

    async def aclose(self) -> None:
        """Close all engines; one that fails to is logged and does not keep the others open. Each is made anew when it
        is used again."""
        engines, self._engines = self._engines, {}
        self._staff.clear()
        closing: list[Engine | PrefectAccess] = [*engines.values()]
        if self._prefect is not None:
            closing.append(self._prefect)
            self._prefect = None
        for one in closing:
            try:
                await one.aclose()
            except Exception as error:  # noqa: BLE001 - a library's code; its text may hold secrets
                logger.warning(
                    "the engine %s failed to close: %s",
                    one.name,
                    type(error).__name__,
                    extra={"action": "close_engine"},
                )
