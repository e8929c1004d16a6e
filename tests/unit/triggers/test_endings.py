"""The end of a run starts what waits for it, once, and costs nothing where nobody does."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.live import consumer
from contexten.extensions.flow.live.consumer import JournalConsumer
from contexten.extensions.flow.store.consumers import begin, end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.unit.conftest import EndOf

    from contexten.extensions.flow.store import Event, Transaction
    from contexten.extensions.flow.triggers.views import DeliveryView

pytestmark = pytest.mark.anyio

NOTE: dict[str, Any] = {"name": "note", "type": "note"}
FAILS: dict[str, Any] = {"name": "no", "type": "t", "parameters": {"x": "{{ inputs.none }}"}}


def flow(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"stages": [{"name": "only", "tasks": list(tasks)}], **fields}


async def started(flows: FlowService, number: int, trigger_id: str = "after") -> list[DeliveryView]:
    """Wait until so many deliveries have started a run; oldest first."""
    news = anyio.Event()
    stop = flows.subscribe(lambda _: news.set())
    try:
        with anyio.fail_after(30):
            while True:
                page = await flows.triggers.deliveries(trigger_id, state="started", limit=200)
                if len(page.deliveries) >= number:
                    return page.deliveries[::-1]
                await news.wait()
                news = anyio.Event()
    finally:
        stop()


async def after(flows: FlowService, *flow_ids: str, trigger_id: str = "after", **config: Any) -> None:
    await flows.triggers.create(
        flow_id="next",
        kind="flow",
        config={"flow_ids": list(flow_ids), **config},
        inputs={"was": "{{ event.payload.output }}", "of": "{{ event.payload.run_id }}"},
        trigger_id=trigger_id,
        actor=PYTHON,
    )


async def test_the_end_of_a_run_starts_another_flow_with_its_output(settings: FlowSettings, end_of: EndOf) -> None:
    async with FlowService(settings) as flows:
        await flows.create_flow(workflow_def=flow(NOTE, output="{{ inputs }}"), flow_id="next")
        await flows.create_flow(workflow_def=flow(NOTE, output=["done"]), flow_id="first")
        before = await flows.execute_flow(flow_id="first")
        await end_of(flows, before.run_id)  # nobody waits for it yet
        await after(flows, "first")
        run = await flows.execute_flow(flow_id="first")
        (delivery,) = await started(flows, 1)
        assert (delivery.type, delivery.event_id) == ("run.completed", f"{run.run_id}:completed")
        assert (await end_of(flows, delivery.run_id or "")).output == {"was": ["done"], "of": run.run_id}


async def test_only_the_states_asked_for_count_and_sub_flows_are_part_of_their_run(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async with FlowService(settings) as flows:
        for flow_id in ("next", "part"):
            await flows.create_flow(workflow_def=flow(NOTE), flow_id=flow_id)
        await flows.create_flow(workflow_def=flow(FAILS), flow_id="failing")
        part = {"name": "part", "type": "flow", "parameters": {"flow_id": "part"}}
        await flows.create_flow(workflow_def=flow(part), flow_id="whole")
        await after(flows, "failing", "part", "whole", states=["failed", "cancelled"])
        await after(flows, "part", trigger_id="of parts".replace(" ", "_"))
        await end_of(flows, (await flows.execute_flow(flow_id="whole")).run_id)
        await end_of(flows, (await flows.execute_flow(flow_id="part")).run_id)
        failed = await end_of(flows, (await flows.execute_flow(flow_id="failing")).run_id)
        (delivery,) = await started(flows, 1)
        assert delivery.event_id == f"{failed.run_id}:failed"
        assert len(await started(flows, 1, "of_parts")) == 1
        payload = (await flows.triggers.delivery(delivery.delivery_id)).payload
        assert payload["error"]["kind"] == "invalid"


async def test_ends_while_no_server_listens_and_with_two_that_do_start_each_once(
    settings: FlowSettings, end_of: EndOf
) -> None:
    async with FlowService(settings, drive=False) as flows:
        for flow_id in ("next", "first"):
            await flows.create_flow(workflow_def=flow(NOTE), flow_id=flow_id)
        await after(flows, "first")
        asked = [(await flows.execute_flow(flow_id="first")).run_id for _ in range(5)]
    async with FlowService(settings) as one, FlowService(settings) as two:
        asked += [(await server.execute_flow(flow_id="first")).run_id for server in (one, two) * 10]
        for run_id in asked:
            await end_of(one, run_id)
        found = await started(one, len(asked))
        assert sorted(delivery.event_id for delivery in found) == sorted(f"{run_id}:completed" for run_id in asked)
        assert len({delivery.run_id for delivery in found}) == len(asked)


async def test_a_consumer_takes_each_entry_once_in_order_over_restarts_and_strides(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "PAGE", 3)
    monkeypatch.setattr(consumer, "STRIDE", 7)
    all_taken = anyio.Event()

    def take(tx: Transaction, events: Sequence[Event]) -> None:
        for event in events:
            tx.event("test.taken", event.at, data=event.data)

    def write(tx: Transaction, number: int) -> None:
        tx.event("test.wanted", at, data=str(number))
        tx.event("test.other", at)

    async with FlowService(settings) as flows:
        store, watchers, clock = flows._store, flows._watchers, flows.clock
        at = clock.timestamp()

        def listen(change: Any) -> None:
            if "test.taken" in change.types:
                all_taken.set()

        async def everything(number: int) -> list[int]:
            nonlocal all_taken
            with anyio.fail_after(30):
                while True:
                    rows = await store.rows("SELECT data FROM events WHERE type = 'test.taken' ORDER BY seq")
                    if len(rows) >= number:
                        return [int(row[0]) for row in rows]
                    await all_taken.wait()
                    all_taken = anyio.Event()

        flows.subscribe(listen)
        consumers = [
            JournalConsumer("test", store, watchers, clock, types=frozenset({"test.wanted"}), take=take)
            for _ in range(2)
        ]
        await store.write(partial(write, number=-1))  # before anybody needs it
        async with anyio.create_task_group() as group:
            for one in consumers:
                group.start_soon(one.run)
            await anyio.wait_all_tasks_blocked()
            await store.write(partial(begin, name="test", at=at))
            for number in range(20):
                await store.write(partial(write, number=number))
            assert await everything(20) == list(range(20))
            group.cancel_scope.cancel()
        for number in range(20, 25):
            await store.write(partial(write, number=number))
        async with anyio.create_task_group() as group:
            group.start_soon(consumers[0].run)
            assert await everything(25) == list(range(25))
            await store.write(partial(end, name="test"))
            await store.write(partial(write, number=99))
            await store.write(partial(begin, name="test", at=at))
            await store.write(partial(write, number=25))
            assert await everything(26) == list(range(26))
            group.cancel_scope.cancel()


async def test_a_trigger_whose_config_cannot_be_read_holds_up_no_other_one(settings: FlowSettings) -> None:
    async with FlowService(settings) as flows:
        for flow_id in ("first", "next"):
            await flows.create_flow(workflow_def=flow(NOTE), flow_id=flow_id)
        await after(flows, "first", trigger_id="odd")
        await after(flows, "first")
        await flows._store.write(
            lambda tx: tx.execute("UPDATE triggers SET config = json_set(config, '$.new', 1) WHERE trigger_id = 'odd'")
        )
        await flows.execute_flow(flow_id="first")
        assert len(await started(flows, 1)) == 1
