"""Runs of the Prefect engine, as a real Prefect server shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, TaskCall
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.prefect.mirror import Mirror
from contexten.extensions.flow.settings import SecretGrant

from ..prefect_servers import PrefectServer, Tap
from .conftest import Shown

pytestmark = pytest.mark.anyio


class Worker:
    """An agent that logs, fails where it is told, and waits where it is told."""

    name = "worker"
    agent_type = "work"
    tools = ("work",)
    capacity = 50

    def __init__(self) -> None:
        self.reached = anyio.Event()
        self.opened = anyio.Event()

    async def run(self, task: TaskCall, context: AttemptContext) -> Any:
        context.log("warning", f"{task.name} {context.attempt}")
        if context.attempt <= task.parameters.get("fails", 0):
            raise AttemptError("not yet", kind="network")
        if task.parameters.get("waits"):
            self.reached.set()
            await self.opened.wait()
        return task.parameters


def work(name: str, **fields: Any) -> dict[str, Any]:
    parameters = fields.pop("parameters", {})
    return {"name": name, "type": "work", "required_tools": ["work"], "parameters": parameters, **fields}


def flow(*tasks: dict[str, Any], name: str = "A flow", **fields: Any) -> dict[str, Any]:
    return {"name": name, "stages": [{"name": "only", "tasks": list(tasks)}], **fields}


async def test_the_mirror_gets_what_the_runs_leave_of_the_grace(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    aclose = Mirror.aclose

    async def note(self: Mirror, grace_s: float) -> None:
        given.append(grace_s)
        await aclose(self, grace_s)

    monkeypatch.setattr(Mirror, "aclose", note)
    worker = Worker()
    settings = settings.model_copy(update={"stop_grace_s": 0.5})
    async with FlowService(settings, agents=[worker]) as flows:
        await flows.execute_flow(workflow_def=flow(work("long", parameters={"waits": True})))
        await worker.reached.wait()
    (grace_s,) = given
    assert grace_s < 0.3  # the run took the rest


async def test_a_run_and_its_tasks_are_a_flow_run_and_task_runs_with_names_tags_inputs_states_retries_and_logs(
    api: PrefectServer, settings: FlowSettings, shown: Shown
) -> None:
    definition = flow(
        work("flaky", parameters={"fails": 1}),
        work("fan", for_each="[1, 2]"),
        work("optional", when="false"),
        work("after", parameters={"of": "{{ tasks.fan.output }}"}),
        name="Orders/day",
        tags=["shop", "daily"],
        inputs={"type": "object", "properties": {"day": {"type": "string"}}},
    )
    async with FlowService(settings, agents=[Worker()]) as flows:
        run = await flows.run_flow(workflow_def=definition, inputs={"day": "monday"}, framework="prefect")
        assert run.state == "completed"
        flow_run = await shown(run.run_id)
        events = [event for event in await flows.events(run.run_id) if event.type == "run.mirrored"]
    assert flow_run["name"] == run.run_id
    assert api.ask(f"/flows/{flow_run['flow_id']}")["name"] == "Orders-day"
    assert set(flow_run["tags"]) == {"shop", "daily"}
    assert flow_run["parameters"] == {"day": "monday"}
    assert flow_run["flow_version"] == "1"
    assert api.states("flow", flow_run["id"]) == ["Pending", "Running", "Completed"]
    tasks = api.task_runs(flow_run["id"])
    assert set(tasks) == {"flaky", "fan", "fan[0]", "fan[1]", "optional", "after"}
    assert api.states("task", tasks["flaky"]["id"]) == ["Running", "AwaitingRetry", "Retrying", "Completed"]
    assert tasks["flaky"]["run_count"] == 2
    assert tasks["optional"]["state"]["name"] == "Skipped"
    assert {task["state_type"] for task in tasks.values()} == {"COMPLETED"}
    assert tasks["after"]["task_inputs"] == {"upstream": [{"input_type": "task_run", "id": tasks["fan"]["id"]}]}
    lines = [(log["message"], log["level"], log["task_run_id"]) for log in api.logs(flow_run["id"])]
    assert [line[0] for line in lines] == ["flaky 1", "flaky 2", "fan 1", "fan 1", "after 1"]
    assert lines[0] == ("flaky 1", 30, tasks["flaky"]["id"])
    assert lines[-1][2] == tasks["after"]["id"]
    assert [event.details for event in events] == [
        {"url": f"{api.url.removesuffix('/api')}/runs/flow-run/{flow_run['id']}", "flow_run_id": flow_run["id"]}
    ]


async def test_a_failure_is_shown_with_its_kind_and_message(
    api: PrefectServer, settings: FlowSettings, shown: Shown
) -> None:
    async with FlowService(settings, agents=[Worker()]) as flows:
        run = await flows.run_flow(
            workflow_def=flow(work("bad", parameters={"fails": 1}, retry={"max_attempts": 1}), work("after")),
            framework="prefect",
        )
        flow_run = await shown(run.run_id, "Failed")
    tasks = api.task_runs(flow_run["id"])
    assert tasks["bad"]["state"]["message"] == "network: not yet"
    assert flow_run["state"]["message"] == "network: not yet"
    assert tasks["after"]["state"]["name"] == "NotReady"


async def test_a_sub_flow_is_a_flow_run_of_its_own_under_its_task(
    api: PrefectServer, settings: FlowSettings, shown: Shown
) -> None:
    async with FlowService(settings, agents=[Worker()]) as flows:
        await flows.create_flow(workflow_def=flow(work("inner"), name="Child"), flow_id="child")
        parent = flow({"name": "sub", "type": "flow", "parameters": {"flow_id": "child"}})
        run = await flows.run_flow(workflow_def=parent, framework="prefect")
        flow_run = await shown(run.run_id)
        children = [row for row in (await flows.list_runs()).runs if row.parent_run_id == run.run_id]
        child = await shown(children[0].run_id)
    task = api.task_runs(flow_run["id"])["sub"]
    assert child["parent_task_run_id"] == task["id"]
    assert api.states("flow", child["id"]) == ["Pending", "Running", "Completed"]
    assert task["state"]["name"] == "Completed"


async def test_a_paused_run_is_shown_as_paused_and_then_goes_on(
    api: PrefectServer, settings: FlowSettings, shown: Shown
) -> None:
    worker = Worker()
    async with FlowService(settings, agents=[worker]) as flows:
        run = await flows.execute_flow(
            workflow_def=flow(work("held", parameters={"waits": True}), work("after")), framework="prefect"
        )
        await worker.reached.wait()
        await flows.control(run.run_id, "pause")
        worker.opened.set()
        await shown(run.run_id, "Paused")
        await flows.control(run.run_id, "resume")
        flow_run = await shown(run.run_id)
    assert api.states("flow", flow_run["id"]) == [
        "Pending", "Running", "Paused", "Pending", "Running", "Completed",
    ]  # fmt: skip


async def test_a_run_that_is_cancelled_in_prefect_is_cancelled_here(
    api: PrefectServer, settings: FlowSettings, shown: Shown
) -> None:
    worker = Worker()
    async with FlowService(settings, agents=[worker]) as flows:
        run = await flows.execute_flow(workflow_def=flow(work("held", parameters={"waits": True})), framework="prefect")
        await worker.reached.wait()
        flow_run = await shown(run.run_id, "Running")
        api.ask(f"/flow_runs/{flow_run['id']}/set_state", {"state": {"type": "CANCELLING"}})
        with anyio.fail_after(30):
            await flows.wait(run.run_id)
        view = await flows.get_run(run.run_id)
        assert (view.state, view.reason) == ("cancelled", "cancelled in Prefect")
        await shown(run.run_id, "Cancelled")
    assert api.task_runs(flow_run["id"])["held"]["state"]["name"] == "Cancelled"


async def test_an_api_that_vanishes_in_mid_run_delays_what_is_shown_and_neither_run_nor_record(
    prefect_server: PrefectServer, settings: FlowSettings, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    async with Tap(prefect_server.url) as tap:
        monkeypatch.setenv("PREFECT_API_URL", tap.url)
        async with FlowService(settings, agents=[worker]) as flows:
            definition = flow(work("before"), work("held", parameters={"waits": True}), work("after"))
            run = await flows.execute_flow(workflow_def=definition, framework="prefect")
            await shown(run.run_id, "Running")
            await tap.shut()
            worker.opened.set()
            with anyio.fail_after(10):  # no request could be made meanwhile
                await flows.wait(run.run_id)
            assert (await flows.get_run(run.run_id)).state == "completed"
            assert _flow_run(prefect_server, run.run_id)["state"]["name"] == "Running"
            await tap.open()
            flow_run = await shown(run.run_id)
    assert prefect_server.states("flow", flow_run["id"]) == ["Pending", "Running", "Completed"]
    _check_once(prefect_server, flow_run["id"], ["before", "held", "after"])


async def test_no_state_is_shown_twice_where_answers_are_lost_or_the_api_is_busy(
    prefect_server: PrefectServer, settings: FlowSettings, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    async with Tap(prefect_server.url) as tap:
        monkeypatch.setenv("PREFECT_API_URL", tap.url)
        async with FlowService(settings, agents=[worker]) as flows:
            definition = flow(work("before"), work("held", parameters={"waits": True}), work("after"))
            run = await flows.execute_flow(workflow_def=definition, framework="prefect")
            await shown(run.run_id, "Running")
            tap.loses_answers = True
            worker.opened.set()
            await flows.wait(run.run_id)
            await _until(lambda: tap.lost > 0)
            tap.loses_answers, tap.status = False, 503
            await _until(lambda: tap.refused > 0)
            tap.status = None
            flow_run = await shown(run.run_id)
    assert prefect_server.states("flow", flow_run["id"]) == ["Pending", "Running", "Completed"]
    _check_once(prefect_server, flow_run["id"], ["before", "held", "after"])


async def test_a_run_whose_flow_run_is_deleted_in_prefect_goes_on_and_is_shown_no_more(
    api: PrefectServer, settings: FlowSettings, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()
    async with FlowService(settings, agents=[worker]) as flows:
        definition = flow(work("held", parameters={"waits": True}), work("after"))
        run = await flows.execute_flow(workflow_def=definition, framework="prefect")
        await worker.reached.wait()
        flow_run = await shown(run.run_id, "Running")
        deleted = await anyio.to_thread.run_sync(httpx.delete, f"{api.url}/flow_runs/{flow_run['id']}")
        assert deleted.status_code == 204
        worker.opened.set()
        await flows.wait(run.run_id)
        await _until(lambda: f"run {run.run_id} is shown in Prefect no more" in caplog.text)
        assert (await flows.get_run(run.run_id)).state == "completed"
    assert api.flow_run(run.run_id) is None


async def test_the_next_server_goes_on_from_what_prefect_has(
    prefect_server: PrefectServer, settings: FlowSettings, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker()
    async with Tap(prefect_server.url) as tap:
        monkeypatch.setenv("PREFECT_API_URL", tap.url)
        async with FlowService(settings, agents=[worker]) as flows:
            definition = flow(work("before"), work("held", parameters={"waits": True}), work("after"))
            run = await flows.execute_flow(workflow_def=definition, framework="prefect")
            await shown(run.run_id, "Running")
            await tap.shut()
            worker.opened.set()
            await flows.wait(run.run_id)
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    async with FlowService(settings, agents=[Worker()]) as flows:
        flow_run = await shown(run.run_id)
        events = [event.type for event in await flows.events(run.run_id)]
        assert (await flows.verify()).ok
    assert events.count("run.mirrored") == 1
    assert prefect_server.states("flow", flow_run["id"]) == ["Pending", "Running", "Completed"]
    _check_once(prefect_server, flow_run["id"], ["before", "held", "after"])


async def test_of_two_servers_on_a_database_one_tells_prefect(
    api: PrefectServer, settings: FlowSettings, shown: Shown
) -> None:
    async with FlowService(settings, agents=[Worker()]) as one, FlowService(settings, agents=[Worker()]):
        runs = [
            await one.execute_flow(workflow_def=flow(work("first"), work("second")), framework="prefect")
            for _ in range(4)
        ]
        flow_runs = [await shown(run.run_id) for run in runs]
    for flow_run in flow_runs:
        assert api.states("flow", flow_run["id"]) == ["Pending", "Running", "Completed"]
        _check_once(api, flow_run["id"], ["first", "second"])


async def test_a_run_of_another_engine_asks_nothing_of_prefect(
    prefect_server: PrefectServer, settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Tap(prefect_server.url) as tap:
        monkeypatch.setenv("PREFECT_API_URL", tap.url)
        async with FlowService(settings, agents=[Worker()]) as flows:
            await flows.run_flow(workflow_def=flow(work("only")))
            await flows.run_flow(workflow_def=flow(work("only")), framework="native")
        assert tap.requests == 0


async def test_secrets_in_inputs_are_masked(
    api: PrefectServer, tmp_path: Path, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", "sesame-open")
    settings = FlowSettings(database=tmp_path / "flow.sqlite3", secrets=(SecretGrant(name="SHOP_KEY"),))
    async with FlowService(settings, agents=[Worker()]) as flows:
        run = await flows.run_flow(
            workflow_def=flow(work("only"), inputs={"type": "object"}),
            inputs={"key": "sesame-open"},
            framework="prefect",
        )
        flow_run = await shown(run.run_id)
    assert flow_run["parameters"] == {"key": "[secret:SHOP_KEY]"}


def _flow_run(server: PrefectServer, run_id: str) -> dict[str, Any]:
    found = server.flow_run(run_id)
    assert found is not None
    return found


def _check_once(server: PrefectServer, flow_run_id: str, names: list[str]) -> None:
    """Each task ran once, and its one line is there once."""
    tasks = server.task_runs(flow_run_id)
    assert sorted(tasks) == sorted(names)
    for task in tasks.values():
        assert server.states("task", task["id"]) == ["Running", "Completed"]
        assert task["run_count"] == 1
    assert [log["message"] for log in server.logs(flow_run_id)] == [f"{name} 1" for name in names]


async def _until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in another process
            await anyio.sleep(0.05)
