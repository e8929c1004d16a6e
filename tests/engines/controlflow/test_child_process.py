"""The child process as its parent sees it, with programs in the library's place that behave as no library should."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest

from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.controlflow import process
from contexten.extensions.flow.controlflow.keeper import Keeper
from contexten.extensions.flow.controlflow.messages import Done, FlowSpec, Work
from contexten.extensions.flow.controlflow.process import ChildGone, ChildProcess, ChildUnfit
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.outside import command

pytestmark = pytest.mark.anyio

Start = Callable[[str], Awaitable[ChildProcess]]

PROLOGUE = """
import json, os, socket, sys, time
channel = socket.socket(fileno=int(sys.argv[1]))
lines = channel.makefile("rb")
def say(**message):
    channel.sendall(json.dumps(message).encode() + b"\\n")
def hear():
    return json.loads(lines.readline())
"""
READY = """
say(type="ready", version="1.0")
"""


def work(number: int) -> Work:
    flow = FlowSpec(thread="run_1", name="f", description=None, instructions=None, context={})
    return Work(
        id=number, flow=flow, task="greet", objective="Greet.", instructions=None, upstream={}, output_schema=None,
        agents=(), tools=(), turn_strategy=None, entry=None, max_model_calls=1, max_tokens=None,
    )  # fmt: skip


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Start a child that runs a program after the prologue; it is gone when the test is over."""
    children: list[ChildProcess] = []
    monkeypatch.setattr(command, "TERM_GRACE_S", 0.2)

    async def begin(program: str) -> ChildProcess:
        file = tmp_path / "program.py"
        file.write_text(PROLOGUE + program)
        monkeypatch.setattr(process, "PROGRAM", (sys.executable, str(file)))
        child = ChildProcess({}, with_prefect=False, mask=lambda text: text.replace("sesame", "[key]"))
        children.append(child)
        await child.start()
        return child

    yield begin
    with anyio.fail_after(30):
        for child in children:
            await child.aclose()
            assert child.pid is not None
            for member in living(child.pid):  # killed, and perhaps not gone yet
                assert await has_ended(member)


def living(group: int) -> list[int]:
    """The processes of a group that are no zombies."""
    found = []
    for one in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(one.pid) == group and one.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(one.pid)
    return found


async def has_ended(pid: int) -> bool:
    """Wait for the end of a process that is not ours to wait for."""
    try:
        alive = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended, _, _ = await anyio.to_thread.run_sync(select.select, [alive], [], [], 30.0)
    finally:
        os.close(alive)
    return bool(ended)


async def reason_of(child: ChildProcess) -> str:
    """Why the attempt that is given to the child now fails."""
    with anyio.fail_after(30):
        try:
            talk = await child.open(work(child.number()))
            while True:
                await talk.next()
        except ChildGone as gone:
            assert child.is_gone
            return str(gone)


async def test_a_child_answers_an_attempt(start: Start) -> None:
    child = await start(READY + 'request = hear(); say(type="done", id=request["id"], output=[1]); hear()')
    talk = await child.open(work(child.number()))
    assert await talk.next() == Done(id=1, output=[1])


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("hear(); os._exit(3)", "it ended"),
        ('hear(); channel.sendall(b"x" * (20 << 20) + b"\\n"); time.sleep(60)', "no message"),
        ('hear(); channel.sendall(b"hello\\n"); time.sleep(60)', "no message"),
        ('hear(); say(type="pong", more=1); time.sleep(60)', "no message"),
        ('hear()\nwhile True: say(type="pong")', "what nobody asked for"),
        ('hear(); say(type="done", id=77, output=1); time.sleep(60)', "what nobody asked for"),
    ],
)
async def test_a_child_that_breaks_the_rules_is_ended(start: Start, program: str, reason: str) -> None:
    child = await start(READY + program)
    assert reason in await reason_of(child)
    with pytest.raises(ChildGone):
        await child.open(work(9))


async def test_a_flood_of_messages_of_an_attempt_ends_the_child(start: Start) -> None:
    child = await start(READY + 'hear()\nwhile True: say(type="model_called", id=1, agent="a", model="openai/m", ms=1)')
    with anyio.fail_after(30):
        talk = await child.open(work(child.number()))
        assert "flooded" in await child._ended  # nobody takes the messages
        for _ in range(process.MAX_WAITING):
            await talk.next()
        with pytest.raises(ChildGone):
            await talk.next()


