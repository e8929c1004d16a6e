"""ContextenApp: a program's flows, what starts them, and the application that serves them over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from .events import FunctionT, Schedule, Sender, Slack, Source, check_text, name_of, schedule_exists
from .extensions.flow.errors import InvalidArguments, Issue
from .extensions.flow.facades.manager import FlowManager
from .extensions.flow.service import FlowService
from .extensions.flow.settings import FlowSettings
from .extensions.flow.triggers.model import TriggerKind
from .standing import attach, detach

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SERVERS = "contexten.server"
"""The entry points by which a server is found."""

_NO_ID = re.compile(r"[^A-Za-z0-9._-]+")


class _Server(Protocol):
    """The HTTP application over a service."""

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None: ...


class _Manager(FlowManager):
    """The manager of an app: with the core that it opens, the app stands behind its triggers."""

    def __init__(self, app: ContextenApp, agents: Any, settings: FlowSettings | None) -> None:
        super().__init__(agents, settings=settings)
        self._app = app
        self._attached: FlowService | None = None
        self._attaching = asyncio.Lock()

    async def service(self) -> FlowService:
        service = await super().service()
        async with self._attaching:
            if self._attached is not service:
                await attach(service, self._app.sources)
                self._attached = service
        return service

    async def aclose(self) -> None:
        async with self._attaching:
            service, self._attached = self._attached, None
            if service is not None:
                detach(service, self._app.sources)
        await super().aclose()


class ContextenApp:
    """Flows of a program, and the events that start them. An ASGI application itself, to serve or to mount.

        app = ContextenApp(name="workflow-app")

        @app.github.event("pull_request:opened")
        async def review(event):
            return StartFlow(flow_id="review", inputs={"number": event.payload["number"]})

    `async with app` owns it; used bare, it opens with the first call of `flow_manager` or the first request, and closes
    with `aclose()`. Everything that names the same database in a process shares one core. Several processes may run the
    same program on one database: each event starts its flow once.
    """

    def __init__(
        self,
        name: str = "contexten",
        settings: FlowSettings | None = None,
        agents: Any = None,
        *,
        github_secret: str = "GITHUB_WEBHOOK_SECRET",  # noqa: S107 - a name, as the two below
        linear_secret: str = "LINEAR_WEBHOOK_SECRET",  # noqa: S107
        slack_secret: str = "SLACK_SIGNING_SECRET",  # noqa: S107
        toolsets: Sequence[str] | str | None = None,
        read_only: bool = False,
    ) -> None:
        """The secrets are names in the setting `secrets`, needed where events of that sender are declared. `toolsets`
        and `read_only` are for clients over MCP. Raises TypeError or ValueError where `agents` are none."""
        self.name = name
        self.flow_manager: FlowManager = _Manager(self, agents, settings)
        """Creates, runs and watches flows."""
        self.github = Sender(TriggerKind.GITHUB, github_secret, self._check_closed)
        """Webhooks of GitHub, sent to `/hooks/github`."""
        self.linear = Sender(TriggerKind.LINEAR, linear_secret, self._check_closed)
        """Webhooks of Linear, sent to `/hooks/linear`."""
        self.slack = Slack(TriggerKind.SLACK, slack_secret, self._check_closed)
        """Events and commands of a Slack app, sent to `/hooks/slack`."""
        self._schedules: list[Schedule] = []
        self._choices = {"read_only": read_only, "toolsets": toolsets}
        self._server: _Server | None = None

    # What starts flows
    def cron(
        self, expression: str, *, timezone: str = "UTC", trigger_id: str | None = None, **config: Any
    ) -> Callable[[FunctionT], FunctionT]:
        """Ask the decorated function what to start at the times of a cron expression; `config` may have `catch_up`,
        `overlap` and the limits of triggers. The trigger's id is the app's name and the function's unless it is given;
        each schedule needs its own. Raises InvalidArguments."""
        check_text(expression, '@app.cron("0 9 * * 1-5")')

        def decorate(function: FunctionT) -> FunctionT:
            the_id = trigger_id or _schedule_id(self.name, name_of(function))
            if any(the_id == schedule.trigger_id for schedule in self._schedules):
                raise schedule_exists(the_id)
            told = {"expression": expression, "timezone": timezone, **config}
            self._schedules.append(Schedule(the_id, function, told, self._check_closed))
            return function

        return decorate

    @property
    def sources(self) -> list[Source]:
        """All that is declared about events."""
        senders = (self.github, self.linear, self.slack)
        return [*(sender for sender in senders if sender.is_used), *self._schedules]

    def _check_closed(self) -> None:
        if self.flow_manager.is_open:
            raise RuntimeError("The app is open: declare what starts flows before its first use.")

    # Opening and closing
    async def start(self) -> None:
        """Open it: queued runs go on, deliveries that wait are taken. Idempotent. Raises StoreError, InvalidArguments
        where a secret is not named in the settings."""
        await self.flow_manager.start()

    async def aclose(self) -> None:
        """Stop serving, and give the core up; unfinished runs go on when it is opened again."""
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()
        await self.flow_manager.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Serving
    @property
    def asgi(self) -> Self:
        """Dashboard, API, hooks and MCP, as an ASGI application. Under another application it opens with its first
        request; whoever mounts it closes it with `aclose()`."""
        return self

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._application()(scope, receive, send)

    async def _live(self, receive: _Receive, send: _Send) -> None:
        await receive()
        try:
            await self._application().start()
        except Exception as error:
            await self.aclose()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    def _application(self) -> _Server:
        if self._server is None:
            make = _entry_point("asgi")
            self._server = make(self.flow_manager.settings, self.flow_manager.service, **self._choices)
        return self._server

    def serve(self, host: str = "127.0.0.1", port: int = 8377) -> int:
        """Serve until SIGTERM or SIGINT, as `contexten-flow serve --transport http` does; answers the exit code. Called
        outside of an event loop."""
        code: int = _entry_point("flow")(
            self.flow_manager.settings,
            transport="http",
            host=host,
            port=port,
            service=self._opened,
            **self._choices,
        )
        return code

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[FlowService]:
        try:
            yield await self.flow_manager.service()
        finally:
            await self.aclose()


def _schedule_id(app: str, function: str) -> str:
    """Raises InvalidArguments where nothing is left of one of the names: others would get the same id."""
    parts = {name: _NO_ID.sub("-", name).strip("-.") for name in (app, function)}
    for name, part in parts.items():
        if not part:
            raise InvalidArguments(
                f"No trigger's id can be made of the name {name!r}: an id has ASCII letters, digits, '.', '_' and '-'.",
                next="Give the schedule an id: cron(..., trigger_id=...).",
                issues=[Issue(path="/trigger_id", code="missing_argument", message="an id of your choice", got=name)],
            )
    return f"{parts[app]}.{parts[function]}"


def _entry_point(name: str) -> Callable[..., Any]:
    """Raises RuntimeError where no server is installed."""
    for found in entry_points(group=_SERVERS, name=name):
        loaded: Callable[..., Any] = found.load()
        return loaded
    raise RuntimeError("No server is installed: pip install contexten-flow")
