"""History in figures, and runs and journal as files."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from fastapi import Query, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from contexten.extensions.flow.history import By, Export, ExportFormat, HistoryView
from contexten_server.api.listing import Parameters
from contexten_server.api.routing import Served, family, shown
from contexten_tools.arguments import FlowId
from contexten_tools.history import Time

router = family("history")


class SpanAsked(Parameters):
    """Of which time, and of which flow."""

    since: Time | None = Field(None, description="a time, or so long ago; from the beginning by default")
    until: Time | None = Field(None, description="the same; until now by default")
    flow_id: FlowId | None = Field(None, description="of this flow only")


class HistoryAsked(SpanAsked):
    """What of history."""

    by: By = Field("flow", description="what it is grouped by")
    limit: Annotated[int, Field(ge=1, le=500)] = Field(50, description="rows")


@router.get("/history", response_model=HistoryView)
async def get_history(app: Served, asked: Annotated[HistoryAsked, Query()]) -> Response:
    """What ended: how many, how well, how long it took and waited, what it cost."""
    return shown(await app.service.history.report(**asked.model_dump()))


_MEDIA = {"jsonl": "application/jsonl", "csv": "text/csv"}


def _file(media: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "lines, oldest first", "content": {media: {"schema": {"type": "string"}}}}}


def _add(what: Export, format: ExportFormat) -> None:
    async def export(app: Served, asked: Annotated[SpanAsked, Query()]) -> StreamingResponse:
        lines = await app.service.history.export(what, format, **asked.model_dump())
        name = {"Content-Disposition": f'attachment; filename="{what}.{format}"'}
        return StreamingResponse(lines, media_type=_MEDIA[format], headers=name)

    router.add_api_route(
        f"/export/{what}.{format}",
        export,
        methods=["GET"],
        name=f"export_{what}_{format}",
        description=f"{'Runs' if what == 'runs' else 'Entries of the journal'}, as a file.",
        status_code=200,
        response_class=StreamingResponse,
        responses=_file(_MEDIA[format]),
    )


for _what in get_args(Export):
    for _format in get_args(ExportFormat):
        _add(_what, _format)
