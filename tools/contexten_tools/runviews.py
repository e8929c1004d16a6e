"""A run as a tool shows it: its view, and the call to make now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from contexten.extensions.flow.errors import IllegalMove
from contexten.extensions.flow.states import RunState
from contexten.extensions.flow.views import RunView
from contexten_tools.budget import DEFAULT_CHARS, bounded, cut_events, put_text

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService

_INLINE_OUTPUT_CHARS = 4000  # an output this short comes with the news of its run's end


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """A call to make, as `next` says it; arguments that are None are left out."""
    return {"tool": tool, "arguments": {name: value for name, value in arguments.items() if value is not None}}


def next_call(run: RunView) -> Any:
    """What an agent that sees this run calls now; None where nothing suggests itself."""
    match RunState(run.state):
        case RunState.SCHEDULED | RunState.RUNNING | RunState.WAITING:
            return call("wait_for_flow", run_id=run.run_id)
        case RunState.PAUSED:
            return call("control_flow", run_id=run.root_run_id or run.run_id, action="resume")
        case RunState.FAILED:
            return call("explain_flow", run_id=run.run_id)
        case RunState.COMPLETED:
            return call("get_flow_status", run_id=run.run_id, detail="output")
        case RunState.CANCELLED:
            return None


def run_answer(run: RunView) -> dict[str, Any]:
    """The run as data, with `next`."""
    data = run.data()
    step = next_call(run)
    if step is not None:
        data["next"] = step
    return data


async def ended_answer(service: FlowService, run: RunView, max_chars: int = DEFAULT_CHARS) -> dict[str, Any]:
    """The run as data with its output where it has completed and the output is short; events cut to fit."""
    data = run_answer(run)
    cut_events(data, max_chars - _INLINE_OUTPUT_CHARS)
    if run.state == RunState.COMPLETED and "output" not in data:
        try:
            text = await service.run_output(run.run_id)
        except IllegalMove:  # it has none
            return bounded(data, max_chars)
        data["has_output"] = True
        if len(text) <= _INLINE_OUTPUT_CHARS:
            put_text(data, "output", text, max_chars, lambda since: since)
            data.pop("next", None)
    return bounded(data, max_chars)
