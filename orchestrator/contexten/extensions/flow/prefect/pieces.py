"""Long text through Prefect's API: as artifacts, a piece each, because parameters and requests have limits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ..errors import AttemptError
from .connection import Connection

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.filters import ArtifactFilter
    from prefect.client.schemas.objects import Artifact

PIECE_CHARS = 250_000
"""Under half a megabyte whatever the characters: what hosted APIs and proxies let pass in one request."""
MAX_CHARS = 50_000_000
"""More than that belongs into a file or an object store, with its address in the flow."""
_AT_ONCE = 20  # pieces read in one request
ATTEMPT = "contexten-flow-attempt"
VERDICT = "contexten-flow-verdict"
"""The artifacts' types."""


async def store(connection: Connection, text: str, kind: str, *, flow_run_id: UUID | None = None) -> list[str]:
    """Store the text and answer its pieces' ids in order. Raises AttemptError (invalid for more than MAX_CHARS)."""
    if len(text) > MAX_CHARS:
        raise AttemptError(
            f"The data has {len(text):,} characters; at most {MAX_CHARS:,} go through Prefect's API. Pass such data by "
            "reference: a file or an address that server and workers reach.",
            kind="invalid",
        )
    parts = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)] or [""]
    ids = []
    for number, part in enumerate(parts):
        data: dict[str, Any] = {"piece": number, "of": len(parts), "text": part}
        piece = {"type": kind, "data": data, "flow_run_id": str(flow_run_id) if flow_run_id else None}
        ids.append(await connection.ask(partial(_create, piece)))
    return ids


async def fetch(connection: Connection, ids: Sequence[str]) -> str | None:
    """The text of these pieces; None where one is missing. Raises AttemptError."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterId

    found: list[Artifact] = []
    for at in range(0, len(ids), _AT_ONCE):
        some = ArtifactFilter(id=ArtifactFilterId(any_=[UUID(one) for one in ids[at : at + _AT_ONCE]]))
        found += await connection.ask(partial(_read, some, 0))
    return _joined(found)


async def fetch_of(connection: Connection, flow_run_id: UUID, kind: str) -> str | None:
    """The text that was stored with a flow run; None where there is none, or a piece is missing. Raises
    AttemptError."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]), type=ArtifactFilterType(any_=[kind])
    )
    found: list[Artifact] = []
    while True:
        page = await connection.ask(partial(_read, wanted, len(found)))
        found += page
        if len(page) < _AT_ONCE:
            return _joined(found)


async def _create(piece: dict[str, Any], client: PrefectClient) -> str:
    """Answers its id. Prefect's own method emits an event besides, and starts a server for that where no API is
    configured."""
    response = await client.request("POST", "/artifacts/", json=piece)
    return str(response.json()["id"])


async def _read(wanted: ArtifactFilter, offset: int, client: PrefectClient) -> list[Artifact]:
    from prefect.client.schemas.sorting import ArtifactSort

    return await client.read_artifacts(artifact_filter=wanted, limit=_AT_ONCE, offset=offset, sort=ArtifactSort.ID_DESC)


def _joined(artifacts: Sequence[Artifact]) -> str | None:
    parts: dict[int, str] = {}
    of = None
    for artifact in artifacts:
        data = artifact.data
        if isinstance(data, dict):
            of = data.get("of")
            parts[int(data["piece"])] = str(data["text"])  # a repeated request may have stored one twice
    if of is None or len(parts) != of:
        return None
    return "".join(parts[number] for number in range(len(parts)))
