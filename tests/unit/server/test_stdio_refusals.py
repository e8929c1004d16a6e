"""Lines that are no messages are answered as JSON-RPC says, with the id where it can be read."""

import json
from typing import Any

import pytest

from contexten_server.stdio_refusals import refusal_of

PARSE_ERROR, INVALID_REQUEST = -32700, -32600


def refuse(line: str) -> tuple[int, Any]:
    """Code and id of the answer to a line, which must be one JSON-RPC error in one line."""
    answer = refusal_of(line)
    assert answer is not None
    assert answer.endswith("\n")
    assert answer.count("\n") == 1
    message = json.loads(answer)
    assert set(message) == {"jsonrpc", "id", "error"}
    assert message["jsonrpc"] == "2.0"
    assert message["error"]["message"]
    return message["error"]["code"], message["id"]


DEEP = "[" * 20_000 + "]" * 20_000
CALL = '"method": "tools/call", "params": {"name": "list_flows", "arguments": '


@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        ("not json", PARSE_ERROR, None),
        ("\ufffd\ufffd", PARSE_ERROR, None),
        ('{"jsonrpc": "2.0", "id": 7, ' + CALL + '{"tag": "\\ud800"}}}', PARSE_ERROR, 7),
        ('{"jsonrpc": "2.0", ' + CALL + '{"tag": "\\ud800", "id": 8}}, "id": "b\\"c"}', PARSE_ERROR, 'b"c'),
        ('{"jsonrpc": "2.0", "id": 9, ' + CALL + DEEP + "}}", PARSE_ERROR, 9),
        ('{"jsonrpc": "2.0", ' + CALL + DEEP + '}, "id": 10}', PARSE_ERROR, 10),
        ('{"jsonrpc": "2.0", "id": 11, "method": ', PARSE_ERROR, 11),
        ('{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}', PARSE_ERROR, "\ud800"),
        ('{"jsonrpc": "2.0", "id": "' + "x" * 5000 + '", "method": ', PARSE_ERROR, None),
        ("[]", INVALID_REQUEST, None),
        ('[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', INVALID_REQUEST, None),
        ("5", INVALID_REQUEST, None),
        ('{"jsonrpc": "2.0"}', INVALID_REQUEST, None),
        ('{"jsonrpc": "2.0", "id": 3}', INVALID_REQUEST, 3),
        ('{"jsonrpc": "1.0", "id": 4, "method": "ping"}', INVALID_REQUEST, 4),
        ('{"jsonrpc": "2.0", "id": 5, "method": "ping", "params": [1]}', INVALID_REQUEST, 5),
        ('{"jsonrpc": "2.0", "id": 1.5, "method": "ping"}', INVALID_REQUEST, None),
        ('{"jsonrpc": "2.0", "id": null, "method": "ping"}', INVALID_REQUEST, None),
        ('{"jsonrpc": "2.0", "id": 1, "method": "ping", "params": ' + "1" * 9000 + "}", PARSE_ERROR, 1),
    ],
    ids=range(19),
)
def test_a_line_that_is_no_message_is_answered(line: str, code: int, named: Any) -> None:
    assert refuse(line) == (code, named)


@pytest.mark.parametrize(
    "line",
    [
        '{"jsonrpc": "2.0", "id": 1, "method": "ping"}',
        '{"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {"arguments": {"n": NaN}}}',
        '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}',
        '{"jsonrpc": "2.0", "id": 1, "result": {}}',
        '{"jsonrpc": "2.0", "id": 1, "result": 5}',
        '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": 5}',
        '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"_meta": {"id": 1}}}',
    ],
)
def test_messages_malformed_notifications_and_responses_are_not_answered(line: str) -> None:
    assert refusal_of(line) is None
