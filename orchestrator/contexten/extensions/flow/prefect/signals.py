"""Prefect's events as wake-up calls: that a flow run of a deployment changed its state, within tens of milliseconds.

Only a help: whoever is woken looks for itself, and looks now and then without being woken, for a server may send none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from ..clock import Clock
from .configuration import ApiAddress

if TYPE_CHECKING:
    from prefect.events.filters import EventFilter

logger = logging.getLogger(__name__)

ENDS = ("Completed", "Failed", "Cancelled", "Crashed")
"""The names of states in which a flow run ends."""
_AGAIN_S = 5.0
_PREFIX = "prefect.flow-run."


async def heed(address: ApiAddress, deployment_id: UUID, wake: Mapping[str, Callable[[], None]], clock: Clock) -> None:
    """Whenever a flow run of the deployment enters a state that `wake` names, call what stands there. Never returns;
    connects again for ever."""
    from prefect.events.clients import get_events_subscriber
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_KEY,
        PREFECT_API_URL,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
        temporary_settings,
    )

    told = {
        PREFECT_API_URL: address.url,
        PREFECT_API_KEY: address.api_key,
        PREFECT_API_AUTH_STRING: address.auth_string,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,  # without an API that is configured it starts a server
    }
    wanted = _filter(deployment_id, [f"{_PREFIX}{state}" for state in wake])
    with temporary_settings(told):
        while True:
            try:
                async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as subscriber:
                    for call in set(wake.values()):  # for what happened before
                        call()
                    async for event in subscriber:
                        if (called := wake.get(event.event.removeprefix(_PREFIX))) is not None:
                            called()
            except Exception as error:  # noqa: BLE001 - whatever a socket or Prefect raises: polling goes on without it
                logger.debug("no events from Prefect: %s", type(error).__name__, extra={"action": "heed"})
            await clock.sleep(_AGAIN_S)


def _filter(deployment_id: UUID, names: list[str]) -> EventFilter:
    from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter

    related = EventRelatedFilter(id=[f"prefect.deployment.{deployment_id}"])
    return EventFilter(event=EventNameFilter(name=names), related=related)
