"""Schedules of an app ask its functions, and are told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten import ContextenApp, StartFlow
from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.triggers.model import TriggerEvent
from contexten.standing import attach, detach

if TYPE_CHECKING:
    from tests.unit.app.conftest import Wait
    from tests.unit.conftest import FakeClock

    from contexten.events import EventFunction

pytestmark = pytest.mark.anyio


async def test_a_schedule_asks_its_function(app: ContextenApp, echo: dict[str, Any], output: Wait) -> None:
    @app.cron("0 9 * * 1-5", timezone="Europe/Berlin", overlap="allow")
    async def morning(event: TriggerEvent) -> StartFlow:
        return StartFlow(workflow_def=echo, inputs={"text": event.type})

    async with app:
        service = await app.flow_manager.service()
        saved = await service.triggers.get("workflow-app.morning")
        assert saved.next_at is not None
        assert saved.config["timezone"] == "Europe/Berlin"
        await service.triggers.test(saved.trigger_id, start=True, actor=PYTHON)
        assert await output(app) == {"text": "tick"}


async def test_two_schedules_of_one_function_need_an_id_each(app: ContextenApp, decide_nothing: EventFunction) -> None:
    app.cron("0 17 * * *")(decide_nothing)
    with pytest.raises(InvalidArguments, match="declared already") as refused:
        app.cron("0 9 * * *")(decide_nothing)
    assert "trigger_id=" in str(refused.value.next)
    app.cron("0 9 * * *", trigger_id="morning")(decide_nothing)
    async with app:
        service = await app.flow_manager.service()
        saved = {view.trigger_id: view.config["expression"] for view in (await service.triggers.list()).triggers}
        assert sorted(saved.values()) == ["0 17 * * *", "0 9 * * *"]
        assert saved["morning"] == "0 9 * * *"


@pytest.mark.parametrize("name", ["Прод", "...", ""])
def test_a_name_of_which_no_id_can_be_made_is_refused(
    settings: FlowSettings, name: str, decide_nothing: EventFunction
) -> None:
    app = ContextenApp(name=name, settings=settings)
    with pytest.raises(InvalidArguments, match="No trigger's id can be made") as refused:
        app.cron("0 9 * * *")(decide_nothing)
    assert "trigger_id=" in str(refused.value.next)
    app.cron("0 9 * * *", trigger_id="morning")(decide_nothing)
    assert [source.trigger_id for source in app.sources] == ["morning"]


async def test_a_schedule_that_another_open_app_has_is_refused(
    settings: FlowSettings, decide_nothing: EventFunction
) -> None:
    first, second = ContextenApp(name="one", settings=settings), ContextenApp(name="two", settings=settings)
    first.cron("0 17 * * *", trigger_id="daily")(decide_nothing)
    second.cron("0 9 * * *", trigger_id="daily")(decide_nothing)
    async with first:
        with pytest.raises(InvalidArguments, match="declared already"):
            await second.start()
        await second.aclose()
        service = await first.flow_manager.service()
        assert (await service.triggers.get("daily")).config["expression"] == "0 17 * * *"
    async with second:  # the other is closed
        service = await second.flow_manager.service()
        assert (await service.triggers.get("daily")).config["expression"] == "0 9 * * *"


async def test_a_schedule_may_not_have_the_id_of_a_sender(app: ContextenApp, decide_nothing: EventFunction) -> None:
    app.github.event("push")(decide_nothing)
    app.cron("0 9 * * *", trigger_id="github")(decide_nothing)
    with pytest.raises(InvalidArguments, match="declared already"):
        await app.start()


class Times:
    """How often a schedule's function was asked, and the wait for it."""

    def __init__(self, flow: dict[str, Any]) -> None:
        self.planned: list[str] = []
        self._flow = flow
        self._asked = anyio.Event()

    async def __call__(self, event: TriggerEvent) -> StartFlow:
        self.planned.append(event.id)
        self._asked.set()
        return StartFlow(workflow_def=self._flow)

    async def have(self, number: int) -> list[str]:
        """Wait until so many were asked for."""
        with anyio.fail_after(20):
            while len(self.planned) < number:
                self._asked = anyio.Event()
                await self._asked.wait()
        return self.planned


@pytest.mark.parametrize(
    ("catch_up", "fired"),
    [("none", ["00:10"]), ("latest", ["00:08", "00:10"]), ("all", ["00:02", "00:04", "00:06", "00:08", "00:10"])],
)
async def test_times_that_passed_while_the_program_was_away_are_caught_up_as_the_schedule_says(
    settings: FlowSettings, clock: FakeClock, echo: dict[str, Any], catch_up: str, fired: list[str]
) -> None:
    """Also where another server drove the database all the while."""
    times = Times(echo)
    app = ContextenApp(name="app", settings=settings)
    app.cron("*/2 * * * *", trigger_id="minutes", catch_up=catch_up, overlap="allow")(times)
    async with FlowService(settings, clock=clock) as service:
        await attach(service, app.sources)
        detach(service, app.sources)
    async with FlowService(settings, clock=clock) as service:  # that of another program
        for _ in range(9):
            await anyio.wait_all_tasks_blocked()
            await clock.advance(60)
        await clock.advance(15)
        assert (await service.triggers.deliveries("minutes")).deliveries == []
        assert not (await service.triggers.get("minutes")).handled
    async with FlowService(settings, clock=clock) as service:
        await clock.advance(15)
        await attach(service, app.sources)
        await times.have(len(fired) - 1)
        await clock.advance(30)
        assert [planned[11:16] for planned in await times.have(len(fired))] == fired
        detach(service, app.sources)


async def test_a_schedule_that_the_program_has_no_more_fires_nothing_and_says_so(
    settings: FlowSettings, clock: FakeClock, decide_nothing: EventFunction
) -> None:
    app = ContextenApp(name="app", settings=settings)
    app.cron("* * * * *", trigger_id="minutes")(decide_nothing)
    async with FlowService(settings, clock=clock) as service:

        async def is_told(*, handled: bool) -> None:
            with anyio.fail_after(20):
                while (await service.triggers.get("minutes")).handled is not handled:
                    await anyio.lowlevel.checkpoint()
            [view] = (await service.triggers.list()).triggers
            assert view.handled is handled

        await attach(service, app.sources)
        await is_told(handled=True)
        async with FlowService(settings, clock=clock, drive=False) as other:  # as another process sees it
            assert (await other.triggers.get("minutes")).handled is True
        detach(service, app.sources)
        await is_told(handled=False)
        await clock.advance(600)
        assert (await service.triggers.deliveries()).deliveries == []
