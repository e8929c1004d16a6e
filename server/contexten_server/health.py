"""What those who watch over the process ask: whether it lives, and whether work may be sent to it."""

from __future__ import annotations

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from contexten.extensions.flow.clock import monotonic
from contexten.extensions.flow.errors import FlowError
from contexten_tools import App

_READY_S = 2.0
_FRESH_S = 1.0  # anybody may ask, and each answer costs a commit: one a second, however many ask


class _Readiness:
    """The last answer and its age."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._asking = anyio.Lock()
        self._code: str | None = None
        self._until = -1.0

    async def obstacle(self) -> str | None:
        """Why no work should be sent, as an error's code; None where it is welcome."""
        async with self._asking:
            if monotonic() >= self._until:
                self._code = await self._ask()
                self._until = monotonic() + _FRESH_S
            return self._code

    async def _ask(self) -> str | None:
        try:
            with anyio.fail_after(_READY_S):
                await self._app.service.check_ready()
        except FlowError as error:
            return error.code
        except TimeoutError:
            return "timeout"
        return None


def routes(app: App, stopping: anyio.Event | None = None) -> list[Route]:
    """`/healthz`: the process lives. `/readyz`: it takes work and its database can be written; 503 with the reason's
    code where not, from the moment that `stopping` is set too."""
    readiness = _Readiness(app)

    async def healthz(request: Request) -> Response:  # noqa: ARG001 - a route's signature
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:  # noqa: ARG001 - a route's signature
        is_stopping = stopping is not None and stopping.is_set()
        code = "closing" if is_stopping else await readiness.obstacle()
        if code is not None:
            return JSONResponse({"ready": False, "code": code}, status_code=503)
        return JSONResponse({"ready": True})

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
