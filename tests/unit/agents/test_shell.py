from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.outside import command

pytestmark = pytest.mark.anyio

Run = Callable[..., Coroutine[Any, Any, Any]]


@pytest.fixture
def shell(run_tools: Run) -> Run:
    async def run(*argv: str, settings: dict[str, Any] | None = None, **parameters: Any) -> Any:
        allowed = {"allow_commands": ("sh", "cat", "missing-program", sys.executable), **(settings or {})}
        with anyio.fail_after(20):
            return await run_tools("shell", settings=allowed, argv=list(argv), **parameters)

    return run


async def failure(call: Coroutine[Any, Any, Any]) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await call
    return caught.value


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def ends(pid: int) -> None:
    """Returns when the process is gone."""
    with anyio.fail_after(30):
        while is_running(pid):
            await anyio.lowlevel.checkpoint()


async def written(path: Path) -> str:
    """The file's content, when it has any."""
    with anyio.fail_after(30):
        while not (path.exists() and path.read_text().endswith("\n")):
            await anyio.lowlevel.checkpoint()
    return path.read_text()


async def test_output_and_exit_code_come_back(shell: Run) -> None:
    assert await shell("sh", "-c", "echo out; echo err >&2") == {"exit_code": 0, "stdout": "out\n", "stderr": "err\n"}


async def test_nothing_in_the_arguments_is_expanded(shell: Run) -> None:
    script = "import sys; print(sys.argv[1:])"
    answer = await shell(sys.executable, "-c", script, "$HOME; rm -rf *", "`id`", "")
    assert answer["stdout"] == "['$HOME; rm -rf *', '`id`', '']\n"


async def test_standard_input_is_given_and_otherwise_empty(shell: Run) -> None:
    assert (await shell("cat", stdin="text"))["stdout"] == "text"
    assert (await shell("cat", stdin={"a": 1}))["stdout"] == '{"a":1}'
    assert (await shell("cat"))["stdout"] == ""


async def test_a_pipeline_feeds_the_output_before(run_tools: Run) -> None:
    output = await run_tools("json_parser", "shell", settings={"allow_commands": ("cat",)}, text="[1, 2]", argv=["cat"])
    assert output["stdout"] == "[1,2]"


async def test_a_command_that_does_not_read_its_input_is_no_failure(shell: Run) -> None:
    assert (await shell("sh", "-c", "exit 0", stdin="x" * 5_000_000))["exit_code"] == 0


async def test_an_exit_code_fails_the_attempt_unless_it_is_accepted(shell: Run) -> None:
    error = await failure(shell("sh", "-c", "echo out; echo why >&2; exit 3"))
    assert error.kind == "agent_failure"
    assert error.details == {"exit_code": 3, "stdout": "out\n", "stderr": "why\n"}
    assert "exit code 3" in error.message
    assert "why" in error.message
    assert (await shell("sh", "-c", "exit 3", accept_exit_codes=[0, 3]))["exit_code"] == 3


async def test_a_signal_shows_as_a_negative_exit_code(shell: Run) -> None:
    error = await failure(shell("sh", "-c", "kill -9 $$"))
    assert error.details is not None
    assert error.details["exit_code"] == -9


@pytest.mark.parametrize("argv", [["ls"], ["/bin/sh", "-c", "id"], ["../sh"], ["sh "], [""], ["SH"]])
async def test_a_command_that_is_not_allowed_by_that_very_name_is_refused(shell: Run, argv: list[str]) -> None:
    error = await failure(shell(*argv))
    assert error.kind == "invalid"
    assert "CONTEXTEN_FLOW_ALLOW_COMMANDS" in error.message


async def test_an_allowed_command_that_is_not_installed_says_so(shell: Run) -> None:
    error = await failure(shell("missing-program"))
    assert error.kind == "invalid"
    assert "not installed" in error.message


async def test_arguments_that_the_system_cannot_take_are_invalid(shell: Run) -> None:
    assert (await failure(shell("cat", "a\0b"))).kind == "invalid"
    assert (await failure(shell("cat", *["x" * 100_000] * 100))).kind == "invalid"


async def test_nothing_of_the_servers_environment_but_the_basics_is_passed_on(
    shell: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_TOKENS", "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    script = "import os; print(sorted(os.environ))"
    answer = await shell(sys.executable, "-c", script, env={"MINE": "1"})
    names = set(eval(answer["stdout"]))
    assert "MINE" in names
    assert names <= {"MINE", "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ"}


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "PATH", "A=B", ""])
async def test_variables_that_decide_what_is_loaded_are_refused(shell: Run, name: str) -> None:
    assert (await failure(shell("cat", env={name: "x"}))).kind == "invalid"


async def test_without_a_folder_it_runs_in_an_empty_one_that_is_removed(shell: Run) -> None:
    answer = await shell("sh", "-c", "pwd; ls -A; touch left")
    (folder,) = answer["stdout"].split()
    assert not Path(folder).exists()
    assert folder != str(Path.cwd())


