"""The ceiling: what SQLite can make durable on this disk when nothing but a journal stands around it.

One writer thread drains every waiting append into one transaction (group commit), `synchronous=FULL` in
WAL mode: one row a step, and a client starts its next step only when the row of the one before is durable.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.contestant import RunFlow, main

Append = tuple[str, int, str, "asyncio.Future[None]"]


class Journal:
    """An append-only table and the thread that owns its connection."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[Append | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="journal")
        self._flows = 0

    def start(self) -> None:
        """Begin to write; `close` must follow."""
        self._thread.start()

    def close(self) -> None:
        """End the writer after what waits is written."""
        self._waiting.put(None)
        self._thread.join()

    async def append(self, flow: str, step: int, payload: str) -> None:
        """Return when the row is durable."""
        durable = self._loop.create_future()
        self._waiting.put((flow, step, payload, durable))
        await durable

    async def run_flow(self, steps: int) -> None:
        """One flow: a row a step, each durable before the next."""
        self._flows += 1
        flow = f"flow-{self._flows}"
        for step in range(steps):
            await self.append(flow, step, f'{{"step": {step}}}')

    def _write(self) -> None:
        connection = sqlite3.connect(self._file, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, flow TEXT, step INTEGER, payload TEXT) STRICT"
        )
        open_ = True
        while open_:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            appends = [append for append in batch if append is not None]
            open_ = len(appends) == len(batch)
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO journal (flow, step, payload) VALUES (?, ?, ?)", [append[:3] for append in appends]
            )
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_wake, [append[3] for append in appends])
        connection.close()


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


@asynccontextmanager
async def open_ceiling(folder: Path) -> AsyncIterator[RunFlow]:
    """The bare journal as a contestant."""
    journal = Journal(folder / "ceiling.sqlite3")
    journal.start()
    try:
        yield journal.run_flow
    finally:
        await asyncio.to_thread(journal.close)


if __name__ == "__main__":
    main(open_ceiling, "measure the bare journal")
