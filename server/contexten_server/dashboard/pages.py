"""The dashboard's page and its assets, over HTTP."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

ASSETS = Path(__file__).with_name("assets")
"""What browsers are given. There is nothing secret in it, so it is open to anybody; data comes through /api only."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By file name's ending. Not from the machine's table of types: some call scripts plain text, and browsers that are
told not to sniff refuse them."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
}
"""Nothing from elsewhere, no script and no style but files of ours, and no text taken as markup; the rest is the same
for all answers of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asset:
    content: bytes
    media_type: str
    tag: str
    """Of the content: files of one wheel may all have the same time."""


def routes() -> list[Route]:
    """`/` and `/assets/...`, as the files are now."""
    assets = _read()

    async def index(request: Request) -> Response:
        return _answer(request, assets["index.html"])

    async def asset(request: Request) -> Response:
        found = assets.get(request.path_params["path"])
        return PlainTextResponse("Not found\n", status_code=404) if found is None else _answer(request, found)

    return [Route("/", index), Route("/assets/{path:path}", asset)]


def _read() -> dict[str, _Asset]:
    """All that browsers may have, by its path: what is asked for is looked up here, and never becomes a file's name."""
    found: dict[str, _Asset] = {}
    for path in ASSETS.rglob("*"):
        if path.suffix in _TYPES and path.is_file():
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            name = path.relative_to(ASSETS).as_posix()
            found[name] = _Asset(content=content, media_type=_TYPES[path.suffix], tag=tag)
    return found


def _answer(request: Request, asset: _Asset) -> Response:
    """The asset, or that the browser's copy is still good."""
    headers = {**_HEADERS, "ETag": asset.tag, "Cache-Control": "no-cache"}
    known = (given.strip().removeprefix("W/") for given in request.headers.get("if-none-match", "").split(","))
    if asset.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.media_type)
