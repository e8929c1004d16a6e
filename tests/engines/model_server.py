"""An OpenAI-compatible server that says what a script tells it to: chat completions, streamed and whole, and faults.

A script is a function of a ModelRequest that gives a Reply, or a list of replies in order (its last one repeats). It
runs in a thread of its own for each request, so it may wait for an event of the test.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Text:
    """Words; `stop` is the finish reason (length: the answer was cut by a limit)."""

    text: str
    stop: str = "stop"
    usage: tuple[int, int] | None = (10, 5)
    """Input and output tokens; None: the server tells none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool. Text as `arguments` goes out as it is, so it may be no JSON."""

    tool: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calls:
    """Several calls at once, with words before them."""

    calls: Sequence[Call]
    text: str = ""
    usage: tuple[int, int] | None = (10, 5)


@dataclass(frozen=True, slots=True)
class Fault:
    """An HTTP error; `code` and `message` as OpenAI shapes them."""

    status: int
    message: str = "scripted fault"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection breaks after the first words; of an answer that is not streamed, after half of it."""

    text: str = "The first words of an answer that"


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing, until the client gives up; after the first words, where there are some and the answer is streamed."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """A streamed answer in whose middle the server tells of an error."""

    text: str = "The first words"
    message: str = "The server had an error while processing your request."


@dataclass(frozen=True, slots=True)
class Garbage:
    """A body that is no JSON, with status 200."""

    body: str = "<html>not what you asked for</html>"


Reply = Text | Call | Calls | Fault | Cut | Hang | Broken | Garbage


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request for a completion."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    number: int
    """From 1, over all requests of the server."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])

    @property
    def system(self) -> str:
        """What stands in the system messages."""
        return "\n".join(text_of(one) for one in self.messages if one["role"] in ("system", "developer"))

    @property
    def user(self) -> str:
        """What stands in the user's messages."""
        return "\n".join(text_of(one) for one in self.messages if one["role"] == "user")

    @property
    def last(self) -> str:
        """What stands in the last message."""
        return text_of(self.messages[-1])

    @property
    def tools(self) -> dict[str, dict[str, Any]]:
        """The tools on offer: the JSON Schema of their arguments, by name."""
        functions = [tool["function"] for tool in self.body.get("tools") or []]
        return {function["name"]: function.get("parameters") or {} for function in functions}

    @property
    def forced_tool(self) -> str | None:
        """The tool that must be called, where the request names one."""
        choice = self.body.get("tool_choice")
        return choice["function"]["name"] if isinstance(choice, dict) else None

    @property
    def must_call(self) -> bool:
        """Whether some tool must be called."""
        return self.body.get("tool_choice") == "required" or self.forced_tool is not None

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema of response_format, where it has one."""
        asked = self.body.get("response_format") or {}
        return asked["json_schema"]["schema"] if asked.get("type") == "json_schema" else None

    @property
    def results(self) -> list[str]:
        """What tools answered so far."""
        return [text_of(one) for one in self.messages if one["role"] == "tool"]


Script = Callable[[ModelRequest], Reply] | Sequence[Reply]


def text_of(message: Mapping[str, Any]) -> str:
    """A message's words."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return content or ""


