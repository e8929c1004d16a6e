"""The public reference servers as agents in real flows: `make node-tools` installs those of npm, `uv tool run` starts
those of PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow.errors import InvalidDefinition

if TYPE_CHECKING:
    from .conftest import Open

pytestmark = pytest.mark.anyio
NODE_MODULES = Path(__file__).parents[2] / "protocol" / "node" / "node_modules"


def node_server(package: str, *args: str) -> dict[str, Any]:
    """The entry of a server of npm."""
    script = NODE_MODULES / "@modelcontextprotocol" / package / "dist" / "index.js"
    node = NODE_MODULES / ".bin" / "node"
    if not (script.exists() and node.exists()):
        pytest.skip(f"needs @modelcontextprotocol/{package} under tests/protocol/node: run `make node-tools`")
    return {"command": str(node), "args": [str(script), *args], "env": {"PATH": os.environ["PATH"]}}


def python_server(program: str, *args: str) -> dict[str, Any]:
    """The entry of a server of PyPI."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("needs uv")
    command = [uv, "tool", "run", "--quiet", program]
    subprocess.run(
        [*command, "--help"], check=True, timeout=150, stdout=subprocess.DEVNULL
    )  # gets it, before time counts
    return {"command": uv, "args": ["--offline", *command[1:], *args]}


async def test_server_filesystem_writes_and_reads_files_in_a_flow(open_flows: Open, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    note = str(folder / "note.txt")
    flow = {
        "stages": [
            {
                "name": "main",
                "tasks": [
                    {
                        "name": "write",
                        "required_tools": ["mcp:files/write_file"],
                        "parameters": {"path": note, "content": "for {{ inputs.who }}"},
                    },
                    {
                        "name": "read",
                        "depends_on": ["write"],
                        "required_tools": ["mcp:files/read_text_file"],
                        "parameters": {"path": note},
                    },
                ],
            }
        ]
    }
    async with open_flows({"files": node_server("server-filesystem", str(folder))}) as flows:
        run = await flows.service.execute_flow(workflow_def=flow, inputs={"who": "you"})
        view = await flows.end(run.run_id)
        assert view.error is None, view.error
        assert (folder / "note.txt").read_text() == "for you"
        assert isinstance(view.output, dict)
        assert view.output["read"] == {"content": "for you"}
        kind, message = await flows.failure("mcp:files/read_text_file", path="/etc/hostname")
        assert (kind, "outside allowed directories" in message) == ("agent_failure", True)
        with pytest.raises(InvalidDefinition) as refused:
            await flows.start("mcp:files/read_text_file", pth=note)
        assert {issue.code for issue in refused.value.issues} == {"missing_parameter"}


async def test_server_everything_tells_progress_pictures_and_structure(open_flows: Open) -> None:
    async with open_flows({"all": node_server("server-everything")}) as flows:
        assert await flows.output("mcp:all/echo", message="hello") == "Echo: hello"
        structured = await flows.output("mcp:all/get-structured-content", location="Chicago")
        assert {"temperature", "conditions", "humidity"} <= structured.keys()
        parts = await flows.output("mcp:all/get-tiny-image")
        assert [part["type"] for part in parts] == ["text", "image", "text"]
        run_id = await flows.start("mcp:all/trigger-long-running-operation", duration=0.2, steps=2)
        assert (await flows.end(run_id)).error is None
        assert any(line.startswith("progress ") for line in await flows.logs(run_id))


async def test_mcp_server_time_converts_times(open_flows: Open) -> None:
    async with open_flows({"time": python_server("mcp-server-time", "--local-timezone", "UTC")}) as flows:
        output = await flows.output(
            "mcp:time/convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo"
        )
        assert output["target"]["datetime"].endswith("T21:00:00+09:00")


async def test_mcp_server_git_tells_a_repositorys_state(open_flows: Open, tmp_path: Path) -> None:
    entry = python_server("mcp-server-git")
    repository = tmp_path / "repository"
    await anyio.run_process(["git", "init", "-q", str(repository)])
    async with open_flows({"git": entry}) as flows:
        assert "No commits yet" in await flows.output("mcp:git/git_status", repo_path=str(repository))
