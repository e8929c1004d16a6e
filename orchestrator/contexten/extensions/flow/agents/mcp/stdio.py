"""A program that speaks MCP over its standard input and output.

The protocol library's own transport reads lines of any length, and hands standard error on: a server that floods either
would fill this process. Here a line and what is kept of standard error are bounded.
"""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from anyio.abc import Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from ...outside.command import end_group, guarding
from .target import StdioTarget

_LEAVE_S = 1.0  # for a server to end by itself once its input is closed
_KILL_S = 4.0
_ERROR_PARTS = 16  # of standard error that are kept, 64 KiB at most each, and of those the last characters
_ERROR_CHARS = 500

Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def stdio_transport(
    target: StdioTarget, *, max_bytes: int, on_end: Callable[[str], None]
) -> AsyncIterator[Streams]:
    """Start the program and carry messages to and from it; at the end its input is closed, and its process group ended.

    `on_end` is told why, where the program ends by itself or breaks the protocol. A message is at most `max_bytes`
    long. Raises OSError or ValueError where the program cannot be started, AttemptError where a secret for it has no
    value.
    """
    async with guarding() as guard:
        with anyio.CancelScope(shield=True):  # cancelled in here, asyncio would leave the program's children
            process = await anyio.open_process(
                [target.command, *target.args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=get_default_environment() | target.env(),
                cwd=target.cwd,
                start_new_session=True,
            )
        pipe = _Pipe(process, max_bytes, on_end)
        async with anyio.create_task_group() as group:
            group.start_soon(pipe.read)
            group.start_soon(pipe.write)
            group.start_soon(pipe.read_errors)
            try:
                await guard(process.pid)
                yield pipe.incoming, pipe.outgoing
            finally:
                with anyio.CancelScope(shield=True):
                    await pipe.close()
                group.cancel_scope.cancel()


class _Pipe:
    """A server's process and the two streams that the session has of it."""

    def __init__(self, process: Process, max_bytes: int, on_end: Callable[[str], None]) -> None:
        self._process = process
        self._max_bytes = max_bytes
        self._on_end = on_end
        self._errors: deque[bytes] = deque(maxlen=_ERROR_PARTS)
        self._is_closing = False
        streams: Any = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self._received, self.incoming = streams
        streams = anyio.create_memory_object_stream[SessionMessage](0)
        self.outgoing, self._to_send = streams

    async def read(self) -> None:
        """Hand messages on until the program's output ends."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        why = ""
        line = bytearray()
        async with self._received:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
                async for part in self._process.stdout:
                    *ends, rest = part.split(b"\n")
                    for end in ends:
                        line += end
                        await self._hand_on(bytes(line))
                        line.clear()
                    line += rest
                    if len(line) > self._max_bytes:
                        why = f"it sent a message of more than {self._max_bytes:,} bytes"
                        break
            if not self._is_closing:
                self._on_end(why or await self._end_of())

    async def _hand_on(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message: SessionMessage | Exception = SessionMessage(
                jsonrpc_message_adapter.validate_json(line, by_name=False)
            )
        except ValueError as error:  # a line that is no message: passed over, like other servers' prints
            message = error
        await self._received.send(message)

    async def _end_of(self) -> str:
        with anyio.move_on_after(_LEAVE_S):
            await self._process.wait()
        code = self._process.returncode
        await anyio.lowlevel.checkpoint()  # the last of its standard error
        told = b"".join(self._errors).decode(errors="replace").strip()[-_ERROR_CHARS:]
        ended = "its output ended" if code is None else f"it ended with exit code {code}"
        return f"{ended}: {told}" if told else ended

    async def write(self) -> None:
        """Send messages until the session closes its stream, or the program its input."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            async with self._to_send:
                async for message in self._to_send:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await self._process.stdin.send(text.encode() + b"\n")

    async def read_errors(self) -> None:
        """Keep the last of what it writes on standard error; the rest is dropped, so that it never blocks."""
        assert self._process.stderr is not None  # noqa: S101 - it is a pipe
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
            async for part in self._process.stderr:
                self._errors.append(part[-_ERROR_CHARS:])

    async def close(self) -> None:
        """Close its input, wait a moment, end its process group."""
        self._is_closing = True
        self.incoming.close()
        self.outgoing.close()
        with anyio.move_on_after(_LEAVE_S + _KILL_S):  # a child that left the group may hold the pipes for ever
            await end_group(self._process, leave_s=_LEAVE_S)
        for stream in (self._received, self._to_send):
            stream.close()