class ModelServer:
    """Runs from `start` to `close`, on a free port of loopback."""

    def __init__(self) -> None:
        self.script: Script = [Text("Hello.")]
        self.key: str | None = None
        """The only bearer token that is let in; None: any."""
        self.requests: list[ModelRequest] = []
        self.left = threading.Event()
        """Set when a client gave up on a Hang."""
        self.closing = threading.Event()
        self._arrived = threading.Condition()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.model = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="model-server", daemon=True)

    @property
    def host(self) -> str:
        """Such as 127.0.0.1:40000."""
        return f"127.0.0.1:{self._http.server_address[1]}"

    @property
    def url(self) -> str:
        """The base URL, as providers call it."""
        return f"http://{self.host}/v1"

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.hang_up()
        self._http.server_close()

    def wait_for(self, count: int, timeout_s: float = 30.0) -> bool:
        """Block until that many requests came; whether they did in that time."""
        with self._arrived:
            return self._arrived.wait_for(lambda: len(self.requests) >= count, timeout_s)

    def reply_to(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        with self._arrived:
            request = ModelRequest(body, headers, len(self.requests) + 1)
            self.requests.append(request)
            self._arrived.notify_all()
        if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
            return Fault(401, "Incorrect API key provided.", "invalid_api_key")
        if callable(self.script):
            return self.script(request)
        return self.script[min(request.number, len(self.script)) - 1]


@contextmanager
def serving(script: Script | None = None) -> Iterator[ModelServer]:
    """A server while the block lasts."""
    server = ModelServer()
    if script is not None:
        server.script = script
    server.start()
    try:
        yield server
    finally:
        server.close()


class _Http(ThreadingHTTPServer):
    model: ModelServer
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    @override
    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    @override
    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is none."""

    def hang_up(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http
    _PATHS: ClassVar = ("/v1/chat/completions", "/chat/completions")

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Standard error belongs to the tests."""

    def do_GET(self) -> None:
        self._whole(200, {"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if self.path.partition("?")[0] not in self._PATHS:
            self._whole(404, {"error": {"message": f"no {self.path} here"}})
            return
        reply = self.server.model.reply_to(body, {name.lower(): value for name, value in self.headers.items()})
        if isinstance(reply, Call):
            reply = Calls([reply])
        if isinstance(reply, Fault):
            error = {"message": reply.message, "type": "scripted", "param": None, "code": reply.code}
            self._whole(reply.status, {"error": error}, reply.headers)
        elif isinstance(reply, Garbage):
            self._send(200, reply.body.encode(), "text/html")
        elif isinstance(reply, Hang):
            self._hang(body, reply)
        elif body.get("stream"):
            self._stream(body, reply)
        elif isinstance(reply, Broken):
            self._whole(500, {"error": {"message": reply.message, "type": "server_error"}})
        elif isinstance(reply, Cut):
            content = json.dumps(_completion(body, Text(reply.text))).encode()
            self._head(200, "application/json", {"content-length": str(len(content))})
            self.wfile.write(content[: len(content) // 2])
            self._break()
        else:
            self._whole(200, _completion(body, reply))

    def _whole(self, status: int, data: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, json.dumps(data).encode(), "application/json", headers)

    def _send(self, status: int, content: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        self._head(status, kind, {"content-length": str(len(content)), **(headers or {})})
        self.wfile.write(content)

    def _head(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self, body: Mapping[str, Any], reply: Text | Calls | Cut | Hang | Broken) -> None:
        self._head(200, "text/event-stream", {"transfer-encoding": "chunked"})
        for data in _chunks(body, reply):
            self._event(json.dumps(data))
        if isinstance(reply, Hang):
            return
        if isinstance(reply, Cut):
            self._break()
        else:
            if isinstance(reply, Broken):
                self._event(json.dumps({"error": {"message": reply.message, "type": "server_error"}}))
            self._event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _hang(self, body: Mapping[str, Any], reply: Hang) -> None:
        self.close_connection = True
        model = self.server.model
        try:
            if body.get("stream"):
                self._stream(body, reply)
        except OSError:  # it left before the first words
            model.left.set()
            return
        while not model.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable:  # end of file: nothing else comes here
                model.left.set()
                break

    def _break(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _tool_calls(calls: Sequence[Call]) -> list[dict[str, Any]]:
    return [
        {
            "index": index,
            "id": f"call_{index}",
            "type": "function",
            "function": {
                "name": call.tool,
                "arguments": call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
            },
        }
        for index, call in enumerate(calls)
    ]


def _usage(reply: Text | Calls | Cut | Hang | Broken) -> dict[str, int] | None:
    usage = reply.usage if isinstance(reply, Text | Calls) else None
    if usage is None:
        return None
    return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}


def _frame(body: Mapping[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body.get("model", "scripted"), **more}


def _completion(body: Mapping[str, Any], reply: Text | Calls) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if isinstance(reply, Calls):
        message["tool_calls"] = _tool_calls(reply.calls)
    stop = "tool_calls" if isinstance(reply, Calls) else reply.stop
    choice = {"index": 0, "message": message, "finish_reason": stop, "logprobs": None}
    return _frame(body, "chat.completion", choices=[choice], usage=_usage(reply))


def _chunks(body: Mapping[str, Any], reply: Text | Calls | Cut | Hang | Broken) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], stop: str | None = None) -> dict[str, Any]:
        return _frame(
            body, "chat.completion.chunk", choices=[{"index": 0, "delta": delta, "finish_reason": stop}], usage=None
        )

    yield chunk({"role": "assistant", "content": ""})
    for word in _pieces(reply.text):
        yield chunk({"content": word})
    if isinstance(reply, Cut | Hang | Broken):
        return
    if isinstance(reply, Calls):
        for call in _tool_calls(reply.calls):
            arguments = call["function"]["arguments"]
            begun = {**call, "function": {**call["function"], "arguments": ""}}
            yield chunk({"tool_calls": [begun]})
            for piece in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
                yield chunk({"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]})
    yield chunk({}, "tool_calls" if isinstance(reply, Calls) else reply.stop)
    usage = _usage(reply)
    if usage is not None and (body.get("stream_options") or {}).get("include_usage"):
        yield _frame(body, "chat.completion.chunk", choices=[], usage=usage)


def _pieces(text: str) -> Iterator[str]:
    """Words, as models stream them."""
    for at, word in enumerate(text.split(" ")):
        if word or at:
            yield word if at == 0 else f" {word}"
