"""What was accepted starts its run exactly once, in order, within limits, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON, Actor
from contexten.extensions.flow.errors import IllegalMove, InvalidArguments
from contexten.extensions.flow.store.sql import SQL
from contexten.extensions.flow.triggers.model import TriggerEvent
from contexten.extensions.flow.triggers.treatment import Handler, Treatment
from contexten.extensions.flow.triggers.views import DeliveryView, trigger_of

if TYPE_CHECKING:
    from tests.unit.conftest import Driven, EndOf, FakeClock, Turnstile

    from contexten.extensions.flow.runs.submission import RunRequest

pytestmark = pytest.mark.anyio

TURN: dict[str, Any] = {"name": "turn", "type": "t", "required_tools": ["turn"], "retry": {"max_attempts": 1}}
NOTE: dict[str, Any] = {"name": "note", "type": "note"}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


async def hook(flows: FlowService, definition: dict[str, Any] | None = None, **trigger: Any) -> str:
    """A webhook that starts the flow `target`."""
    await flows.create_flow(workflow_def=definition or flow(NOTE), flow_id="target")
    asked = {"flow_id": "target", "kind": "webhook", "trigger_id": "hook", **trigger}
    return (await flows.triggers.create(**asked, actor=PYTHON)).trigger_id


async def send(flows: FlowService, number: object, payload: object = None, *, trigger_id: str = "hook") -> str | None:
    """Deliver an event; answers its delivery's id, None where it was there before."""
    row = await flows._store.row(SQL["read_trigger"], (trigger_id,))
    assert row is not None
    event = TriggerEvent(kind="webhook", type="sent", id=f"event {number}", payload=payload, received_at="2030-01-01")
    delivery = await flows.triggers.deliver(trigger_of(row), event)
    return None if delivery is None else delivery.delivery_id


async def settled(flows: FlowService, delivery_id: str | None) -> DeliveryView:
    """Wait until something became of it."""
    assert delivery_id is not None
    news = anyio.Event()
    stop = flows.subscribe(lambda _: news.set())
    try:
        with anyio.fail_after(30):
            while (delivery := await flows.triggers.delivery(delivery_id)).state == "accepted":
                await news.wait()
                news = anyio.Event()
    finally:
        stop()
    return delivery


async def runs_of(flows: FlowService) -> list[str]:
    """All runs, oldest first."""
    return [str(row[0]) for row in await flows._store.rows("SELECT run_id FROM runs ORDER BY seq")]


async def all_settled(flows: FlowService) -> None:
    """Wait until no delivery waits."""
    news = anyio.Event()
    stop = flows.subscribe(lambda _: news.set())
    try:
        with anyio.fail_after(60):
            while await flows._store.row("SELECT 1 FROM deliveries WHERE state = 'accepted'"):
                await news.wait()
                news = anyio.Event()
    finally:
        stop()


async def test_a_delivery_starts_its_flow_with_inputs_made_of_the_event(settings: FlowSettings, end_of: EndOf) -> None:
    hostile = "{{ secrets.KEY }} {{ event.payload.x }}"
    echo = {**NOTE, "parameters": {"said": "{{ inputs.text }}"}}
    definition = flow(echo, output="{{ inputs }}", inputs={"type": "object", "properties": {"text": {}, "n": {}}})
    async with FlowService(settings) as flows:
        await hook(flows, definition, inputs={"text": "{{ event.payload.text }}", "n": "{{ event.payload.n + 1.0 }}"})
        delivery = await settled(flows, await send(flows, 1, {"text": hostile, "n": 1.5}))
        assert delivery.state == "started"
        assert delivery.run_id is not None
        run = await end_of(flows, delivery.run_id)
        assert (run.state, run.output) == ("completed", {"text": hostile, "n": 2.5})
        first = (await flows.events(run.run_id))[0]
        assert first.actor == "hook/trigger/webhook"


