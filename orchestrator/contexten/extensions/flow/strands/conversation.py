"""One agent of Strands, asked until it has answered as its task wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..agents.protocol import Json
from ..errors import AttemptError
from ..models.answers import Misfit, check_answer, has_structure, read_answer
from ..recovery.kinds import AGENT_FAILURE, INVALID, RESOURCE

if TYPE_CHECKING:
    from strands.agent.agent_result import AgentResult

    from .tools import AnswerTool

MAX_QUOTED = 1000  # characters of an answer that did not fit

_WHOLE = frozenset({"end_turn", "stop_sequence", "tool_use"})
"""Reasons to stop after which the words are an answer (tool_use: an answer was given by its tool)."""
_STOPPED = {
    "limit_turns": (AGENT_FAILURE, "The agent came to no end within max_turns."),
    "limit_total_tokens": (INVALID, "The agent used all the tokens of max_tokens and came to no end."),
    "content_filtered": (INVALID, "The model's provider held its answer back."),
    "guardrail_intervened": (INVALID, "A guardrail held the model's answer back."),
    "interrupt": (AGENT_FAILURE, "The agent asks a person, and there is none in a flow."),
    "cancelled": (AGENT_FAILURE, "The agent was cancelled by something other than its run."),
    "checkpoint": (AGENT_FAILURE, "The agent stopped at a checkpoint; give it without checkpointing."),
}

Ask = Callable[[str], AsyncIterator[Any]]
"""Puts words to an agent; its events."""


async def last_result(events: AsyncIterator[Any], heard: Callable[[dict[str, Any]], None] = lambda event: None) -> Any:
    """The result that a stream of Strands' events ends with. Raises AttemptError (resource) where there is none."""
    result = None
    async with aclosing(events) as stream:  # type: ignore[type-var] # Strands' streams are generators
        async for event in stream:
            heard(event)
            result = event.get("result", result)
    if result is None:
        raise AttemptError("The agent ended without a result.", kind=RESOURCE)
    return result


async def converse(ask: Ask, prompt: str, schema: dict[str, Any] | bool | None, tool: AnswerTool | None = None) -> Json:
    """What the agent answers: words, or what `schema` asks for. Where it does not fit, it is told so, once.

    `tool` is the one by which it gives a structured answer; without it, it is to say JSON. Raises AttemptError.
    """
    answer = _Attempted(await last_result(ask(prompt)), schema, tool)
    if answer.complaint is None:
        return answer.value
    if tool is not None:
        tool.insist()
        correction = f"This is no answer yet: {answer.complaint}. Call {tool.tool_name} with it, and nothing besides."
    else:
        correction = f"This is no answer yet: {answer.complaint}. Say only the JSON, with nothing besides."
    answer = _Attempted(await last_result(ask(correction)), schema, tool)
    if answer.complaint is None:
        return answer.value
    raise AttemptError(
        f"The model gave no answer that fits output_schema: {answer.complaint}.",
        kind=INVALID,
        details={"answer": answer.text[:MAX_QUOTED]},
    )


class _Attempted:
    """What an agent gave as its answer, and what is wrong with it."""

    def __init__(self, result: AgentResult, schema: dict[str, Any] | bool | None, tool: AnswerTool | None) -> None:
        self.value: Json = None
        self.text = ""
        self.complaint: str | None = None
        try:
            if tool is not None and tool.has_value:
                self.value = tool.value
            elif result.structured_output is not None:  # of an agent that was given with a structure of its own
                self.value = check_answer(result.structured_output.model_dump(mode="json"), schema)
            else:
                self.value = self.text = words_of(result)
                if has_structure(schema):
                    self.value = read_answer(self.text, schema)
        except Misfit as misfit:
            self.complaint = (tool.complaint if tool is not None else "") or str(misfit)


def words_of(result: AgentResult) -> str:
    """What an agent said at the end. Raises AttemptError where it did not come to one, or said nothing."""
    reason = str(result.stop_reason)
    if reason not in _WHOLE:
        kind, message = _STOPPED.get(reason, (AGENT_FAILURE, f"The agent stopped before its end ({reason})."))
        raise AttemptError(message, kind=kind, details={"stop_reason": reason})
    text = "".join(block.get("text", "") for block in result.message["content"]).strip()
    if not text:
        raise AttemptError("The model answered nothing.", kind=AGENT_FAILURE, details={"stop_reason": reason})
    return text
