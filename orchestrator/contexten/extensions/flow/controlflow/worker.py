"""The agent that makes attempts with ControlFlow: it tells the child what to do, and calls tools on its behalf."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..agents.protocol import MODEL, AttemptContext, Json, TaskCall
from ..agents.reserved import CONTROLFLOW_MODEL
from ..errors import AttemptError
from ..models.access import ModelAccess
from ..models.objective import AgentOptions, Member, prompt, read_options
from ..models.shortening import cut_all
from ..models.toolbox import OfferedTool, Toolbox
from ..models.usage import Usage
from ..recovery.kinds import INTERRUPTED
from ..settings import FlowSettings
from .keeper import Keeper
from .messages import AgentSpec, Done, Failed, FlowSpec, ModelCalled, ModelChoice, ToolAnswer, ToolCall, ToolSpec, Work
from .process import ChildGone, ChildProcess

PROVIDER = "openai"
INSTRUCTIONS = "instructions"
"""In a flow's context: what every agent of the flow must follow."""
_MAX_ID = 40  # characters: tools that end a task carry its id, and have 64


class ControlFlowWorker:
    """Makes attempts of tasks that are a language model's."""

    name = CONTROLFLOW_MODEL
    agent_type = "llm"
    tools: Sequence[str] = ()
    traits = MODEL

    def __init__(self, settings: FlowSettings, toolbox: Toolbox, keeper: Keeper) -> None:
        self._settings = settings
        self._toolbox = toolbox
        self._keeper = keeper
        self._access = ModelAccess(settings)
        self.mask = self._access.mask
        """The text without the keys of models."""
        self.capacity = settings.model_capacity

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        """Raises AttemptError."""
        options, parameters = read_options(task)
        tools = self._toolbox.offer(task.required_tools)
        agents = self._agents(task, options, tools)
        child = await self._keeper.child(context.log)
        work = Work(
            id=child.number(),
            flow=_flow(task, context),
            task=_task_id(task.name, context.item_index),
            objective=_objective(task, context, parameters),
            instructions=options.instructions if options.agents else None,
            upstream=cut_all(task.upstream),
            output_schema=task.output_schema,
            agents=agents,
            tools=tuple(ToolSpec(name=t.safe_name, description=t.description, parameters=t.schema) for t in tools),
            turn_strategy=options.turn_strategy,
            entry=options.entry,
            max_model_calls=options.max_turns or self._settings.model_max_turns,
            max_tokens=options.max_tokens or self._settings.model_max_tokens,
        )
        try:
            return await self._see_through(child, work, context, {tool.safe_name: tool.name for tool in tools})
        except ChildGone as error:
            raise AttemptError(f"The ControlFlow process is gone: {error}.", kind=INTERRUPTED) from None

    async def _see_through(
        self, child: ChildProcess, work: Work, context: AttemptContext, names: Mapping[str, str]
    ) -> Json:
        usage = Usage()
        talk = await child.open(work)
        try:
            while True:
                message = await talk.next()
                if isinstance(message, Done):
                    return message.output
                if isinstance(message, Failed):
                    raise AttemptError(self.mask(message.message), kind=message.kind, details=message.details)
                if isinstance(message, ModelCalled):
                    usage.called(message.model)
                    usage.spent(
                        message.model,
                        input_tokens=message.input_tokens or 0,
                        output_tokens=message.output_tokens or 0,
                    )
                    told = message.model_dump(exclude={"type", "id"}, exclude_none=True)
                    context.record("task.model_called", told)
                else:
                    await child.send(await self._call(message, names, context))
        finally:
            child.cancel(work.id)  # of no effect where it has ended
            usage.tell(context, self._settings.price_of)

    async def _call(self, asked: ToolCall, names: Mapping[str, str], context: AttemptContext) -> ToolAnswer:
        reply = await self._toolbox.answer(names.get(asked.tool, asked.tool), asked.arguments, context)
        return ToolAnswer(id=asked.id, call=asked.call, is_error=reply.is_error, text=reply.text)

    def _agents(self, task: TaskCall, options: AgentOptions, tools: list[OfferedTool]) -> tuple[AgentSpec, ...]:
        """Raises AttemptError where the options ask for what cannot be."""
        if options.pattern != "single" or options.edges:
            raise AttemptError(
                "parameters/agent/pattern: graphs and swarms are patterns of the engine strands; on controlflow "
                "several agents take turns: leave pattern and edges out and choose a turn_strategy.",
                kind="invalid",
            )
        members = options.agents or (Member(name=_member_name(task), instructions=options.instructions),)
        names = [member.name for member in members]
        if len(set(names)) < len(names):
            raise AttemptError("parameters/agent/agents: two agents have one name.", kind="invalid")
        if options.entry is not None and options.entry not in names:
            raise AttemptError(
                f"parameters/agent/entry: there is no agent {options.entry!r} among {', '.join(names)}.", kind="invalid"
            )
        offered = {tool.name: tool.safe_name for tool in tools}
        return tuple(
            AgentSpec(
                name=member.name,
                instructions=member.instructions,
                model=self._model(member.model or options.model, options.temperature),
                tools=tuple(_own_tools(member, offered)),
            )
            for member in members
        )

    def _model(self, model: str | None, temperature: float | None) -> ModelChoice:
        problem = self.problem(model)
        if problem is not None:
            raise AttemptError(f"{problem}.", kind="invalid")
        access = self._access.grant(model)
        return ModelChoice(
            name=access.name,
            label=access.model,
            base_url=access.base_url,
            api_key=access.key or "none",  # a server of one's own asks for none, its client for any
            key_variable=self._access.key_variable(access.model) or "",
            temperature=temperature,
            timeout_s=self._settings.model_timeout_s,
        )

    def problem(self, model: str | None = None) -> str | None:
        """Why that model (None: the one of the settings) cannot be used, with what mends it."""
        chosen = model or self._settings.model
        if chosen is not None and chosen.partition("/")[0] != PROVIDER:
            return (
                f"the engine controlflow takes models with OpenAI's interface only, written {PROVIDER}/NAME, not "
                f"{chosen[:200]!r}: use framework='strands' or 'native' for other providers, or name an "
                f"OpenAI-compatible server in CONTEXTEN_FLOW_MODEL_BASE_URL and its model as {PROVIDER}/NAME"
            )
        return self._access.problem(chosen)


