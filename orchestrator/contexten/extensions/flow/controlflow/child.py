"""The child process: `python -m contexten.extensions.flow.controlflow.child CHANNEL LIFELINE [--prefect]`.

CHANNEL is the descriptor of a socket over which `messages` pass; LIFELINE that of a pipe that the parent holds open:
when it closes, the parent is dead. Standard output and standard error are one pipe to the parent's log.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from ..clock import SystemClock
from ..errors import AttemptError
from ..models.failures import failure_of
from ..recovery.kinds import NETWORK
from .library import Library
from .messages import (
    MAX_LINE_BYTES,
    Answer,
    Cancel,
    Done,
    Failed,
    Ping,
    Pong,
    Ready,
    ToolAnswer,
    ToolCall,
    Unfit,
    Work,
    read_request,
    write,
)
from .work import Workshop

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OF_PREFECT = frozenset({"prefect", "httpx"})  # whose errors; the model's client gives its own names to them


class _Attempt:
    """An attempt under way and the calls of tools that it waits for."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.calls: dict[int, asyncio.Future[ToolAnswer]] = {}
        self.next_call = 1


class Child:
    """Serves one channel until it ends."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._attempts: dict[int, _Attempt] = {}

    async def serve(self, library: Library) -> None:
        """Make the attempts that come, each in a task of its own."""
        self._workshop = Workshop(library)
        reader, self._writer = await asyncio.open_connection(sock=self._channel, limit=MAX_LINE_BYTES)
        self._send(Ready(version=library.version))
        while line := await reader.readline():
            match read_request(line):
                case Work() as work:
                    attempt = self._attempts[work.id] = _Attempt()
                    attempt.task = asyncio.create_task(self._make(work, attempt), name=f"attempt {work.id}")
                case Cancel(id=number):
                    cancelled = self._attempts.get(number)
                    if cancelled is not None and cancelled.task is not None:
                        cancelled.task.cancel()
                case ToolAnswer() as answer:
                    asking = self._attempts.get(answer.id)
                    future = asking.calls.pop(answer.call, None) if asking is not None else None
                    if future is not None and not future.done():
                        future.set_result(answer)
                case Ping():
                    self._send(Pong())

    async def _make(self, work: Work, attempt: _Attempt) -> None:
        async def call_tool(name: str, arguments: dict[str, Any]) -> str:
            return await self._ask(work.id, attempt, name, arguments)

        message: Done | Failed
        try:
            message = Done(id=work.id, output=await self._workshop.perform(work, call_tool, self._send))
        except asyncio.CancelledError:
            message = Failed(id=work.id, kind="interrupted", message="The attempt was cancelled.")
        except Exception as error:  # noqa: BLE001 - whatever a library raises is this attempt's failure
            message = _failed(work, error)
        finally:
            del self._attempts[work.id]
        try:
            self._send(message)
        except ValueError as error:
            self._send(Failed(id=work.id, kind="invalid", message=f"The output cannot be passed on: {error}."))

    async def _ask(self, number: int, attempt: _Attempt, name: str, arguments: dict[str, Any]) -> str:
        call, attempt.next_call = attempt.next_call, attempt.next_call + 1
        future: asyncio.Future[ToolAnswer] = asyncio.get_running_loop().create_future()
        attempt.calls[call] = future
        self._send(ToolCall(id=number, call=call, tool=name, arguments=arguments))
        answer = await future
        if answer.is_error:
            raise RuntimeError(answer.text)  # ControlFlow tells the model
        return answer.text

    def _send(self, message: Answer) -> None:
        self._writer.write(write(message))


def _failed(work: Work, error: Exception) -> Failed:
    model = work.agents[0].model
    if type(error).__module__.partition(".")[0] in _OF_PREFECT:
        failure = AttemptError(
            f"The Prefect API that records ControlFlow's work failed: {type(error).__name__}: {str(error)[:500]}",
            kind=NETWORK,
        )
    else:
        failure = failure_of(
            error, SystemClock(), model=model.label, key_variable=model.key_variable, address=model.base_url
        )
    return Failed(id=work.id, kind=failure.kind, message=failure.message, details=failure.details)


def _die_with_parent(lifeline: int) -> None:
    """Kill this process and its children when the parent is gone, whatever the event loop does."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        with suppress(OSError):
            while os.read(lifeline, 1):
                pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def main(arguments: list[str]) -> None:
    """Run until the channel ends."""
    channel, lifeline, *flags = arguments
    connection = socket.socket(fileno=int(channel))
    os.set_inheritable(connection.fileno(), False)
    os.set_inheritable(int(lifeline), False)
    _die_with_parent(int(lifeline))
    try:
        library = Library(with_prefect="--prefect" in flags)
    except Exception as error:  # noqa: BLE001 - a broken installation fails in any way
        connection.sendall(write(Unfit(reason=f"{type(error).__name__}: {str(error)[:500]}")))
        return
    asyncio.run(Child(connection).serve(library))


if __name__ == "__main__":
    main(sys.argv[1:])
