"""http_client: one HTTP request, redirects followed, to public hosts and those that the settings allow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import anyio.to_thread
from pydantic import Field, field_validator, model_validator
from typing_extensions import override

from ...errors import Issue
from ...outside.addresses import HostAllowance, is_private_literal
from ...settings import FlowSettings
from ..protocol import AttemptContext, Json
from .formats import Format
from .tool import Absent, Tool, ToolEnvironment, ToolParameters

if TYPE_CHECKING:
    from ...outside.guarded_transport import Resolver
    from .http_exchange import HttpExchange

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_HEADER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})

Scalar = str | int | float | bool | None
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class HttpClientParameters(ToolParameters):
    """What http_client takes."""

    url: str = Field(
        min_length=1,
        max_length=8192,
        description="an absolute http or https URL",
        examples=["https://api.example.com/orders"],
    )
    method: Method = Field("GET", description="the request's method")
    headers: dict[str, str] = Field(
        default_factory=dict, max_length=100, description="request headers; put credentials here, as secrets"
    )
    params: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict, max_length=1000, description="query parameters, added to those of the url"
    )
    json_body: Json = Field(None, alias="json", description="a JSON body")
    body: str | None = Field(None, description="a text body, instead of json")
    timeout_s: float = Field(
        30.0, gt=0, le=300, description="for the whole exchange, redirects and body included; in seconds"
    )
    format: Format = Field(
        "auto",
        description="of the response's body: auto (parsed where the content type says JSON, else text), json, text, "
        "csv, lines, bytes (base64)",
    )
    accept_status: list[Annotated[int, Field(ge=400, le=599)]] = Field(
        default_factory=list,
        max_length=200,
        description="statuses of 400 and more that do not fail the attempt",
        examples=[[404]],
    )

    @field_validator("method", mode="before")
    @classmethod
    def _upper(cls, method: object) -> object:
        return method.upper() if isinstance(method, str) else method

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError(f"{name!r} is not a header's name")
            if name.lower() in _OWN_HEADERS:
                raise ValueError(f"{name} is set by http_client itself; leave it out")
            if _NOT_IN_HEADER.search(value):
                raise ValueError(f"the value of {name} holds a line break or another control character")
        return headers

    @model_validator(mode="after")
    def _one_body(self) -> HttpClientParameters:
        if "json_body" in self.model_fields_set and self.body is not None:
            raise ValueError("give json or body, not both")
        return self


class HttpClient(Tool[HttpClientParameters]):
    """One pooled client for all calls, made at the first."""

    name = "http_client"
    description = (
        "Makes an HTTP request (redirects are followed) and gives back {status, headers, body}, the body parsed where "
        "it is JSON. A status of 400 or more fails the attempt unless accept_status lists it; 408, 429 and 5xx are "
        "retried, other 4xx are not. Private addresses need allow_hosts in the settings."
    )
    parameters = HttpClientParameters

    def __init__(self, settings: FlowSettings, *, resolver: Resolver | None = None) -> None:
        self._allowance = HostAllowance(settings.allow_hosts)
        self._max_bytes = settings.max_response_bytes
        self._resolver = resolver
        self._exchange: HttpExchange | None = None

    @override
    async def run(
        self,
        parameters: HttpClientParameters,
        previous: Json | Absent,
        context: AttemptContext,
        environment: ToolEnvironment,
    ) -> Json:
        exchange = self._exchange or await self._open()
        return await exchange.perform(parameters, environment)

    async def _open(self) -> HttpExchange:
        made = await anyio.to_thread.run_sync(self._make_exchange)
        if self._exchange is None:  # another call may have been faster
            self._exchange = made
        return self._exchange

    def _make_exchange(self) -> HttpExchange:
        # Imported at the first call, off the event loop: httpx and the certificates take a good part of a second.
        from .http_exchange import HttpExchange

        return HttpExchange(self._allowance, self._resolver, max_bytes=self._max_bytes)

    @override
    async def aclose(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.aclose()

    @override
    def warnings(self, parameters: Mapping[str, Any], /) -> Sequence[Issue]:
        """A url whose host is, as it is written, a private address that the settings do not allow."""
        url = parameters.get("url")
        if not isinstance(url, str):
            return ()
        try:
            parts = urlsplit(url.partition("{{")[0])
            host = parts.hostname or ""
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            return ()
        ends_in_template = "{{" in url and not (parts.path or parts.query)
        if not host or ends_in_template or not is_private_literal(host) or self._allowance.allows(host, port):
            return ()
        shown = f"[{host}]" if ":" in host else host
        return (
            Issue(
                path="/url",
                code="private_address",
                message=f"{shown} is not a public address: http_client will refuse it when the task runs.",
                expected="a public host, or one that the settings allow",
                got=shown,
                suggestion=f"add {shown}:{port} to allow_hosts in the settings (CONTEXTEN_FLOW_ALLOW_HOSTS)",
            ),
        )
