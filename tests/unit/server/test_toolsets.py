"""Toolsets by name, and a service that may be asked before it is open."""

from typing import Any

import anyio
import pytest

from contexten_server.opening import Opening
from contexten_tools import UnknownToolset, resolve_toolsets

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("names", [None, "", "default", " Default ,", ["default", "default"], ()])
def test_the_default_set_is_meant(names: list[str] | str | None) -> None:
    assert resolve_toolsets(names) == ("default",)


def test_a_set_of_a_later_version_is_told_as_such() -> None:
    with pytest.raises(UnknownToolset, match=r"not available in this version: triggers.*default"):
        resolve_toolsets("default,triggers")


def test_an_unknown_set_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UnknownToolset, match="unknown: defualt; this version has: default"):
        resolve_toolsets("defualt")


class Answers:
    """Stands where a service stands."""

    async def metrics(self, what: str) -> str:
        return f"figures of {what}"


async def test_a_call_before_the_service_is_open_waits_for_it_and_has_it_opened() -> None:
    opening = Opening()
    answers: list[str] = []

    async def ask() -> None:
        answers.append(await opening.service.metrics("flows"))  # type: ignore[call-arg, arg-type]  # a stand-in

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await opening.wanted.wait()
            assert answers == []
            opening.open(Answers())  # type: ignore[arg-type]  # a stand-in
    assert answers == ["figures of flows"]


async def test_an_attribute_that_is_private_is_not_handed_on() -> None:
    with pytest.raises(AttributeError):
        _ = opening_service()._store


def opening_service() -> Any:
    return Opening().service
