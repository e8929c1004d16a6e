"""Whatever a run was doing when its process died, it goes on with that, and no more than that."""

from __future__ import annotations

import json

from .conftest import World
from .flows import CHILD, stage, subflow, wait, work

PAIR = {"stages": [stage("s", work("first"), work("second"), work("third"))]}
NESTED = {"stages": [stage("s", work("before"), subflow("sub", "child", n=1), work("behind"))]}


def test_a_task_cut_off_by_a_crash_is_run_again_and_counted(world: World) -> None:
    world.live(["create", "f", PAIR], ["execute", "f"], ["begun", "second"], ["die"], held=["second"])
    world.run_to_the_end()
    assert world.states("f") == ["completed"]
    assert world.task("second")[:3] == ("completed", 2, 1)
    assert [world.times_done(task) for task in ("first", "second", "third")] == [1, 2, 1]
    assert len(world.attempt_ids("second")) == 1  # so that its effects can be recognised as the same


def test_an_orderly_stop_counts_as_no_interruption(world: World) -> None:
    world.live(["create", "f", PAIR], ["execute", "f"], ["begun", "second"], held=["second"])
    for _ in range(2):
        life = world.live(["begun", "second"], held=["second"])
        assert life.status == 0, world.log()
    world.run_to_the_end()
    assert world.task("second")[:3] == ("completed", 1, 0)
    assert world.attempt_ids("second") == {next(iter(world.attempt_ids("second"))): 4}


def test_orderly_stops_before_the_restart_take_no_try_away(world: World) -> None:
    world.live(["create", "f", PAIR], ["execute", "f"], ["begun", "second"], held=["second"])
    for _ in range(3):  # nothing is restarted in these
        world.live(kill={"at": "commit", "number": 2, "side": "before"})
    world.live(["die"])
    world.run_to_the_end()
    state, attempts, interruptions, _ = world.task("second")
    assert state == "completed"
    assert attempts - interruptions == 1


def test_the_fifth_crash_of_a_task_fails_it_and_the_server_lives(world: World) -> None:
    poison = {"stages": [stage("s", work("poison", does={"die": True}), work("behind"))]}
    life = world.live(["create", "f", poison], ["execute", "f"], ["finish"])
    for _ in range(4):
        assert life.was_killed
        life = world.live(["finish"])
    assert life.was_killed
    world.run_to_the_end()
    assert world.states("f") == ["failed"]
    assert world.task("poison")[:3] == ("failed", 5, 5)
    ((error,),) = world.rows("SELECT error FROM tasks WHERE task = 'poison'")
    assert json.loads(error)["kind"] == "interrupted"
    assert world.times_done("poison") == 5
    assert world.task("behind")[0] == "skipped"


def test_a_neighbour_of_a_poison_task_pays_for_its_own_interruptions_only(world: World) -> None:
    flow = {"stages": [stage("s", work("innocent"), work("poison", does={"die": True}))]}
    world.live(["create", "f", flow], ["execute", "f"], ["finish"])
    for _ in range(4):
        world.live(["finish"])
    world.run_to_the_end()
    assert world.task("innocent")[:3] == ("completed", 1, 0)


def test_on_interrupt_fail_fails_the_task_at_the_first_crash(world: World) -> None:
    flow = {"stages": [stage("s", work("once", on_interrupt="fail"), work("behind"))]}
    world.live(["create", "f", flow], ["execute", "f"], ["begun", "once"], ["die"], held=["once"])
    world.run_to_the_end()
    assert world.states("f") == ["failed"]
    assert world.task("once")[:3] == ("failed", 1, 1)
    assert world.times_done("once") == 1


def test_on_interrupt_fail_does_not_mean_an_orderly_stop(world: World) -> None:
    flow = {"stages": [stage("s", work("once", on_interrupt="fail"))]}
    world.live(["create", "f", flow], ["execute", "f"], ["begun", "once"], held=["once"])
    world.run_to_the_end()
    assert world.task("once")[:3] == ("completed", 1, 0)


