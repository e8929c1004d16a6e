"""Attempts on a work pool, made by a worker in this process through a real Prefect server."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.agents import AttemptContext, TaskCall
from contexten.extensions.flow.agents.protocol import Ending
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.prefect import tracking, worker
from contexten.extensions.flow.prefect.api import PrefectApi
from contexten.extensions.flow.prefect.configuration import ApiAddress
from contexten.extensions.flow.prefect.connection import Connection
from contexten.extensions.flow.prefect.pool import PoolAgent
from contexten.extensions.flow.prefect.publication import FLOW, pool_state
from contexten.extensions.flow.settings import SecretGrant

from ..prefect_servers import PrefectServer, Tap
from .conftest import LEASE_TTL_S, Told, about, call, state_of, submitting, working

pytestmark = pytest.mark.anyio

Agent = AbstractAsyncContextManager[PoolAgent]


class Held:
    """An agent that begins and waits to be let go."""

    name = "held"
    tools = ("hold",)
    capacity = 100

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.go = anyio.Event()
        self.was_cut_off = anyio.Event()
        self.times = 0

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        self.times += 1
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.was_cut_off.set()
            raise
        return {"made": self.times}


async def _eventually(server: PrefectServer, key: str, state: str) -> None:
    with anyio.fail_after(30):
        while await anyio.to_thread.run_sync(state_of, server, key) != state:  # noqa: ASYNC110 - of another process
            await anyio.sleep(0.1)


async def test_a_worker_makes_attempts_with_its_own_settings(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"allow_paths": (tmp_path,)})
    async with working(server.url, pool, settings), agent as it:
        path = str(tmp_path / "out.txt")
        output = await it.run(call("file_writer", parameters={"path": path, "content": "ü"}), about())
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "ü"
    assert output["path"] == path


async def test_a_failure_keeps_its_kind_its_details_and_its_tool(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    class Busy:
        name = "busy"
        tools = ("ask",)

        async def run(self, task: TaskCall, context: AttemptContext) -> Any:
            context.tool = "ask"
            raise AttemptError("come back later", kind="rate_limit", details={"retry_after_s": 7})

    context = about()
    async with working(server.url, pool, settings, [Busy()]), agent as it:
        with pytest.raises(AttemptError) as caught:
            await it.run(call("ask"), context)
        with pytest.raises(AttemptError, match="nobody there offers nonsense") as unable:
            await it.run(call("nonsense"), about())
    assert (caught.value.message, caught.value.kind) == ("come back later", "rate_limit")
    assert (caught.value.details, context.tool) == ({"retry_after_s": 7}, "ask")
    assert unable.value.kind == "invalid"
    assert state_of(server, context.attempt_id) == "FAILED"


async def test_lines_and_entries_reach_the_journal_in_order_while_the_attempt_is_made(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    held = Held()

    class Talker:
        name = "talker"
        tools = ("talk",)

        async def run(self, task: TaskCall, context: AttemptContext) -> Any:
            for number in range(250):
                context.log("info", f"line {number}")
            context.record("task.tool_called", {"tool": "t", "ok": True, "ms": 1})
            context.record("task.usage", {"model": "m", "input_tokens": 3, "output_tokens": 4})
            await held.go.wait()
            context.log("error", "last")
            return None

    told = Told()
    async with working(server.url, pool, settings, [Talker()]), agent as it, anyio.create_task_group() as group:
        group.start_soon(it.run, call("talk"), about(told))
        await told.until("line 249")
        held.go.set()
    lines = [(level, message) for level, message in told.lines if "work pool" not in message]
    assert lines == [*(("info", f"line {number}") for number in range(250)), ("error", "last")]
    assert told.entries == [
        ("task.tool_called", {"tool": "t", "ok": True, "ms": 1}),
        ("task.usage", {"model": "m", "input_tokens": 3, "output_tokens": 4}),
    ]


async def test_long_data_goes_both_ways(server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings) -> None:
    data = ['ü\\"\n' * 300_000, {"{{ x }}": {"__prefect_kind": "jinja", "template": "{{ 1 }}"}}]
    async with working(server.url, pool, settings), agent as it:
        output = await it.run(call("data_processor", parameters={"data": data, "query": "@"}), about())
    assert output == data


async def test_what_is_around_a_task_reaches_an_agent_that_is_no_tool(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    seen: list[Any] = []

    class Reader:
        name = "reader"
        agent_type = "reader"
        tools = ("read",)

        async def run(self, task: TaskCall, context: AttemptContext) -> Any:
            seen.append((task.upstream, task.flow_name, context.inputs, context.item_index, context.attempt))
            return task.description

    task = call("read", type="reading", description="Read it.", upstream={"before": [1]}, flow_name="A flow")
    async with working(server.url, pool, settings, [Reader()]), agent as it:
        assert await it.run(task, about(inputs={"x": 1}, item_index=2, attempt=3)) == "Read it."
    assert seen == [({"before": [1]}, "A flow", {"x": 1}, 2, 3)]


async def test_secrets_are_put_in_place_on_the_worker_and_prefect_never_sees_them(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "correct-horse-battery"
    seen: list[Any] = []

    class Keeper:
        name = "keeper"
        tools = ("keep",)

        async def run(self, task: TaskCall, context: AttemptContext) -> Any:
            seen.append(task.parameters)
            context.log("info", f"it is {value}")
            if task.parameters.get("fail"):
                raise RuntimeError(f"not {value}")
            return {"told": value}

    monkeypatch.setenv("API_KEY", value)
    settings = settings.model_copy(
        update={"secrets": (SecretGrant(name="API_KEY", tools=("keep",)), SecretGrant(name="OTHER", tools=("else",)))}
    )
    told, context = Told(), about()
    context.log_sink = told.log
    async with working(server.url, pool, settings, [Keeper()]), agent as it:
        refer = it.traits.secrets
        assert callable(refer)
        reference = refer("API_KEY")
        parameters = {"header": f"Bearer {reference}", "innocent": reference, "fail": False}
        task = call("keep", parameters=parameters, secrets={"header": frozenset({"API_KEY"})})
        output = await it.run(task, context)
        task.parameters["fail"] = True
        with pytest.raises(AttemptError, match=r"RuntimeError: not \[secret:API_KEY\]"):
            await it.run(task, about())
        other = call("keep", parameters={"a": refer("OTHER")}, secrets={"a": frozenset({"OTHER"})})
        with pytest.raises(AttemptError, match="OTHER may not be handed to agent keeper"):
            await it.run(other, about())
        changed = call("keep", parameters={"a": reference.upper()}, secrets={"a": frozenset({"API_KEY"})})
        with pytest.raises(AttemptError, match="'a' computes with a secret"):
            await it.run(changed, about())
    assert seen[0]["header"] == f"Bearer {value}"
    assert seen[0]["innocent"] == reference  # nothing was rendered with a secret there
    assert output == {"told": "[secret:API_KEY]"}
    assert ("info", "it is [secret:API_KEY]") in told.lines
    flow_run = server.flow_run(context.attempt_id)
    assert flow_run is not None
    of_run = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
    everything = [flow_run, server.logs(flow_run["id"]), server.ask("/artifacts/filter", of_run)]
    assert value not in json.dumps(everything)


async def test_the_same_attempt_is_found_again_and_not_repeated(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    held, context = Held(), about()
    async with working(server.url, pool, settings, [held]):
        async with submitting(server.url, pool) as before, anyio.create_task_group() as group:
            group.start_soon(before.run, call("hold"), about(attempt_id=context.attempt_id))
            await held.began.wait()
            group.cancel_scope.cancel()  # as a server that stops
        held.go.set()
        async with agent as it:
            assert await it.run(call("hold"), context) == {"made": 1}
            assert await it.run(call("hold"), context) == {"made": 1}  # ended already
    assert held.times == 1


async def test_a_cancelled_attempt_is_ended_on_the_worker(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    held, context = Held(), about()
    async with working(server.url, pool, settings, [held]), agent as it:
        async with anyio.create_task_group() as group:
            group.start_soon(it.run, call("hold"), context)
            await held.began.wait()
            context.end(Ending.CANCELLED)
            group.cancel_scope.cancel()
        with anyio.fail_after(10):
            await held.was_cut_off.wait()
        await _eventually(server, context.attempt_id, "CANCELLED")


async def test_an_attempt_that_waits_for_a_worker_says_so_and_can_be_cancelled(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "NOTICE_S", 0.1)
    async with working(server.url, pool, settings):
        pass  # it made the pool, and is gone
    told = Told()
    context = about(told)
    async with agent as it:
        async with anyio.create_task_group() as group:
            group.start_soon(it.run, call(), context)
            await told.until(f"start one: contexten-flow worker --pool {pool}")
            context.end(Ending.TIMED_OUT)
            group.cancel_scope.cancel()
        await _eventually(server, context.attempt_id, "CANCELLED")


async def test_an_unknown_pool_is_told_with_how_to_make_it(agent: Agent, pool: str) -> None:
    async with agent as it:
        with pytest.raises(AttemptError, match=f"prefect work-pool create {pool} --type process") as caught:
            await it.run(call(), about())
    assert caught.value.kind == "invalid"


class Plain:
    name = "plain"
    tools = ("answer",)
    capacity = 100

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        return "made"


async def test_a_deployment_that_somebody_deletes_is_made_again(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    async with working(server.url, pool, settings, [Plain()]), agent as it:
        for _ in range(2):
            assert await it.run(call("answer"), about()) == "made"
            deployment = server.ask(f"/deployments/name/{FLOW}/{pool}")
            server.delete(f"/deployments/{deployment['id']}")
        await it.reinitialize()
        assert await it.run(call("answer"), about()) == "made"
        assert len(it._sessions) == 1


async def test_a_worker_outlives_its_pool(
    server: PrefectServer, pool: str, settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, greeted = anyio.Event(), anyio.Event()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is gone" in record.getMessage():
                gone.set()

    say_hello = worker.PoolWorker._say_hello

    async def greet(self: worker.PoolWorker, client: Any) -> None:
        if gone.is_set():
            greeted.set()
        await say_hello(self, client)

    monkeypatch.setattr(worker, "_HEARTBEAT_S", 1)
    monkeypatch.setattr(worker.PoolWorker, "_say_hello", greet)
    handler = Listening()
    worker.logger.addHandler(handler)
    try:
        async with working(server.url, pool, settings, [Plain()]):
            server.delete(f"/work_pools/{pool}")
            with anyio.fail_after(30):
                await gone.wait()
                await greeted.wait()
            server.ask("/work_pools/", {"name": pool, "type": "process"})
            async with submitting(server.url, pool) as it:
                with anyio.fail_after(60):
                    assert await it.run(call("answer"), about()) == "made"
    finally:
        worker.logger.removeHandler(handler)


async def test_an_api_that_is_somewhere_else_now_is_found_while_attempts_go_on_at_the_old_address(
    server: PrefectServer, pool: str, settings: FlowSettings
) -> None:
    held = Held()
    async with (
        Tap(server.url) as old,
        Tap(server.url) as new,
        working(server.url, pool, settings, [held, Plain()]),
        anyio.create_task_group() as group,
    ):
        url = old.url

        async def api() -> PrefectApi:
            return PrefectApi(ApiAddress(url=url))

        it = PoolAgent(pool, api, SystemClock(), lease_ttl_s=LEASE_TTL_S)
        outputs: list[Any] = []

        async def attempt() -> None:
            outputs.append(await it.run(call("hold"), about()))

        try:
            group.start_soon(attempt)
            await held.began.wait()
            url = new.url
            assert await it.run(call("answer"), about()) == "made"
            assert new.requests > 0
            held.go.set()
            with anyio.fail_after(30):
                while not outputs:  # noqa: ASYNC110 - its end is told by another process
                    await anyio.sleep(0.05)
            await old.shut()
            assert await it.run(call("answer"), about()) == "made"
            assert [session.connection.api.address.url for session in it._sessions] == [new.url]
        finally:
            await it.aclose()
    assert outputs == [{"made": 1}]


async def test_a_submission_ends_with_the_agent_though_its_attempt_ended_before(
    server: PrefectServer, pool: str, settings: FlowSettings
) -> None:
    async with working(server.url, pool, settings, [Plain()]):
        pass  # it made the pool
    told = Told()
    async with Tap(server.url) as tap, submitting(tap.url, pool) as it:
        await it._opened(about())
        tap.status = 503
        running = asyncio.create_task(it.run(call("answer"), about(told)))
        await told.until("Trying again")
        running.cancel()  # as a server that stops
        await asyncio.wait([running])
        assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(f"{it.name}: submit")]
    assert not [task.get_name() for task in asyncio.all_tasks() if it.name in task.get_name()]


async def test_a_flow_run_that_somebody_cancels_in_prefect_is_not_tried_again(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    held, context = Held(), about()

    async def cancel() -> None:
        await held.began.wait()
        flow_run = await anyio.to_thread.run_sync(server.flow_run, context.attempt_id)
        assert flow_run is not None
        state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
        await anyio.to_thread.run_sync(server.ask, f"/flow_runs/{flow_run['id']}/set_state", state)

    async with working(server.url, pool, settings, [held]), agent as it, anyio.create_task_group() as group:
        group.start_soon(cancel)
        with pytest.raises(AttemptError, match="cancelled in Prefect") as caught:
            await it.run(call("hold"), context)
    assert caught.value.kind == "invalid"
    assert held.was_cut_off.is_set()


async def test_a_worker_that_is_stopped_gives_its_attempts_back(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    held = Held()
    async with agent as it, anyio.create_task_group() as group:
        failures: list[AttemptError] = []

        async def attempt() -> None:
            try:
                await it.run(call("hold"), about())
            except AttemptError as error:
                failures.append(error)

        async with working(server.url, pool, settings, [held]):
            group.start_soon(attempt)
            await held.began.wait()
    assert [(error.kind, "The worker was stopped." in error.message) for error in failures] == [("interrupted", True)]


async def test_no_attempt_is_made_by_two_workers(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    made: list[str] = []

    class Counter:
        name = "counter"
        tools = ("count",)
        capacity = 100

        async def run(self, task: TaskCall, context: AttemptContext) -> Any:
            made.append(context.attempt_id)
            return context.attempt_id

    contexts = [about() for _ in range(12)]
    outputs: list[Any] = []
    async with (
        working(server.url, pool, settings, [Counter()], concurrency=3),
        working(server.url, pool, settings, [Counter()], concurrency=3),
        agent as it,
    ):
        async with anyio.create_task_group() as group:
            for context in contexts:
                group.start_soon(_collect, it, context, outputs)
        state = await _pool_state(server, pool)
    assert sorted(made) == sorted(context.attempt_id for context in contexts) == sorted(outputs)
    assert (state.type, len(state.workers_online), state.is_paused) == ("process", 2, False)


async def _collect(it: PoolAgent, context: AttemptContext, outputs: list[Any]) -> None:
    outputs.append(await it.run(call("count"), context))


async def _pool_state(server: PrefectServer, pool: str) -> Any:
    async with Connection(PrefectApi(ApiAddress(url=server.url)), SystemClock()) as connection:
        return await pool_state(connection, pool)


@pytest.mark.parametrize("trouble", ["vanishes", "answers 503"])
async def test_an_api_that_is_away_in_mid_attempt_loses_nothing(
    server: PrefectServer, pool: str, settings: FlowSettings, trouble: str
) -> None:
    held, told = Held(), Told()
    outputs: list[Any] = []
    async with Tap(server.url) as tap, working(tap.url, pool, settings, [held]), submitting(tap.url, pool) as it:

        async def attempt() -> None:
            outputs.append(await it.run(call("hold"), about(told)))

        async with anyio.create_task_group() as group:
            group.start_soon(attempt)
            await held.began.wait()
            if trouble == "vanishes":
                await tap.shut()
            else:
                tap.status = 503
            await told.until("Following the attempt goes on when it answers again")
            held.go.set()  # the verdict cannot be told now
            await anyio.lowlevel.checkpoint()
            if trouble == "vanishes":
                await tap.open()
            tap.status = None
    assert outputs == [{"made": 1}]
    assert ("info", "Prefect's API answers again.") in told.lines


async def test_an_api_that_stays_away_fails_the_attempt_as_network(
    server: PrefectServer, pool: str, settings: FlowSettings
) -> None:
    held = Held()
    async with (
        Tap(server.url) as tap,
        working(server.url, pool, settings, [held]),
        submitting(tap.url, pool, patience_s=1.0) as it,
        anyio.create_task_group() as group,
    ):

        async def cut() -> None:
            await held.began.wait()
            await tap.shut()

        group.start_soon(cut)
        with pytest.raises(AttemptError, match="cannot be reached") as caught:
            await it.run(call("hold"), about())
        held.go.set()
    assert caught.value.kind == "network"


async def test_refused_credentials_fail_the_attempt_at_once(
    server: PrefectServer, pool: str, settings: FlowSettings
) -> None:
    async with Tap(server.url, bearer="key") as tap, submitting(tap.url, pool) as it:
        with pytest.raises(AttemptError, match="refuses the credentials") as caught:
            await it.run(call(), about())
    assert caught.value.kind == "invalid"


async def test_a_task_that_takes_too_long_is_ended_by_the_worker_though_nobody_follows_it(
    server: PrefectServer, pool: str, agent: Agent, settings: FlowSettings
) -> None:
    held = Held()
    async with working(server.url, pool, settings, [held]), agent as it:
        with pytest.raises(AttemptError, match=r"timeout_s = 0\.2") as caught:
            await it.run(call("hold"), about(timeout_s=0.2))
    assert caught.value.kind == "timeout"
    assert held.was_cut_off.is_set()
