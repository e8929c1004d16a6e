"""One session with an MCP server, from its opening to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib import metadata
from typing import Any

import anyio
from mcp.client import Client, advertise
from mcp.client.session import IncomingMessage
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    Implementation,
    PaginatedRequestParams,
    Tool,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from ...clock import Clock
from ...errors import AttemptError
from ..protocol import Json
from .failures import failure_of, reason_of
from .http import http_transport
from .jobs import TASKS, RawResult, see_through
from .progress import Progress
from .sifting import SiftedStream
from .stdio import stdio_transport
from .target import StdioTarget, Target

logger = logging.getLogger(__name__)

MAX_TOOLS = 2000  # of a server: no more are listed
_MAX_PAGES = 100
_LISTEN_AGAIN_S = 5.0


class Connection:
    """A session, owned by a task of its own: what opens it must close it. Calls come from any task of the loop."""

    def __init__(
        self,
        server: str,
        target: Target,
        *,
        max_bytes: int,
        clock: Clock,
        is_legacy: bool,
        on_change: Callable[[], None],
    ) -> None:
        """`server` is its name in the settings. `is_legacy`: the server is known to speak an older protocol, and is not
        asked for the new one first. `on_change` is called when the server says that its tools changed."""
        self._server = server
        self._target = target
        self._max_bytes = max_bytes
        self._clock = clock
        self._mode = "legacy" if is_legacy else "auto"
        self._on_change = on_change
        self._over = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self.problem: str | None = None
        """Why the session is of no more use; None while it is."""
        self.is_refused = False
        """Whether the server knew the session no more: what it was asked then, it did not do."""

    async def open(self, timeout_s: float) -> None:
        """Open the session. Raises AttemptError of kind network, timeout or invalid (a secret has no value)."""
        opened = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(opened), name="mcp session")
        try:
            await asyncio.wait((opened, self._owner), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not opened.done():
                opened.cancel()
                await self.aclose()
        if opened.cancelled():
            raise AttemptError(f"it did not answer within {timeout_s:g} s", kind="timeout")
        opened.result()

    async def _own(self, opened: asyncio.Future[None]) -> None:
        try:
            async with Client(
                self._transport(),
                mode=self._mode,
                cache=None,
                client_info=Implementation(name="contexten-flow", version=metadata.version("contexten-flow")),
                message_handler=self._heed,
                extensions=[advertise(TASKS)],
            ) as client:
                self._client = client
                if not opened.done():
                    opened.set_result(None)
                async with anyio.create_task_group() as group:
                    group.start_soon(self._listen, client)
                    await self._over.wait()
                    group.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 - whatever a transport raises is this session's end
            self.problem = self.problem or reason_of(error)
            if not opened.done():
                opened.set_exception(failure_of(error, self.problem))
        finally:
            self.problem = self.problem or "the session ended"
            self._client = None

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        async with self._whole_transport() as (incoming, outgoing):
            yield SiftedStream(incoming, self._server, self._version), outgoing

    def _version(self) -> str | None:
        return self._client.session.protocol_version if self._client is not None else None

    def _whole_transport(self) -> AbstractAsyncContextManager[Any]:
        if isinstance(self._target, StdioTarget):
            return stdio_transport(self._target, max_bytes=self._max_bytes, on_end=self.lose)
        return http_transport(self._target, max_bytes=self._max_bytes, clock=self._clock, on_end=self._refuse)

    def _refuse(self, why: str) -> None:
        self.is_refused = True
        self.lose(why)

    def lose(self, why: str) -> None:
        """The session is of no more use; whoever calls finds it closed."""
        if self.problem is None:
            self.problem = why
        self._over.set()

    async def probe(self, timeout_s: float) -> None:
        """See whether the server still answers; where it does not within that time, the session is over."""
        if self._client is None or self.problem is not None:
            return
        try:
            with anyio.fail_after(timeout_s), suppress(MCPError, ValidationError):  # an answer, of a kind
                await self._client.session.list_tools()
        except TimeoutError:
            self.lose(f"it fell silent: after a call that was given up it did not answer within {timeout_s:g} s")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.lose("the session ended")

    async def aclose(self) -> None:
        """End the session, and with it the program that it started."""
        self._over.set()
        owner, self._owner = self._owner, None
        if owner is None:
            return
        if self._client is None:  # not open yet
            owner.cancel()
        await asyncio.wait({owner})

    @property
    def is_open(self) -> bool:
        """Whether calls can be made."""
        return self._client is not None and self.problem is None

    @property
    def is_legacy(self) -> bool:
        """Whether the server speaks a protocol older than that of 2026."""
        return self._client is not None and self._client.session.discover_result is None

    @property
    def about(self) -> str:
        """The server's own name and version, and the protocol's."""
        if self._client is None:
            return ""
        info = self._client.server_info
        name = f"{info.name} {info.version}, " if info is not None else ""
        return f"{name}protocol {self._client.protocol_version}"

    async def list_tools(self) -> list[Tool]:
        """All tools of the server, at most MAX_TOOLS. Raises AttemptError."""
        client = self._connected()
        tools: list[Tool] = []
        params: PaginatedRequestParams | None = None
        try:
            for _ in range(_MAX_PAGES):
                page = await client.session.list_tools(params=params)
                tools += page.tools
                if not page.next_cursor or len(tools) >= MAX_TOOLS:
                    break
                params = PaginatedRequestParams(cursor=page.next_cursor)
        except (MCPError, ValidationError) as error:
            raise failure_of(error, self.problem or reason_of(error)) from None
        return tools[:MAX_TOOLS]

    async def call(self, tool: str, arguments: dict[str, Json], progress: Progress) -> dict[str, Any]:
        """Call a tool; the result as the protocol has it, after the end of the task that stands for it where the server
        makes one. Cancelled, it tells the server. Raises AttemptError.

        The protocol library's own call_tool checks results with regular expressions that can take for ever and
        fetches what a schema refers to; so it is not used.
        """
        session = self._connected().session
        params = CallToolRequestParams(name=tool, arguments=arguments)
        try:
            request = CallToolRequest(params=params)
            result = (await session.send_request(request, RawResult, progress_callback=progress.report)).root
            if result.get("resultType") == "task":
                return await see_through(session, result, progress, self._clock)
        except (MCPError, ValidationError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            await asyncio.sleep(0)  # the transport may be about to say why
            raise failure_of(error, self.problem or reason_of(error)) from None
        return result

    def _connected(self) -> Client:
        if self._client is None or self.problem is not None:
            raise AttemptError(self.problem or "the session is closed", kind="network")
        return self._client

    async def _heed(self, message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._on_change()

    async def _listen(self, client: Client) -> None:
        """Hear of changes where the server tells them only to those who listen (the protocol of 2026)."""
        tools = client.server_capabilities.tools
        if tools is None or not tools.list_changed or self.is_legacy:
            return
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self._on_change()
            except SubscriptionLost:
                self._on_change()  # what was missed
            except (ListenNotSupportedError, MCPError, TimeoutError):
                return
            await self._clock.sleep(_LISTEN_AGAIN_S)