def test_a_for_each_runs_only_its_unfinished_items_again(world: World) -> None:
    flow = {
        "stages": [stage("s", work("fan", for_each="{{ [1, 2, 3, 4, 5] }}", max_parallel=2, does={"held_items": [3]}))]
    }
    flow["stages"][0]["tasks"][0]["parameters"]["value"] = "{{ item }}"
    world.live(
        ["create", "f", flow], ["execute", "f"], ["item_state", "f", "fan", 4, "completed"], ["die"], held=["fan"]
    )
    world.run_to_the_end()
    assert [output["value"] for output in world.output("f")["fan"]] == [1, 2, 3, 4, 5]
    assert world.times_done("fan") == 6
    interruptions = {key[2]: row[2] for key, row in world.tasks().items()}
    assert interruptions == {-1: 0, 0: 0, 1: 0, 2: 0, 3: 1, 4: 0}


def test_a_retry_that_was_due_later_is_made_later_and_keeps_its_number(world: World) -> None:
    flow = {"stages": [stage("s", work("shaky", retry={"delay_s": 2, "jitter": 0}, does={"failures": 1}))]}
    world.live(["create", "f", flow], ["execute", "f"], ["task_state", "f", "shaky", "retrying"], ["die"])
    ((due,),) = world.rows("SELECT wake_at FROM tasks")
    world.run_to_the_end()
    assert world.task("shaky")[:3] == ("completed", 2, 0)
    ((again,),) = world.rows("SELECT at FROM events WHERE type = 'task.running' AND attempt = 2")
    assert again >= due


def test_a_wait_goes_on_to_its_recorded_time(world: World) -> None:
    flow = {"stages": [stage("s", wait("pause", 2), work("behind"))]}
    world.live(["create", "f", flow], ["execute", "f"], ["state", "f", "waiting"], ["die"])
    ((due,),) = world.rows("SELECT wake_at FROM tasks WHERE task = 'pause'")
    world.run_to_the_end()
    assert world.states("f") == ["completed"]
    assert world.rows("SELECT count(*) FROM events WHERE type = 'task.waiting'") == [(1,)]
    ((ended,),) = world.rows("SELECT ended_at FROM tasks WHERE task = 'pause'")
    assert ended >= due


def test_a_wait_in_a_sub_flow_wakes_the_whole_after_a_crash(world: World) -> None:
    child = {"stages": [stage("c", wait("pause", 2), work("inner"))]}
    flow = {"stages": [stage("s", subflow("sub", "child"), work("behind"))]}
    world.live(["create", "child", child], ["create", "f", flow], ["execute", "f"], ["state", "f", "waiting"], ["die"])
    assert set(world.states("child")) == {"waiting"}
    world.run_to_the_end()
    assert world.states("f") == world.states("child") == ["completed"]
    assert world.times_done("inner") == 1


def test_a_sub_flow_goes_on_inside_its_parent(world: World) -> None:
    world.live(
        ["create", "child", CHILD],
        ["create", "f", NESTED],
        ["execute", "f"],
        ["task_state", "child", "c_right", "completed"],
        ["die"],
        held=["c_left"],
    )
    assert world.states("f") == world.states("child") == ["running"]
    world.run_to_the_end()
    assert world.states("f") == world.states("child") == ["completed"]
    assert world.times_done("c_right") == 2  # two tries, both before the crash
    assert world.task("c_left")[:3] == ("completed", 2, 1)


def test_a_sub_flow_survives_an_orderly_stop_of_its_parent(world: World) -> None:
    world.live(
        ["create", "child", CHILD], ["create", "f", NESTED], ["execute", "f"], ["begun", "c_left"], held=["c_left"]
    )
    world.run_to_the_end()
    assert world.states("f") == world.states("child") == ["completed"]
    assert world.task("c_left")[:3] == ("completed", 1, 0)


def test_a_paused_run_stays_paused_over_a_crash_and_goes_on_when_resumed(world: World) -> None:
    world.live(
        ["create", "f", PAIR],
        ["execute", "f"],
        ["begun", "second"],
        ["control", "f", "pause"],
        ["die"],
        held=["second"],
    )
    world.live(["state", "f", "paused"], ["die"])
    ended = world.effects()
    assert world.states("f") == ["paused"]
    world.run_to_the_end()
    assert world.states("f") == ["paused"]
    assert world.effects() == ended
    world.live(["control", "f", "resume"], ["finish"])
    assert world.states("f") == ["completed"]
    assert [world.times_done(task) for task in ("first", "second", "third")] == [1, 2, 1]