async def test_a_child_that_does_not_answer_a_ping_is_ended(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HUNG_AFTER_S", 0.2)
    child = await start(READY + "time.sleep(600)")
    assert "did not answer" in await reason_of(child)


async def test_a_child_that_goes_on_with_a_cancelled_attempt_is_ended(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "CANCEL_GRACE_S", 0.2)
    child = await start(READY + 'while True:\n  if hear()["type"] == "ping": say(type="pong")')
    await child.open(work(1))
    child.cancel(1)
    assert "a cancelled attempt went on" in await reason_of(child)


async def test_a_child_that_obeys_lives_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    child = await start(READY + """
hear()
hear()
say(type="failed", id=1, kind="interrupted", message="cancelled")
while True:
  request = hear()
  if request["type"] == "work": say(type="done", id=request["id"], output=2)
  if request["type"] == "ping": say(type="pong")
""")  # fmt: skip
    first = await child.open(work(1))
    child.cancel(1)
    assert first is not None
    talk = await child.open(work(2))
    assert await talk.next() == Done(id=2, output=2)
    assert not child.is_gone


async def test_a_child_that_ignores_signals_is_killed_with_all_its_group(start: Start) -> None:
    child = await start(
        "import signal, subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])' + READY + "time.sleep(600)"
    )
    assert child.pid is not None
    assert len(living(child.pid)) == 2  # the fixture sees that none is left


async def test_a_library_that_cannot_be_used_is_told_of(start: Start) -> None:
    with pytest.raises(ChildUnfit, match="no module named controlflow"):
        await start('say(type="unfit", reason="no module named controlflow")')


async def test_a_child_that_ends_before_it_is_ready_could_not_be_started(start: Start) -> None:
    with pytest.raises(ChildGone, match="it ended"):
        await start("sys.exit(1)")


async def test_a_child_that_is_never_ready_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_S", 0.2)
    with pytest.raises(ChildGone, match="not ready"):
        await start("time.sleep(600)")


async def test_what_it_prints_goes_to_the_log_masked_and_bounded(
    start: Start, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG", process.__name__)
    child = await start(
        'print("open sesame", flush=True); os.write(2, b"y" * 100000 + b"\\n")\n'
        'for _ in range(100000): print("noise")\nprint(end="", flush=True)' + READY + "hear()"
    )
    await child.aclose()
    lines = [record.getMessage() for record in caplog.records]
    assert "open [key]" in lines
    assert len(lines) < process.MAX_LOG_LINES + 10
    assert max(map(len, lines)) <= 2000
    assert capfd.readouterr().out == ""


async def test_secrets_of_the_environment_do_not_reach_the_child(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "sesame")
    child = await start(
        READY + 'request = hear(); say(type="done", id=request["id"], output=[*os.environ, *sys.argv]); hear()'
    )
    talk = await child.open(work(1))
    message = await talk.next()
    assert isinstance(message, Done)
    assert "PATH" in message.output
    assert "MY_SECRET" not in message.output


async def test_a_keeper_starts_one_child_for_all_and_another_when_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROLOGUE + READY + "hear()")
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, str(file)))
    keeper, lines = Keeper(SystemClock(), api=lambda: None, mask=str), []
    children: list[ChildProcess] = []

    async def ask() -> None:
        children.append(await keeper.child(lambda level, line: lines.append(line)))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        group.start_soon(ask)
    assert children[0] is children[1]
    assert len([line for line in lines if "is ready" in line]) == 2
    children[0].end("the test wants so")
    await ask()
    assert children[2] is not children[0]
    await keeper.aclose()
    assert keeper.pid is None


async def test_a_child_that_cannot_be_used_fails_attempts_as_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROLOGUE + 'say(type="unfit", reason="ImportError: no controlflow")')
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, str(file)))
    keeper = Keeper(SystemClock(), api=lambda: None, mask=str)
    with pytest.raises(AttemptError, match=r"contexten-flow\[controlflow\]") as caught:
        await keeper.child(lambda level, line: None)
    assert caught.value.kind == "invalid"
    await keeper.aclose()


PARENT = """
import asyncio, sys
from contexten.extensions.flow.controlflow import process
process.PROGRAM = (sys.executable, "-c", '''
import os, socket, sys, time
from contexten.extensions.flow.controlflow.child import _die_with_parent
_die_with_parent(int(sys.argv[2]))
channel = socket.socket(fileno=int(sys.argv[1]))  # kept: its end would be taken for the child's
channel.sendall(b'{"type": "ready", "version": "1"}\\\\n')
time.sleep(600)
''')
async def main():
    child = process.ChildProcess({}, with_prefect=False, mask=str)
    await child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    async with await anyio.open_process([sys.executable, "-c", PARENT]) as parent:
        assert parent.stdout is not None
        pid = int(await parent.stdout.receive())
        os.kill(pid, 0)
        parent.kill()
        await parent.wait()
    assert await has_ended(pid)
