"""The API as one application, with its description at /api/openapi.json."""

from __future__ import annotations

from typing import Any

import anyio
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from contexten.extensions.flow.errors import FlowError
from contexten_server.api import flows, history, live, notifications, refusals, runs, scheduling, triggers
from contexten_server.api.streams import Streams
from contexten_server.assembly import program_version
from contexten_server.http_errors import not_served, refused
from contexten_tools import App

_DESCRIPTION = """\
What Contexten Flow answers over MCP, as plain HTTP: flows, runs, the queue, triggers, notifications, history, and live
changes as server-sent events.

Answers leave out what is absent. Errors have one shape, `{"error": {code, message, issues?, retryable, next}}`; an
issue's `path` is a JSON Pointer into the parameters or the body. Bodies are sent as `application/json`, at most 8 MiB;
requests that change something say so also where they have none. Unknown parameters and fields are refused."""


class _Api(FastAPI):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HEAD is GET whose answer has no body, and whose stream ends before it begins."""
        if scope.get("method") != "HEAD":
            await super().__call__(scope, receive, send)
            return
        with anyio.CancelScope() as answered:

            async def send_start(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
                    answered.cancel()

            await super().__call__({**scope, "method": "GET"}, receive, send_start)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"]["securitySchemes"] = {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "one of the operator's tokens, or an access token of the server's issuer",
                }
            }
            document["security"] = [{"bearer": []}] if self.state.wants_token else []
            _share_errors(document)
            self.openapi_schema = document
        return self.openapi_schema


def _share_errors(document: dict[str, Any]) -> None:
    """Describe errors once, as JSON whatever the operation's own answers are, and leave out what cannot be."""
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    document["components"]["responses"] = {
        str(status): {"description": answer["description"], "content": error}
        for status, answer in refusals.ANSWERS.items()
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            for status in refusals.ANSWERS:
                if status in refusals.OF_BODIES and "requestBody" not in operation:
                    del operation["responses"][str(status)]
                else:
                    operation["responses"][str(status)] = {"$ref": f"#/components/responses/{status}"}


def _operation_id(route: APIRoute) -> str:
    return route.name


def application(app: App) -> FastAPI:
    """The API over the app's service, to be mounted at /api behind the server's guard."""
    settings = app.settings
    api = _Api(
        title="Contexten Flow",
        description=_DESCRIPTION,
        version=program_version(),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,  # what has a default may be absent in answers
        generate_unique_id_function=_operation_id,
        exception_handlers={
            FlowError: refused,
            RequestValidationError: refusals.invalid,
            HTTPException: not_served,
        },
    )
    api.state.served = app
    api.state.streams = Streams()
    api.state.wants_token = bool(settings.tokens or settings.oauth_issuer)
    for module in (flows, runs, scheduling, triggers, notifications, history, live):
        api.include_router(module.router)
    return api
