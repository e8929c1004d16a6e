"""An MCP server as an agent: opened when it is needed, opened again when it was lost, closed at the end."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from ...clock import Clock
from ...definition import ToolSpec, misfits
from ...errors import AttemptError
from ...nearest import nearest_name
from ...recovery.kinds import INVALID, NETWORK, TIMEOUT
from ..protocol import AttemptContext, Json, TaskCall, Traits
from ..secrets import SecretVault
from .listing import ListedTool, Listing, is_allowed, listing_of
from .progress import Progress
from .results import output_of
from .target import Target

if TYPE_CHECKING:
    from .connection import Connection

logger = logging.getLogger(__name__)

_FIRST_DELAY_S = 1.0
_MAX_DELAY_S = 60.0
_MAX_SHOWN = 300
_PROBE_S = 5.0  # for a server to answer at all, after a call that was given up


class McpAgent:
    """The tools of one MCP server.

    All attempts share one session. A tool whose name fits the allow-list is taken to be there until the server has
    listed its tools: what a run needs is then asked of the server, which fails the attempt if it is not there.
    """

    agent_type = "mcp"
    traits = Traits(secrets="own")

    def __init__(
        self,
        name: str,
        *,
        target: Target,
        allow: Sequence[str],
        timeout_s: float,
        connect_timeout_s: float,
        capacity: int,
        max_message_bytes: int,
        vault: SecretVault,
        clock: Clock,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.tools: Sequence[str] = ()
        """The tools that the server listed and the settings allow; none before that."""
        self._prefix = f"mcp:{name}/"
        self._target = target
        self._allow = tuple(allow)
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._max_message_bytes = max_message_bytes
        self._vault = vault
        self._clock = clock
        self._listing: Listing | None = None
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection | AttemptError] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._problem: AttemptError | None = None
        self._is_legacy = False
        self._is_stale = False
        """Whether the server said that its tools changed, and was not asked since."""
        self._on_change: Callable[[], None] = lambda: None
        self._errands: set[asyncio.Task[None]] = set()

    @property
    def specs(self) -> Mapping[str, ToolSpec]:
        """The same tools with what is known of them."""
        return {} if self._listing is None else {name: tool.spec for name, tool in self._listing.tools.items()}

    def offers(self, tools: frozenset[str]) -> bool:
        """Whether a task that requires those tools is this server's, as far as the settings tell."""
        return bool(tools) and all(
            tool.startswith(self._prefix) and is_allowed(tool[len(self._prefix) :], self._allow) for tool in tools
        )

    def is_named_by(self, tool: str) -> bool:
        """Whether a tool of that name would be this server's."""
        return tool.startswith(self._prefix)

    def reason_without(self, tool: str) -> str | None:
        """Why a tool of this server's is not there now; None for those of others, and for one that it does not have."""
        if not self.is_named_by(tool):
            return None
        if not is_allowed(tool[len(self._prefix) :], self._allow):
            return f"the settings allow only {', '.join(self._allow) or 'none'} of the MCP server {self.name}"
        if self._listing is None:
            return f"the MCP server {self.name} is not available: {self._why()}"
        return None

    @property
    def state(self) -> str:
        """connected, connecting, not connected yet, or failed, with what is known."""
        if self._connection is not None and self._connection.is_open:
            return f"connected ({self._connection.about})"
        if self._opening is not None:
            return "connecting"
        lost = self._connection.problem if self._connection is not None else None
        if self._problem is None and lost is None:
            return "not connected yet"
        return f"failed: {self._why()}"

    def _why(self) -> str:
        lost = self._connection.problem if self._connection is not None else None
        why = self._problem.message if self._problem is not None else lost
        return str(self._vault.mask(why or "it was not asked yet"))[:_MAX_SHOWN]

    # Opening and closing
    def start(self, on_change: Callable[[], None]) -> None:
        """Open it and list its tools in the background, again and again until that succeeds; `on_change` is called when
        its tools changed."""
        self._on_change = on_change
        self._spawn(self._open_patiently())

    async def ready(self) -> None:
        """Wait until its tools are listed, or it failed; raises nothing."""
        if self._listing is None:
            with suppress(AttemptError):
                await self._connected()

    async def _open_patiently(self) -> None:
        delay_s = _FIRST_DELAY_S
        while self._listing is None:
            await self.ready()
            if self._listing is None:
                await self._clock.sleep(delay_s)
                delay_s = min(2 * delay_s, _MAX_DELAY_S)

    async def _connected(self) -> Connection:
        """The open session, opened where it is not. Raises AttemptError."""
        if self._probing is not None:
            await asyncio.wait({self._probing})
        if self._connection is not None and self._connection.is_open:
            return self._connection
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name=f"open mcp {self.name}")
        opened = await asyncio.shield(self._opening)  # others may wait for it
        if isinstance(opened, AttemptError):
            raise AttemptError(opened.message, kind=opened.kind, details=opened.details)
        return opened

    async def _open(self) -> Connection | AttemptError:
        lost, self._connection = self._connection, None
        try:
            if lost is not None:
                await lost.aclose()
            # Off the event loop: the protocol's library takes a good second to import.
            library = await asyncio.to_thread(importlib.import_module, ".connection", __package__)
            connection: Connection = library.Connection(
                self.name,
                self._target,
                max_bytes=self._max_message_bytes,
                clock=self._clock,
                is_legacy=self._is_legacy,
                on_change=self._changed,
            )
            try:
                await connection.open(self._connect_timeout_s)
                await self._list(connection)
            except BaseException:
                await connection.aclose()
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait are told
            failure = error if isinstance(error, AttemptError) else AttemptError(f"{type(error).__name__}: {error}")
            self._note(failure)
            self._is_legacy = False
            return failure
        finally:
            self._opening = None
        self._connection, self._problem, self._is_legacy = connection, None, connection.is_legacy
        return connection

    def _note(self, error: AttemptError) -> None:
        if self._problem is None or self._problem.message != error.message:  # once, not at each attempt
            extra = {"action": "open_mcp_server", "server": self.name}
            logger.warning("the MCP server %s failed: %s", self.name, self._vault.mask(error.message), extra=extra)
        self._problem = error

    async def _list(self, connection: Connection) -> None:
        self._is_stale = False
        try:
            with anyio.fail_after(self._connect_timeout_s):
                tools = await connection.list_tools()
        except TimeoutError:
            why = f"it did not list its tools within {self._connect_timeout_s:g} s"
            raise AttemptError(why, kind=TIMEOUT) from None
        listing = listing_of(self.name, tools, self._allow)
        if listing != self._listing:
            self._listing, self.tools = listing, tuple(listing.tools)
            self._on_change()

    def _changed(self) -> None:
        """The server says that its tools changed."""
        self._is_stale, was_stale = True, self._is_stale
        if not was_stale:
            self._spawn(self._list_again())

    async def _list_again(self) -> None:
        with suppress(AttemptError):
            while self._is_stale and self._connection is not None:
                await self._list(self._connection)

    def _doubt(self, connection: Connection) -> None:
        """A call was given up: a server that answers nothing else either is not asked again, but opened anew."""
        if connection is self._connection and connection.is_open and self._probing is None:
            self._probing = self._spawn(connection.probe(min(_PROBE_S, self._timeout_s)))
            self._probing.add_done_callback(self._probed)

    def _probed(self, _: asyncio.Task[None]) -> None:
        self._probing = None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"mcp {self.name}")
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    async def aclose(self) -> None:
        """Close the session, and end the program where it is one; a call after that opens it again."""
        self._on_change = lambda: None
        tasks = [task for task in (*self._errands, self._opening) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    # Calling
    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """Call the one tool that the task requires with its parameters.

        Raises AttemptError: `invalid` where the tool is not there, the parameters do not fit its schema or a secret is
        not granted to it; `network` where the server is not there; `timeout`; `agent_failure` where the tool says that
        it failed."""
        if len(task.required_tools) != 1:
            raise AttemptError(f"A task calls one tool of the MCP server {self.name}; split it.", kind=INVALID)
        name = context.tool = task.required_tools[0]
        names = frozenset().union(*task.secrets.values())
        self._vault.require(names, tools=(name,), receiver=f"the tool {name}")
        try:
            return await self._call(name, task, context)
        except AttemptError as error:
            message = f"The MCP server {self.name}, asked for {name.removeprefix(self._prefix)}: {error.message}"
            raise AttemptError(self._ended(message), kind=error.kind, details=error.details) from None

    @staticmethod
    def _ended(message: str) -> str:
        return message if message.endswith((".", "!", "?")) else f"{message}."

    async def _call(self, name: str, task: TaskCall, context: AttemptContext) -> Json:
        progress = Progress(context)
        timeout_s = self._timeout_s if context.timeout_s is None else None  # the task's own cancels the attempt
        try:
            with anyio.fail_after(timeout_s):
                connection = await self._connected()
                tool = self._tool(name)
                self._check(tool, task.parameters)
                try:
                    result = await connection.call(tool.name, task.parameters, progress)
                except AttemptError as error:
                    if not connection.is_refused:
                        raise
                    progress.tell(f"{error.message}; opening it again")
                    connection = await self._connected()
                    result = await connection.call(tool.name, task.parameters, progress)
                except asyncio.CancelledError:  # by its timeout too
                    self._doubt(connection)
                    raise
        except TimeoutError:
            raise AttemptError(f"it did not answer within {self._timeout_s:g} s", kind=TIMEOUT) from None
        return output_of(result, tool.output_schema)

    def _tool(self, name: str) -> ListedTool:
        listing = self._listing
        if listing is None:
            raise AttemptError("it has listed no tools", kind=NETWORK)
        if name not in listing.tools:
            near = nearest_name(name, listing.tools)
            raise AttemptError("it has no such tool" + (f"; did you mean {near!r}?" if near else ""), kind=INVALID)
        return listing.tools[name]

    def _check(self, tool: ListedTool, parameters: dict[str, Json]) -> None:
        if tool.spec.schema is None:
            return
        issues = self._vault.mask(
            [issue.as_dict() for issue in misfits(tool.spec.schema, parameters, path="/parameters")]
        )
        if issues:
            shown = "; ".join(f"{issue['path'].lstrip('/')}: {issue['message']}" for issue in issues[:5])
            more = f"; and {len(issues) - 5} more" if len(issues) > 5 else ""
            raise AttemptError(f"the parameters do not fit: {shown}{more}", kind=INVALID, details={"issues": issues})
