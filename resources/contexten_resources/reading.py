"""How a resource is read: JSON text of a view, errors in the protocol's own words, and how long a client may keep
it."""

from __future__ import annotations

import functools
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.shared.exceptions import MCPError
from mcp_types import ReadResourceRequestParams, ReadResourceResult

from contexten.extensions.flow.errors import FlowError, NotFound
from contexten.extensions.flow.views import View
from contexten_resources.served import low_level

logger = logging.getLogger(__name__)

P = ParamSpec("P")

TEXT_TTL_MS = 3_600_000
"""How long clients may keep what changes with the program's version only."""

_TEXTS = ("flow://reference/", "flow://schema/", "ui://")
_TOOLS_TEXT = "flow://reference/tools"  # depends on the agents of this process


def shown(read: Callable[P, Awaitable[View]]) -> Callable[P, Awaitable[str]]:
    """The same function, answering its view as compact JSON text."""

    @functools.wraps(read)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> str:
        data = (await read(*args, **kwargs)).data()
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    return answer


def readable(read: Callable[P, Awaitable[str]]) -> Callable[P, Awaitable[str]]:
    """The same function, its errors as a client of resources expects them: what is not there is -32602 with the URI."""

    @functools.wraps(read)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return await read(*args, **kwargs)
        except NotFound as error:
            raise ResourceNotFoundError(error.message) from error
        except FlowError as error:
            raise ResourceError(f"{error.message} ({error.code})") from error
        except (ResourceError, MCPError):
            raise
        except Exception as error:
            fault_id = secrets.token_hex(4)
            logger.exception("A resource could not be read, fault id %s", fault_id)
            raise ResourceError(f"The server met an unexpected fault (id {fault_id}).") from error

    return answer


def let_clients_keep_texts(server: MCPServer[Any]) -> None:
    """Say with each read how long the content stays good: texts long and for everybody, live state not at all."""
    protocol = low_level(server)
    entry = protocol.get_request_handler("resources/read")
    if entry is None:
        raise RuntimeError("the server reads no resources")
    read = entry.handler

    async def handler(ctx: ServerRequestContext[Any, Any], params: ReadResourceRequestParams) -> HandlerResult:
        result = await read(ctx, params)
        uri = str(params.uri)
        if isinstance(result, ReadResourceResult) and uri.startswith(_TEXTS) and uri != _TOOLS_TEXT:
            return result.model_copy(update={"ttl_ms": TEXT_TTL_MS, "cache_scope": "public"})
        return result

    protocol.add_request_handler("resources/read", ReadResourceRequestParams, handler)
