"""The core of a database in a process: its parts put together, opened, driven, and closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio

from .agents.mcp import mcp_agents
from .agents.registry import AgentRegistry
from .agents.secrets import SecretVault
from .agents.tool_agent import BuiltinToolAgent
from .answers.overview import Overview
from .answers.reading import Answers
from .clock import Clock, SystemClock
from .engines import EngineParts, Engines
from .engines.choice import installed_version
from .errors import Closing
from .execution.conductor import Conductor
from .explaining.explainer import RunExplainer
from .explaining.obstacles import Obstacles
from .explaining.postmortem import Postmortem
from .flows.plans import Plans
from .flows.saving import Flows
from .history import History
from .housekeeping import keep_pruned
from .live.feed import Feed
from .live.narrator import narrate
from .live.watching import Watchers
from .models.toolbox import Toolbox
from .notifications.notifications import Notifications
from .recovery.circuits import Circuits
from .recovery.error_kinds import ErrorKinds
from .recovery.executor import FlowExecutor
from .recovery.retry import RetryPolicy
from .recovery.rules import RecoveryRules
from .runs.driving import Runs
from .runs.reading import RunReader
from .scheduling.estimates import Estimates
from .scheduling.forecast import Forecast
from .scheduling.in_force import Scheduling
from .scheduling.rates import RateLimits
from .settings import FlowSettings
from .store import Event, Store
from .store.servers import drivers_of
from .telemetry import Telemetry
from .triggers.triggers import TriggerParts, Triggers

if TYPE_CHECKING:
    from .prefect.mirror import Mirror

logger = logging.getLogger(__name__)

FAREWELL_S = 4.0  # for agents to close: ending the program of an MCP server takes up to 3 s

_RESCHEDULING = frozenset({"scheduler.changed", "server.started"})  # the first server puts its settings in force


class Core:
    """Opens the database and drives its runs. `async with` owns it."""

    def __init__(
        self,
        settings: FlowSettings | None = None,
        *,
        agents: Any = None,
        drive: bool = True,
        clock: Clock | None = None,
        holder: str = "python",
        executor: FlowExecutor | None = None,
    ) -> None:
        """`drive=False` opens the store for questions and requests only: no run is executed. Any number of processes
        may drive one database; `holder` tells people which this is.

        Raises TypeError where `agents` are none, InvalidArguments where a secret cannot be kept or a server may not
        have it, McpServersError where the file that names MCP servers is wrong.
        """
        self.settings = settings or FlowSettings()
        self.clock: Clock = clock or SystemClock()
        self.vault = SecretVault(self.settings)
        self.registry = AgentRegistry(
            agents,
            BuiltinToolAgent(self.settings, self.clock, self.vault),
            mcp_agents(self.settings, self.vault, self.clock),
        )
        self._drives = drive
        self._holder = holder
        self._rules = RecoveryRules(
            retry=RetryPolicy(max_attempts=self.settings.max_retries + 1, delay_s=self.settings.retry_delay_s),
            kinds=ErrorKinds(self.settings.error_kinds),
        )
        self._conductor: Conductor | None = None
        self._mirror: Mirror | None = None
        if executor is not None:
            self.set_executor(executor)
        self._circuits = Circuits(self.settings.circuit_failures, self.settings.circuit_open_s)
        self._limits = RateLimits(self.settings.rates)
        self.engines = Engines(
            EngineParts(
                settings=self.settings,
                clock=self.clock,
                vault=self.vault,
                registry=self.registry,
                toolbox=Toolbox(
                    self.registry,
                    self._limits,
                    self.clock,
                    vault=self.vault,
                    settings=self.settings,
                    kinds=lambda: self._rules.kinds,
                ),
            )
        )
        self._watchers = Watchers()
        self._store = Store(self.settings.database, durability=self.settings.durability)
        self._answers = Answers(self._store, self.clock, self._obstacle)
        self.history = History(self._store, self._answers, self.clock)
        self._feed = Feed(
            store=self._store,
            clock=self.clock,
            answers=self._answers,
            watchers=self._watchers,
            on_foreign=self._heed,
        )
        self._feed.listen(narrate)
        self._store.on_commit = self._feed.committed
        self._plans = Plans(self._store)
        self._scheduling = Scheduling(self._store, self.settings, self.clock)
        self._estimates = Estimates(self._store, self.clock)
        self.telemetry = Telemetry(
            store=self._store,
            feed=self._feed,
            registry=self.registry,
            scheduling=self._scheduling,
            clock=self.clock,
            plans=self._plans,
            executions=lambda: self._conductor.executions if self._conductor is not None else {},
        )
        self.registry.placement = self._scheduling.place
        self._flows = Flows(
            store=self._store,
            registry=self.registry,
            vault=self.vault,
            settings=self.settings,
            clock=self.clock,
            answers=self._answers,
            plans=self._plans,
            rules=lambda: self._rules,
        )
        self._forecast = Forecast(
            self._store,
            estimates=self._estimates,
            plans=self._plans,
            scheduling=self._scheduling,
            settings=self.settings,
            clock=self.clock,
        )
        self._reader = RunReader(
            self._answers, plans=self._plans, forecast=self._forecast, watchers=self._watchers, holds=self._holds
        )
        self._runs = Runs(
            store=self._store,
            answers=self._answers,
            flows=self._flows,
            plans=self._plans,
            registry=self.registry,
            engines=self.engines,
            scheduling=self._scheduling,
            estimates=self._estimates,
            reader=self._reader,
            settings=self.settings,
            clock=self.clock,
            watchers=self._watchers,
        )
        self._overview = Overview(
            self._store,
            self._answers,
            self.registry,
            self.engines,
            self._scheduling,
            circuits=self._circuits,
            limits=self._limits,
            clock=self.clock,
        )
        self._obstacles = Obstacles(self._store, self._answers, self.registry, self._scheduling, self._owner)
        postmortem = Postmortem(self._store, lambda: self._rules.retry)
        self._explainer = RunExplainer(
            self._answers, self.engines, self._obstacles, self._forecast, postmortem, self._holds
        )
        self.notifications = Notifications(
            store=self._store,
            answers=self._answers,
            vault=self.vault,
            settings=self.settings,
            clock=self.clock,
            watchers=self._watchers,
            describe=self._reader.get,
            output_of=self._reader.run_output,
        )
        """Who is told of runs."""
        self.triggers = Triggers(
            TriggerParts(
                store=self._store,
                watchers=self._watchers,
                clock=self.clock,
                vault=self.vault,
                settings=self.settings,
                answers=self._answers,
                flows=self._flows,
                execute=self._runs.execute,
                control=self._runs.control,
            )
        )
        """What starts runs by itself."""
        self._stack = AsyncExitStack()
        self._is_open = False
        self._must_recall = False
        """Whether another process changed the strategy or the limits and that was not read yet."""

    # Opening and closing
    async def __aenter__(self) -> Self:
        """Raises StoreBusy, StoreReadOnly, StoreCorrupt, StoreTooNew or StoreError where the database cannot be
        used."""
        async with AsyncExitStack() as stack:
            await self._store.open(drives=self._drives)
            stack.push_async_callback(_shielded, self._store.close)
            stack.push_async_callback(_bounded, self.registry.aclose, "agents")
            stack.push_async_callback(_bounded, self.engines.aclose, "engines")
            stack.push_async_callback(_bounded, self.notifications.aclose, "connections to receivers")
            await self._scheduling.recall()
            await self._feed.begin()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._watchers.are_closed = False
            self._is_open = True
            for task in self.telemetry.start(group):
                stack.callback(task.cancel)
            stack.push_async_callback(_shielded, self._stop)
            if self._drives:
                await self._scheduling.settle_limits()
                await self._scheduling.settle()
                await self._drive(group)
                self.registry.start(self._agents_changed)
                for task in (*self.notifications.start(group), *self.triggers.start(group, self._server_id)):
                    stack.callback(task.cancel)
                stack.callback(
                    group.create_task(
                        keep_pruned(self._store, self.settings, self.clock, self._forget), name="prune"
                    ).cancel
                )
            stack.callback(group.create_task(self._feed.follow(), name="follow").cancel)
            self._stack = stack.pop_all()
        return self

    async def _drive(self, group: asyncio.TaskGroup) -> None:
        conductor = Conductor(
            settings=self.settings,
            clock=self.clock,
            store=self._store,
            plans=self._plans,
            registry=self.registry,
            engines=self.engines,
            vault=self.vault,
            rules=self._rules,
            circuits=self._circuits,
            limits=self._limits,
            scheduling=self._scheduling,
            holder=self._holder,
            group=group,
        )
        self._conductor = self._runs.conductor = self._feed.conductor = conductor
        await conductor.start()
        if installed_version("prefect") is not None:
            from .prefect.mirror import Mirror

            self._mirror = Mirror(
                store=self._store,
                plans=self._plans,
                clock=self.clock,
                vault=self.vault,
                watchers=self._watchers,
                access=self.engines.prefect(),
                server_id=lambda: conductor.owner,
                control=self._runs.control,
            )
            self._mirror.start(group)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop within `stop_grace_s`; unfinished runs go on in another server, or at the next start."""
        if exc_type is GeneratorExit:  # destroyed with its event loop, which was closed: nothing can be awaited
            return
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    def abandon(self) -> None:
        """Let go of the database where the event loop that it was opened on is closed: what was submitted becomes
        durable, its runs are anybody's. Blocks until that is so; does nothing where it was closed."""
        self._is_open = False
        self._store.abandon()
        if self._conductor is not None:
            self._conductor.leases.let_go()

    async def _stop(self) -> None:
        self._is_open = False
        if self._conductor is not None:
            deadline = self.clock.monotonic() + self.settings.stop_grace_s
            await self._conductor.stop()
            if self._mirror is not None:
                await self._mirror.aclose(deadline - self.clock.monotonic())
                self._mirror = None
            self._conductor = self._runs.conductor = self._feed.conductor = None
        await self.telemetry.finish()
        self._watchers.close()

    @property
    def database(self) -> Path:
        """The database's file."""
        return self._store.path

    @property
    def is_open(self) -> bool:
        """Whether it takes work."""
        return self._is_open

    def add_agents(self, agents: Any) -> None:
        """Take more agents; they merge with the others by name. Raises TypeError or ValueError."""
        self.registry.add(agents)
        self._agents_changed()

    def _agents_changed(self) -> None:
        if self._conductor is not None:
            self._conductor.agents_changed()

    def enable_engine(self, name: str) -> None:
        """From now on `framework="auto"` may choose that engine, where it is installed."""
        self.engines.enable(name)

    def set_executor(self, executor: FlowExecutor) -> None:
        """From now on what is done about failures, and how often tasks without `retry` are tried."""
        self._rules = executor.rules(self.settings.error_kinds)
        if self._conductor is not None:
            self._conductor.rules = self._rules

    def balance_load(self) -> None:
        """From now on tasks go to the least loaded able agent under every strategy."""
        self._scheduling.balances_load = True

    def _check_open(self) -> None:
        if not self._is_open:
            raise Closing("The service is closed or closing.", next="Send the call again when the server is back.")

    def _holds(self, run_id: str) -> dict[str, str]:
        return self._conductor.holds(run_id) if self._conductor is not None else {}

    def _server_id(self) -> str:
        return self._owner() or ""

    def _owner(self) -> str | None:
        return self._conductor.owner if self._conductor is not None else None

    def _obstacle(self) -> str | None:
        if self._conductor is None and not drivers_of(self._store.path):
            return "no server runs on this database"
        return None

    async def _heed(self, events: list[Event]) -> None:
        """Another process wrote these entries: forget what they make untrue. Raises StoreError where it is to be called
        again."""
        for event in events:
            if event.type == "flow.updated" and event.flow_id is not None:
                self._flows.forget(event.flow_id)
            elif event.type == "flow.pruned" and event.flow_id is not None:
                self._forget([event.flow_id])
        self._must_recall |= any(event.type in _RESCHEDULING for event in events)
        if self._must_recall:
            await self._scheduling.recall()
            self._must_recall = False
            self._look_again()

    def _look_again(self) -> None:
        if self._conductor is not None:
            self._conductor.kick()

    def _forget(self, flow_ids: list[str]) -> None:
        """These flows are gone; their ids may become others'."""
        for flow_id in flow_ids:
            self._flows.forget(flow_id)
            self._plans.forget(flow_id)


async def _shielded(farewell: Callable[[], Awaitable[None]]) -> None:
    """Each farewell is bounded in time itself."""
    with anyio.CancelScope(shield=True):
        await farewell()


async def _bounded(farewell: Callable[[], Awaitable[None]], whose: str) -> None:
    """A farewell in which strangers have their say: where one does not come to an end it is left behind."""
    task = asyncio.ensure_future(farewell())
    with anyio.CancelScope(shield=True):
        await asyncio.wait({task}, timeout=FAREWELL_S)
    if task.done():
        task.result()
    else:
        task.cancel()
        logger.error("the %s did not close within %g s and are left behind", whose, FAREWELL_S)
