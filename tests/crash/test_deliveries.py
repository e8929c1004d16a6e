"""Killed at each commit, before and after it: what was accepted, and each planned time, starts one run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from contexten.extensions.flow.store import SCHEMA_LEVEL

from .conftest import Lives, World
from .test_points import EVERY

if TYPE_CHECKING:
    from pathlib import Path

FLOW: dict[str, Any] = {"stages": [{"name": "only", "tasks": [{"name": "note", "type": "note"}]}]}
EVENTS = ("one", "two", "three")
HOUR_S = 3600.0
SENT: list[list[Any]] = [["deliver", "target", *EVENTS], ["deliver", "target", *EVENTS], ["delivered"]]
PROGRAMS: dict[str, list[list[Any]]] = {
    "free": [["create", "target", FLOW], ["trigger", "target"], *SENT],
    "bounded": [["create", "target", FLOW], ["trigger", "target", "webhook", {"max_active": 1}], *SENT],
    "schedule": [
        ["create", "target", FLOW],
        ["trigger", "target", "interval", {"every_s": HOUR_S, "catch_up": "all", "overlap": "queue"}],
        ["be_late", "target", 2.5 * HOUR_S],
        ["fired", "target", len(EVENTS)],
        ["delivered"],
    ],
}
STRIDES = {"free": 9, "bounded": 13, "schedule": 13}
"""Of the sample that is taken where not every point is tried."""


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_kill_at_any_commit_loses_no_delivery_and_starts_none_twice(lives: Lives, tmp_path: Path, kind: str) -> None:
    program = PROGRAMS[kind]
    whole = World(lives, tmp_path / "whole")
    total = whole.live(*program).counts["commit"]
    # The first commits make the tables.
    places = [(number, side) for number in range(SCHEMA_LEVEL + 1, total + 1) for side in ("before", "after")]
    for number, side in places if EVERY else places[:: STRIDES[kind]]:
        world = World(lives, tmp_path / f"{number}-{side}")
        life = world.live(*program, kill={"at": "commit", "number": number, "side": side})
        if not life.was_killed:  # groups fell otherwise: this life had fewer
            continue
        told = [line["delivered"] for line in life.lines if "delivered" in line]
        kept = {event_id for (event_id,) in world.rows("SELECT event_id FROM deliveries")}
        assert kept >= set(told), "what was acknowledged is lost"
        world.live(*program)  # as senders do that saw no answer: the same events again
        world.run_to_the_end()
        rows = world.rows("SELECT state, run_id FROM deliveries")
        assert [state for state, _ in rows] == ["started"] * len(EVENTS)
        assert {run_id for _, run_id in rows} == set(world.runs())
        assert len(world.runs()) == len(EVENTS)
