"""The tools of a task as Strands' tools, and the tool by which a model gives a structured answer."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from strands.hooks import AfterToolsEvent, HookRegistry
from strands.middleware.stages import InvokeModelContext
from strands.types.events import ToolResultEvent
from strands.types.tools import AgentTool, ToolChoiceToolDict, ToolGenerator, ToolResult, ToolSpec, ToolUse
from typing_extensions import override

from ..agents.protocol import AttemptContext, Json
from ..definition.jsontext import load_json
from ..models.answers import MAX_MISFITS, Misfit, as_arguments, check_answer
from ..models.toolbox import OfferedTool, Toolbox
from .journal import AttemptJournal

_UNSET = object()


class FlowTool(AgentTool):
    """A tool of the flow. Its failures go back to the model, which may do better or without."""

    def __init__(
        self, offered: OfferedTool, toolbox: Toolbox, context: AttemptContext, journal: AttemptJournal
    ) -> None:
        super().__init__()
        self._offered = offered
        self._toolbox = toolbox
        self._context = context
        self._journal = journal

    @property
    @override
    def tool_name(self) -> str:
        return self._offered.safe_name

    @property
    @override
    def tool_spec(self) -> ToolSpec:
        return _spec(self._offered.safe_name, self._offered.description or self._offered.name, self._offered.schema)

    @property
    @override
    def tool_type(self) -> str:
        return "flow"

    @override
    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **kwargs: Any) -> ToolGenerator:
        arguments = _arguments(tool_use, self._journal)
        if arguments is None:
            yield _result(tool_use, "The arguments are no JSON object; nothing was called.", is_error=True)
            return
        reply = await self._toolbox.answer(self._offered.name, arguments, self._context)
        yield _result(tool_use, reply.text, is_error=reply.is_error)


class AnswerTool(AgentTool):
    """Takes the answer in the structure of the task's output_schema; that ends the model's work.

    It is a provider of hooks and middleware too: `insist` has the next calls of the model call nothing else.
    """

    def __init__(self, schema: dict[str, Any] | bool, taken: set[str], journal: AttemptJournal) -> None:
        """`taken` are the names of the other tools."""
        super().__init__()
        self._schema = schema
        self._arguments, self._inner = as_arguments(schema)
        self._journal = journal
        self._name = "final_answer"
        while self._name in taken:
            self._name += "_"
        self._is_insisting = False
        self._misfits = 0
        self.value: Any = _UNSET
        self.complaint = ""
        """Why the last answer does not fit."""

    @property
    def has_value(self) -> bool:
        """Whether an answer that fits was given; it is `value`."""
        return self.value is not _UNSET

    @property
    @override
    def tool_name(self) -> str:
        return self._name

    @property
    @override
    def tool_spec(self) -> ToolSpec:
        description = "Gives the final answer of the task, once, when everything else is done. Nothing else counts."
        return _spec(self._name, description, self._arguments)

    @property
    @override
    def tool_type(self) -> str:
        return "answer"

    @override
    async def stream(self, tool_use: ToolUse, invocation_state: dict[str, Any], **kwargs: Any) -> ToolGenerator:
        arguments = _arguments(tool_use, self._journal)
        try:
            if arguments is None or (self._inner is not None and self._inner not in arguments):
                raise Misfit(f"the arguments are an object{f' with {self._inner}' if self._inner else ''}")
            self.value = check_answer(arguments if self._inner is None else arguments[self._inner], self._schema)
        except Misfit as misfit:
            self._misfits += 1
            self.complaint = str(misfit)
            yield _result(tool_use, f"This does not fit: {misfit}. Correct it and answer again.", is_error=True)
        else:
            yield _result(tool_use, "Taken.")

    def insist(self) -> None:
        """From now on the model can only answer."""
        self._is_insisting = True
        self._misfits = 0

    def register_hooks(self, registry: HookRegistry, **_: Any) -> None:
        """End the model's work with its answer, or with too many that fit nothing."""
        registry.add_callback(AfterToolsEvent, self._after_tools)

    def _after_tools(self, event: AfterToolsEvent) -> None:
        if self.has_value or self._misfits >= MAX_MISFITS:
            event.end_turn = True

    def choose(self, context: InvokeModelContext) -> InvokeModelContext:
        """Middleware before each call of the model."""
        if not self._is_insisting:
            return context
        choice: ToolChoiceToolDict = {"tool": {"name": self._name}}
        return context.replace(tool_choice=choice, tool_specs=[self.tool_spec])


def _spec(name: str, description: str, schema: dict[str, Any]) -> ToolSpec:
    return {"name": name, "description": description, "inputSchema": {"json": deepcopy(schema)}}  # Strands fills it in


def _arguments(tool_use: ToolUse, journal: AttemptJournal) -> dict[str, Json] | None:
    """The call's arguments; None where they are no object. What is no JSON reaches a tool of Strands as {}: nothing is
    to be called with that."""
    written = journal.arguments.pop(str(tool_use["toolUseId"]), "")
    if written.strip():
        try:
            load_json(written)
        except (ValueError, RecursionError):
            return None
    given = tool_use["input"]
    return given if isinstance(given, dict) else None


def _result(tool_use: ToolUse, text: str, *, is_error: bool = False) -> ToolResultEvent:
    result: ToolResult = {
        "toolUseId": tool_use["toolUseId"],
        "status": "error" if is_error else "success",
        "content": [{"text": text}],
    }
    return ToolResultEvent(result)
