"""What is pruned from time to time is found without a look at all of it for each batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.housekeeping import PRUNE_S, keep_pruned
from contexten.extensions.flow.store import notifications, retention, triggers
from contexten.extensions.flow.store.sql import SQL

if TYPE_CHECKING:
    from tests.unit.conftest import FakeClock

pytestmark = pytest.mark.anyio

NOTE: dict[str, Any] = {"stages": [{"name": "only", "tasks": [{"name": "note", "type": "note"}]}]}
DISPATCHES = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 8)
INSERT INTO dispatches (dispatch_id, notification_id, type, run_id, flow_id, at, state, due_at, error, ended_at)
SELECT 'dsp_' || n, ?, 'run.failed', 'run_1', 'f', 1, 'dead', 1, 'no', ? FROM numbers"""


async def test_the_line_of_what_is_kept_is_sought_once_a_pruning_not_once_a_batch(
    settings: FlowSettings, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (notifications, retention, triggers):
        monkeypatch.setattr(module, "BATCH", 2)
    settings = settings.model_copy(update={"retention_runs": 3})
    asked: list[str] = []
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await flows.create_flow(workflow_def=NOTE, flow_id="f")
        await flows.triggers.create(kind="webhook", flow_id="f", trigger_id="hook", actor=PYTHON)
        made = await flows.notifications.create(kind="webhook", url="https://example.com")
        for _ in range(8):
            await flows.triggers.test("hook", payload={}, start=True, actor=PYTHON)
        at = clock.timestamp()
        done = "UPDATE deliveries SET state = 'filtered', ended_at = ?"
        await flows._store.write(lambda tx: tx.execute(done, (at,)).rowcount)
        await flows._store.write(lambda tx: tx.execute(DISPATCHES, (made.notification_id, at)).rowcount)
        row = flows._store.row

        async def seen(sql: str, *parameters: Any) -> Any:
            asked.append(sql)
            return await row(sql, *parameters)

        monkeypatch.setattr(flows._store, "row", seen)
        async with anyio.create_task_group() as group:
            group.start_soon(keep_pruned, flows._store, settings, clock, lambda _: None)
            with anyio.fail_after(20):
                while max(clock.deadlines, default=0.0) < PRUNE_S / 2:  # it has pruned all there is
                    await clock.advance(0.01)
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        left = [
            [kept[0] for kept in await flows._store.rows(f"SELECT seq FROM {table} ORDER BY seq")]
            for table in ("deliveries", "dispatches")
        ]
    assert left == [[6, 7, 8], [6, 7, 8]]
    of = ("_of_dispatches", "", "_of_deliveries", "_of_entries", "_of_flows")
    lines = [SQL[f"keep_line{each}"] for each in of]
    assert [sql for sql in asked if sql in lines] == lines
