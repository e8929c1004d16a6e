"""Lists of tools with one that the protocol does not allow: without that one.

The protocol library refuses such a list as a whole, and with it all tools of the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCResponse
from mcp_types.methods import validate_server_result
from pydantic import ValidationError

logger = logging.getLogger(__name__)

_LIST = "tools/list"


class SiftedStream:
    """The messages of a server as its transport reads them; lists of tools hold only what can be read."""

    def __init__(self, stream: Any, server: str, version: Callable[[], str | None]) -> None:
        """`version` tells the protocol that is spoken, None while that is not known."""
        self._stream = stream
        self._server = server
        self._version = version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> SiftedStream:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return self._sift(await self._stream.__anext__())

    async def receive(self) -> SessionMessage | Exception:
        """The next message. Raises as the stream does."""
        return self._sift(await self._stream.receive())

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> bool | None:
        is_dealt_with: bool | None = await self._stream.__aexit__(exc_type, exc_val, exc_tb)
        return is_dealt_with

    def _sift(self, received: SessionMessage | Exception) -> SessionMessage | Exception:
        answer = None if isinstance(received, Exception) else received.message
        version = self._version()
        if isinstance(answer, JSONRPCResponse) and "content" not in answer.result and version is not None:
            tools, rest = answer.result.get("tools"), {**answer.result, "tools": []}
            if isinstance(tools, list) and _why_not(answer.result, version) and not _why_not(rest, version):
                answer.result["tools"] = [tool for tool in tools if self._is_readable(tool, rest, version)]
        return received

    def _is_readable(self, tool: Any, rest: dict[str, Any], version: str) -> bool:
        why = _why_not({**rest, "tools": [tool]}, version)
        if why:
            name = str(tool.get("name") if isinstance(tool, dict) else tool)[:80]
            logger.warning(
                "the MCP server %s lists the tool %r, which is left out: %s",
                self._server,
                name,
                why,
                extra={"action": "list_tools", "server": self._server},
            )
        return not why


def _why_not(listing: dict[str, Any], version: str) -> str:
    """What the protocol does not allow in it; empty where it allows all."""
    try:
        validate_server_result(_LIST, version, listing)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][2:])
        return f"{place or 'it'}: {first['msg']}"
    except (KeyError, ValueError):  # of a version that the library does not know, it allows all as well
        return ""
    return ""
