"""DBOS Transact on SQLite, WAL and FULL: workflows whose steps are trivial async functions."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy  # type: ignore[import-not-found, unused-ignore]  # installed in the peers' environment only
from dbos import DBOS, DBOSConfig

from benchmarks.contestant import RunFlow, main


@DBOS.step()  # type: ignore[untyped-decorator, unused-ignore]  # typed in the peers' environment only
async def step(number: int) -> dict[str, int]:
    return {"step": number}


@DBOS.workflow()  # type: ignore[untyped-decorator, unused-ignore]  # the same
async def flow(steps: int) -> dict[str, int]:
    result = {"step": -1}
    for number in range(steps):
        result = await step(number)
    return result


def _make_durable(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=FULL")


def _check_durability(file: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    engine.dispose()
    if (mode, synchronous) != ("wal", 2):
        raise RuntimeError(f"the comparison needs WAL and FULL, this is {mode} and {synchronous}")


@asynccontextmanager
async def open_dbos(folder: Path) -> AsyncIterator[RunFlow]:
    """DBOS as a contestant."""
    file = folder / "dbos.sqlite3"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _make_durable)
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": f"sqlite:///{file}",
        "log_level": "ERROR",
        "enable_otlp": False,
    }
    DBOS(config=config)
    DBOS.launch()
    _check_durability(file)

    async def run_flow(steps: int) -> None:
        result = await flow(steps)
        if result != {"step": steps - 1}:
            raise RuntimeError(f"the flow ended with {result}")

    try:
        yield run_flow
    finally:
        DBOS.destroy()


if __name__ == "__main__":
    main(open_dbos, "measure DBOS Transact on SQLite")
