"""How the API's routes read a request: strict JSON of bounded size, known parameters only, and who asks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from contexten.extensions.flow.actor import Actor
from contexten.extensions.flow.definition import DuplicateKeys, load_json
from contexten.extensions.flow.definition.pointers import pointer
from contexten.extensions.flow.errors import FlowError, InvalidArguments, Issue
from contexten.extensions.flow.views import View
from contexten_server.api.refusals import ANSWERS
from contexten_server.http_errors import ReadOnly, unexpected
from contexten_tools import App
from contexten_tools.arguments import Arguments, parse

MAX_BODY_BYTES = 8 << 20
"""Of a request: a definition has at most 1 MiB by default, inputs are as long as they are."""

_MAX_NAME = 80


class _JsonRequest(Request):
    """A request whose body is JSON as the rest of the program takes it: no NaN, no key twice, nothing but Unicode."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            chunks: list[bytes] = []
            size = 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise HTTPException(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has at most {MAX_BODY_BYTES:,} bytes."
                    )
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        body = await self.body()
        try:
            data = load_json(body, parse_constant=_refuse_constant)
            if b"\\u" in body:
                json.dumps(data, ensure_ascii=False).encode()  # raises for a lone surrogate
        except json.JSONDecodeError as error:
            reason = f"{error.msg} at line {error.lineno}, column {error.colno}"
        except DuplicateKeys as error:
            reason = str(error)
        except RecursionError:
            reason = "it is nested too deeply"
        except UnicodeError:
            reason = "it holds text that is not Unicode"
        except ValueError as error:
            reason = str(error)
        else:
            return data
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"The body is not JSON that this server reads: {reason}.")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class _Route(APIRoute):
    """A route that answers faults of ours too in the API's own words."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(_JsonRequest(request.scope, request.receive))
            except (FlowError, HTTPException, RequestValidationError):
                raise
            except Exception as error:  # noqa: BLE001 - the outermost edge of a request: logged, its text kept here
                return unexpected(self.name, error)

        return answer


class NoParameters(Arguments):
    """Of operations without parameters."""


async def _served(request: Request) -> App:
    app: App = request.app.state.served
    return app


Served = Annotated[App, Depends(_served)]
"""The app that is asked."""


async def _caller(request: Request) -> Actor:
    user = request.scope.get("user")
    subject = getattr(getattr(user, "access_token", None), "subject", None) or ""
    browser = request.headers.get("sec-fetch-site") == "same-origin"  # pages of ours alone are: the dashboard
    client = "dashboard" if browser else request.headers.get("user-agent", "").partition("/")[0].strip()
    return Actor(subject=_plain(subject), client=_plain(client) or "unknown", transport="http", tool=_name(request))


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:_MAX_NAME]


def _name(request: Request) -> str:
    return str(request.scope["route"].name)


Caller = Annotated[Actor, Depends(_caller)]
"""Who asks, for the audit trail."""


async def _writable(request: Request) -> None:
    app: App = request.app.state.served
    if app.read_only:
        raise ReadOnly(
            f"{_name(request)} changes things, and this server was started with --read-only.",
            next="Ask the operator to start the server without --read-only.",
        )


WRITES = Depends(_writable)
"""Of operations that change something: refused by a read-only server."""


async def _known_parameters(request: Request) -> None:
    """None twice. Operations with parameters refuse others themselves."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    twice = [name[:_MAX_NAME] for name, count in counts.items() if count > 1]
    if twice:
        issues = [
            Issue(path=pointer(name), code="duplicate_argument", message=f"{name!r} is given more than once.")
            for name in twice
        ]
        raise InvalidArguments(f"A parameter is given once: {issues[0].message}", issues=issues)
    if not request.scope["route"].dependant.query_params:
        parse(_name(request), NoParameters, dict(request.query_params))


def family(name: str) -> APIRouter:
    """A router for the operations of that family."""
    return APIRouter(route_class=_Route, tags=[name], responses=ANSWERS, dependencies=[Depends(_known_parameters)])


def shown(view: View) -> Response:
    """A view as the answer, absent fields left out."""
    return JSONResponse(view.data())
