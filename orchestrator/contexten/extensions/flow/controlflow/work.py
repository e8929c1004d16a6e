"""One attempt as a ControlFlow task. Of the child process only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from ..clock import monotonic
from ..errors import AttemptError
from ..models.answers import MAX_MISFITS, Misfit, as_arguments, check_answer
from ..recovery.kinds import AGENT_FAILURE, INVALID
from .library import Library
from .messages import AgentSpec, ModelCalled, ModelChoice, ToolSpec, Work
from .threads import Threads

CallTool = Callable[[str, dict[str, Any]], Awaitable[str]]
"""Calls a tool by its safe name; its output as text. Raises where it failed."""
_OUT_OF_CALLS = "Max LLM calls reached for this task."  # the reason that ControlFlow gives


class Report(Protocol):
    """Takes what happened in an attempt."""

    def __call__(self, message: ModelCalled) -> None: ...


class Workshop:
    """Makes attempts; those of one run share its thread."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.threads = Threads(library)

    async def perform(self, work: Work, call_tool: CallTool, report: Report) -> Any:
        """Make an attempt; its output as JSON data. Raises AttemptError, or what the model's client raises."""
        library = self._library
        thread = self.threads.open(work.flow.thread)
        flow = self.threads.conversation(thread, work.flow)
        tools = {spec.name: self._tool(spec, call_tool) for spec in work.tools}
        agents = [self._agent(spec, tools) for spec in work.agents]
        entry = next((agent for agent in agents if agent.id == work.entry), agents[0])
        judge = _Judge(work.output_schema)
        task = library.Task(
            objective=work.objective,
            id=work.task,
            name=work.task,
            instructions=work.instructions,
            agents=agents,
            context=work.upstream,
            depends_on={self._before(thread.tasks.get(name), name, value) for name, value in work.upstream.items()},
            max_llm_calls=work.max_model_calls,
            **judge.result_type(),
        )
        if judge.is_needed:
            task.tools = [judge.success_tool(library, task)]
        meter = _Meter(work, report)
        with flow.create_context(name=work.flow.name, flow_run_name=f"{work.task} of {work.flow.thread}"):
            try:
                await library.run_tasks_async(
                    tasks=[task],
                    instructions=work.flow.instructions,
                    flow=flow,
                    agent=entry,
                    turn_strategy=self._turns(work.turn_strategy, entry),
                    raise_on_failure=False,
                    max_llm_calls=work.max_model_calls + 1,  # the task's own limit comes first
                    max_agent_turns=work.max_model_calls + 1,
                    handlers=[library.CallbackHandler(meter)],
                    run_until=library.AllComplete() | meter.is_spent | judge.has_enough,
                )
            except Exception as error:
                meter.failed(type(error).__name__)
                raise
        self._check(task, work, meter, judge)
        thread.adopt(task, flow)
        return task.result

    def _check(self, task: Any, work: Work, meter: _Meter, judge: _Judge) -> None:
        """Raise AttemptError unless the task is done."""
        if task.status is self._library.TaskStatus.SUCCESSFUL:
            return
        if task.is_failed() and task.result != _OUT_OF_CALLS:
            raise AttemptError(f"The agent gave the task up: {task.result or 'it gave no reason'}", kind=AGENT_FAILURE)
        if judge.complaint:
            raise AttemptError(f"The model's answer does not fit output_schema: {judge.complaint}.", kind=INVALID)
        if meter.is_spent(None):
            raise AttemptError(
                f"The model used {meter.tokens} tokens and came to no end; the task may use {work.max_tokens} "
                "(max_tokens).",
                kind=INVALID,  # another try would spend as much again
                details={"max_tokens": work.max_tokens, "tokens": meter.tokens},
            )
        raise AttemptError(
            f"The model came to no end within {work.max_model_calls} turns (max_turns).",
            kind=AGENT_FAILURE,
            details={"max_turns": work.max_model_calls},
        )

    def _agent(self, spec: AgentSpec, tools: dict[str, Any]) -> Any:
        told = {} if spec.instructions is None else {"instructions": spec.instructions}
        return self._library.Agent(
            id=spec.name,
            name=spec.name,
            model=self._model(spec.model),
            tools=[tools[name] for name in spec.tools],
            **told,
        )

    def _model(self, choice: ModelChoice) -> Any:
        temperature = {} if choice.temperature is None else {"temperature": choice.temperature}
        return self._library.ChatModel(
            model=choice.name,
            base_url=choice.base_url,
            api_key=choice.api_key,
            timeout=choice.timeout_s,
            max_retries=0,  # tries are the orchestrator's
            disable_streaming=True,  # nobody watches the words, and usage comes with every whole answer
            **temperature,
        )

    def _tool(self, spec: ToolSpec, call_tool: CallTool) -> Any:
        async def call(**arguments: Any) -> str:
            return await call_tool(spec.name, arguments)

        return self._library.Tool(name=spec.name, description=spec.description, parameters=spec.parameters, fn=call)

    def _turns(self, name: str | None, moderator: Any) -> Any:
        if name is None:
            return None
        strategy = self._library.turn_strategies[name]
        return strategy(moderator=moderator) if name == "moderated" else strategy()

    def _before(self, task: Any, name: str, value: Any) -> Any:
        """The completed task of that id; where this process did not see it, one made from its output."""
        if task is None:
            task = self._library.Task(objective=name, id=name, name=name, result_type=None)
            task.result = value if isinstance(value, str) else None
            task.status = self._library.TaskStatus.SUCCESSFUL
        return task


