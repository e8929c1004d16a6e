"""Work that is done in turns, for as long as the process lives: whatever befalls one turn, another follows."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from ..errors import FlowError
from .bell import Bell
from .watching import Change, Watchers

logger = logging.getLogger(__name__)

RETRY_S = 2.0  # after the database could not be read or written


async def take_turns(
    turn: Callable[[], Awaitable[float | None]],
    *,
    bell: Bell,
    watchers: Watchers,
    heard: Callable[[Change], None],
    failure: str,
) -> NoReturn:
    """Take a turn, and another each time that the bell rings, until cancelled. A turn answers after how many seconds
    the next follows in any case, None where the bell alone tells. After one that raised the next follows in `RETRY_S`,
    however often the bell rings, and answers what rang meanwhile: what is broken is not tried in a storm. `heard` may
    ring at what changed; `failure` is what the log says of a turn that raised, such as `files could not be read`."""
    stop = watchers.subscribe(heard)
    try:
        while True:
            try:
                seconds = await turn()
            except FlowError as error:
                logger.warning("%s and will be tried again: %s", failure, error)
                await bell.rest(RETRY_S)
            except Exception:  # a defect of one turn must not end what works
                logger.exception("%s and will be tried again", failure)
                await bell.rest(RETRY_S)
            else:
                await bell.wait(seconds)
    finally:
        stop()
