"""Farewells: what is closed at the end, whatever befalls who closes it, and in bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio

logger = logging.getLogger(__name__)

FAREWELL_S = 4.0  # for agents to close: ending the program of an MCP server takes up to 3 s


async def shielded(farewell: Callable[[], Awaitable[None]]) -> None:
    """A farewell that bounds its time itself: it comes to its end although who waits for it is cancelled."""
    with anyio.CancelScope(shield=True):
        await farewell()


async def bounded(farewell: Callable[[], Awaitable[None]], whose: str) -> None:
    """A farewell in which strangers have their say: where it does not come to an end it is left behind."""
    task = asyncio.ensure_future(farewell())
    with anyio.CancelScope(shield=True):
        await asyncio.wait({task}, timeout=FAREWELL_S)
    if task.done():
        task.result()
    else:
        task.cancel()
        logger.error("the %s did not close within %g s and are left behind", whose, FAREWELL_S)