class _Meter:
    """Counts what an attempt spends, as events of ControlFlow pass by."""

    def __init__(self, work: Work, report: Report) -> None:
        self._work = work
        self._report = report
        self._since = monotonic()
        self.calls = 0
        self.tokens = 0

    def __call__(self, event: Any) -> None:
        if event.event == "agent-message":
            self._answered(event)
        if not event.event.startswith("agent-message"):  # from here on the next call is prepared
            self._since = monotonic()

    def _answered(self, event: Any) -> None:
        usage = event.message.get("usage_metadata") or {}
        self.calls += 1
        self.tokens += usage.get("total_tokens", 0)
        self._tell(
            event.agent.name,
            stop_reason=event.message.get("response_metadata", {}).get("finish_reason"),
            input_tokens=usage.get("input_tokens"),
            output_tokens=usage.get("output_tokens"),
        )

    def failed(self, error: str) -> None:
        """The call under way failed."""
        self._tell(self._work.agents[0].name, error=error)

    def _tell(self, agent: str, **told: Any) -> None:
        model = next((spec.model.label for spec in self._work.agents if spec.name == agent), "")
        ms = round((monotonic() - self._since) * 1000, 1)
        self._report(ModelCalled(id=self._work.id, agent=agent, model=model, ms=ms, **told))
        self._since = monotonic()

    def is_spent(self, context: object) -> bool:
        """Whether no further call may be made for the tokens that it would take."""
        return self._work.max_tokens is not None and self.tokens >= self._work.max_tokens


class _Judge:
    """Takes results of a task that has an `output_schema`, and says what is wrong with one.

    ControlFlow takes Python types; JSON Schema says more than those can, so the schema itself is what the model sees as
    the parameters of the tool that ends the task.
    """

    def __init__(self, schema: dict[str, Any] | bool | None) -> None:
        self._schema = schema
        self.is_needed = schema is not None
        self._parameters, self._inner = as_arguments(schema if isinstance(schema, dict) else {})
        self._misfits = 0
        self.complaint = ""
        """What is wrong with the last result."""

    def result_type(self) -> dict[str, Any]:
        """What the task is told of its result."""
        if not self.is_needed:
            return {"result_type": str}
        return {
            "result_type": Annotated[Any, "JSON that fits the parameters of the tool that marks it successful"],
            "completion_tools": ["FAIL"],
        }

    def success_tool(self, library: Library, task: Any) -> Any:
        """The tool that marks the task as successful."""

        def succeed(**arguments: Any) -> str:
            task.mark_successful(result=self._check(arguments))
            return f"{task.friendly_name()} marked successful."

        return library.Tool(
            name=f"mark_task_{task.id}_successful",
            description=f"Mark task {task.id} as successful, with its result.",
            parameters=self._parameters,
            metadata={"is_completion_tool": True, "is_success_tool": True, "completion_task": task},
            fn=succeed,
        )

    def _check(self, arguments: dict[str, Any]) -> Any:
        try:
            if self._inner is not None and self._inner not in arguments:
                raise Misfit(f"the argument {self._inner} is missing")
            value = check_answer(arguments if self._inner is None else arguments[self._inner], self._schema)
        except Misfit as misfit:
            self._misfits += 1
            self.complaint = str(misfit)
            raise
        self.complaint = ""
        return value

    def has_enough(self, context: object) -> bool:
        """Whether the model has given so many results that fit nothing that it will not give a better one."""
        return self._misfits >= MAX_MISFITS and bool(self.complaint)
