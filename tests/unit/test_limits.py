"""Pools and limits: whatever is submitted and however it ends, no more than they allow is under way."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from pydantic import ValidationError

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import InvalidArguments

if TYPE_CHECKING:
    from tests.unit.conftest import Driven, EndOf, Turnstile

pytestmark = pytest.mark.anyio


def turn(name: str = "turn", **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "t", "required_tools": ["turn"], "retry": {"max_attempts": 1}, **fields}


def flow(*tasks: dict[str, Any], parallel: bool = False, **fields: Any) -> dict[str, Any]:
    mode = "parallel" if parallel else "sequential"
    return {"stages": [{"name": "only", "execution_mode": mode, "tasks": list(tasks)}], **fields}


def limited(settings: FlowSettings, **fields: Any) -> FlowSettings:
    return FlowSettings(**{**settings.model_dump(), "durability": "process", **fields})


async def drain(flows: FlowService, turnstile: Turnstile, end_of: EndOf, runs: list[str], most: int) -> None:
    """Let runs through one by one; at most so many of them may be under way at any time."""
    for done in range(len(runs)):
        under_way = [run_id for run_id in (await turnstile.has_come(done + 1)) if run_id in runs]
        assert len(under_way) - done <= most
        turnstile.let_through(under_way[done])
        await end_of(flows, under_way[done])
    assert sorted(run_id for run_id in turnstile.came if run_id in runs) == sorted(runs)


def test_pools_and_limits_are_read_as_name_and_size(settings: FlowSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_POOLS", "gpu=2, licences=0.5")
    monkeypatch.setenv("CONTEXTEN_FLOW_FLOW_LIMITS", "nightly=1")
    monkeypatch.setenv("CONTEXTEN_FLOW_TAG_LIMITS", "slow=3")
    read = FlowSettings()
    assert read.pools == {"gpu": 2.0, "licences": 0.5}
    assert (read.flow_limits, read.tag_limits) == ({"nightly": 1.0}, {"slow": 3.0})


@pytest.mark.parametrize("wrong", ["gpu", "gpu=many", "gpu=-1", "=2", "gpu=1e10", "gpu=nan"])
def test_a_size_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_POOLS", wrong)
    with pytest.raises(ValidationError, match="pools"):
        FlowSettings()


async def test_an_unknown_pool_is_refused_with_the_pools_there_are(settings: FlowSettings, driven: Driven) -> None:
    async with driven(limited(settings, pools={"gpu": 2, "licences": 1})) as flows:
        await flows.create_flow(flow_id="one", workflow_def=flow(turn(resources={"gpus": 1})))
        with pytest.raises(InvalidArguments, match="'gpus'; the pools are: gpu, licences") as caught:
            await flows.execute_flow(flow_id="one")
        assert (await flows.list_runs()).runs == []
    issue = caught.value.issues[0]
    assert (issue.path, issue.code, issue.suggestion) == ("/resources/gpus", "unknown_pool", "gpu")
    assert "POOLS" in (caught.value.next or "")


async def test_a_pool_too_small_for_what_may_run_at_once_is_refused(settings: FlowSettings, driven: Driven) -> None:
    async with driven(limited(settings, pools={"gpu": 2})) as flows:
        three = [turn(name, resources={"gpu": 1}) for name in "abc"]
        with pytest.raises(InvalidArguments, match="may need 3 of the resource pool 'gpu' at once; it has 2"):
            await flows.execute_flow(workflow_def=flow(*three, parallel=True))
        fan = turn(resources={"gpu": 1}, for_each="{{ [1, 2, 3, 4] }}", max_parallel=3)
        with pytest.raises(InvalidArguments, match="may need 3"):
            await flows.execute_flow(workflow_def=flow(fan))
        run = await flows.execute_flow(workflow_def=flow(*three))  # one after the other
        await flows.control(run.run_id, "cancel")


@pytest.mark.parametrize("strategy", ["fifo", "priority", "resource_aware", "load_balanced", "deadline_aware"])
async def test_a_pool_bounds_the_runs_under_way_under_every_strategy(
    settings: FlowSettings,
    driven: Driven,
    turnstile: Turnstile,
    end_of: EndOf,
    strategy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda: 0.0)
    async with driven(limited(settings, pools={"gpu": 2}, strategy=strategy)) as flows:
        await flows.create_flow(flow_id="one", workflow_def=flow(turn(resources={"gpu": 1})))
        runs = [(await flows.execute_flow(flow_id="one")).run_id for _ in range(12)]
        await turnstile.has_come(2)
        await drain(flows, turnstile, end_of, runs, 2)


async def test_a_flow_s_limit_holds_with_100_runs_and_hides_nothing_behind_them(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(limited(settings, flow_limits={"slow": 1}, max_concurrent_flows=3)) as flows:
        await flows.create_flow(flow_id="slow", workflow_def=flow(turn()))
        await flows.create_flow(flow_id="other", workflow_def=flow(turn()))
        runs = [(await flows.execute_flow(flow_id="slow")).run_id for _ in range(100)]
        others = [(await flows.execute_flow(flow_id="other")).run_id for _ in range(3)]
        assert set(await turnstile.has_come(3)) == {runs[0], *others[:2]}
        view = await flows.get_run(runs[99])
        assert (view.state, view.held_by) == ("scheduled", "flow:slow")
        why = await flows.explain(run_id=runs[1])
        assert f"the limit of flow 'slow' (1 run at once; held by {runs[0]})" in why.summary
        for run_id in others:
            turnstile.let_through(run_id)
            await end_of(flows, run_id)
        turnstile.open()
        for run_id in runs:
            assert (await end_of(flows, run_id)).state == "completed"
        assert (await flows.verify()).problems == []
        events = [event for event in await flows.events(limit=5000) if event.run_id in runs]
    assert [run_id for run_id in turnstile.came if run_id in runs] == runs
    under_way = most = 0
    for event in events:
        under_way += (event.type == "run.running") - (event.type == "run.completed")
        most = max(most, under_way)
    assert most == 1


async def test_a_tag_s_limit_is_shared_by_its_flows_and_holds_over_a_restart(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    chosen = limited(settings, tag_limits={"warehouse": 2}, stop_grace_s=0.0)
    async with FlowService(chosen, agents=[turnstile]) as flows:
        for name in "ab":
            await flows.create_flow(flow_id=name, workflow_def=flow(turn(), tags=["warehouse", "nightly"]))
        runs = [(await flows.execute_flow(flow_id=name)).run_id for name in "ababab"]
        await turnstile.has_come(2)
        why = await flows.explain(run_id=runs[3])
        assert "the limit of tag 'warehouse' (2 runs at once; held by" in why.summary
    turnstile.came.clear()
    async with driven(chosen.model_copy(update={"tag_limits": {}})) as flows:  # the database remembers it
        assert set(await turnstile.has_come(2)) == set(runs[:2])
        await drain(flows, turnstile, end_of, runs, 2)


async def test_a_size_of_0_takes_a_limit_away_at_the_next_start(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with FlowService(limited(settings, flow_limits={"slow": 1}, stop_grace_s=0.0), agents=[turnstile]) as flows:
        await flows.create_flow(flow_id="slow", workflow_def=flow(turn()))
        runs = [(await flows.execute_flow(flow_id="slow")).run_id for _ in range(5)]
        await turnstile.has_come(1)
    turnstile.came.clear()
    async with driven(limited(settings, flow_limits={"slow": 0})) as flows:
        assert set(await turnstile.has_come(5)) == set(runs)
        turnstile.open()
        for run_id in runs:
            await end_of(flows, run_id)


async def test_a_run_gives_its_pool_back_while_it_is_paused_and_waits_for_it_again(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(limited(settings, pools={"gpu": 1})) as flows:
        two = flow(turn("first", resources={"gpu": 1}), turn("second", resources={"gpu": 1}))
        first, second = [(await flows.execute_flow(workflow_def=two)).run_id for _ in range(2)]
        await turnstile.has_come(1)
        await flows.control(first, "pause")
        turnstile.let_through(first)
        assert (await turnstile.has_come(2))[1] == second
        await flows.control(first, "resume")
        why = await flows.explain(run_id=first)
        assert f"1 of pool 'gpu' (it has 1; held by {second})" in why.summary
        turnstile.open()
        for run_id in (first, second):
            assert (await end_of(flows, run_id)).state == "completed"


async def test_a_sub_flow_shares_its_parent_s_slot_and_its_own_demands_and_limits_do_not_count(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    chosen = limited(settings, pools={"gpu": 1}, flow_limits={"child": 1}, max_concurrent_flows=2)
    async with driven(chosen) as flows:
        await flows.create_flow(flow_id="child", workflow_def=flow(turn(resources={"gpu": 1})))
        call = {"name": "call", "type": "flow", "parameters": {"flow_id": "child"}}
        parents = [(await flows.execute_flow(workflow_def=flow(call))).run_id for _ in range(2)]
        await turnstile.has_come(2)  # of both children at once: what their parents' own tasks declare counts, no more
        turnstile.open()
        for run_id in parents:
            assert (await end_of(flows, run_id)).state == "completed"


async def test_what_a_rerun_demands_is_counted_too(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf
) -> None:
    async with driven(limited(settings, pools={"gpu": 1})) as flows:
        failed = (await flows.execute_flow(workflow_def=flow(turn(resources={"gpu": 1})))).run_id
        turnstile.fails.add(failed)
        turnstile.let_through(failed)
        await end_of(flows, failed)
        holder = (await flows.execute_flow(workflow_def=flow(turn(resources={"gpu": 1})))).run_id
        await turnstile.has_come(2)
        again = (await flows.control(failed, "retry")).run_id
        why = await flows.explain(run_id=again)
        assert f"held by {holder}" in why.summary
        turnstile.open()
        assert (await end_of(flows, again)).state == "completed"


async def test_a_queued_run_tells_its_place_and_when_it_will_probably_start(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf, clock: Any
) -> None:
    async with driven(limited(settings, max_concurrent_flows=1), clock=clock) as flows:
        await flows.create_flow(flow_id="known", workflow_def=flow(turn()))
        first = (await flows.execute_flow(flow_id="known")).run_id
        await turnstile.has_come(1)
        await clock.advance(100)
        turnstile.let_through(first)
        await end_of(flows, first)
        runs = [(await flows.execute_flow(flow_id="known")).run_id for _ in range(3)]
        await turnstile.has_come(2)
        await clock.advance(40)
        now = clock.timestamp()
        for place, run_id in enumerate(runs[1:]):
            why = await flows.explain(run_id=run_id)
            assert why.waiting_for == [f"a free slot (max_concurrent_flows is 1; held by {runs[0]})"]
            ahead = "1 run" if place == 1 else f"{place} runs"
            assert f"Queued behind {ahead} (fifo)" in why.summary
            told, basis = why.summary.split("probably start at ")[1].split(" ", 1)
            assert datetime.fromisoformat(told).timestamp() - now == pytest.approx(60 + 100 * place, abs=2)
            assert basis == "(from how long such runs took)."
        await clock.advance(100)  # longer than any before
        late = [(await flows.explain(run_id=run_id)).summary for run_id in runs[1:]]
        assert "It should have started by now; what runs now takes longer than expected" in late[0]
        assert " at the earliest; what runs now takes longer than expected" in late[1]


async def test_the_start_of_a_run_behind_one_without_history_is_said_to_be_a_guess(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(limited(settings, max_concurrent_flows=1)) as flows:
        await flows.create_flow(flow_id="new", workflow_def=flow(turn()))
        await flows.execute_flow(flow_id="new")
        await turnstile.has_come(1)
        run = await flows.execute_flow(flow_id="new")
        assert "(a guess from the declared complexity)" in (await flows.explain(run_id=run.run_id)).summary
        effect = (await flows.set_strategy("priority", dry_run=True)).effect
        assert "How long the runs take is a guess from the declared complexity." in effect
        turnstile.open()
        await flows.wait(run.run_id)
        assert "a guess" not in (await flows.set_strategy("priority", dry_run=True)).effect


async def test_the_deadline_of_a_queued_run_counts_the_wait_and_is_explained(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf, clock: Any
) -> None:
    async with driven(limited(settings, max_concurrent_flows=1), clock=clock) as flows:
        await flows.create_flow(flow_id="known", workflow_def=flow(turn()))
        first = (await flows.execute_flow(flow_id="known")).run_id
        await turnstile.has_come(1)
        await clock.advance(100)
        turnstile.let_through(first)
        await end_of(flows, first)
        await flows.execute_flow(flow_id="known")
        await turnstile.has_come(2)
        for deadline, slack_s in ((150, -50), (350, 50)):  # it starts in 100 s, or after the other in 200 s; takes 100
            run_id = (await flows.execute_flow(flow_id="known", deadline=deadline)).run_id
            view = (await flows.get_run(run_id)).deadline
            assert view is not None
            assert view.slack_s == pytest.approx(slack_s, abs=2)
            assert view.at_risk is (slack_s < 0)
            why = await flows.explain(run_id=run_id)
            assert view.at in why.summary
            assert ("will probably be missed" in why.summary) is view.at_risk
            assert [warning.code for warning in why.warnings] == ["deadline_at_risk"] * view.at_risk


async def test_a_deadline_that_passes_before_the_start_is_at_risk_whatever_the_run_takes(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile
) -> None:
    async with driven(limited(settings, max_concurrent_flows=1)) as flows:
        await flows.create_flow(flow_id="long", workflow_def=flow(turn(complexity=10)))
        await flows.create_flow(flow_id="new", workflow_def=flow(turn()))
        await flows.execute_flow(flow_id="long")
        await turnstile.has_come(1)
        at_risk = []
        for deadline in (1.0, 3600.0):
            view = (await flows.get_run((await flows.execute_flow(flow_id="new", deadline=deadline)).run_id)).deadline
            assert view is not None
            at_risk.append(view.at_risk)
        assert at_risk == [True, None]


async def test_with_a_free_slot_a_queued_run_says_that_no_server_drives_the_database(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(flow_id="one", workflow_def=flow({"name": "t"}))
        run = await flows.execute_flow(flow_id="one")
        why = await flows.explain(run_id=run.run_id)
    assert "no server runs on this database" in why.summary
    assert why.waiting_for == ["a server: a slot is free"]


async def test_a_dry_run_shows_every_strategy_and_changes_nothing(
    settings: FlowSettings, driven: Driven, turnstile: Turnstile, end_of: EndOf, clock: Any
) -> None:
    async with driven(limited(settings, max_concurrent_flows=1), clock=clock) as flows:
        await flows.create_flow(flow_id="short", workflow_def=flow(turn()))
        for _ in range(3):
            run_id = (await flows.execute_flow(flow_id="short")).run_id
            with anyio.fail_after(30):
                while run_id not in turnstile.came:
                    await anyio.lowlevel.checkpoint()
            await clock.advance(10)
            turnstile.let_through(run_id)
            await end_of(flows, run_id)
        await flows.execute_flow(flow_id="short")
        await turnstile.has_come(4)
        queued = [(await flows.execute_flow(flow_id="short", deadline=deadline)).run_id for deadline in (90, 80, 25)]
        before = await flows.events(limit=5000)
        change = await flows.set_strategy("deadline_aware", dry_run=True)
        assert await flows.events(limit=5000) == before
        assert (await flows.scheduler()).strategy == "fifo"
        assert (await flows.scheduler()).next_runs == queued
        other = await flows.set_strategy(max_concurrent_flows=4, dry_run=True)
    forecast = change.forecast
    assert forecast is not None
    assert change.dry_run is True
    assert (forecast.runs, forecast.from_history, forecast.queued, forecast.slots) == (7, 3, 3, 1)
    found = {figures.strategy: figures for figures in forecast.strategies}
    assert found["fifo"].missed_deadlines == 1
    assert found["deadline_aware"].missed_deadlines == 0
    assert forecast.recommended == "deadline_aware"
    assert "missed deadlines 0 (fifo: 1)" in forecast.reason
    assert "deadline_aware would have a mean wait of" in change.effect
    assert other.forecast is not None
    assert other.forecast.slots == 4
    assert all(figures.mean_wait_s == 0 for figures in other.forecast.strategies)
