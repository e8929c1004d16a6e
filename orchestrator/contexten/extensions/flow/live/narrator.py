"""The story of the runs in the log: at DEBUG a line for each entry of theirs that this process wrote to the journal."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from ..store import Event

logger = logging.getLogger(__name__)

MAX_DETAIL = 300  # characters of one detail of an entry


def narrate(events: Sequence[Event]) -> None:
    """Tell a commit's entries about runs. They were masked before they were written: no secret is in them."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    for event in events:
        if event.run_id is not None:
            extra = {"action": event.type, "run_id": event.run_id, "flow_id": event.flow_id, "task": event.task}
            logger.debug("%s%s%s", event.type, _subject(event), _details(event), extra=extra)


def _subject(event: Event) -> str:
    if event.task is None:
        by = f" by {event.actor}" if event.actor is not None else ""
        return f": run {event.run_id} of flow {event.flow_id}{by}"
    item = "" if event.item is None else f"[{event.item}]"
    attempt = "" if event.attempt is None else f" attempt {event.attempt}"
    return f": run {event.run_id} task {event.task}{item}{attempt}"


def _details(event: Event) -> str:
    details = json.loads(event.data or "{}")
    return "".join(f", {name}: {_brief(value)}" for name, value in details.items())


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}..."
