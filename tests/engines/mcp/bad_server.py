"""An MCP server over standard input and output that misbehaves in the way its first argument names."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

HOW = sys.argv[1]
OPEN: dict[str, Any] = {"type": "object"}


def tools() -> list[dict[str, Any]]:
    """What it lists."""
    called: dict[str, Any] = {"name": "call", "inputSchema": OPEN}
    if HOW == "bad schemas":
        called |= {
            "inputSchema": {"type": "object", "properties": {"a": {"type": 7}}},
            "outputSchema": {"type": "object"},
        }
        return [called, {"name": "far", "inputSchema": {"type": "object", "$ref": "http://127.0.0.1:9/schema"}}]
    if HOW == "other output":
        called["outputSchema"] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    if HOW == "no output":
        called["outputSchema"] = {"type": "object"}
    if HOW == "bad tools":
        return [called, {"name": "typed", "inputSchema": {"type": "objekt"}}, {"name": "bare"}, {"inputSchema": OPEN}]
    if HOW == "twice":
        return [called, {**called, "description": "the second"}, {"name": "once", "inputSchema": OPEN}]
    return [called]


def send(message: dict[str, Any]) -> None:
    """Send one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What a call is answered with."""
    size = request["params"]["arguments"].get("size", 0)
    if HOW == "flood":
        while True:
            sys.stdout.write("x" * 65536)
    if HOW == "flood errors":
        for _ in range(300):
            sys.stderr.write("e" * 65536)
    if HOW == "other output":
        return {"content": [], "structuredContent": {"n": "many"}}
    if HOW == "no result":
        return {"content": "none of a list"}
    return {"content": [{"type": "text", "text": "y" * size or "fine"}]}


def main() -> None:
    """Serve until the input ends."""
    if HOW == "quit":
        sys.exit("the licence has run out")
    for line in sys.stdin:
        message = json.loads(line)
        method, number = message.get("method"), message.get("id")
        if HOW == "silent" or number is None:
            continue
        if HOW == "noise":
            sys.stdout.write("loading...\n\n{}\n")
        if method == "initialize":
            capabilities: dict[str, Any] = {"tools": {}}
            info = {"name": "bad", "version": "0"}
            result = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}
            send({"id": number, "result": result})
        elif method == "tools/list" and HOW != "no list":
            send({"id": number, "result": {"tools": tools()}})
        elif method == "tools/call" and HOW == "deaf":
            continue
        elif method == "tools/call" and HOW == "hung":
            if not message["params"]["arguments"]:
                signal.pause()
            send({"id": number, "result": {"content": [{"type": "text", "text": str(os.getpid())}]}})
        elif method == "tools/call":
            if HOW == "progress":
                token = message["params"]["_meta"]["progressToken"]
                for step in range(1000):
                    send({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
            send({"id": number, "result": answer(message)})
        elif method != "tools/list":
            send({"id": number, "error": {"code": -32601, "message": "Method not found"}})


main()
