"""Whatever others wrote, a terminal shows it and does not obey it; steps told are steps of the command line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from contexten.extensions.flow import FlowManager, FlowSettings
from contexten.extensions.flow.errors import FlowError, IdempotencyConflict, Issue, StoreBusy
from contexten_server.cli.next_steps import next_step
from contexten_server.cli.printable import in_line, json_text, printable
from contexten_server.cli.screen import Screen

SUM = {"name": "sum", "required_tools": ["data_processor"], "parameters": {"data": [1, 2, 3], "query": "sum(@)"}}
HOSTILE = "a\x1b[2J\x1b]0;owned\x07b\x9b31m\u202egnp.exe\u2066c"
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
AGENTS_WORDS = re.compile(r"\b(call|list_flows|get_flow_status|control_flow|execute_flow|update_flow)\b", re.IGNORECASE)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_flows_name_reaches_no_terminal_as_a_command(
    cli: Callable[..., Any], flow_file: Callable[..., str], flags: tuple[str, ...]
) -> None:
    run = cli("run", flow_file(SUM, name="f.json"), "--json").data["run_id"]
    hostile = {"name": HOSTILE, "stages": [{"name": "s", "tasks": [SUM]}], "output": {HOSTILE: HOSTILE}}
    made = cli("run", "-", *flags, stdin=json.dumps(hostile))
    shown = [made, cli("list", "--runs", *flags), cli("cancel", run, "--reason", HOSTILE, *flags)]
    run_id = cli("list", "--runs", "--json").data["runs"][0]["run_id"]
    shown += [cli(command, run_id, *flags) for command in ("status", "logs")]
    shown.append(cli("status", run_id, "--output"))
    for done in shown:
        assert UNSAFE.search(done.out + done.err) is None, done
    assert made.code == 0
    assert shown[-1].data == {HOSTILE: HOSTILE}


def test_a_saved_flows_name_stays_on_its_line_as_it_is_written(cli: Callable[..., Any], desk: Path) -> None:
    name = "x\n\x1by [bold]z[/nothing] :smile:"

    async def save() -> None:
        async with FlowManager(settings=FlowSettings(database=desk / "flow.sqlite3")) as manager:
            await manager.create_flow(name=name, workflow_def={"stages": [{"name": "s", "tasks": [SUM]}]})

    anyio.run(save)
    done = cli("list")
    assert done.code == 0
    assert "x\ufffd\ufffdy [bold]z[/nothing] :smile:" in done.out


def test_lines_stay_in_text_and_not_in_names() -> None:
    assert printable("a\r\nb\tc\rd") == "a\nb\tc\ufffdd"
    assert in_line("a\nb\u2028c") == "a\ufffdb\ufffdc"
    assert json.loads(json_text({"\x7f": "\u202e\ud800"})) == {"\x7f": "\u202e\ud800"}
    assert json_text("\u202e") == '"\\u202e"'


def test_colours_of_our_own_stay_and_markup_of_others_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    screen = Screen()
    screen.__dict__["err"] = type(screen.err)(
        file=stream, force_terminal=True, color_system="standard", markup=False, emoji=False, highlight=False
    )
    assert isinstance(screen.err, Console)
    screen.note("[red]x[/nothing] :smile: \x1b[31m", style="green")
    assert "\x1b[32m[red]x[/nothing] :smile: \ufffd[31m" in stream.getvalue()


def test_steps_after_an_error_are_commands(cli: Callable[..., Any], flow_file: Callable[..., str]) -> None:
    run = cli("run", flow_file(SUM), "--json").data["run_id"]
    asked = flow_file(SUM, name="b.json", inputs={"type": "object", "required": ["x"]})
    shell = flow_file({**SUM, "required_tools": ["shell"], "parameters": {"command": "ls"}}, name="c.json")
    steps = {
        ("status", "nobody"): "`contexten-flow list --runs`",
        ("cancel", run): "`contexten-flow status ID`",
        ("status", run, "--output", "--task", "nobody"): "`contexten-flow status ID`",
        ("run", asked): "--inputs",
        ("run", shell): "`contexten-flow validate FILE`",
        ("run", flow_file(name="d.json")): "`contexten-flow validate FILE",
        ("list", "--runs", "--page", "x"): "--page",
    }
    for command, step in steps.items():
        done = cli(*command, "--json")
        assert done.code != 0
        assert step in done.data["error"]["next"], command
        assert f"next: {done.data['error']['next']}" in done.err
        assert AGENTS_WORDS.search(done.err) is None, done.err


def test_a_step_that_only_an_agent_can_take_is_left_out() -> None:
    assert next_step(FlowError("x", next="Call set_strategy(strategy='priority').")) is None
    assert next_step(IdempotencyConflict("x", next="get_flow_status(run_id='r')")) is not None
    off = Issue(path="/stages/0", code="no_able_agent", message="m")
    assert "doctor" in (next_step(FlowError("x", next="Call list_agents().", issues=[off])) or "")
    assert next_step(StoreBusy("x", next="End that server.")) == "End that server."
    assert next_step(FlowError("x", issues=[Issue(path="", code="unknown_strategy", message="m")])) is not None
