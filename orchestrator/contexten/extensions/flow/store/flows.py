"""Changes of flows: saving definitions and their versions."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import FlowExists, FlowNotFound, InvalidArguments
from .sql import SQL
from .writer import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveFlow:
    """A definition to save. `digest` is that of its content: equal digests are equal definitions."""

    flow_id: str
    name: str
    description: str | None
    tags: str
    digest: str
    definition: str
    at: float
    actor: str | None
    listed: bool = True


def create(tx: Transaction, flow: SaveFlow) -> tuple[int, bool]:
    """Save a flow's first version; answers (version, whether it was there already).

    Raises FlowExists where the id has other content.
    """
    head = tx.row(SQL["flow_head"], (flow.flow_id,))
    if head is None:
        tx.execute(
            SQL["insert_flow"],
            (flow.flow_id, flow.name, flow.description, flow.tags, int(flow.listed), flow.at, flow.at),
        )
        tx.execute(SQL["insert_version"], (flow.flow_id, 1, flow.digest, flow.definition, flow.at))
        tx.event("flow.created", flow.at, flow_id=flow.flow_id, actor=flow.actor, data='{"version": 1}')
        return 1, False
    version, digest, listed = head
    if digest != flow.digest:
        raise FlowExists(
            f"The flow {flow.flow_id!r} exists with other content (version {version}).",
            next=f"Call update_flow(flow_id={flow.flow_id!r}, workflow_def=...) for a new version, or use another id.",
        )
    if flow.listed and not listed:
        tx.execute(SQL["list_flow"], (flow.at, flow.flow_id))
        tx.event("flow.listed", flow.at, flow_id=flow.flow_id, actor=flow.actor)
    return version, True


def update(tx: Transaction, flow: SaveFlow, *, expected_version: int | None = None) -> tuple[int, bool]:
    """Save a flow's next version; answers (version, whether the latest had that content already).

    Raises FlowNotFound, and InvalidArguments where the flow moved past `expected_version` meanwhile.
    """
    head = tx.row(SQL["flow_head"], (flow.flow_id,))
    if head is None:
        raise FlowNotFound(f"There is no flow {flow.flow_id[:200]!r}.", next="Call list_flows() to see the flows.")
    version, digest, _ = head
    if digest == flow.digest:
        return version, True
    if expected_version is not None and version != expected_version:
        raise InvalidArguments(
            f"The flow {flow.flow_id!r} changed meanwhile: it is at version {version}, the patch was made for "
            f"{expected_version}.",
            next=f"Read get_flow_status(flow_id={flow.flow_id!r}, detail='definition') and patch that.",
        )
    tx.execute(
        SQL["update_flow"],
        (version + 1, flow.name, flow.description, flow.tags, flow.at, flow.flow_id, version),
    )
    tx.execute(SQL["insert_version"], (flow.flow_id, version + 1, flow.digest, flow.definition, flow.at))
    tx.event("flow.updated", flow.at, flow_id=flow.flow_id, actor=flow.actor, data=f'{{"version": {version + 1}}}')
    return version + 1, False
