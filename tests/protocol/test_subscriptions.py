"""Live updates reach clients of both eras, the last state always among them."""

from typing import Any

import anyio
import mcp_types as types
import pytest

pytestmark = [
    pytest.mark.anyio,
    # They are what clients of 2025-11-25 have.
    pytest.mark.filterwarnings("ignore:resources/:mcp.MCPDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:resources/"),
]


class Updates:
    """What a legacy client was told."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.changed = anyio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            self.uris.append(str(message.params.uri))
            self.changed.set()

    async def until(self, uri: str) -> None:
        """Until the client was told of it at least once."""
        while uri not in self.uris:
            self.changed = anyio.Event()
            await self.changed.wait()


async def test_a_listening_client_is_told_of_its_run_until_the_end(live: Any) -> None:
    async with live.client("2026-07-28") as client:
        started = await client.call_tool("execute_flow", {"workflow_def": live.flow(live.gate_task())})
        run_id = started.structured_content["run_id"]
        uri = f"flow://runs/{run_id}"
        with anyio.fail_after(20):
            await live.gate.reached.wait()
            async with client.listen(resource_subscriptions=[uri, "flow://scheduler"]) as subscription:
                live.gate.opened.set()
                seen: set[str] = set()
                async for event in subscription:
                    seen.add(event.uri)
                    content = await client.read_resource(uri)
                    if '"state":"completed"' in content.contents[0].text and seen >= {uri, "flow://scheduler"}:
                        break
    assert live.updates.bus.listeners == 0


async def test_a_legacy_client_is_told_of_what_it_subscribed_to_only(live: Any) -> None:
    told = Updates()
    async with live.client("legacy", message_handler=told) as client:
        started = await client.call_tool("execute_flow", {"workflow_def": live.flow(live.gate_task())})
        uri = f"flow://runs/{started.structured_content['run_id']}"
        await client.subscribe_resource(uri)
        with anyio.fail_after(20):
            await live.gate.reached.wait()
            live.gate.opened.set()
            await told.until(uri)
    assert set(told.uris) == {uri}


async def test_the_last_state_is_always_told(live: Any) -> None:
    """However many changes come within a tenth of a second, one notification comes after the last of them."""
    told = Updates()
    tasks = [live.value_task(f"t{number}") for number in range(30)]
    async with live.client("legacy", message_handler=told) as client:
        await client.subscribe_resource("flow://flows")
        with anyio.fail_after(30):
            run = await client.call_tool("execute_flow", {"workflow_def": live.flow(*tasks)})
            run_id = run.structured_content["run_id"]
            while True:
                seen = len(told.uris)
                state = (await live.service.get_run(run_id)).state
                if state == "completed":
                    break
                while len(told.uris) == seen:
                    told.changed = anyio.Event()
                    await told.changed.wait()
    assert told.uris


async def test_an_unsubscribed_client_is_told_no_more_and_leaves_nothing_behind(live: Any) -> None:
    told = Updates()
    async with live.client("legacy", message_handler=told) as client:
        await client.subscribe_resource("flow://flows")
        await client.subscribe_resource("flow://scheduler")
        assert len(live.updates.legacy) == 1
        await client.unsubscribe_resource("flow://flows")
        with anyio.fail_after(20):
            await client.call_tool("execute_flow", {"workflow_def": live.flow(live.value_task()), "wait_s": 20})
            await told.until("flow://scheduler")
        assert "flow://flows" not in told.uris
        await client.unsubscribe_resource("flow://scheduler")
        assert len(live.updates.legacy) == 0


async def test_a_client_that_left_is_forgotten(live: Any) -> None:
    async with live.client("legacy") as client:
        await client.subscribe_resource("flow://flows")
        assert len(live.updates.legacy) == 1
    assert len(live.updates.legacy) == 0


async def test_a_client_that_reads_no_more_holds_up_nobody(live: Any) -> None:
    stuck = anyio.Event()

    async def never_return(message: Any) -> None:
        if isinstance(message, types.ResourceUpdatedNotification):
            stuck.set()
            await anyio.sleep_forever()

    told = Updates()
    async with (
        live.client("legacy", message_handler=never_return) as slow,
        live.client("legacy", message_handler=told) as quick,
    ):
        await slow.subscribe_resource("flow://flows")
        await quick.subscribe_resource("flow://flows")
        with anyio.fail_after(30):
            for number in range(5):
                definition = live.flow(live.value_task(value=number))
                run = await quick.call_tool("execute_flow", {"workflow_def": definition, "wait_s": 20})
                assert run.structured_content["state"] == "completed"
            await stuck.wait()
            await told.until("flow://flows")


async def test_capabilities_tell_each_era_how_it_subscribes(live: Any, era: str) -> None:
    async with live.client(era) as client:
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.subscribe is True


async def test_a_subscription_to_nothing_is_taken_and_one_without_measure_is_refused(live: Any) -> None:
    from mcp.shared.exceptions import MCPError

    async with live.client("legacy") as client:
        await client.subscribe_resource("other://nothing")
        with pytest.raises(MCPError) as caught:
            await client.subscribe_resource("flow://runs/" + "x" * 3000)
    assert caught.value.error.code == -32602


async def test_closing_ends_listeners_gracefully(live: Any) -> None:
    async with live.client("2026-07-28") as client:
        with anyio.fail_after(30):
            async with client.listen(resource_subscriptions=["flow://flows"]) as subscription:
                live.updates.close_streams()
                assert [event async for event in subscription] == []
