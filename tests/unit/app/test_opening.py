"""Opening an app saves what it declares, and stands behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.testclient import TestClient

from contexten import ContextenApp, StartFlow
from contexten.extensions.flow import FlowManager, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.triggers.model import TriggerEvent

if TYPE_CHECKING:
    from tests.unit.app.conftest import Http, Request, Wait

    from contexten.events import EventFunction

pytestmark = pytest.mark.anyio


async def test_what_is_declared_later_is_refused(app: ContextenApp, decide_nothing: EventFunction) -> None:
    async with app:
        with pytest.raises(RuntimeError, match="before its first use"):
            app.github.event("push")(decide_nothing)


async def test_a_secret_that_the_settings_do_not_name_is_told_at_the_start(
    settings: FlowSettings, decide_nothing: EventFunction
) -> None:
    app = ContextenApp(settings=settings.model_copy(update={"secrets": ()}))
    app.slack.event("app_mention")(decide_nothing)
    with pytest.raises(InvalidArguments, match="SLACK_SIGNING_SECRET"):
        await app.start()
    await app.aclose()


async def test_a_trigger_of_somebody_else_is_not_taken(
    settings: FlowSettings, echo: dict[str, Any], decide_nothing: EventFunction
) -> None:
    async with FlowManager(settings=settings) as manager:
        await manager.create_flow(workflow_def=echo, flow_id="echo")
        service = await manager.service()
        config = {"secret": "GITHUB_WEBHOOK_SECRET"}
        await service.triggers.create(kind="github", flow_id="echo", trigger_id="github", config=config, actor=PYTHON)
        app = ContextenApp(settings=settings)
        app.github.event("push")(decide_nothing)
        with pytest.raises(InvalidArguments, match="not the app's"):
            await app.start()
        await app.aclose()


async def test_the_trigger_follows_what_the_program_declares(
    settings: FlowSettings, decide_nothing: EventFunction
) -> None:
    for types in (["push"], ["push", "issues"], ["issues"]):
        app = ContextenApp(settings=settings)
        for type in types:
            app.github.event(type)(decide_nothing)
        async with app:
            saved = await (await app.flow_manager.service()).triggers.get("github")
            assert saved.config["events"] == sorted(types)


async def test_a_program_that_takes_from_a_trigger_what_another_declared_says_so(
    settings: FlowSettings, caplog: pytest.LogCaptureFixture, decide_nothing: EventFunction
) -> None:
    for types, warnings in ((["push"], 0), (["push", "issues"], 0), (["issues"], 1)):
        app = ContextenApp(settings=settings)
        for type in types:
            app.github.event(type)(decide_nothing)
        async with app:
            assert caplog.text.count("The trigger 'github' does not take push any more") == warnings


async def test_two_apps_on_one_database_share_its_core_and_its_triggers(
    settings: FlowSettings, echo: dict[str, Any], github: Request, client: Http, output: Wait
) -> None:
    one, other = ContextenApp(name="one", settings=settings), ContextenApp(name="other", settings=settings)

    @one.github.event("issues")
    async def of_issues(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": "one"})

    @other.github.event("pull_request")
    async def of_pull_requests(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": "other"})

    async with other:
        async with one, client(one) as http:
            assert await one.flow_manager.service() is await other.flow_manager.service()
            issue = (await http.post(**github({"action": "opened"}, event="issues", delivery="i"))).json()
            request = (await http.post(**github())).json()
            assert await output(other, issue["delivery_id"]) == {"text": "one"}
            assert await output(one, request["delivery_id"]) == {"text": "other"}
        async with client(other) as http:  # the first has closed
            request = (await http.post(**github(delivery="later"))).json()
            assert await output(other, request["delivery_id"]) == {"text": "other"}


async def test_an_event_that_came_while_nobody_could_decide_waits_for_the_program(
    settings: FlowSettings,
    echo: dict[str, Any],
    decide_nothing: EventFunction,
    output: Wait,
    pull_request: dict[str, Any],
) -> None:
    app = ContextenApp(settings=settings)
    app.github.event("pull_request")(decide_nothing)
    async with app:
        pass
    async with FlowManager(settings=settings) as manager:  # another program serves the database
        service = await manager.service()
        trigger = await service.triggers.get("github")
        tested = await service.triggers.test(
            "github", payload=pull_request, type="pull_request", start=True, actor=PYTHON
        )
        assert trigger.handler == "github"
        assert tested.delivery is not None
    again = ContextenApp(settings=settings)

    @again.github.event("pull_request")
    async def review(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": "late"})

    async with again:
        assert await output(again) == {"text": "late"}


async def test_an_app_that_cannot_be_opened_leaves_nothing_open(
    settings: FlowSettings, decide_nothing: EventFunction
) -> None:
    app = ContextenApp(settings=settings.model_copy(update={"secrets": ()}))
    app.slack.event("app_mention")(decide_nothing)
    with pytest.raises(InvalidArguments, match="SLACK_SIGNING_SECRET"):
        async with app:
            raise AssertionError("it did open")
    assert not app.flow_manager.is_open
    with (
        pytest.raises(InvalidArguments, match="SLACK_SIGNING_SECRET"),
        TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5000)),
    ):
        raise AssertionError("it did open")
    assert not app.flow_manager.is_open
