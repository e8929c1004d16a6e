"""What a language model is told of a task: its options, its objective, and what came before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..agents.protocol import AttemptContext, Json, TaskCall
from ..definition.agentoptions import OBJECTIVE, OPTIONS, AgentOptions, Member
from ..definition.pointers import pointer
from ..errors import AttemptError
from .shortening import MAX_OUTPUT, MAX_OUTPUTS, as_text, cut

__all__ = ["OBJECTIVE", "OPTIONS", "AgentOptions", "Member", "prompt", "read_options"]


def read_options(call: TaskCall) -> tuple[AgentOptions, dict[str, Json]]:
    """The options of a task, and its other parameters. Raises AttemptError of kind invalid, with the places."""
    data = dict(call.parameters)
    try:
        options = AgentOptions.model_validate(data.pop(OPTIONS, None) or {})
    except ValidationError as error:
        issues = [
            {"path": pointer("parameters", OPTIONS, *problem["loc"]), "message": problem["msg"]}
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        shown = "; ".join(f"{issue['path'].lstrip('/')}: {issue['message']}" for issue in issues[:5])
        raise AttemptError(
            f"The agent's options do not fit: {shown}.", kind="invalid", details={"issues": issues}
        ) from None
    return options, data


def prompt(call: TaskCall, context: AttemptContext, parameters: Mapping[str, Json], *, with_schema: bool = True) -> str:
    """The objective with its parameters, the flow it is part of, and the outputs before it; `with_schema`: also the
    output_schema, for a model that is not told it in another way."""
    data = dict(parameters)
    given = data.pop(OBJECTIVE, None)
    parts = ["\n\n".join(str(text) for text in (call.description, given) if text) or call.name]
    if data:
        parts.append(_section("Parameters", data))
    parts.append(_flow(call, context))
    left = MAX_OUTPUTS
    for name, output in call.upstream.items():
        text = _section(f"Output of the task {name} before this one", output, limit=max(0, min(MAX_OUTPUT, left)))
        left -= len(text)
        parts.append(text)
    if with_schema and call.output_schema not in (None, True):
        parts.append(_section("Answer with JSON that fits this schema", call.output_schema))
    return "\n\n".join(part for part in parts if part)


def _flow(call: TaskCall, context: AttemptContext) -> str:
    about = {
        "flow": call.flow_name,
        "about": call.flow_description,
        "task": call.name if context.item_index is None else f"{call.name}, item {context.item_index}",
        "inputs": dict(context.inputs),
        "context": dict(context.context),
    }
    return _section("This is one task of a flow", {name: value for name, value in about.items() if value})


def _section(title: str, data: Any, limit: int = MAX_OUTPUT) -> str:
    return f"## {title}\n{cut(as_text(data, indent=1), limit)}"
