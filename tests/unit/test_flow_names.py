"""A flow's name and its versions: what is the same stays one version, and no name changes by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow.service import FlowService
from contexten.extensions.flow.settings import FlowSettings

pytestmark = pytest.mark.anyio

STAGES: dict[str, Any] = {"stages": [{"name": "s", "tasks": [{"name": "a"}]}]}


@pytest.mark.parametrize(
    ("definition", "name"), [(STAGES, None), (STAGES, "Other"), ({"name": "N", **STAGES}, "Other")]
)
@pytest.mark.parametrize("is_patch", [True, False])
async def test_an_update_that_changes_nothing_is_no_new_version(
    tmp_path: Path, definition: dict[str, Any], name: str | None, is_patch: bool
) -> None:
    async with FlowService(FlowSettings(database=tmp_path / "f.sqlite3"), drive=False) as service:
        created = await service.create_flow(workflow_def=definition, name=name)
        change: dict[str, Any] = {"patch": []} if is_patch else {"workflow_def": definition}
        saved = await service.update_flow(created.flow_id, **change)
        assert (saved.version, saved.existing, saved.name) == (1, True, created.name)


async def test_a_flow_keeps_the_name_it_was_created_under_until_its_definition_has_another(tmp_path: Path) -> None:
    async with FlowService(FlowSettings(database=tmp_path / "f.sqlite3"), drive=False) as service:
        definition = {"name": "N", **STAGES}
        flow_id = (await service.create_flow(workflow_def=definition, name="Other")).flow_id
        changed = await service.update_flow(flow_id, workflow_def={**definition, "description": "more"})
        assert (changed.version, changed.name) == (2, "Other")
        renamed = await service.update_flow(flow_id, workflow_def={**definition, "name": "M"})
        assert (renamed.version, renamed.name) == (3, "M")
        assert (await service.get_flow(flow_id)).name == "M"
