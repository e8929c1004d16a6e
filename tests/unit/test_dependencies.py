"""A run with dependencies waits for them, whatever happens in between, and says so."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import InvalidArguments

if TYPE_CHECKING:
    from tests.unit.conftest import Driven, EndOf, FakeClock, Turnstile

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {
    "stages": [
        {
            "name": "only",
            "tasks": [{"name": "turn", "type": "t", "required_tools": ["turn"], "retry": {"max_attempts": 1}}],
        }
    ]
}


async def submit(flows: FlowService, *dependencies: str, flow_id: str | None = None, **request: Any) -> str:
    run = await flows.execute_flow(
        flow_id=flow_id,
        workflow_def=None if flow_id else FLOW,
        dependencies=list(dependencies) or None,
        **request,
    )
    return run.run_id


async def test_a_run_starts_when_the_last_of_its_dependencies_has_completed(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(settings) as flows:
        one, two = await submit(flows), await submit(flows)
        third = await submit(flows, one, two)
        await turnstile.has_come(2)
        turnstile.let_through(one)
        await end_of(flows, one)
        view = await flows.get_run(third)
        assert (view.state, view.held_by) == ("scheduled", "dependencies")
        assert {(on.id, on.run_id, on.state, on.on_failure) for on in view.dependencies or ()} == {
            (one, one, "completed", "fail"),
            (two, two, "waiting", "fail"),
        }
        turnstile.let_through(two)
        assert (await turnstile.has_come(3))[2] == third
        turnstile.open()
        assert (await end_of(flows, third)).held_by is None


async def test_what_depends_on_a_failure_fails_with_its_reason_and_so_does_what_depends_on_that(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(settings) as flows:
        first = await submit(flows)
        second = await submit(flows, first)
        third = await submit(flows, second)
        anyway = await submit(flows, second, on_dependency_failure="run")
        turnstile.fails.add(first)
        turnstile.open()
        failed = await end_of(flows, second)
        assert failed.error is not None
        assert (failed.state, failed.error.kind, failed.started_at) == ("failed", "dependency_failed", None)
        assert first in failed.error.message
        why = await flows.explain(run_id=second)
        assert "it depends on" in why.summary
        assert (await end_of(flows, third)).state == "failed"
        assert (await end_of(flows, anyway)).state == "completed"
        assert (await flows.verify()).problems == []
    assert turnstile.came == [first, anyway]


@pytest.mark.parametrize("is_queued", [True, False])
async def test_a_cancelled_dependency_counts_as_failed(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf, is_queued: bool
) -> None:
    one = settings.model_copy(update={"max_concurrent_flows": 1}) if is_queued else settings
    async with driven(one) as flows:
        holder = await submit(flows)
        first = await submit(flows)
        await turnstile.has_come(1 if is_queued else 2)
        second, third = await submit(flows, first), await submit(flows, first, on_dependency_failure="run")
        await flows.control(first, "cancel")
        turnstile.open()
        failed = await end_of(flows, second)
        assert failed.error is not None
        assert failed.error.message == f"The run never started: it depends on {first}, which was cancelled."
        assert [(await end_of(flows, run_id)).state for run_id in (holder, third)] == ["completed"] * 2


async def test_a_flow_stands_for_its_latest_run_or_for_the_first_to_come(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(settings) as flows:
        for flow_id in ("busy", "fresh"):
            await flows.create_flow(flow_id=flow_id, workflow_def=FLOW)
        old = await submit(flows, flow_id="busy")
        latest = await submit(flows, flow_id="busy")
        on_busy, on_fresh = await submit(flows, "busy"), await submit(flows, "fresh")
        why = await flows.explain(run_id=on_busy)
        assert f"{latest}, the latest run of flow busy," in why.summary
        why = await flows.explain(run_id=on_fresh)
        assert why.waiting_for == ["the first run of flow fresh"]
        turnstile.let_through(latest)
        await end_of(flows, latest)
        await turnstile.has_come(3)
        assert turnstile.came[2] == on_busy  # the older run of the flow goes on
        fresh = await submit(flows, flow_id="fresh")
        assert [on.run_id for on in (await flows.get_run(on_fresh)).dependencies or ()] == [fresh]
        turnstile.open()
        assert [(await end_of(flows, run_id)).state for run_id in (old, on_busy, on_fresh)] == ["completed"] * 3


async def test_a_cycle_is_refused_by_name_and_leaves_no_run(settings: FlowSettings, driven: Driven) -> None:
    async with driven(settings) as flows:
        for flow_id in ("a", "b"):
            await flows.create_flow(flow_id=flow_id, workflow_def=FLOW)
        on_b = await submit(flows, "b", flow_id="a")
        with pytest.raises(InvalidArguments) as caught:
            await submit(flows, "a", flow_id="b")
        assert caught.value.issues[0].code == "cycle"
        assert on_b in caught.value.message
        assert len((await flows.list_runs()).runs) == 1
        await submit(flows, flow_id="b")


async def test_dependencies_hold_over_a_restart_and_end_while_nobody_drives(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(flow_id="open", workflow_def={"stages": [{"name": "s", "tasks": [{"name": "t"}]}]})
        first, gone = await submit(flows, flow_id="open"), await submit(flows, flow_id="open")
        second, third = await submit(flows, first, flow_id="open"), await submit(flows, gone, flow_id="open")
        await flows.control(gone, "cancel")
        assert (await flows.get_run(third)).state == "scheduled"
    turnstile.open()
    async with driven(settings) as flows:
        assert (await end_of(flows, second)).state == "completed"
        assert (await end_of(flows, third)).state == "failed"
        assert (await flows.verify()).problems == []


async def test_a_paused_run_hears_of_its_dependencies_when_it_is_resumed(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(settings) as flows:
        good, bad = await submit(flows), await submit(flows)
        after, never = await submit(flows, good), await submit(flows, bad)
        for run_id in (after, never):
            assert (await flows.control(run_id, "pause")).state == "paused"
        turnstile.fails.add(bad)
        turnstile.open()
        for run_id in (good, bad):
            await end_of(flows, run_id)
        assert [(await flows.get_run(run_id)).state for run_id in (after, never)] == ["paused"] * 2
        for run_id in (after, never):
            await flows.control(run_id, "resume")
        assert (await end_of(flows, after)).state == "completed"
        assert (await end_of(flows, never)).state == "failed"


async def test_many_runs_that_wait_for_one_all_start_when_it_ends(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    few = settings.model_copy(update={"max_concurrent_flows": 500, "durability": "process"})
    async with driven(few) as flows:
        gate, other = await submit(flows), await submit(flows)
        await flows.create_flow(flow_id="waiting", workflow_def=FLOW)
        held = [await submit(flows, gate, other, flow_id="waiting") for _ in range(200)]  # a whole batch that waits on
        last = await submit(flows, gate, flow_id="waiting")
        turnstile.let_through(gate)
        assert (await turnstile.has_come(3))[2] == last
        turnstile.open()
        with anyio.fail_after(30):
            for run_id in held:
                assert (await flows.wait(run_id)).state == "completed"


async def test_an_idempotent_request_is_the_same_only_with_the_same_dependencies(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(settings) as flows:
        await flows.create_flow(flow_id="one", workflow_def=FLOW)
        first, other = await submit(flows), await submit(flows)
        run = await submit(flows, first, other, flow_id="one", idempotency_key="k", deadline=60)
        assert await submit(flows, other, first, flow_id="one", idempotency_key="k", deadline=60) == run
        for changed in ({"deadline": 61}, {"on_deadline": "cancel"}, {"on_dependency_failure": "run"}):
            request: dict[str, Any] = {"deadline": 60, **changed}
            with pytest.raises(Exception, match="another request"):
                await submit(flows, first, other, flow_id="one", idempotency_key="k", **request)


# Deadlines
async def missed(flows: FlowService, run_id: str) -> list[dict[str, Any] | None]:
    return [event.details for event in await flows.events(run_id) if event.type == "run.deadline_missed"]


async def test_a_missed_deadline_is_journaled_once_and_the_run_goes_on(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(settings, clock=clock) as flows:
        late, early = await submit(flows, deadline=60), await submit(flows, deadline=60)
        await turnstile.has_come(2)
        turnstile.let_through(early)
        await end_of(flows, early)
        await clock.advance(59)
        assert await missed(flows, late) == []
        with anyio.fail_after(30):
            while not await missed(flows, late):
                await clock.advance(1)
        await clock.advance(300)
        view = await flows.get_run(late)
        assert (view.state, view.deadline and view.deadline.missed) == ("running", True)
        assert await missed(flows, late) == [{"deadline": "2030-01-01T00:01:00.000+00:00", "on_deadline": "continue"}]
        turnstile.open()
        assert (await end_of(flows, late)).state == "completed"
        assert await missed(flows, early) == []


@pytest.mark.parametrize("state", ["running", "scheduled", "waiting", "paused"])
async def test_what_must_not_be_late_is_cancelled_at_its_deadline(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf, state: str
) -> None:
    one = settings.model_copy(update={"max_concurrent_flows": 1})
    wait = {"stages": [{"name": "s", "tasks": [{"name": "w", "type": "wait", "parameters": {"seconds": 9999}}]}]}
    async with driven(one, clock=clock) as flows:
        if state in ("scheduled", "paused"):
            await submit(flows)
        run = await flows.execute_flow(
            workflow_def=wait if state == "waiting" else FLOW, deadline=60, on_deadline="cancel"
        )
        if state == "paused":
            await flows.control(run.run_id, "pause")
        with anyio.fail_after(30):
            while (await flows.get_run(run.run_id)).state != state:
                await anyio.lowlevel.checkpoint()
            if state == "running":
                await turnstile.has_come(1)
            while not (await flows.get_run(run.run_id)).ended_at:
                await clock.advance(20)
        ended = await end_of(flows, run.run_id)
        assert (ended.state, ended.reason) == ("cancelled", "its deadline was missed")
        assert len(await missed(flows, run.run_id)) == 1
        assert (await flows.verify()).problems == []


async def test_a_deadline_that_passes_while_nobody_drives_is_journaled_at_the_next_start(
    settings: FlowSettings, clock: FakeClock, driven: Driven
) -> None:
    async with FlowService(settings, drive=False, clock=clock) as flows:
        await flows.create_flow(flow_id="one", workflow_def={"stages": [{"name": "s", "tasks": [{"name": "t"}]}]})
        run_id = await submit(flows, flow_id="one", deadline=60, on_deadline="cancel")
        await flows.control(run_id, "pause")
    clock.wall += 120
    async with driven(settings, clock=clock) as flows:
        with anyio.fail_after(30):
            while not (await flows.get_run(run_id)).ended_at:
                await clock.advance(0.1)
        assert len(await missed(flows, run_id)) == 1


async def test_deadlines_are_taken_as_seconds_text_and_datetime(
    settings: FlowSettings, clock: FakeClock, driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "Etc/GMT-2")  # two hours east of Greenwich
    time.tzset()
    try:
        async with driven(settings, clock=clock) as flows:
            for deadline, expected in (
                (90.5, "2030-01-01T00:01:30.500+00:00"),
                ("2030-01-31T18:00:00Z", "2030-01-31T18:00:00.000+00:00"),
                ("2030-01-31T18:00:00+01:00", "2030-01-31T17:00:00.000+00:00"),
                ("2030-01-31T18:00:00", "2030-01-31T16:00:00.000+00:00"),  # local
                (clock.now() + timedelta(hours=1), "2030-01-01T01:00:00.000+00:00"),
                (clock.now().replace(tzinfo=None) + timedelta(hours=5), "2030-01-01T03:00:00.000+00:00"),  # local
            ):
                run_id = await submit(flows, deadline=deadline)
                view = await flows.get_run(run_id)
                assert view.deadline is not None
                assert view.deadline.at == expected
    finally:
        monkeypatch.undo()
        time.tzset()


async def test_a_deadline_at_risk_is_visible_before_it_is_missed(
    settings: FlowSettings, clock: FakeClock, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(settings, clock=clock) as flows:
        await flows.create_flow(flow_id="known", workflow_def=FLOW)
        first = await submit(flows, flow_id="known")
        await turnstile.has_come(1)
        await clock.advance(100)
        turnstile.let_through(first)
        await end_of(flows, first)
        run_id = await submit(flows, flow_id="known", deadline=130)
        await turnstile.has_come(2)
        safe = (await flows.get_run(run_id)).deadline
        assert safe is not None
        assert safe.slack_s == pytest.approx(30, abs=1)
        assert safe.at_risk is False
        await clock.advance(120)
        at_risk = (await flows.get_run(run_id)).deadline
        assert at_risk is not None
        assert at_risk.slack_s == pytest.approx(10, abs=1)
        assert at_risk.missed is False
        waiting = await submit(flows, run_id, flow_id="known", deadline=50)
        queued = (await flows.get_run(waiting)).deadline
        assert queued is not None
        assert queued.at_risk is True
