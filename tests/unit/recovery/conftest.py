"""A host that notes what strategies ask of it, and contexts of failed attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contexten.extensions.flow.recovery.context import RecoveryContext

MakeContext = Callable[..., RecoveryContext]


class FakeHost:
    """Does nothing but note it; raises `error` where one is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.limit: int | None = 4
        self.error: Exception | None = None

    async def reinitialize(self, agent_name: str) -> None:
        self._note(f"reinitialize {agent_name}")

    async def close_caches(self) -> None:
        self._note("close_caches")

    def lower_concurrency(self) -> int | None:
        self.asked.append("lower_concurrency")
        return self.limit

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
def failed(host: FakeHost) -> MakeContext:
    """A first of four attempts that failed; the next one is planned after a second."""

    def make(kind: str, **fields: Any) -> RecoveryContext:
        facts: dict[str, Any] = {
            "run_id": "r1",
            "flow_id": "f1",
            "task": "fetch",
            "message": "it failed",
            "attempt": 1,
            "max_attempts": 4,
            "agent": "a",
            "agents": ("a",),
            "delay_s": 1.0,
            "host": host,
        }
        return RecoveryContext(kind=kind, **(facts | fields))

    return make
