"""What a worker does where Prefect's API answers what nobody foresaw; without Prefect's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import uuid4

import anyio
import pytest

from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.agents.secrets import SecretVault
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.prefect import worker as worker_module
from contexten.extensions.flow.prefect.api import PrefectApi, load
from contexten.extensions.flow.prefect.configuration import ApiAddress
from contexten.extensions.flow.prefect.connection import Connection
from contexten.extensions.flow.prefect.following import Follower
from contexten.extensions.flow.prefect.lifeline import Lifeline
from contexten.extensions.flow.prefect.worker import PoolWorker
from contexten.extensions.flow.prefect.workshop import Workshop

pytestmark = pytest.mark.anyio

REQUESTS = 3


class Garbled:
    """In the place of a connection: no answer of it can be used."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.requests = 0
        self.is_asked_again = anyio.Event()
        """Set at the third request."""

    async def once(self, call: Any) -> Any:
        self.requests += 1
        if self.requests == REQUESTS:
            self.is_asked_again.set()
        raise KeyError("id")


class Hurried(SystemClock):
    """Nobody sleeps."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@asynccontextmanager
async def _worker(settings: FlowSettings) -> AsyncIterator[PoolWorker]:
    await load()  # which takes seconds
    workshop = Workshop(settings, clock=Hurried())
    yield PoolWorker("pool", PrefectApi(ApiAddress(url="http://127.0.0.1:9/api")), workshop)
    await workshop.aclose()


async def _outlives(api: Garbled, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    asked = asyncio.create_task(api.is_asked_again.wait())
    with anyio.fail_after(5):
        await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])


async def test_a_worker_goes_on_asking_for_attempts_and_says_so_once(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "POLL_S", 0.001)
    api = Garbled()
    connection = cast("Connection", api)
    async with _worker(settings) as worker:
        await _outlives(api, worker._take_attempts(connection, Follower(connection), anyio.Event()))
    assert caplog.text.count("Trying again.") == 1
    assert caplog.text.count("KeyError: 'id'") == 1


async def test_a_worker_goes_on_saying_that_it_is_there(settings: FlowSettings) -> None:
    api = Garbled()
    async with _worker(settings) as worker:
        await _outlives(api, worker._keep_saying_hello(cast("Connection", api)))


async def test_an_attempt_goes_on_giving_signs_of_life(settings: FlowSettings) -> None:
    await load()
    api = Garbled()
    lifeline = Lifeline(cast("Connection", api), uuid4(), SecretVault(settings), lease_ttl_s=0.003)
    await _outlives(api, lifeline._beat())
