"""The names of resources."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from contexten.extensions.flow.live.watching import Change

FLOWS = "flow://flows"
FLOW = "flow://flows/{flow_id}"
RUN = "flow://runs/{run_id}"
EVENTS = "flow://runs/{run_id}/events"
OUTPUT = "flow://runs/{run_id}/outputs/{task}"
METRICS = "flow://metrics"
SCHEDULER = "flow://scheduler"
AGENTS = "flow://agents"
SCHEMA = "flow://schema/workflow"
REFERENCE = "flow://reference/{topic}"


def fill(template: str, **values: str) -> str:
    """The URI of one resource of a template, its values percent-encoded."""
    return template.format(**{name: quote(value, safe="") for name, value in values.items()})


def touched(change: Change) -> list[str]:
    """The resources that a change may have changed, the run first."""
    uris: list[str] = []
    if change.run_id is not None:
        uris += [fill(RUN, run_id=change.run_id), fill(EVENTS, run_id=change.run_id)]
    if change.flow_id is not None:
        uris.append(fill(FLOW, flow_id=change.flow_id))
    return [*uris, FLOWS, SCHEDULER, METRICS]
