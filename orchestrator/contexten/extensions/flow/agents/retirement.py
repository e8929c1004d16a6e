"""Agents that others of their name have replaced: closed once their last attempt has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from .protocol import Agent

logger = logging.getLogger(__name__)


class Retirement:
    """The replaced agents of one registry. Used on the registry's event loop only."""

    def __init__(self, is_used: Callable[[Agent], bool]) -> None:
        """`is_used` says whether what an agent stands for is among the agents, again or under another name: then it
        stays open."""
        self._is_used = is_used
        self._running: dict[Agent, int] = {}
        """Attempts that each still makes."""
        self._closing: set[asyncio.Task[None]] = set()

    def retire(self, agent: Agent, running: int) -> None:
        """Take an agent; of the `running` attempts under its name, those of others that it replaced are not its own."""
        self._running[agent] = running - sum(n for other, n in self._running.items() if other.name == agent.name)
        self._consider(agent)

    def ended(self, agent: Agent) -> None:
        """An attempt of a replaced agent has ended."""
        if agent in self._running:
            self._running[agent] -= 1
            self._consider(agent)

    def _consider(self, agent: Agent) -> None:
        if self._running[agent] > 0:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # the registry is not in use yet: it is closed with it
            return
        del self._running[agent]
        if not self._is_used(agent):
            task = loop.create_task(close_agent(agent), name=f"close {agent.name}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close all, those too that are still at work."""
        agents = [agent for agent in self._running if not self._is_used(agent)]
        self._running.clear()
        await asyncio.gather(*self._closing, *map(close_agent, agents))


async def close_agent(agent: Agent) -> None:
    """Close an agent; one that fails to is logged."""
    close = getattr(agent, "aclose", None)
    if close is not None:
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - a stranger's code; its text may hold secrets
            logger.warning(
                "the agent %s failed to close: %s",
                agent.name,
                type(error).__name__,
                extra={"action": "close_agent", "agent": agent.name},
            )
