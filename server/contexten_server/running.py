"""From settings to a served process and its exit code.

Imports at the top are the standard library's: over stdio the standard streams are claimed before anything else is
loaded.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.settings import FlowSettings
    from contexten_server.stopping import Stop

logger = logging.getLogger(__name__)

Transport = Literal["stdio", "sse", "http"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8377

EXIT_OK = 0
EXIT_REFUSED = 1
"""The address cannot be listened on, or the server failed."""
EXIT_USAGE = 2
EXIT_STORE = 3
"""The database cannot be used."""


class _Choices(TypedDict):
    """What the transports hand on as it is."""

    read_only: bool
    strategy: str | None
    max_concurrent_flows: int | None
    service: Callable[[], AbstractAsyncContextManager[FlowService]] | None


def run_server(
    settings: FlowSettings,
    *,
    transport: Transport = "stdio",
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    read_only: bool = False,
    toolsets: Sequence[str] | str | None = None,
    strategy: str | None = None,
    max_concurrent_flows: int | None = None,
    service: Callable[[], AbstractAsyncContextManager[FlowService]] | None = None,
) -> int:
    """Serve until the client's input ends (stdio) or SIGTERM or SIGINT comes, then close within the settings' grace.

    `strategy` and `max_concurrent_flows` change what the database remembers, for all its servers, once it is open.
    Answers the exit code: 0 after an orderly end, 1 where the address is refused or the server failed, 2 for a toolset
    or transport that does not exist, 3 where the database cannot be used. What went wrong is told on standard error.
    Over stdio the standard streams of the process are taken for good: nothing but MCP reaches standard output. Over
    HTTP a program may bring its own `service`, which is opened once and closed at the end.
    """
    if transport not in ("stdio", "sse", "http"):
        return _refuse(f"unknown transport {transport!r}; there are stdio, sse and http", EXIT_USAGE)
    choices = _Choices(
        read_only=read_only, strategy=strategy, max_concurrent_flows=max_concurrent_flows, service=service
    )
    try:
        with termination_interrupts():
            if transport == "stdio":
                return _serve_stdio(settings, toolsets, choices)
            return _serve_http(settings, transport, host, port, toolsets, choices)
    except KeyboardInterrupt:  # before the event loop takes signals, or after it
        return EXIT_OK


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Meanwhile SIGTERM does what Ctrl-C does: else it kills a process that starts or ends, and is not even heard by
    one that is the first of a container."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(message: str, code: int) -> int:
    sys.stderr.write(f"contexten-flow: {message}\n")
    sys.stderr.flush()
    return code


def _serve_stdio(settings: FlowSettings, toolsets: Sequence[str] | str | None, choices: _Choices) -> int:
    from contexten_server.standard_streams import claim_standard_streams

    wire = claim_standard_streams()
    gc.disable()  # until the server serves: imports make no garbage, and looking for it takes a tenth of their time
    from contexten_server.logs import configure_logging

    configure_logging(settings)
    from contexten_server.process import Opened, Plan, run_process
    from contexten_server.stdio import serve_stdio
    from contexten_tools import UnknownToolset, resolve_toolsets

    try:
        names = resolve_toolsets(toolsets)
    except UnknownToolset as error:
        return _refuse(str(error), EXIT_USAGE)

    async def serve(opened: Opened, stop: Stop) -> None:
        await serve_stdio(opened.server, wire, stop)

    plan = Plan(settings=settings, transport="stdio", toolsets=names, lists_first=True, **choices)
    return _end(lambda: run_process(plan, serve))


def _serve_http(
    settings: FlowSettings,
    transport: Transport,
    host: str,
    port: int,
    toolsets: Sequence[str] | str | None,
    choices: _Choices,
) -> int:
    from contexten_server.logs import configure_logging

    configure_logging(settings)
    from contexten_server.access import BindRefused, bracketed, check_bind
    from contexten_server.http import bind, http_app, serve_http
    from contexten_server.process import Opened, Plan, run_process
    from contexten_tools import UnknownToolset, resolve_toolsets

    try:
        names = resolve_toolsets(toolsets)
    except UnknownToolset as error:
        return _refuse(str(error), EXIT_USAGE)
    try:
        check_bind(host, settings)
        sock = bind(host, port)
    except BindRefused as error:
        return _refuse(str(error), EXIT_REFUSED)

    async def serve(opened: Opened, stop: Stop) -> None:
        application = http_app(opened.server, opened.app, host=host, stopping=stop.event)
        base = f"http://{bracketed(host) or 'localhost'}:{sock.getsockname()[1]}"
        sys.stderr.write(f"contexten-flow: listening on {base}/mcp (streamable HTTP) and {base}/sse (SSE)\n")
        sys.stderr.flush()
        await serve_http(application, sock, stop)

    plan = Plan(settings=settings, transport=transport, toolsets=names, answers_to_the_end=True, **choices)
    with sock:
        return _end(lambda: run_process(plan, serve))


def _end(run: Callable[[], None]) -> int:
    """The exit code of a server that has ended."""
    from contexten.extensions.flow.errors import FlowError, StoreError

    try:
        run()
    except StoreError as error:
        return _refuse(f"{error.message}" + (f" {error.next}" if error.next else ""), EXIT_STORE)
    except FlowError as error:
        return _refuse(f"{error.message}" + (f" {error.next}" if error.next else ""), EXIT_REFUSED)
    except Exception:  # the outermost edge of the process
        logger.exception("The server failed")
        return _refuse("the server failed; the log above says why", EXIT_REFUSED)
    return EXIT_OK