async def test_without_inputs_a_flow_that_declares_event_gets_it_and_another_gets_nothing(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async with FlowService(settings) as flows:
        await hook(flows, flow(NOTE, output="{{ inputs }}"))
        schema = {"type": "object", "properties": {"event": {"type": "object"}}}
        await flows.create_flow(workflow_def=flow(NOTE, output="{{ inputs }}", inputs=schema), flow_id="whole")
        await flows.triggers.create(flow_id="whole", kind="webhook", trigger_id="whole", actor=PYTHON)
        plain = await settled(flows, await send(flows, 1, {"a": 1}))
        whole = await settled(flows, await send(flows, 1, {"a": 1}, trigger_id="whole"))
        assert (await end_of(flows, plain.run_id or "")).output == {}
        event = (await end_of(flows, whole.run_id or "")).output["event"]
        assert (event["kind"], event["id"], event["payload"]) == ("webhook", "event 1", {"a": 1})


async def test_a_thousand_deliveries_at_once_start_a_thousand_runs_in_order(
    settings: FlowSettings, driven: Driven
) -> None:
    async with driven(settings.model_copy(update={"max_concurrent_flows": 1})) as flows:
        await hook(flows, flow(TURN))
        async with anyio.create_task_group() as group:
            for number in range(1000):
                group.start_soon(send, flows, number)
                group.start_soon(send, flows, number)  # each is sent twice
        await all_settled(flows)
        rows = await flows._store.rows(
            "SELECT runs.seq FROM deliveries JOIN runs USING (run_id) WHERE deliveries.state = 'started' "
            "ORDER BY deliveries.seq"
        )
        assert len(rows) == len(await runs_of(flows)) == 1000
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)


