"""What `verify` sees of triggers: deliveries that the journal tells otherwise or that are gone, readers ahead of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store.verify import verify

pytestmark = pytest.mark.anyio

FLOW = {"stages": [{"name": "s", "tasks": [{"name": "t", "type": "wait", "parameters": {"seconds": 0}}]}]}


@pytest.fixture
async def delivered(database: Path) -> Path:
    """A database with two deliveries that wait: of a trigger, and of one that was deleted and made again."""
    async with FlowService(FlowSettings(database=database), drive=False) as service:
        await service.create_flow(workflow_def=FLOW, flow_id="flow")
        for trigger_id in ("kept", "again", "again"):
            if trigger_id == "again":
                found = (await service.triggers.list()).triggers
                for trigger in (one for one in found if one.trigger_id == "again"):
                    await service.triggers.delete(trigger.trigger_id, actor=PYTHON)
            await service.triggers.create(kind="webhook", flow_id="flow", trigger_id=trigger_id, actor=PYTHON)
            await service.triggers.test(trigger_id, payload={}, type="test", start=True, actor=PYTHON)
    return database


def change(database: Path, *statements: str) -> list[str]:
    """What is found after somebody's changes by hand."""
    with closing(sqlite3.connect(database)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return verify(database).problems


async def test_deliveries_that_are_as_the_journal_tells_are_no_problem(delivered: Path) -> None:
    assert verify(delivered).problems == []


async def test_a_delivery_that_the_journal_tells_otherwise_is_found(delivered: Path) -> None:
    (problem,) = change(
        delivered,
        "UPDATE deliveries SET state = 'filtered', ended_at = 9.0 WHERE trigger_id = 'kept'",
    )
    assert problem.endswith("the table says filtered, the journal accepted")


async def test_a_delivery_that_waited_and_is_gone_is_found(delivered: Path) -> None:
    (problem,) = change(delivered, "DELETE FROM deliveries WHERE trigger_id = 'again'")
    assert problem.endswith("in the journal, not in the table")


async def test_a_delivery_without_its_trigger_is_found(delivered: Path) -> None:
    (problem,) = change(delivered, "PRAGMA foreign_keys = 0", "DELETE FROM triggers WHERE trigger_id = 'kept'")
    assert problem == "a row of deliveries refers to a missing row of triggers"


async def test_pruned_deliveries_and_entries_are_no_problem(delivered: Path) -> None:
    assert change(delivered, "DELETE FROM events WHERE type LIKE 'trigger.%'") == []


async def test_a_reader_that_is_ahead_of_the_journal_is_found(delivered: Path) -> None:
    (problem,) = change(delivered, "INSERT INTO consumers VALUES ('ends', 1000000)")
    assert problem == "the journal was read up to 1000000 for ends, and ends before that"
