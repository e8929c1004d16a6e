"""Toolsets by name, and a service that may be asked before it is open."""

from typing import Any

import anyio
import pytest

from contexten.extensions.flow.settings import FlowSettings
from contexten_server.opening import Opening
from contexten_tools import App, UnknownToolset, resolve_toolsets
from contexten_tools.toolserver import ToolServer
from contexten_tools.toolsets import TOOLS, TOOLSETS, register

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("names", [None, "", "default", " Default ,", ["default", "default"], ()])
def test_the_default_set_is_meant(names: list[str] | str | None) -> None:
    assert resolve_toolsets(names) == ("default",)


def test_an_unknown_set_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UnknownToolset, match="unknown: defualt; this version has: default"):
        resolve_toolsets("defualt")


@pytest.mark.parametrize("name", TOOLSETS)
async def test_the_table_of_tools_is_true(name: str) -> None:
    server = ToolServer("test")
    register(server, App(service=Opening().service, settings=FlowSettings(), toolsets=(name,)))
    assert tuple(tool.name for tool in await server.list_tools()) == TOOLS[name]


@pytest.mark.parametrize("asked", ["create_trigger", "creat_trigger"])
async def test_a_tool_of_a_toolset_that_is_not_offered_says_how_to_offer_it(asked: str) -> None:
    server = ToolServer("test")
    register(server, App(service=Opening().service, settings=FlowSettings()))
    result: Any = await server.call_tool(asked, {})
    error = result.structured_content["error"]
    assert error["code"] == "unknown_tool"
    assert "create_trigger belongs to the toolset `triggers`, which this server does not offer" in error["message"]
    assert "--toolsets default,triggers" in error["next"]


class Family:
    """Stands where one of the service's families stands."""

    async def create(self, what: str) -> str:
        return f"a new {what}"


class Answers:
    """Stands where a service stands."""

    triggers = Family()

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


async def test_a_call_of_a_family_waits_for_the_service_too() -> None:
    opening = Opening()
    answers: list[str] = []

    async def ask() -> None:
        service: Any = opening.service
        answers.append(await service.triggers.create("trigger"))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await opening.wanted.wait()
            opening.open(Answers())  # type: ignore[arg-type]  # a stand-in
    assert answers == ["a new trigger"]


async def test_an_attribute_that_is_private_is_not_handed_on() -> None:
    with pytest.raises(AttributeError):
        _ = opening_service()._store


def opening_service() -> Any:
    return Opening().service