async def test_no_more_runs_than_max_active_are_under_way_and_the_others_follow_in_order(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(settings) as flows:
        await hook(flows, flow(TURN), config={"max_active": 2})
        for number in range(5):
            await send(flows, number)
        came = list(await turnstile.has_come(2))
        for number in range(3):
            assert len(await runs_of(flows)) == 2 + number
            turnstile.let_through(came[number])
            came = list(await turnstile.has_come(3 + number))
        assert came == await runs_of(flows)


async def test_starts_are_spread_by_the_rate(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await hook(flows, config={"rate": "2/2s"})
        sent = [await send(flows, number) for number in range(4)]
        await settled(flows, sent[1])
        assert len(await runs_of(flows)) == 2
        with anyio.fail_after(30):
            while (await flows.triggers.get("hook")).waiting:
                await clock.advance(0.1)
        first, *others = [row[0] for row in await flows._store.rows("SELECT created_at FROM runs ORDER BY seq")]
        assert others[0] == first
        assert others[1] - first >= 1
        assert others[2] - first >= 2


async def test_what_was_accepted_before_a_crash_starts_once_after_it(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await hook(flows)
        sent = await send(flows, 1)
    async with FlowService(settings) as flows:
        assert (await settled(flows, sent)).state == "started"
        assert await send(flows, 1) is None
        assert len(await runs_of(flows)) == 1


async def test_a_crash_between_the_run_and_the_record_of_it_starts_no_second_one(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await hook(flows, inputs={"n": "{{ event.payload }}"})
        sent = [await send(flows, number, number) for number in range(2)]
        for number, delivery_id in enumerate(sent):  # what the server did before it died
            key = f"delivery:{delivery_id}"
            actor = Actor(client="hook", transport="trigger")
            await flows.execute_flow(flow_id="target", inputs={"n": number}, idempotency_key=key, actor=actor)
        await flows.triggers.update("hook", inputs={"n": "{{ event.payload + 1 }}"}, actor=PYTHON)
    async with FlowService(settings) as flows:
        deliveries = [await settled(flows, delivery_id) for delivery_id in sent]
        assert [delivery.run_id for delivery in deliveries] == await runs_of(flows)


async def test_two_servers_start_each_delivery_once(settings: FlowSettings) -> None:
    async with FlowService(settings) as one, FlowService(settings) as two:
        await hook(one, config={"max_active": 1000})
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(send, one, number)
                group.start_soon(send, two, number)
        await all_settled(one)
        started = await one._store.rows("SELECT run_id FROM deliveries WHERE state = 'started'")
        assert sorted(row[0] for row in started) == sorted(await runs_of(one))
        assert len(started) == 100


async def test_a_server_goes_on_where_another_stopped(settings: FlowSettings) -> None:
    async with FlowService(settings) as two:
        async with FlowService(settings) as one:
            await hook(one)
            await settled(one, await send(one, 1))
        assert (await settled(two, await send(two, 2))).state == "started"


async def test_a_filter_that_fails_fails_its_delivery_and_holds_up_nothing_else(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await hook(flows, filter="event.payload.action == 'opened'")
        sent = [
            await send(flows, number, payload)
            for number, payload in enumerate([{"other": 1}, {"action": "closed"}, {"action": "opened"}])
        ]
        failed, filtered, started = [await settled(flows, delivery_id) for delivery_id in sent]
        assert failed.error is not None
        assert (failed.state, failed.error.code) == ("failed", "expression_failed")
        assert "there is no key 'action'" in failed.error.message
        assert "/filter" in failed.error.message
        assert (filtered.state, filtered.reason) == ("filtered", "its filter is not true of the event")
        assert started.state == "started"
        assert [view.delivery_id for view in (await flows.triggers.deliveries(state="failed")).deliveries] == sent[:1]


async def test_inputs_that_do_not_fit_fail_the_delivery_and_a_redelivery_mends_it(settings: FlowSettings) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    async with FlowService(settings) as flows:
        await hook(flows, flow(NOTE, inputs=schema), inputs={"n": "{{ event.payload }}"})
        failed = await settled(flows, await send(flows, 1, "one"))
        assert failed.error is not None
        assert failed.error.code == "invalid_inputs"
        await flows.update_flow("target", workflow_def=flow(NOTE))
        await flows.triggers.redeliver(failed.delivery_id, actor=PYTHON)
        mended = await settled(flows, failed.delivery_id)
        assert (mended.state, mended.redeliveries, mended.error) == ("started", 1, None)
        await flows.triggers.redeliver(failed.delivery_id, actor=PYTHON)  # of a started one: another run
        again = await settled(flows, failed.delivery_id)
        assert (again.redeliveries, again.run_id) == (2, (await runs_of(flows))[1])
        assert (mended.earlier_run_ids, again.earlier_run_ids) == (None, [mended.run_id])
        await flows.triggers.redeliver(failed.delivery_id, actor=PYTHON)
        await settled(flows, failed.delivery_id)
        [listed] = (await flows.triggers.deliveries("hook")).deliveries
        assert listed.earlier_run_ids == [mended.run_id, again.run_id]
        assert listed.run_id not in listed.earlier_run_ids


async def test_a_flow_that_is_gone_fails_the_delivery(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await hook(flows)
        await flows._store.write(lambda tx: tx.rows("DELETE FROM flow_versions"))
        await flows._store.write(lambda tx: tx.rows("DELETE FROM flows"))
        flows._flows.gone(["target"])
        failed = await settled(flows, await send(flows, 1))
        assert failed.error is not None
        assert failed.error.code == "flow_not_found"


async def test_a_disabled_trigger_starts_what_waits_when_it_is_enabled_again(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        await hook(flows)
        await flows.triggers.update("hook", enabled=False, actor=PYTHON)
        sent = await send(flows, 1)
        await settled_other(flows)
        assert (await flows.triggers.delivery(sent or "")).state == "accepted"
        await flows.triggers.update("hook", enabled=True, actor=PYTHON)
        assert (await settled(flows, sent)).state == "started"


async def settled_other(flows: FlowService) -> None:
    """Until a delivery of another trigger was started, which was sent later than all others."""
    await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="other", actor=PYTHON)
    await settled(flows, await send(flows, 1, trigger_id="other"))


async def test_a_function_decides_what_an_event_starts(settings: FlowSettings, end_of: EndOf) -> None:
    async def decide(event: TriggerEvent) -> RunRequest | None:
        if event.payload == "nothing":
            return None
        if event.payload == "trouble":
            raise ValueError("no such luck")
        return {"workflow_def": flow(NOTE, output="{{ inputs.who }}"), "inputs": {"who": event.payload}}

    async with FlowService(settings) as flows:
        await hook(flows, flow_id=None, handler="mine")
        sent = [await send(flows, number, payload) for number, payload in enumerate(["eve", "nothing", "trouble"])]
        await flows.create_flow(workflow_def=flow(NOTE), flow_id="target")
        await settled_other(flows)  # nobody has the function yet
        assert (await flows.triggers.get("hook")).waiting == 3
        flows.triggers.handle("mine", decide)
        started, nothing, trouble = [await settled(flows, delivery_id) for delivery_id in sent]
        assert (await end_of(flows, started.run_id or "")).output == "eve"
        assert (nothing.state, nothing.reason) == ("filtered", "its handler starts nothing for the event")
        assert trouble.error is not None
        assert trouble.error.message == "The handler 'mine' raised ValueError: no such luck"


async def cancelled(_: TriggerEvent) -> RunRequest | None:
    """Waits for a task that somebody cancels."""
    other = asyncio.get_running_loop().create_future()
    other.cancel()
    await other
    return None


async def cancels_itself(_: TriggerEvent) -> RunRequest | None:
    """As a timeout does that is not undone."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return None


def cancels_itself_at_once(_: TriggerEvent) -> RunRequest | None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return None


async def leaves(_: TriggerEvent) -> RunRequest | None:
    sys.exit("no more")


def leaves_at_once(_: TriggerEvent) -> RunRequest | None:
    sys.exit(3)


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (cancelled, "CancelledError"),
        (cancels_itself, "CancelledError"),
        (cancels_itself_at_once, "CancelledError"),
        (leaves, "SystemExit: no more"),
        (leaves_at_once, "SystemExit: 3"),
    ],
)
async def test_a_function_that_is_cancelled_or_leaves_fails_its_delivery_and_the_next_one_starts(
    settings: FlowSettings, handler: Handler, told: str
) -> None:
    async with FlowService(settings) as flows:
        await hook(flows, flow_id=None, handler="mine")
        flows.triggers.handle("mine", handler)
        failed = await settled(flows, await send(flows, 1))
        assert failed.error is not None
        assert (failed.state, failed.error.message) == ("failed", f"The handler 'mine' raised {told}")
        flows.triggers.handle("mine", lambda _: {"flow_id": "target"})
        assert (await settled(flows, await send(flows, 2))).state == "started"


async def test_a_function_that_waits_when_its_service_closes_has_not_failed_and_is_asked_again(
    settings: FlowSettings, caplog: pytest.LogCaptureFixture
) -> None:
    reached = anyio.Event()

    async def slow(_: TriggerEvent) -> RunRequest | None:
        reached.set()
        await anyio.sleep_forever()
        return None

    with anyio.fail_after(30):
        async with FlowService(settings) as flows:
            await hook(flows, flow_id=None, handler="mine")
            flows.triggers.handle("mine", slow)
            sent = await send(flows, 1)
            await reached.wait()
    assert "raised" not in caplog.text
    async with FlowService(settings) as flows:
        flows.triggers.handle("mine", lambda _: {"flow_id": "target"})
        assert (await settled(flows, sent)).state == "started"


@pytest.mark.parametrize("defect", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_defect_that_stops_a_trigger_stops_it_for_a_moment_only(
    settings: FlowSettings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, defect: type[BaseException]
) -> None:
    outcome, raised = Treatment.outcome, anyio.Event()

    async def defective(*given: Any, **more: Any) -> Any:
        if raised.is_set():
            return await outcome(*given, **more)
        raised.set()
        raise defect

    monkeypatch.setattr(Treatment, "outcome", defective)
    async with FlowService(settings, clock=clock) as flows:
        await hook(flows)
        sent = [await send(flows, number) for number in range(2)]
        with anyio.fail_after(30):
            await raised.wait()
            while (await flows.triggers.get("hook")).waiting:
                await clock.advance(1)
        assert [(await settled(flows, delivery_id)).state for delivery_id in sent] == ["started", "started"]


async def test_a_defect_with_one_delivery_has_no_other_started_beside_itself(
    settings: FlowSettings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, raised, go_on = Treatment.outcome, anyio.Event(), anyio.Event()
    begun: list[str] = []

    async def defective(self: Treatment, trigger: Any, delivery_id: str, **more: Any) -> Any:
        begun.append(delivery_id)
        if len(begun) == 1:
            raised.set()
            raise asyncio.CancelledError
        await go_on.wait()
        return await outcome(self, trigger, delivery_id, **more)

    monkeypatch.setattr(Treatment, "outcome", defective)
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await hook(flows)
        sent = [await send(flows, number) for number in range(2)]
    async with FlowService(settings, clock=clock) as flows:
        with anyio.fail_after(30):
            await raised.wait()
            for _ in range(20):
                await clock.advance(1)
                await flows.triggers.get("hook")
            assert begun == sent
            go_on.set()
            while (await flows.triggers.get("hook")).waiting:
                await clock.advance(1)
        assert begun == sent * 2
        assert [(await settled(flows, delivery_id)).state for delivery_id in sent] == ["started", "started"]


async def test_a_process_that_handles_something_no_more_leaves_it_to_others(settings: FlowSettings) -> None:
    reached, go_on = anyio.Event(), anyio.Event()

    async def slow(_: TriggerEvent) -> RunRequest | None:
        reached.set()
        await go_on.wait()
        return None

    async with FlowService(settings) as one, FlowService(settings) as two:
        await hook(one, flow_id=None, handler="mine")
        one.triggers.handle("mine", slow)
        first, second = await send(one, 1), await send(one, 2)
        with anyio.fail_after(30):
            await reached.wait()
        one.triggers.handle("mine", None)
        go_on.set()
        assert (await settled(one, first)).state == "filtered"
        two.triggers.handle("mine", lambda _: {"flow_id": "target"})
        assert (await settled(two, second)).state == "started"


async def test_a_database_without_triggers_is_neither_read_nor_written_for_them(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, end_of: EndOf
) -> None:
    async with FlowService(settings) as flows:
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(NOTE))).run_id)
        asked: list[str] = []
        rows = flows._store.rows

        async def spy(sql: str, *more: Any) -> Any:
            asked.append(sql)
            return await rows(sql, *more)

        monkeypatch.setattr(flows._store, "rows", spy)
        await end_of(flows, (await flows.execute_flow(workflow_def=flow(NOTE))).run_id)
        own = {name for name, sql in SQL.items() if sql in asked and ("triggers" in sql or "consumers" in sql)}
        assert asked
        assert own == set()


async def test_deliveries_that_are_done_with_are_pruned_in_time(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, clock=clock) as flows:
        await hook(flows)
        await settled(flows, await send(flows, 1))
    await clock.advance(settings.retention_days * 86_400 + 1)
    async with FlowService(settings, clock=clock) as flows:
        with anyio.fail_after(30):
            while (await flows.triggers.deliveries()).deliveries:
                await clock.advance(0.01)
        assert json.loads((await flows.triggers.get("hook")).model_dump_json())["waiting"] == 0


@pytest.mark.parametrize("wrong", [{"flow_id": object()}, {"flow_id": 7}, {"flow_id": b"\x00"}, 5, {"inputs": 5}])
async def test_an_answer_that_is_none_fails_its_delivery_and_the_next_one_starts(
    settings: FlowSettings, wrong: Any
) -> None:
    async with FlowService(settings) as flows:
        await hook(flows, flow_id=None, handler="mine")
        flows.triggers.handle("mine", lambda event: wrong if event.payload == "wrong" else {"flow_id": "target"})
        bad, good = await send(flows, 1, "wrong"), await send(flows, 2, "right")
        assert (await settled(flows, bad)).state == "failed"
        assert (await settled(flows, good)).state == "started"


async def hears_all(flows: FlowService, other: FlowService) -> None:
    """Wait until one server has heard of all that another one has done."""
    heard = anyio.Event()
    stop = flows.subscribe(lambda change: heard.set() if "flow.created" in change.types else None)
    await other.create_flow(workflow_def=flow(NOTE), flow_id="last")
    with anyio.fail_after(30):
        await heard.wait()
    stop()


async def test_another_server_goes_on_at_once_with_what_one_handles_no_more(settings: FlowSettings) -> None:
    reached, go_on = anyio.Event(), anyio.Event()

    async def slow(_: TriggerEvent) -> RunRequest | None:
        reached.set()
        await go_on.wait()
        return None

    async with FlowService(settings) as one, FlowService(settings) as two:
        await hook(one, flow_id=None, handler="mine")
        one.triggers.handle("mine", slow)
        first, second = await send(one, 1), await send(one, 2)
        with anyio.fail_after(30):
            await reached.wait()
        two.triggers.handle("mine", lambda _: {"flow_id": "target"})
        await hears_all(two, one)
        assert (await two.triggers.get("hook")).waiting == 2  # the trigger is taken
        one.triggers.handle("mine", None)
        go_on.set()
        assert (await settled(one, first)).state == "filtered"
        assert (await settled(two, second)).state == "started"


async def test_a_redelivery_waits_for_the_end_of_its_run_where_runs_are_bounded(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(settings) as flows:
        await hook(flows, flow(TURN), config={"max_active": 1})
        first = await settled(flows, await send(flows, 1))
        assert first.run_id is not None
        with pytest.raises(IllegalMove, match=first.run_id):
            await flows.triggers.redeliver(first.delivery_id, actor=PYTHON)
        await send(flows, 2)
        assert await turnstile.has_come(1) == await runs_of(flows) == [first.run_id]
        turnstile.let_through(first.run_id)
        with anyio.fail_after(30):
            await flows.wait(first.run_id)
        await flows.triggers.redeliver(first.delivery_id, actor=PYTHON)
        turnstile.open()
        await all_settled(flows)
        assert len(await runs_of(flows)) == 3


async def test_payloads_are_read_outside_of_changes_and_where_limits_hold_one_only(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    async with driven(settings) as flows:
        row = flows._store.row

        async def spy(sql: str, *more: Any) -> Any:
            if sql == SQL["waiting_delivery"]:
                read.append(more[0][0])
            return await row(sql, *more)

        monkeypatch.setattr(flows._store, "row", spy)
        await hook(flows, flow(TURN), config={"max_active": 1})
        await flows.triggers.update("hook", enabled=False, actor=PYTHON)
        sent = [await send(flows, number) for number in range(5)]
        await flows.triggers.update("hook", enabled=True, actor=PYTHON)
        await settled(flows, sent[0])
        await turnstile.has_come(1)
        assert set(read) <= set(sent[:2])
        turnstile.open()
        await all_settled(flows)
    assert "payload" not in SQL["next_deliveries"] + SQL["started_trigger"]


async def test_nobody_but_a_trigger_uses_the_keys_of_deliveries(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        with pytest.raises(InvalidArguments, match="must not begin with 'delivery:'"):
            await flows.execute_flow(workflow_def=flow(NOTE), idempotency_key="delivery:dlv_1")
