"""What is built can be installed anywhere and works from any directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FLOW = {
    "name": "Sum",
    "stages": [
        {
            "name": "only",
            "tasks": [
                {
                    "name": "sum",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": [1, 2, 3], "query": "sum(@)"},
                }
            ],
        }
    ],
}


def _run(command: list[str], cwd: Path, **env: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CONTEXTEN_FLOW_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=clean | env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and a source distribution, built from a copy, so that nothing but the sources can be in them."""
    folder = tmp_path_factory.mktemp("build")
    copy = folder / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile"):
        shutil.copy(ROOT / name, copy)
    for name in ("constraints.txt", "mcp.json"):
        shutil.copy(ROOT / name, copy)
    leave = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in ("orchestrator", "server", "tools", "resources", "docs", "examples"):
        shutil.copytree(ROOT / name, copy / name, ignore=leave)
    # Without isolation: the build backend is the tested one, from this environment.
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(copy)], cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("contexten_flow-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a fresh environment that has only the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("fresh")
    _run([sys.executable, "-m", "venv", str(folder / "env")], cwd=folder)
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip = [str(programs / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], cwd=folder)
    return programs


def test_the_wheel_holds_what_is_not_python_too(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("contexten", "contexten_server", "contexten_tools", "contexten_resources"):
        assert f"{package}/py.typed" in names
    flow = "contexten/extensions/flow"
    assert any(name.startswith(f"{flow}/store/migrations/") and name.endswith(".sql") for name in names)
    assert any(name.startswith(f"{flow}/reference/") and name.endswith(".md") for name in names)
    assert "contexten_server/cli/demo/seattle-weather.csv" in names
    assets = (ROOT / "server" / "contexten_server" / "dashboard" / "assets").rglob("*.*")
    assert {file.relative_to(ROOT / "server").as_posix() for file in assets} <= set(names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.startswith("contexten")} == set()


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    roots = [ROOT / name for name in ("orchestrator", "server", "tools", "resources")]
    sources = {str(file.relative_to(root)) for root in roots for file in root.rglob("*.py")}
    assert sources <= names


def test_the_source_distribution_builds_the_same_wheel(dist: Path, wheel: Path, tmp_path: Path) -> None:
    (archive,) = dist.glob("contexten_flow-*.tar.gz")
    with tarfile.open(archive) as unpacked:
        unpacked.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    _run([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "out", "."], cwd=folder)
    (again,) = (folder / "out").glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_installed_program_tells_its_version_from_any_directory(installed: Path, tmp_path: Path) -> None:
    assert _run([str(installed / "contexten-flow"), "--version"], cwd=tmp_path) == "contexten-flow 0.1.0\n"


def test_the_installed_program_runs_a_flow(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "sum.json").write_text(json.dumps(FLOW), encoding="utf-8")
    command = [str(installed / "contexten-flow"), "run", "sum.json", "--json", "--db", "here.sqlite3"]
    answer = json.loads(_run(command, cwd=tmp_path, PYTHONWARNINGS="error"))
    assert (answer["state"], answer["output"]) == ("completed", {"sum": 6})


@pytest.mark.anyio
async def test_the_installed_server_lists_its_tools_over_stdio(installed: Path, tmp_path: Path) -> None:
    serve = StdioServerParameters(
        command=str(installed / "contexten-flow"), args=["serve", "--db", str(tmp_path / "flow.sqlite3")], cwd=tmp_path
    )
    with anyio.fail_after(60):
        async with Client(serve) as client:
            assert "execute_flow" in {tool.name for tool in (await client.list_tools()).tools}


def test_the_installed_program_tells_the_demonstration(installed: Path, tmp_path: Path) -> None:
    proof = json.loads(_run([str(installed / "contexten-flow"), "demo", "--json"], cwd=tmp_path))
    assert proof["verify"]["ok"] is True
    assert sorted(task["requests"] for task in proof["crash"]["tasks"]) == [1, 1, 1, 1, 1, 1, 1, 2]


def test_uvx_runs_the_wheel_without_an_installation(wheel: Path, tmp_path: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv is not installed")
    command = [uv, "tool", "run", "--python", sys.executable, "--constraints", str(ROOT / "constraints.txt")]
    command += ["--from", str(wheel), "contexten-flow", "--version"]
    told = _run(command, cwd=tmp_path, UV_CACHE_DIR=str(tmp_path / "cache"), UV_TOOL_DIR=str(tmp_path / "tools"))
    assert told == "contexten-flow 0.1.0\n"
