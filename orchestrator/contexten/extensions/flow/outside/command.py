"""A command as a process group: its output bounded, nothing of it left behind.

That holds when the server is killed, too: a guard, a waiting `sh` beside each, sees its pipe to the server close and
kills the group. Out of its reach is what leaves the group (setsid) and, for the moment between its start and the
guard's hearing of it, the command itself; without `sh` and on Windows there is no guard.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import AsyncResource, ByteReceiveStream, Process

MAX_OUTPUT_BYTES = 1 << 20  # kept of each stream; the rest is read and dropped, so that the command never blocks
TERM_GRACE_S = 2.0  # between asking a command to end and killing it; less than the grace of a cancelled attempt
_DRAIN_S = 1.0  # for output that is still under way when the command has ended
# Reads the group, then waits for a second line: at the end of its input instead, the server is dead. A service manager
# may send SIGTERM to the server and the guard alike; the guard is needed until the server is gone.
_GUARD = "trap '' TERM INT HUP; read group && { read over || kill -s KILL -- \"-$group\"; }"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended: the exit code (negative: the signal that ended it) and the output that was kept."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    stdout_dropped: int
    """Bytes beyond MAX_OUTPUT_BYTES."""
    stderr_dropped: int


class _Tail:
    """The first bytes of a stream, and how many came after them."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.dropped = 0

    async def read(self, stream: ByteReceiveStream | None) -> None:
        if stream is None:
            return
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for part in stream:
                kept = part[: MAX_OUTPUT_BYTES - len(self.content)]
                self.content += kept
                self.dropped += len(part) - len(kept)


async def run_command(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: bytes, timeout_s: float | None
) -> CommandResult:
    """Run a program, without a shell, until it ends.

    Raises TimeoutError after `timeout_s`, OSError or ValueError where it cannot be started. When it ends, on timeout
    and on cancellation its whole process group is ended: SIGTERM, after a grace SIGKILL."""
    async with guarding() as guard:
        with anyio.CancelScope(shield=True):  # cancelled in here, asyncio would kill the leader and leave its children
            process = await anyio.open_process(
                list(argv),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        return await _see_through(process, guard, stdin, timeout_s)


async def _see_through(
    process: Process, guard: Callable[[int], Awaitable[None]], stdin: bytes, timeout_s: float | None
) -> CommandResult:
    out, err = _Tail(), _Tail()
    try:
        with anyio.CancelScope(shield=True):
            await guard(process.pid)
        async with anyio.create_task_group() as group:
            group.start_soon(out.read, process.stdout)
            group.start_soon(err.read, process.stderr)
            if stdin:
                group.start_soon(_feed, process, stdin)
            with anyio.fail_after(timeout_s):
                exit_code = await process.wait()
            _signal_group(process, _KILL)  # children that it left behind would hold the pipes open
            group.cancel_scope.deadline = anyio.current_time() + _DRAIN_S
    except BaseExceptionGroup as failures:
        raise _innermost(failures) from None
    finally:
        with anyio.CancelScope(shield=True):
            await end_group(process)
    return CommandResult(
        exit_code=exit_code,
        stdout=bytes(out.content),
        stderr=bytes(err.content),
        stdout_dropped=out.dropped,
        stderr_dropped=err.dropped,
    )


_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@asynccontextmanager
async def guarding() -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Has a process group killed when this process or its event loop ends before the block; what it yields is told the
    group's id. Raises OSError where the guard cannot be started."""
    sh = None if sys.platform == "win32" else shutil.which("sh", path=os.defpath)
    if sh is None:
        yield partial(_tell_group, None)
        return
    with anyio.CancelScope(shield=True):
        guard = await anyio.open_process(
            [sh, "-c", _GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            start_new_session=True,
        )
    is_over = True
    try:
        yield partial(_tell_group, guard)
    except GeneratorExit:  # the event loop ended before the block: the guard's part
        is_over = False
        raise
    finally:
        with anyio.CancelScope(shield=True):
            if is_over:
                await _tell(guard, "over\n")
            await _close(guard.stdin)
            await guard.wait()
            await _let_go(guard)


async def _tell_group(guard: Process | None, group_id: int) -> None:
    await _tell(guard, f"{group_id}\n")


async def _tell(guard: Process | None, line: str) -> None:
    if guard is not None and guard.stdin is not None:
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):  # somebody killed it
            await guard.stdin.send(line.encode())


async def _feed(process: Process, stdin: bytes) -> None:
    stream = process.stdin
    if stream is not None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
            await stream.send(stdin)  # a command may end without reading all of it
        with suppress(anyio.BrokenResourceError, ConnectionError):
            await stream.aclose()


async def end_group(process: Process, *, leave_s: float = 0.0) -> None:
    """End a process that leads a group, and what is left of the group: SIGTERM, after a grace SIGKILL. With `leave_s`
    its input is closed first, and it has so long to end by itself. An end of the event loop, which no shield holds off,
    leaves nothing behind either: SIGKILL comes at once then."""
    try:
        if leave_s:
            with anyio.move_on_after(leave_s):
                await _close(process.stdin)
                await process.wait()
        if process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            with anyio.move_on_after(TERM_GRACE_S):
                await process.wait()
    finally:
        _signal_group(process, _KILL)
        await process.wait()
        await _let_go(process)


async def _let_go(process: Process) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        await _close(stream)
    # Of asyncio's transport only the process class knows; without this it warns when it is collected.
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    if isinstance(transport, asyncio.SubprocessTransport):
        transport.close()


async def _close(stream: AsyncResource | None) -> None:
    if stream is not None:
        with suppress(OSError, anyio.BrokenResourceError):
            await stream.aclose()


def _signal_group(process: Process, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, number)


def _innermost(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _innermost(first) if isinstance(first, BaseExceptionGroup) else first
