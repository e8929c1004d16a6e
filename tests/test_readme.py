"""What the README and the documents show is true: their snippets run, their tables match the program."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from mcp import Client, StdioServerParameters

from contexten import ContextenApp, StartFlow
from contexten.extensions.flow.settings import FlowSettings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CONTEXTEN_APP = ROOT / "docs" / "contexten-app.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SETTINGS = re.compile(r"(<!-- settings:begin -->\n)(.*?)(<!-- settings:end -->)", re.DOTALL)

_OFTEN_CHANGED = [
    "database",
    "durability",
    "max_concurrent_flows",
    "allow_hosts",
    "allow_paths",
    "allow_commands",
    "allow_functions",
    "secrets",
    "log_level",
    "model",
    "model_base_url",
    "mcp_servers",
]


def _blocks(document: Path, language: str) -> list[tuple[str | None, str]]:
    found = _BLOCK.findall(document.read_text(encoding="utf-8"))
    return [(name or None, text) for lang, name, text in found if lang == language]


@pytest.fixture
def desk(tmp_path: Path) -> dict[str, str]:
    """An environment in which the commands of this installation work on a folder and a database of their own."""
    for name, text in _blocks(README, "json"):
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CONTEXTEN_FLOW_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CONTEXTEN_FLOW_DATABASE": str(tmp_path / "flow.sqlite3"),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "PYTHONWARNINGS": "error",
    }


def _run(command: list[str], desk: dict[str, str]) -> subprocess.CompletedProcess[str]:
    folder = Path(desk["HOME"])
    return subprocess.run(command, cwd=folder, env=desk, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("document", [README, CONTEXTEN_APP], ids=lambda document: document.name)
def test_every_python_snippet_runs(desk: dict[str, str], document: Path) -> None:
    snippets = _blocks(document, "python")
    for name, text in snippets:
        if name:  # a module that others import
            (Path(desk["HOME"]) / name).write_text(text, encoding="utf-8")
    programs = [text for name, text in snippets if not name]
    assert programs
    for program in programs:
        done = _run([sys.executable, "-c", program], desk)
        assert done.returncode == 0, done.stderr
        assert "completed" in done.stdout, done.stdout


def test_what_is_said_of_an_app_in_words_is_awaited_where_it_must_be_and_only_there() -> None:
    programs = [*DOCUMENTS, *(ROOT / "examples").rglob("*.py")]
    said = {
        (path.name, call[2], bool(call[1]))
        for path in programs
        for call in re.finditer(r"\b(await )?app\.(\w+)\(", path.read_text(encoding="utf-8"))
    }
    assert len(said) >= 5
    for where, name, is_awaited in sorted(said):
        assert is_awaited == inspect.iscoroutinefunction(getattr(ContextenApp, name)), (where, name)


def test_every_field_of_start_flow_is_in_its_table_and_no_other() -> None:
    section = CONTEXTEN_APP.read_text(encoding="utf-8").split("## What an event starts")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert listed == [field.name for field in dataclasses.fields(StartFlow)]


def test_every_command_that_the_readme_shows_succeeds(desk: dict[str, str]) -> None:
    commands = [line for _, text in _blocks(README, "sh") for line in text.splitlines() if line.strip()]
    assert len(commands) > 5
    for command in commands:
        assert command.startswith("contexten-flow ")
        done = _run(["bash", "-c", command], desk)
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_the_readmes_flow_answers_what_it_says(desk: dict[str, str]) -> None:
    done = _run(["contexten-flow", "run", "hello.json", "--json", "--inputs", '{"names": ["Ada", "Grace"]}'], desk)
    assert json.loads(done.stdout)["output"] == {"greetings": ["Hello, Ada!", "Hello, Grace!"], "count": 2}


def test_the_readmes_entry_is_the_one_in_mcp_json() -> None:
    entries = [json.loads(text) for _, text in _blocks(README, "json")]
    assert json.loads((ROOT / "mcp.json").read_text(encoding="utf-8")) in entries


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_json_and_toml_snippet_is_well_formed(document: Path) -> None:
    for _, text in _blocks(document, "json"):
        json.loads(text)
    for _, text in _blocks(document, "toml"):
        tomllib.loads(text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_readmes_python_leaves_the_users_database_alone(desk: dict[str, str]) -> None:
    for _, snippet in _blocks(README, "python"):
        _run([sys.executable, "-c", snippet], desk)
    assert not Path(desk["CONTEXTEN_FLOW_DATABASE"]).exists()


def test_the_configuration_file_of_the_documents_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((name, text),) = [block for block in _blocks(ROOT / "docs" / "configuration.md", "toml") if block[0]]
    assert name == "contexten-flow.toml"
    (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFIG", str(tmp_path / name))
    settings = FlowSettings()
    assert settings.max_concurrent_flows == 20
    assert [grant.name for grant in settings.secrets] == ["GITHUB_TOKEN"]


def _row(name: str) -> str:
    field = FlowSettings.model_fields[name]
    if name == "database":
        default = "in the user's data folder"
    elif field.default in ((), None) or field.default_factory is dict:
        default = "none"
    else:
        default = f"`{field.default}`"
    return f"| `{name}` | {default} | {field.description or 'how much is told on standard error'} |"


def _table(names: list[str]) -> str:
    return "\n".join(["| setting | default | meaning |", "| --- | --- | --- |", *map(_row, names)]) + "\n"


@pytest.mark.parametrize(
    ("document", "names"),
    [(README, _OFTEN_CHANGED), (ROOT / "docs" / "configuration.md", list(FlowSettings.model_fields))],
    ids=["readme", "configuration"],
)
def test_the_table_of_settings_is_what_the_program_reads(document: Path, names: list[str]) -> None:
    """CONTEXTEN_UPDATE_DOCS=1 writes it anew."""
    text = document.read_text(encoding="utf-8")
    if os.environ.get("CONTEXTEN_UPDATE_DOCS") == "1":
        text = _SETTINGS.sub(lambda match: match[1] + _table(names) + match[3], text)
        document.write_text(text, encoding="utf-8")
    found = _SETTINGS.search(text)
    assert found is not None
    assert found[2] == _table(names)


@pytest.mark.anyio
async def test_the_readme_lists_the_tools_that_the_server_offers(desk: dict[str, str]) -> None:
    serve = StdioServerParameters(command="contexten-flow", args=["serve"], env=desk, cwd=desk["HOME"])
    with anyio.fail_after(60):
        async with Client(serve) as client:
            offered = [tool.name for tool in (await client.list_tools()).tools]
    section = README.read_text(encoding="utf-8").split("## Tools")[1].split("## ")[0]
    assert re.findall(r"^\| ([a-z]+_[a-z_]+) \| ", section, re.MULTILINE) == offered


@pytest.mark.anyio
async def test_what_mcp_json_names_starts_and_answers(desk: dict[str, str], tmp_path: Path) -> None:
    """The stdio entry is started as a host would; the HTTP entry is reached after `serve --transport http`."""
    entries = json.loads((ROOT / "mcp.json").read_text(encoding="utf-8"))["mcpServers"]
    stdio, http = entries["contexten-flow"], entries["contexten-flow-http"]
    with anyio.fail_after(60):
        serve = StdioServerParameters(command=stdio["command"], args=stdio["args"], env=desk, cwd=tmp_path)
        async with Client(serve) as client:
            assert "create_flow" in {tool.name for tool in (await client.list_tools()).tools}
        address = urlsplit(http["url"])
        async with _serving_http(desk, address) as url, Client(url) as client:
            assert "create_flow" in {tool.name for tool in (await client.list_tools()).tools}


@asynccontextmanager
async def _serving_http(desk: dict[str, str], address: SplitResult) -> AsyncIterator[str]:
    """The server of `--transport http` on its default port, or, where another program has that one, on a free one."""
    port = address.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        chosen: int = probe.getsockname()[1]
    command = ["contexten-flow", "serve", "--transport", "http"]
    if chosen != port:
        command += ["--port", str(chosen)]
    async with await anyio.open_process(command, env=desk, cwd=desk["HOME"], stderr=subprocess.PIPE) as server:
        try:
            await _listens(server)
            yield address._replace(netloc=f"127.0.0.1:{chosen}").geturl()
        finally:
            server.terminate()


async def _listens(server: Process) -> None:
    """Until the server says so; raises EndOfStream where it ends before."""
    assert server.stderr is not None
    told = TextReceiveStream(server.stderr)
    text = ""
    while "listening on" not in text:
        text += await told.receive()


def test_the_example_flow_runs_with_its_inputs(desk: dict[str, str]) -> None:
    flow = ROOT / "examples" / "order-checks.json"
    inputs = flow.with_suffix(".inputs.json")
    done = _run(["contexten-flow", "run", str(flow), "--inputs", f"@{inputs}", "--json"], desk)
    assert json.loads(done.stdout)["output"] == {"total": 440.75, "review": ["A3"]}


@pytest.mark.parametrize("program", sorted((ROOT / "examples").glob("*.py")), ids=lambda program: program.name)
def test_every_example_program_runs(desk: dict[str, str], program: Path) -> None:
    done = _run([sys.executable, str(program)], desk)
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout
