"""The triggers behind which a program stands: saved as it declares them, and decided by its functions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .events import Source, schedule_exists
from .extensions.flow.actor import Actor
from .extensions.flow.errors import FlowError, InvalidArguments, TriggerNotFound
from .extensions.flow.triggers.configs import parse_config
from .extensions.flow.triggers.model import TriggerEvent

if TYPE_CHECKING:
    from .extensions.flow.runs.submission import RunRequest
    from .extensions.flow.service import FlowService
    from .extensions.flow.triggers.views import TriggerView

logger = logging.getLogger(__name__)

_behind: WeakKeyDictionary[FlowService, dict[str, list[Source]]] = WeakKeyDictionary()
"""What stands behind the triggers of each open service, of all apps that share it. Written by the two below only."""


async def attach(service: FlowService, sources: Sequence[Source]) -> None:
    """Stand behind the triggers of these sources, which are saved as they are declared now; several stand behind
    one sender, but only one behind a schedule. Raises InvalidArguments, StoreError."""
    behind = _behind.setdefault(service, {})
    try:
        for source in sources:
            others = behind.setdefault(source.trigger_id, [])
            if others and (source.kind.is_schedule or source.kind != others[0].kind):
                raise schedule_exists(source.trigger_id)
            others.append(source)
        for source in sources:
            await _save(service, behind[source.trigger_id])
            service.triggers.handle(source.trigger_id, _decider(service, source.trigger_id))
    except BaseException:
        detach(service, sources)
        raise


def detach(service: FlowService, sources: Sequence[Source]) -> None:
    """Stand behind them no more: their deliveries wait for a process that does."""
    behind = _behind.get(service, {})
    for source in sources:
        others = [other for other in behind.get(source.trigger_id, []) if other is not source]
        behind[source.trigger_id] = others
        if not others:
            service.triggers.handle(source.trigger_id, None)


def _decider(service: FlowService, trigger_id: str) -> Callable[[TriggerEvent], Awaitable[RunRequest | None]]:
    async def decide(event: TriggerEvent) -> RunRequest | None:
        for source in _behind[service].get(trigger_id, []):
            request = await source.decide(service, event)
            if request is not None:
                return request
        return None

    return decide


async def _save(service: FlowService, sources: Sequence[Source]) -> None:
    """The trigger of these sources, as all of them need it."""
    first = sources[0]
    config = first.config()
    for source in sources[1:]:
        config |= {name: sorted({*value, *config[name]}) for name, value in _lists(source.config())}
    actor = Actor(client=first.trigger_id, tool="ContextenApp")
    saved = await _saved(service, first.trigger_id)
    if saved is None:
        make = service.triggers.create
        try:
            await make(
                kind=first.kind, config=config, handler=first.trigger_id, trigger_id=first.trigger_id, actor=actor
            )
        except FlowError:
            saved = await _saved(service, first.trigger_id)
            if saved is None:
                raise  # else another process of the same program was faster
    if saved is not None:
        await _update(service, saved, first, config, actor)


async def _saved(service: FlowService, trigger_id: str) -> TriggerView | None:
    try:
        return await service.triggers.get(trigger_id)
    except TriggerNotFound:
        return None


async def _update(
    service: FlowService, saved: TriggerView, source: Source, config: dict[str, Any], actor: Actor
) -> None:
    if saved.kind != source.kind or saved.handler != source.trigger_id:
        raise InvalidArguments(
            f"The trigger {saved.trigger_id!r} of this database is not the app's: it starts "
            f"{saved.flow_id or saved.handler!r}.",
            next="Delete it, or declare the events there, not in the program.",
        )
    if parse_config(source.kind, saved.config) != parse_config(source.kind, config):
        lost = {name: sorted({*value} - {*config.get(name, ())}) for name, value in _lists(saved.config)}
        if any(lost.values()):
            logger.warning(
                "The trigger %r does not take %s any more, which was declared before. If that was another program, "
                "they take it from each other: have one of them declare all, or use two databases.",
                saved.trigger_id,
                ", ".join(value for values in lost.values() for value in values),
            )
        await service.triggers.update(saved.trigger_id, config=config, actor=actor)


def _lists(config: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    return ((name, value) for name, value in config.items() if isinstance(value, list))
