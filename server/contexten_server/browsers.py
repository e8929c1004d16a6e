"""What browsers are told with every answer, and which of their requests are refused.

A browser sends requests for any page that it shows. The API answers none of them unless the page is ours: where the
browser says which site asked it must be this one (https://www.w3.org/TR/fetch-metadata/), and bodies are JSON, which no
form of another site can send. Pages of ours run no script but files of ours.
"""

from __future__ import annotations

from email.message import Message as MimeHeaders
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contexten_server.access import API, route_path
from contexten_server.http_errors import refusal

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_OWN_SITES = frozenset({"same-origin", "none"})  # none: typed by the user, or not sent by a page

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""With every answer that does not bring its own: no page but the dashboard's has anything to show."""


class Browsers:
    """An ASGI application behind what protects its users' browsers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        is_api = route_path(scope).startswith(API)  # asked first: routing changes the scope

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if is_api:
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = _refused(scope) if is_api else None
        await (refused or self._app)(scope, receive, send_with_headers)


def _refused(scope: Scope) -> Response | None:
    """The answer to a request to the API that another site may have made a browser send."""
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site", "none")
    if site not in _OWN_SITES:
        return refusal(
            HTTPStatus.FORBIDDEN,
            "cross_site",
            f"A page of another site ({site}) asked for this.",
            "Use the dashboard of this server, or a program that is no browser.",
        )
    if scope["method"] in _WITH_BODY and not _is_json(headers.get("content-type", "")):
        return refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Requests that change things are sent as application/json, in UTF-8.",
            "Send the header Content-Type: application/json, also with an empty body.",
        )
    return None


def _is_json(content_type: str) -> bool:
    """Whether that is JSON in the one encoding that it has (RFC 8259, 8.1)."""
    kind = MimeHeaders()
    kind["Content-Type"] = content_type
    return kind.get_content_type() == "application/json" and kind.get_content_charset("utf-8") in ("utf-8", "utf8")
