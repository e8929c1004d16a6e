"""The core of a database in a process: its parts put together, opened, driven, and closed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .agents.mcp import mcp_agents
from .agents.registry import AgentRegistry
from .agents.secrets import SecretVault
from .agents.tool_agent import BuiltinToolAgent
from .answers.overview import Overview
from .answers.reading import Answers
from .clock import Clock, SystemClock
from .driver import Driver
from .engines import EngineParts, Engines
from .errors import Closing
from .execution.conductor import Conductor
from .explaining.explainer import RunExplainer
from .explaining.obstacles import Obstacles
from .explaining.postmortem import Postmortem
from .farewells import bounded, shielded
from .flows.plans import Plans
from .flows.saving import Flows
from .foreign import ForeignChanges
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
from .store import Store
from .store.servers import drivers_of
from .telemetry import Telemetry
from .triggers.triggers import TriggerParts, Triggers


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
        self._rules = RecoveryRules(
            retry=RetryPolicy(max_attempts=self.settings.max_retries + 1, delay_s=self.settings.retry_delay_s),
            kinds=ErrorKinds(self.settings.error_kinds),
        )
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
        self._plans = Plans(self._store)
        self._scheduling = Scheduling(self._store, self.settings, self.clock)
        self._estimates = Estimates(self._store, self.clock)
        self.registry.placement = self._scheduling.place
        self._driver = Driver(
            partial(
                Conductor,
                settings=self.settings,
                clock=self.clock,
                store=self._store,
                plans=self._plans,
                registry=self.registry,
                engines=self.engines,
                vault=self.vault,
                rules=lambda: self._rules,
                circuits=self._circuits,
                limits=self._limits,
                scheduling=self._scheduling,
                holder=holder,
            ),
            self._watchers,
        )
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
        self._feed = Feed(
            store=self._store,
            clock=self.clock,
            answers=self._answers,
            watchers=self._watchers,
            on_foreign=ForeignChanges(self._flows, self._scheduling, self._driver.kick).heed,
            conductor=lambda: self._driver.conductor,
        )
        self._feed.listen(narrate)
        self._store.on_commit = self._feed.committed
        self.telemetry = Telemetry(
            store=self._store,
            feed=self._feed,
            registry=self.registry,
            scheduling=self._scheduling,
            clock=self.clock,
            plans=self._plans,
            executions=lambda: self._driver.executions,
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
            self._answers,
            plans=self._plans,
            forecast=self._forecast,
            watchers=self._watchers,
            holds=self._driver.holds,
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
            driver=self._driver,
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
        self._obstacles = Obstacles(self._store, self._answers, self.registry, self._scheduling, self._driver.owner)
        postmortem = Postmortem(self._store, lambda: self._rules.retry)
        self._explainer = RunExplainer(
            self._answers, self.engines, self._obstacles, self._forecast, postmortem, self._driver.holds
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

    # Opening and closing
    async def __aenter__(self) -> Self:
        """Raises StoreBusy, StoreReadOnly, StoreCorrupt, StoreTooNew or StoreError where the database cannot be
        used."""
        async with AsyncExitStack() as stack:
            await self._store.open(drives=self._drives)
            stack.push_async_callback(shielded, self._store.close)
            stack.push_async_callback(bounded, self.registry.aclose, "agents")
            stack.push_async_callback(bounded, self.engines.aclose, "engines")
            stack.push_async_callback(bounded, self.notifications.aclose, "connections to receivers")
            await self._scheduling.recall()
            await self._feed.begin()
            group = await stack.enter_async_context(asyncio.TaskGroup())
            self._watchers.are_closed = False
            self._is_open = True
            for task in self.telemetry.start(group):
                stack.callback(task.cancel)
            stack.push_async_callback(shielded, self._stop)
            if self._drives:
                await self._scheduling.settle_limits()
                await self._scheduling.settle()
                await self._driver.start(group, self._runs.control)
                self.registry.start(self._driver.agents_changed)
                for task in (*self.notifications.start(group), *self.triggers.start(group, self._server_id)):
                    stack.callback(task.cancel)
                stack.callback(
                    group.create_task(
                        keep_pruned(self._store, self.settings, self.clock, self._flows.gone), name="prune"
                    ).cancel
                )
            stack.callback(group.create_task(self._feed.follow(), name="follow").cancel)
            self._stack = stack.pop_all()
        return self

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
        self._driver.abandon()

    async def _stop(self) -> None:
        self._is_open = False
        try:
            await self._driver.stop()
            await self.telemetry.finish()
        finally:
            self._watchers.close()  # nobody waits for what does not come any more

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
        self._driver.agents_changed()

    def enable_engine(self, name: str) -> None:
        """From now on `framework="auto"` may choose that engine, where it is installed."""
        self.engines.enable(name)

    def set_executor(self, executor: FlowExecutor) -> None:
        """From now on what is done about failures, and how often tasks without `retry` are tried."""
        self._rules = executor.rules(self.settings.error_kinds)

    def balance_load(self) -> None:
        """From now on tasks go to the least loaded able agent under every strategy."""
        self._scheduling.balances_load = True

    def _check_open(self) -> None:
        if not self._is_open:
            raise Closing("The service is closed or closing.", next="Send the call again when the server is back.")

    def _server_id(self) -> str:
        return self._driver.owner() or ""

    def _obstacle(self) -> str | None:
        if self._driver.conductor is None and not drivers_of(self._store.path):
            return "no server runs on this database"
        return None
