"""The agent of the engine: tasks of type `agent`, and free-text ones, by a fresh agent of Strands for each attempt."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from ..agents.protocol import MODEL, AttemptContext, Json, TaskCall
from ..agents.reserved import STRANDS_MODEL
from ..engines.protocol import EngineParts
from ..errors import AttemptError
from ..models.access import ModelAccess
from ..models.answers import has_structure
from ..models.failures import failure_of
from ..models.objective import AgentOptions, Member, prompt, read_options
from ..models.toolbox import OfferedTool
from ..recovery.kinds import INVALID
from .journal import AttemptJournal, Bounds
from .models import Models

if TYPE_CHECKING:
    from strands import Agent

    from .providers import Made
    from .tools import AnswerTool

_TOOLS = f"{__package__}.tools"
"""The module that imports Strands: seconds at the first time, so not on the event loop."""

UNATTENDED = (
    "You work on one task of a workflow. Nobody is there to answer questions: decide by yourself. Use the tools where "
    "they help, and answer with the task's result only."
)
"""The system prompt of a task without `instructions`."""


class ModelWorker:
    """Made without importing Strands."""

    name = STRANDS_MODEL
    agent_type = "llm"
    tools: Sequence[str] = ()
    traits = MODEL

    def __init__(self, parts: EngineParts, access: ModelAccess, models: Models) -> None:
        self._parts = parts
        self._access = access
        self._models = models
        self.capacity = parts.settings.model_capacity

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """One attempt. Raises AttemptError."""
        options, data = read_options(task)
        if options.agents and options.pattern == "single":
            raise AttemptError(
                "The task names several agents, and not how they work together: set parameters.agent.pattern to graph "
                "or swarm.",
                kind=INVALID,
            )
        job = _Job(self._parts, task, context, options)
        text = prompt(task, context, data, with_schema=False)
        async with AsyncExitStack() as stack:
            await job.prepare(self._models, stack)
            await stack.enter_async_context(job.journal.watching())
            try:
                return await (job.work_alone(text) if options.pattern == "single" else job.work_together(text))
            except Exception as error:  # noqa: BLE001 - whatever libraries of providers raise
                raise self._failure(error, options) from None

    def _failure(self, error: Exception, options: AgentOptions) -> AttemptError:
        model = options.model or self._parts.settings.model
        return failure_of(
            error,
            self._parts.clock,
            model=model,
            key_variable=self._access.key_variable(model) if model is not None else None,
            address=self._access.base_url(model) if model is not None else None,
            mask=self._access.mask,
        )


class _Job:
    """What one attempt needs."""

    def __init__(self, parts: EngineParts, task: TaskCall, context: AttemptContext, options: AgentOptions) -> None:
        self._parts = parts
        self._task = task
        self._context = context
        self._options = options
        self._names: dict[int, str] = {}  # of models, by agent
        self._made: dict[str | None, Made] = {}
        settings = parts.settings
        self._max_turns = options.max_turns or settings.model_max_turns
        self.journal = AttemptJournal(
            context,
            parts.clock,
            bounds=Bounds(
                turns=self._max_turns,
                tokens=options.max_tokens or settings.model_max_tokens,
                call_s=settings.model_timeout_s,
            ),
            model_of=lambda agent: self._names.get(id(agent), ""),
            price_of=settings.price_of,
        )
        self._tools: dict[str, OfferedTool] = {}

    async def prepare(self, models: Models, stack: AsyncExitStack) -> None:
        """Models, lent until `stack` ends, and tools, looked up before anything is asked. Raises AttemptError
        (invalid)."""
        for name in dict.fromkeys((self._options.model, *(member.model for member in self._options.agents))):
            lent = models.lent(name or self._options.model, self._options.temperature)
            self._made[name] = await stack.enter_async_context(lent)
        if _TOOLS not in sys.modules:
            await asyncio.to_thread(importlib.import_module, _TOOLS)
        self._tools = {tool.name: tool for tool in self._parts.toolbox.offer(self._task.required_tools)}

    async def work_alone(self, text: str) -> Json:
        """One agent."""
        from .conversation import converse

        answer = self._answer_tool()
        agent = self._agent(
            self._task.name, self._options.instructions, tools=list(self._tools.values()), answer=answer
        )
        return await converse(agent.stream_async, text, self._task.output_schema, answer)

    async def work_together(self, text: str) -> Json:
        """The members of a team; what they found is put into the structure that is asked for by one more agent."""
        from .conversation import converse
        from .patterns import make_team, work

        members = [self._member(member) for member in self._options.agents]
        if not members:
            raise AttemptError(f"A {self._options.pattern} needs agents: set parameters.agent.agents.", kind=INVALID)
        team = await asyncio.to_thread(make_team, self._options, members, self._max_turns)
        found = await work(team, text, self.journal.note)
        answer = self._answer_tool()
        if answer is None:
            return found
        agent = self._agent(self._task.name, None, tools=[], answer=answer)
        said = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, indent=1)
        request = f"{text}\n\n## Others worked on this. What they found, for you to give as the answer\n{said}"
        return await converse(agent.stream_async, request, self._task.output_schema, answer)

    def _member(self, member: Member) -> Agent:
        wanted = (
            self._tools.values() if member.tools is None else [self._own_tool(member, name) for name in member.tools]
        )
        return self._agent(member.name, member.instructions, tools=list(wanted), model=member.model)

    def _own_tool(self, member: Member, name: str) -> OfferedTool:
        tool = self._tools.get(name)
        if tool is None:
            raise AttemptError(
                f"The agent {member.name} names the tool {name!r}, which the task's required_tools do not.",
                kind=INVALID,
            )
        return tool

    def _answer_tool(self) -> AnswerTool | None:
        schema = self._task.output_schema
        if schema is None or not has_structure(schema):
            return None
        from .tools import AnswerTool

        return AnswerTool(schema, {tool.safe_name for tool in self._tools.values()}, self.journal)

    def _agent(
        self,
        name: str,
        instructions: str | None,
        *,
        tools: Sequence[OfferedTool],
        model: str | None = None,
        answer: AnswerTool | None = None,
    ) -> Agent:
        from strands import Agent
        from strands.agent.conversation_manager import NullConversationManager
        from strands.middleware.stages import InvokeModelStage

        from .tools import FlowTool

        own = [FlowTool(tool, self._parts.toolbox, self._context, self.journal) for tool in tools]
        agent = Agent(
            name=name,
            description=instructions,
            model=self._made[model if model is not None else self._options.model].model,
            tools=[*own, *([answer] if answer is not None else [])],
            system_prompt=instructions or UNATTENDED,
            callback_handler=None,
            conversation_manager=NullConversationManager(),  # what was said stays: the objective stands first
            retry_strategy=None,  # the orchestrator's
            hooks=[self.journal, *([answer] if answer is not None else [])],
        )
        agent.callback_handler = partial(_heard, self.journal, agent)
        if answer is not None:
            agent.add_middleware(InvokeModelStage.Input, answer.choose)
        self._names[id(agent)] = model or self._options.model or self._parts.settings.model or ""
        return agent


def _heard(journal: AttemptJournal, agent: Any, /, **event: Any) -> None:
    journal.hear(agent, event)
