"""Calls wait for the service, are told why it cannot be opened, and have it tried again."""

from typing import Any

import anyio
import pytest

from contexten.extensions.flow.errors import StoreBusy
from contexten_server.opening import Opening

pytestmark = pytest.mark.anyio


class Answering:
    """A service."""

    async def ask(self, question: str) -> str:
        return f"{question}!"

    def tell(self) -> None:
        """Not to be called through the opening."""


class Seconds:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_call_waits_until_the_service_is_open() -> None:
    opening: Any = Opening()
    answers: list[str] = []

    async def ask() -> None:
        answers.append(await opening.service.ask("well"))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with anyio.fail_after(30):
            await opening.wanted.wait()
        assert answers == []
        opening.open(Answering())
    assert answers == ["well!"]


async def test_a_waiting_call_is_told_why_the_service_cannot_be_opened() -> None:
    opening: Any = Opening()

    async def ask() -> None:
        with pytest.raises(StoreBusy):
            await opening.service.ask("well")

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await opening.wanted.wait()
            opening.refuse(StoreBusy("Held."))


async def test_after_a_try_that_failed_calls_are_answered_at_once_and_none_is_made_before_a_pause() -> None:
    seconds = Seconds()
    opening: Any = Opening(seconds)
    opening.want()
    opening.refuse(StoreBusy("Held."))
    with anyio.fail_after(30):
        for _ in range(3):
            with pytest.raises(StoreBusy):
                await opening.service.ask("well")
    opening.want()
    assert not opening.wanted.is_set()


async def test_a_call_after_the_pause_has_it_tried_again_and_gets_its_answer() -> None:
    seconds = Seconds()
    opening: Any = Opening(seconds)
    opening.want()
    opening.refuse(StoreBusy("Held."))
    seconds.now = 2.0
    answers: list[str] = []

    async def ask() -> None:
        answers.append(await opening.service.ask("well"))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await opening.wanted.wait()
            opening.open(Answering())
    assert answers == ["well!"]
    assert opening.refusal is None


async def test_a_method_that_is_not_asynchronous_is_refused_where_it_is_called() -> None:
    opening: Any = Opening()
    early = opening.service.tell()
    opening.open(Answering())
    with pytest.raises(TypeError, match="tell is not asynchronous"):
        opening.service.tell()
    with pytest.raises(TypeError, match="tell is not asynchronous"):
        await early
