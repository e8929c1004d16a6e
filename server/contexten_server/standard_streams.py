"""Standard input and output of a server over stdio: only MCP is ever written to one, and reading the other never
blocks the end.

This module imports only the standard library, so that the streams can be claimed before anything that may print is
imported.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

_CHUNK_BYTES = 1 << 16
_MAX_CHUNKS = 64  # read ahead of the parser; then the client waits


@dataclass(frozen=True, slots=True)
class Wire:
    """Private descriptors of the client's pipe; 0 and 1 no longer lead to it."""

    in_fd: int
    out_fd: int


def claim_standard_streams() -> Wire:
    """Keep the client's pipe to ourselves: from now on descriptor 0 is empty, and what is written to descriptor 1, by
    this process or a child of it, goes to standard error."""
    sys.stdout.flush()
    wire = Wire(in_fd=os.dup(0), out_fd=os.dup(1))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    try:
        os.dup2(2, 1)
    except OSError:  # there is no standard error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    return wire


class WireLines:
    """The lines that the client sends, as text. Ends where the client closes its end.

    A thread of our own reads: it may stay blocked for ever without holding up the end of the process.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(_MAX_CHUNKS)
        threading.Thread(target=self._read, name="standard input", daemon=True).start()

    def _read(self) -> None:
        while True:
            self._room.acquire()
            try:
                chunk = os.read(self._fd, _CHUNK_BYTES)
            except OSError:
                chunk = b""
            with suppress(RuntimeError):  # the loop is closed: nobody reads any more
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            if not chunk:
                return

    async def __aiter__(self) -> AsyncIterator[str]:
        parts: list[bytes] = []
        while chunk := await self._chunks.get():
            self._room.release()
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                parts.append(line)
                text = b"".join(parts).decode("utf-8", "replace")
                parts.clear()
                if text.strip():
                    yield text
            if rest:
                parts.append(rest)
        if parts:
            yield b"".join(parts).decode("utf-8", "replace")


class WireWriter:
    """Writes to the client; after the client has closed its end, to nobody."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._turn = asyncio.Lock()  # a line longer than the pipe's room must not have another within it
        self.closed = asyncio.Event()
        """Set when the client reads no more."""

    async def write(self, text: str) -> None:
        """Write all of it. On cancellation the rest is written by a thread that nothing waits for."""
        import anyio.to_thread

        async with self._turn:
            if self.closed.is_set():
                return
            try:
                await anyio.to_thread.run_sync(self._write, text.encode("utf-8"), abandon_on_cancel=True)
            except OSError:
                self.closed.set()

    async def flush(self) -> None:
        """Nothing is kept back."""

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
