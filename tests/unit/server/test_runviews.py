"""The call to make now that comes with a run."""

from __future__ import annotations

import pytest

from contexten.extensions.flow.views import Progress, RunView
from contexten_tools.runviews import next_call


@pytest.mark.parametrize(("root", "resumed"), [(None, "run_one"), ("run_top", "run_top")])
def test_a_paused_run_is_resumed_with_the_run_that_it_is_part_of(root: str | None, resumed: str) -> None:
    run = RunView(
        run_id="run_one",
        flow_id="one",
        name="one",
        version=1,
        state="paused",
        progress=Progress(completed=0, total=1),
        cursor="x.1",
        next_poll_s=30.0,
        root_run_id=root,
    )
    assert next_call(run) == {"tool": "control_flow", "arguments": {"run_id": resumed, "action": "resume"}}
