"""contexten-flow trigger and contexten-flow notify."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON

Cli = Callable[..., Any]

TASK = {"name": "value", "required_tools": ["data_processor"], "parameters": {"data": [1], "query": "@"}}
FLOW = {"stages": [{"name": "only", "tasks": [TASK]}]}


def on_database(path: Path, work: Callable[[FlowService], Any], *, drive: bool = False) -> Any:
    async def do() -> Any:
        async with FlowService(FlowSettings(database=path), drive=drive) as flows:
            return await work(flows)

    return asyncio.run(do())


@pytest.fixture
def database(desk: Path) -> Path:
    """A database with a flow, on which nothing drives."""
    path = desk / "flow.sqlite3"
    on_database(path, lambda flows: flows.create_flow(flow_id="report", workflow_def=FLOW))
    return path


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a receiver on this machine that takes everything below /yes and refuses the rest."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200 if self.path.startswith("/yes") else 500)
            self.send_header("content-length", "0")
            self.send_header("connection", "close")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("CONTEXTEN_FLOW_ALLOW_HOSTS", "127.0.0.1")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("database")
def test_a_schedule_is_made_shown_stopped_and_deleted(cli: Cli) -> None:
    done = cli(
        "trigger", "create", "cron", "report", "--set", "expression=0 9 * * MON-FRI", "--set", "timezone=Europe/Berlin",
        "--id", "mornings", "--name", "Every morning",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "mornings" in done.out
    assert "Europe/Berlin" in done.out
    [listed] = cli("trigger", "list", "--json").data["triggers"]
    assert (listed["trigger_id"], listed["flow_id"], listed["enabled"]) == ("mornings", "report", True)
    assert listed["config"]["expression"] == "0 9 * * MON-FRI"
    table = cli("trigger", "list")
    assert {"mornings", "cron", "report", "enabled"} <= set(table.out.split())
    assert cli("trigger", "disable", "mornings").out.split() == ["mornings", "disabled"]
    assert "disabled" in cli("trigger", "show", "mornings").out
    assert cli("trigger", "enable", "mornings", "--json").data["enabled"] is True
    assert cli("trigger", "delete", "mornings").code == 0
    gone = cli("trigger", "show", "mornings")
    assert gone.code == 1
    assert "`contexten-flow trigger list`" in gone.err
    assert "no triggers" in cli("trigger", "list").err


@pytest.mark.usefixtures("database")
def test_the_secret_of_a_hook_is_shown_once_with_its_path(cli: Cli) -> None:
    made = cli("trigger", "create", "webhook", "report", "--id", "push")
    assert made.code == 0, made.err
    secret = made.out.partition("secret")[2].split()[0]
    assert secret.startswith("whsec_")
    assert made.out.partition("url")[2].split()[0] == "/hooks/push"
    assert "put the public address of your `contexten-flow serve --transport http` before the url" in made.err
    for again in (cli("trigger", "show", "push"), cli("trigger", "show", "push", "--json"), cli("trigger", "list")):
        assert again.code == 0
        assert secret not in again.out + again.err
    shown = cli("trigger", "show", "push", "--json").data
    assert shown["url"] == "/hooks/push"  # whatever a server listens on, its sender may reach it elsewhere


@pytest.mark.parametrize(
    "known",
    [
        {"PUBLIC_URL": "https://flows.example.com"},
        {"OAUTH_ISSUER": "https://auth.example.com", "OAUTH_RESOURCE": "https://flows.example.com/mcp"},
    ],
)
def test_the_url_of_a_hook_is_of_the_server_as_clients_know_it(
    cli: Cli, database: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, str]
) -> None:
    assert database.exists()
    for name, url in known.items():
        monkeypatch.setenv(f"CONTEXTEN_FLOW_{name}", url)
    made = cli("trigger", "create", "webhook", "report", "--id", "push", "--json").data
    assert made["url"] == "https://flows.example.com/hooks/push"


@pytest.mark.usefixtures("database")
def test_a_test_tells_what_an_event_would_start_and_deliveries_what_became_of_it(cli: Cli) -> None:
    cli("trigger", "create", "webhook", "report", "--id", "push", "--filter", "event.payload.ref == 'main'")
    would = cli("trigger", "test", "push", "--payload", '{"ref": "main"}')
    assert (would.code, would.out.splitlines()[0]) == (0, "a run would start")
    not_so = cli("trigger", "test", "push", "--payload", '{"ref": "other"}')
    assert not_so.code == 1
    assert "nothing would start" in not_so.out
    assert "filter" in not_so.out
    assert "no deliveries" in cli("trigger", "deliveries").err
    listed = cli("trigger", "test", "push", "--payload", '["main"]', "--json")
    assert listed.data["event"]["payload"] == ["main"]
    told = cli("trigger", "test", "push", "--payload", '{"ref": "main"}', "--type", "push", "--start", "--json").data
    delivery_id = told["delivery"]["delivery_id"]
    [waiting] = cli("trigger", "deliveries", "push", "--state", "accepted", "--json").data["deliveries"]
    assert (waiting["delivery_id"], waiting["type"]) == (delivery_id, "push")
    assert delivery_id in cli("trigger", "deliveries").out
    assert cli("trigger", "redeliver", delivery_id).out.split() == [delivery_id, "accepted"]
    lost = cli("trigger", "redeliver", "dlv_none")
    assert lost.code == 1
    assert "`contexten-flow trigger deliveries`" in lost.err


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "corn", "report"), 2, "Did you mean 'cron'?"),
        (("list", "--kind", "corn"), 2, "Did you mean 'cron'?"),
        (("create", "interval", "report"), 2, "an interval trigger takes every_s"),
        (("create", "once", "report", "--set", "at=tomorrow"), 2, "such as '2030-01-01T09:00:00Z'"),
        (("create", "once", "report", "--set", "at=2030-01-01T09:00:00"), 2, "such as '2030-01-01T09:00:00Z'"),
        (("create", "webhook", "nothing"), 1, "contexten-flow save FILE"),
        (("create", "cron", "report"), 2, "/config/expression"),
        (("create", "cron", "report", "--set", "expression"), 2, "NAME=VALUE"),
        (("create", "cron", "report", "--config", "[1]"), 2, "--config takes a JSON object"),
        (("create", "cron", "report", "--config", "{"), 2, "--config is not JSON"),
        (("create", "webhook", "nothing"), 1, "contexten-flow list"),
        (("create", "webhook", "report", "--filter", "evnt.id == 1"), 2, "/filter"),
        (("deliveries", "none"), 1, "trigger list"),
        (("list", "--page", "xyz"), 2, "page"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(cli: Cli, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = cli("trigger", *arguments)
    assert done.code == code, done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ("trigger", ["create", "list", "show", "enable", "disable", "delete", "test", "deliveries", "redeliver"]),
        ("notify", ["create", "list", "enable", "disable", "delete", "test", "dispatches", "retry"]),
    ],
)
def test_every_command_tells_its_exit_codes_and_offers_json(cli: Cli, group: str, commands: list[str]) -> None:
    told = cli(group, "--help").out.split("Commands:")[1]
    assert [line.split()[0] for line in told.splitlines() if line.startswith("  ") and line[2] != " "] == commands
    for command in commands:
        told = cli(group, command, "--help").out
        assert "Exit codes:" in told, command
        assert "--json" in told, command


def test_without_a_database_it_says_how_one_is_made(cli: Cli) -> None:
    done = cli("trigger", "list")
    assert done.code == 3
    assert "no database yet" in done.err
    assert "`contexten-flow save FILE`" in done.err


@pytest.mark.usefixtures("database")
def test_a_wrong_command_line_is_told_once_as_json_too(cli: Cli) -> None:
    done = cli("notify", "create", "--json")
    assert done.code == 2
    assert done.data["error"]["code"] == "usage"
    assert "notify create --help" in done.data["error"]["next"]


@pytest.mark.usefixtures("database")
def test_a_receiver_is_made_tested_listed_and_deleted(cli: Cli, sink: str) -> None:
    made = cli(
        "notify", "create", "webhook", "--url", f"{sink}/yes?key=hidden", "--event", "run.completed", "--tag", "x"
    )
    assert made.code == 0, made.err
    assert "secret  whsec_" in made.out
    [listed] = cli("notify", "list", "--json").data["notifications"]
    notification_id = listed["notification_id"]
    assert (listed["events"], listed["tag"], "secret" in listed) == (["run.completed"], "x", False)
    table = cli("notify", "list").out
    assert notification_id in table
    assert "hidden" not in table
    taken = cli("notify", "test", notification_id)
    assert (taken.code, taken.out) == (0, "taken, with status 200\n")
    assert "no messages" in cli("notify", "dispatches", notification_id).err
    off = cli("notify", "disable", notification_id)
    assert (off.code, off.out.split()) == (0, [notification_id, "disabled"])
    assert "disabled: on request" in cli("notify", "list").out
    assert cli("notify", "enable", notification_id, "--json").data["enabled"] is True
    assert cli("notify", "enable", "ntf_none").code == 1
    assert cli("notify", "delete", notification_id).code == 0
    gone = cli("notify", "test", notification_id)
    assert gone.code == 1
    assert "`contexten-flow notify list`" in gone.err


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("option", ["--flow", "--tag"])
def test_what_a_receiver_has_one_of_is_not_taken_twice(cli: Cli, sink: str, option: str) -> None:
    done = cli("notify", "create", "webhook", "--url", f"{sink}/yes", option, "report", option, "other")
    assert done.code == 2
    assert f"'{option}': give it once" in done.err
    assert "no notifications" in cli("notify", "list").err
    assert cli("notify", "create", "webhook", "--url", f"{sink}/yes", option, "report").code == 0


@pytest.mark.usefixtures("database")
def test_a_receiver_that_refuses_its_test_is_a_failure(cli: Cli, sink: str) -> None:
    made = cli("notify", "create", "webhook", "--url", f"{sink}/no", "--json").data
    done = cli("notify", "test", made["notification_id"], "--json")
    assert (done.code, done.data["ok"], done.data["status"]) == (1, False, 500)
    private = cli("notify", "create", "webhook", "--url", "http://192.168.7.7/")
    assert private.code == 2
    assert "add 192.168.7.7:80 to allow_hosts" in private.err
    assert "did you mean" not in private.err
    metadata = cli("notify", "create", "webhook", "--url", "http://169.254.169.254/latest")
    assert metadata.code == 2
    assert "link-local" in metadata.err
    assert "allow_hosts" not in metadata.err
    wrong = cli("notify", "create", "wbhook", "--url", "https://example.com/")
    assert (wrong.code, "did you mean: webhook" in wrong.err) == (2, True)


@pytest.mark.usefixtures("database")
def test_an_input_that_the_flow_does_not_declare_is_warned_of(cli: Cli, flow_file: Callable[..., str]) -> None:
    inputs = {"type": "object", "properties": {"title": {"type": "string"}}}
    file = flow_file({**TASK, "parameters": {"data": "{{ inputs.title }}", "query": "@"}}, inputs=inputs)
    assert cli("save", file, "--id", "titled").code == 0
    made = cli("trigger", "create", "webhook", "titled", "--inputs", '{"titel": "{{ event.type }}"}')
    assert made.code == 0
    assert "The flow declares no input 'titel'; did you mean 'title'?" in made.err


def test_a_message_that_waits_is_listed_and_retried(cli: Cli, database: Path, sink: str) -> None:
    made = cli("notify", "create", "webhook", "--url", f"{sink}/no", "--event", "run.completed", "--json").data

    async def run(flows: FlowService) -> None:
        tried = asyncio.Event()
        flows.subscribe(lambda change: tried.set() if "notification.retrying" in change.types else None)
        await flows.run_flow(flow_id="report")
        await asyncio.wait_for(tried.wait(), 30)

    on_database(database, run, drive=True)
    [waiting] = cli("notify", "dispatches", made["notification_id"], "--state", "pending", "--json").data["dispatches"]
    assert (waiting["attempts"], waiting["error"]) == (1, "answered 500")
    shown = cli("notify", "dispatches").out
    assert waiting["dispatch_id"] in shown
    assert "answered 500" in shown
    again = cli("notify", "retry", waiting["dispatch_id"], "--json").data
    assert again["next_attempt_at"] < waiting["next_attempt_at"]
    lost = cli("notify", "retry", "dsp_none")
    assert lost.code == 1
    assert "`contexten-flow notify dispatches`" in lost.err


def test_a_trigger_whose_program_does_not_run_says_so(cli: Cli, database: Path) -> None:
    config = {"expression": "0 9 * * *"}
    on_database(
        database,
        lambda flows: flows.triggers.create(
            kind="cron", handler="app.tick", config=config, trigger_id="app.tick", actor=PYTHON
        ),
    )
    assert "unhandled" in cli("trigger", "list").out
    shown = cli("trigger", "show", "app.tick")
    assert "state     unhandled" in shown.out
    assert "nothing fires or starts until a program runs that handles app.tick" in shown.err
    assert cli("trigger", "show", "app.tick", "--json").data["handled"] is False