def test_a_pause_asked_for_before_a_crash_is_obeyed_after_it(world: World) -> None:
    world.live(
        ["create", "f", PAIR],
        ["execute", "f"],
        ["begun", "second"],
        ["control", "f", "pause"],
        ["die"],
        held=["second"],
    )
    world.live(["state", "f", "paused"], ["verify"])
    assert world.states("f") == ["paused"]
    assert world.times_done("third") == 0
    world.live(["control", "f", "resume"], ["finish"], ["verify"])
    assert world.states("f") == ["completed"]
    assert world.task("second")[:3] == ("completed", 2, 1)


def test_a_pause_with_a_sub_flow_in_flight_is_obeyed_after_a_crash(world: World) -> None:
    world.live(
        ["create", "child", CHILD],
        ["create", "f", NESTED],
        ["execute", "f"],
        ["begun", "c_left"],
        ["control", "f", "pause"],
        ["die"],
        held=["c_left"],
    )
    begun = world.times_done("c_left")
    world.live(["state", "f", "paused"], ["verify"])
    assert world.states("f") == world.states("child") == ["paused"]
    assert world.times_done("c_left") == begun  # a pause starts none
    world.live(["control", "f", "resume"], ["finish"])
    world.run_to_the_end()
    assert world.states("f") == world.states("child") == ["completed"]


def test_a_cancellation_asked_for_before_a_crash_is_carried_out_after_it(world: World) -> None:
    flow = {"stages": [stage("s", work("clings", does={"cling": True}), work("behind"))]}
    world.live(["create", "f", flow], ["execute", "f"], ["begun", "clings"], ["control", "f", "cancel"], ["die"])
    assert world.states("f") == ["running"]
    world.run_to_the_end()
    assert world.states("f") == ["cancelled"]
    assert world.times_done("clings") == 1
    assert world.task("clings")[0] == world.task("behind")[0] == "cancelled"


def test_a_cancellation_after_a_crash_ends_the_sub_flow_too(world: World) -> None:
    world.live(
        ["create", "child", CHILD],
        ["create", "f", NESTED],
        ["execute", "f"],
        ["begun", "c_left"],
        ["die"],
        held=["c_left"],
    )
    world.live(["control", "f", "cancel"], ["finish"], ["verify"], held=["c_left"])
    assert world.states("f") == world.states("child") == ["cancelled"]


def test_a_cancel_request_killed_before_it_reached_the_sub_flow_ends_both(world: World) -> None:
    child = {"stages": [stage("c", work("clings", does={"cling": True}))]}
    world.live(
        ["create", "child", child],
        ["create", "f", NESTED],
        ["execute", "f"],
        ["begun", "clings"],
        ["control", "f", "cancel"],
        ["die"],
        cancel_grace_s=30,
    )
    world.run_to_the_end()
    assert world.states("f") == world.states("child") == ["cancelled"]
    assert world.times_done("clings") == 1


def test_a_run_out_of_time_while_nobody_lived_fails_when_somebody_does(world: World) -> None:
    flow = {"stages": [stage("s", work("long"), work("behind"))], "context": {"timeout": 3}}
    world.live(["create", "f", flow], ["execute", "f"], ["begun", "long"], ["die"], held=["long"])
    world.live(["finish"], ["verify"], held=["long"])
    assert world.states("f") == ["failed"]
    ((error,),) = world.rows("SELECT error FROM runs")
    assert json.loads(error)["kind"] == "timeout"


def test_queued_runs_survive_and_start_in_their_order(world: World) -> None:
    world.live(
        ["create", "f", {"stages": [stage("s", work("only"))]}],
        *([["execute", "f"]] * 6),
        ["begun", "only"],
        ["die"],
        held=["only"],
        max_concurrent_flows=1,
    )
    assert sorted(world.states("f")) == ["running", *["scheduled"] * 5]
    world.run_to_the_end(max_concurrent_flows=1)
    started = [run for (run,) in world.rows("SELECT run_id FROM runs ORDER BY started_at")]
    assert started == world.acknowledged
    assert world.times_done("only") == 7


def test_a_stop_right_after_an_answer_keeps_the_run(world: World) -> None:
    for _ in range(5):
        life = world.live(["create", "f", PAIR], ["execute", "f"], stop_grace_s=0)
        assert life.status == 0, world.log()
    world.run_to_the_end()
    assert world.states("f") == ["completed"] * 5
    assert all(row[2] == 0 for row in world.tasks().values())  # nobody crashed
