"""What the API's document says of errors, and the answer to a request that does not fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.responses import Response

from contexten.extensions.flow.definition.pointers import pointer
from contexten.extensions.flow.errors import InvalidArguments, Issue
from contexten.extensions.flow.views import IssueView
from contexten_server.http_errors import refused
from contexten_tools.arguments import Arguments, parse


class ErrorView(BaseModel):
    """What went wrong."""

    code: str
    message: str
    retryable: bool = Field(description="whether the same request may succeed later")
    next: Any = Field(description="what to do now")
    issues: list[IssueView] | None = Field(None, description="all that was wrong with what was sent")


class ErrorAnswer(BaseModel):
    """The answer to a request that was refused."""

    error: ErrorView


ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in (
        (400, "the body is no JSON"),
        (401, "no bearer token, or one that is not accepted"),
        (403, "the server is read-only, or the request comes from another site"),
        (404, "nothing has that id"),
        (409, "it does not fit the state that things are in"),
        (413, "the body is too large"),
        (415, "the body is not sent as application/json"),
        (421, "this server has not the name that the request asks for"),
        (422, "parameters, body or definition are wrong: the issues say where"),
        (429, "too much waits already"),
        (500, "a fault of the server's, logged under the id that the message names"),
        (503, "the server stops, or its database cannot be used now"),
    )
}
"""What operations may answer instead of what was asked for."""

OF_BODIES = frozenset({400, 413})
"""Those of them that only operations with a body answer."""


async def invalid(request: Request, error: RequestValidationError) -> Response:
    """The answer to parameters or a body that do not fit: every problem with its place."""
    name = request.scope["route"].name
    issues: list[Issue] = []
    for model, given in _asked(request, error):
        try:
            parse(name, model, given)
        except InvalidArguments as found:
            issues += found.issues
    issues = issues or [
        Issue(path=pointer(*found["loc"][1:]), code="invalid_value", message=str(found["msg"]))
        for found in error.errors()
    ]
    count = "One argument is" if len(issues) == 1 else f"{len(issues)} arguments are"
    told = " ".join(issue.message for issue in issues[:3])
    return await refused(request, InvalidArguments(f"{count} wrong: {told}", issues=issues))


def _asked(request: Request, error: RequestValidationError) -> list[tuple[type[Arguments], Mapping[str, Any]]]:
    """The models that the parameters and the body were held against, with what was sent."""
    dependant = request.scope["route"].dependant
    asked: list[tuple[type[Arguments], Mapping[str, Any]]] = []
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, Arguments):
            asked.append((model, dict(request.query_params)))
    for field in dependant.body_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, Arguments) and isinstance(error.body, dict):
            asked.append((model, error.body))
    return asked