async def test_a_folder_must_be_below_the_allowed_ones(shell: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    settings = {"allow_paths": (tmp_path / "in",)}
    assert (await shell("sh", "-c", "pwd", settings=settings, cwd="."))["stdout"] == f"{tmp_path / 'in'}\n"
    assert (await failure(shell("cat", settings=settings, cwd=".."))).kind == "invalid"
    assert (await failure(shell("cat", settings=settings, cwd="missing"))).kind == "invalid"


async def test_a_flood_is_read_to_its_end_and_cut(shell: Run) -> None:
    script = "import sys; sys.stdout.write('x' * (5 << 20)); sys.stderr.write('y' * (3 << 20))"
    answer = await shell(sys.executable, "-c", script)
    assert answer["stdout"].startswith("x" * command.MAX_OUTPUT_BYTES)
    assert answer["stdout"].endswith(f"[truncated: {4 << 20} bytes more than {1 << 20}]")
    assert len(answer["stdout"]) < (1 << 20) + 100
    assert answer["stderr"].endswith(f"[truncated: {2 << 20} bytes more than {1 << 20}]")


async def test_output_that_is_not_unicode_becomes_text(shell: Run) -> None:
    answer = await shell(sys.executable, "-c", r"import sys; sys.stdout.buffer.write(b'a\xff\xed\xa0\x80')")
    answer["stdout"].encode()
    assert answer["stdout"].startswith("a\ufffd")


async def test_a_timeout_ends_the_command_and_its_children(shell: Run, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 1000 & echo $! $$ > {pids}; wait"
    error = await failure(shell("sh", "-c", script, timeout_s=4))
    assert error.kind == "timeout"
    for pid in pids.read_text().split():
        await ends(int(pid))


async def test_cancelling_ends_the_command_and_its_children(shell: Run, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: shell("sh", "-c", f"sleep 1000 & echo $! $$ > {pids}; wait"))
        await written(pids)
        group.cancel_scope.cancel()
    for pid in pids.read_text().split():
        await ends(int(pid))


async def test_a_command_that_ignores_the_request_to_end_is_killed(
    shell: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TERM_GRACE_S", 0.1)
    pids = tmp_path / "pids"
    script = (
        f"import os, signal\nsignal.signal(15, signal.SIG_IGN)\nopen({str(pids)!r}, 'w').write(f'{{os.getpid()}}\\n')"
    )
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: shell(sys.executable, "-c", script + "\nwhile True: signal.pause()"))
        pid = int(await written(pids))
        group.cancel_scope.cancel()
    await ends(pid)


async def test_a_child_left_behind_does_not_hold_the_attempt_and_is_ended(shell: Run, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    answer = await shell("sh", "-c", f"sleep 1000 & echo $! > {pids}; echo done")
    assert answer["stdout"] == "done\n"
    assert time.monotonic() - began < 500
    await ends(int(pids.read_text()))


SERVER = """
import sys
from pathlib import Path
import anyio
from contexten.extensions.flow.outside.command import run_command

async def main():
    argv = ["/bin/sh", "-c", f"read fed; sleep 1000 & echo $! $$ > {sys.argv[1]}; wait"]  # fed after the guard was told
    await run_command(argv, cwd=Path("/"), env={"PATH": "/usr/bin:/bin"}, stdin=b"fed\\n", timeout_s=None)

anyio.run(main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no guard")
async def test_a_server_that_is_killed_leaves_neither_a_command_nor_its_children_nor_a_guard(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    server = await anyio.to_thread.run_sync(lambda: subprocess.Popen([sys.executable, "-c", SERVER, str(pids)]))
    try:
        running = [int(pid) for pid in (await written(pids)).split()]
        started = [child.pid for child in psutil.Process(server.pid).children()]
        assert len(started) == 2
        assert all(is_running(pid) for pid in {*running, *started})
    finally:
        server.kill()
        server.wait(30)
    for pid in {*running, *started}:
        await ends(pid)


async def test_the_end_of_the_event_loop_during_the_grace_leaves_nothing_of_a_command(tmp_path: Path) -> None:
    pids, heard = tmp_path / "pids", tmp_path / "heard"
    script = f"trap 'echo > {heard}' TERM; read fed; sleep 1000 & echo $! $$ > {pids}; while :; do wait; done"
    running = asyncio.create_task(  # its input comes when it has been started for good
        command.run_command(["/bin/sh", "-c", script], cwd=tmp_path, env={}, stdin=b"fed\n", timeout_s=None)
    )
    group = [int(pid) for pid in (await written(pids)).split()]
    running.cancel()
    await written(heard)
    running.cancel()  # as asyncio cancels what is left when its loop ends; no scope of anyio holds that off
    with pytest.raises(asyncio.CancelledError):
        await running
    for pid in group:
        await ends(pid)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no guard")
async def test_a_guard_kills_what_is_left_where_the_event_loop_ends_before_its_block() -> None:
    process = await anyio.open_process(["sleep", "1000"], start_new_session=True, stdout=None, stderr=None)
    block = command.guarding()
    guard = await block.__aenter__()
    await guard(process.pid)
    await block.gen.aclose()  # as asyncio closes what is left when its loop ends
    with anyio.fail_after(20):
        assert await process.wait() == -signal.SIGKILL
    await process.aclose()


async def test_a_guard_ends_with_its_command(shell: Run) -> None:
    before = psutil.Process().children()
    await shell("sh", "-c", "exit 0")
    await failure(shell("sh", "-c", "sleep 1000", timeout_s=0.1))
    assert set(psutil.Process().children()) <= set(before)


async def test_a_command_goes_on_without_its_guard(shell: Run) -> None:
    script = (
        "import psutil, os\n"
        "for it in psutil.Process(os.getppid()).children():\n"
        "    if it.pid != os.getpid() and 'read group' in str(it.cmdline()):\n"
        "        it.kill()\n"
        "        print('killed')"
    )
    assert (await shell(sys.executable, "-c", script))["stdout"] == "killed\n"
