"""Lines over stdio that are no MCP messages, answered as JSON-RPC says.

The SDK's reader drops them, and a client that waits for the answer to its id waits for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from mcp_types import INVALID_REQUEST, PARSE_ERROR, jsonrpc_message_adapter
from pydantic import ValidationError

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_ID = re.compile(r'\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)\s*[,}]')
_LONGEST_ID = 200


def refusal_of(line: str) -> str | None:
    """The error response to a line that is no message; None for a message, and for what JSON-RPC leaves unanswered.

    It carries the request's id where that can be read, and null where it cannot. A malformed notification or response
    is not answered; a request whose id is neither text nor an integer is, since the SDK takes it for a notification.
    """
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        if any(found["type"] == "json_invalid" for found in error.errors(include_url=False, include_input=False)):
            return _response(
                _written_id(line),
                PARSE_ERROR,
                "The line is not JSON that this server reads: a JSON-RPC message in one line, in UTF-8, without lone "
                "surrogates, nested at most about 200 levels deep.",
            )
        return _refuse(line)
    if getattr(message, "id", None) is None and '"id"' in line:
        return _refuse(line)
    return None


def _refuse(line: str) -> str | None:
    try:
        message: Any = json.loads(line)
    except ValueError:  # a number of thousands of digits
        return _response(_written_id(line), PARSE_ERROR, "The line has a number that this server cannot read.")
    if isinstance(message, list):
        return _response(None, INVALID_REQUEST, "MCP has no batches: send each message in a line of its own.")
    if not isinstance(message, dict):
        return _response(None, INVALID_REQUEST, "A JSON-RPC message is an object.")
    if "method" not in message and ("result" in message or "error" in message):
        return None
    if "id" not in message:  # a malformed notification has a method
        return None if "method" in message else _response(None, INVALID_REQUEST, "A request has method and id.")
    named = message["id"]
    if isinstance(named, bool) or not isinstance(named, str | int):
        return _response(None, INVALID_REQUEST, "The id of a request is text or an integer.")
    return _response(
        named, INVALID_REQUEST, 'A request is {"jsonrpc": "2.0", "id": ..., "method": "...", "params": {...}}.'
    )


def _written_id(line: str) -> str | int | None:
    """The id that stands in the outermost object of a line that cannot be parsed."""
    depth = 0
    for token in _TOKEN.finditer(line):
        text = token.group()
        if text in ("{", "["):
            depth += 1
        elif text in ("}", "]"):
            depth -= 1
        elif depth == 1 and text == '"id"' and (found := _ID.match(line, token.end())):
            if len(found[1]) > _LONGEST_ID:
                return None
            value: str | int = json.loads(found[1], strict=False)
            return value
    return None


def _response(named: str | int | None, code: int, message: str) -> str:
    # In ASCII: an id may hold what UTF-8 cannot.
    return json.dumps({"jsonrpc": "2.0", "id": named, "error": {"code": code, "message": message}}) + "\n"


async def messages(lines: AsyncIterator[str], write: Callable[[str], Awaitable[None]]) -> AsyncIterator[str]:
    """The lines that are messages, or that nobody waits for; the others are answered with `write`."""
    async for line in lines:
        refusal = refusal_of(line)
        if refusal is None:
            yield line
        else:
            await write(refusal)