def _flow(task: TaskCall, context: AttemptContext) -> FlowSpec:
    around = {**context.context, **({"inputs": dict(context.inputs)} if context.inputs else {})}
    told = around.pop(INSTRUCTIONS, None)
    return FlowSpec(
        thread=context.run_id,
        name=task.flow_name or context.flow_id,
        description=task.flow_description,
        instructions=told if isinstance(told, str) and told else None,
        context=cut_all(around),
    )


def _objective(task: TaskCall, context: AttemptContext, parameters: Mapping[str, Json]) -> str:
    """Without what ControlFlow tells its agents in places of its own."""
    bare = replace(task, upstream={}, output_schema=None, flow_name=None, flow_description=None)
    return prompt(bare, replace(context, inputs={}, context={}), parameters)


def _task_id(name: str, item: int | None) -> str:
    suffix = "" if item is None else f"_{item}"
    if len(name) + len(suffix) > _MAX_ID:
        digest = hashlib.sha256(name.encode()).hexdigest()[:6]
        name = f"{name[: _MAX_ID - 7 - len(suffix)]}_{digest}"
    return f"{name}{suffix}"


def _member_name(task: TaskCall) -> str:
    """The one agent's name: what the task calls the agent that it prefers."""
    name = "".join(c for c in task.preferred_agent_type or "" if c.isascii() and (c.isalnum() or c in "_-"))[:64]
    return name if name[:1].isalpha() else "assistant"


def _own_tools(member: Member, offered: Mapping[str, str]) -> list[str]:
    if member.tools is None:
        return list(offered.values())
    for name in member.tools:
        if name not in offered:
            raise AttemptError(
                f"parameters/agent/agents: {member.name} is to use {name!r}, which is not among the task's "
                "required_tools.",
                kind="invalid",
            )
    return [offered[name] for name in dict.fromkeys(member.tools)]
