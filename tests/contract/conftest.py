"""An open store with a flow in it, a disk that fails when it is told to, and runs made by hand."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow.states import RunState, TaskState
from contexten.extensions.flow.store import ClaimedRun, NewRun, RunMove, Store, StoredText, TaskMove, TaskRow
from contexten.extensions.flow.store.advances import Advance
from contexten.extensions.flow.store.flows import SaveFlow, create
from contexten.extensions.flow.store.queue import Rules, claim
from contexten.extensions.flow.store.submissions import submit
from contexten.extensions.flow.strategies import Fifo

FLOW = "flow"
NOBODY = 65534
DEFINITION = '{"stages": [{"name": "s", "tasks": [{"name": "a"}, {"name": "b"}]}]}'
DONE = (TaskState.COMPLETED, TaskState.SKIPPED)
FAULTS = {
    "io": ("disk I/O error", sqlite3.SQLITE_IOERR),
    "full": ("database or disk is full", sqlite3.SQLITE_FULL),
    "busy": ("database is locked", sqlite3.SQLITE_BUSY),
}


@dataclass
class Disk:
    """While `fault` names one, every COMMIT fails with it; `watch` is called before each statement that writes."""

    fault: str | None = None
    failures: int = 0
    watch: Callable[[str], None] = field(default=lambda sql: None)

    def before(self, sql: str) -> None:
        self.watch(sql)
        if self.fault is not None and sql.lstrip().upper().startswith("COMMIT"):
            message, code = FAULTS[self.fault]
            error = sqlite3.OperationalError(message)
            error.sqlite_errorcode = code
            self.failures += 1
            raise error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Stands between SQLite and every connection that is opened from now on."""
    disk = Disk()
    connect = sqlite3.connect

    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *arguments: Any) -> Any:
            disk.before(sql)
            return super().execute(sql, *arguments)

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> Any:
            disk.before(sql)
            return super().execute(sql, *arguments)

        def cursor(self, factory: Any = None) -> Any:
            return super().cursor(factory or Cursor)

    def watched(*arguments: Any, **options: Any) -> Any:
        options.setdefault("factory", Connection)
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", watched)
    return disk


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "flow.sqlite3"


@contextmanager
def another_user(folder: Path) -> Iterator[None]:
    """Make root another user, whom file permissions hold, and give that user the folder."""
    was_root = os.geteuid() == 0
    if was_root:
        for path in (folder, *folder.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        if was_root:
            os.setresuid(0, 0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can get to."""
    folder = Path(tempfile.mkdtemp(prefix="contexten-"))
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


@pytest.fixture
def unprivileged(open_folder: Path) -> Iterator[Path]:
    """A folder of a user whom file permissions hold: root is made another user for the test."""
    with another_user(open_folder):
        yield open_folder


@pytest.fixture
async def store(database: Path) -> AsyncIterator[Store]:
    store = Store(database)
    await store.open()
    try:
        await store.write(
            lambda tx: create(
                tx,
                SaveFlow(
                    flow_id=FLOW,
                    name=FLOW,
                    description=None,
                    tags="[]",
                    digest="d",
                    definition=DEFINITION,
                    at=1.0,
                    actor=None,
                ),
            )
        )
        yield store
    finally:
        await store.close()


@dataclass
class Hand:
    """Makes and moves runs, as an execution would."""

    store: Store
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    async def submit(self, **fields: Any) -> str:
        """A scheduled run of two tasks, a and b."""
        number = next(self.numbers)
        values: dict[str, Any] = {
            "run_id": f"run_{number}",
            "flow_id": FLOW,
            "version": 1,
            "name": FLOW,
            "framework": "native",
            "priority": 2,
            "queue_key": float(number),
            "inputs": "{}",
            "total": 2,
            "created_at": 1.0,
        }
        run = NewRun(**values | fields)
        return (await self.store.write(lambda tx: submit(tx, run))).run_id

    async def claim(self, owner: str = "srv_1", limit: int = 100, max_concurrent: int = 100) -> list[ClaimedRun]:
        return await self.store.write(
            lambda tx: (
                claim(
                    tx, owner, 2.0, limit=limit, rules=Rules(strategy=Fifo(), max_concurrent_flows=max_concurrent)
                ).runs
            )
        )

    async def running(self) -> ClaimedRun:
        """A run that is running, owned by srv_1, with no task started."""
        run_id = await self.submit()
        (claimed,) = [run for run in await self.claim() if run.run_id == run_id]
        return claimed

    async def advance(self, run: ClaimedRun, *moves: TaskMove, fence: int | None = None, **fields: Any) -> int:
        """Raises Refused."""
        fields.setdefault("completed", sum(move.row.state in DONE for move in moves))
        move = RunMove(
            run_id=run.run_id,
            flow_id=run.flow_id,
            fence=run.fence if fence is None else fence,
            at=3.0,
            tasks=moves,
            **fields,
        )
        return int(await self.store.write(Advance(move)))

    async def end(self, run: ClaimedRun, to: RunState = RunState.COMPLETED, **fields: Any) -> None:
        if to is RunState.COMPLETED:
            fields.setdefault("output", StoredText.of("{}"))
        if to is RunState.FAILED:
            fields.setdefault("error", '{"kind": "unknown", "message": "m"}')
        await self.advance(run, to=to, **fields)

    async def state(self, run_id: str) -> str:
        row = await self.store.row("SELECT state FROM runs WHERE run_id = ?", (run_id,))
        assert row is not None
        return str(row[0])

    async def count(self, table: str) -> int:
        row = await self.store.row(f"SELECT count(*) FROM {table}")
        assert row is not None
        return int(row[0])


@pytest.fixture
async def hand(store: Store) -> Hand:
    return Hand(store)


def task_move(to: TaskState, before: TaskState = TaskState.PENDING, task: str = "a", **fields: Any) -> TaskMove:
    """A move with all that the schema asks of a row in that state."""
    row = TaskRow(task, state=to, **fields)
    if to.is_terminal:
        row.ended_at = 3.0
    if to is TaskState.COMPLETED and row.output is None:
        row.output = StoredText.of("1")
    if to is TaskState.FAILED:
        row.error = '{"kind": "unknown", "message": "m"}'
    return TaskMove(row, before)


def sub_flow_of(run: ClaimedRun) -> NewRun:
    """A run for the sub-flow that task a of a run waits for."""
    return NewRun(
        run_id="run_child",
        flow_id=FLOW,
        version=1,
        name=FLOW,
        framework="native",
        priority=2,
        queue_key=0.0,
        inputs="{}",
        total=2,
        created_at=3.0,
        parent_run_id=run.run_id,
        parent_task="a",
    )
