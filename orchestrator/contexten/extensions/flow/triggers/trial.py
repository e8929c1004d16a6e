"""What a trigger would do about an event, told without doing it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..definition import ExpressionError, TemplateProblem
from ..errors import FlowError
from .checking import rules_error, saved_rules
from .model import Trigger, TriggerEvent
from .views import error_view

_ASKED = "a run may start: only the function {handler} decides, which is not asked before the event is delivered"


async def foretell(
    trigger: Trigger,
    event: TriggerEvent,
    takes_event: Callable[[str], Awaitable[bool]],
    check_inputs: Callable[[str, Mapping[str, Any]], Awaitable[None]],
) -> dict[str, Any]:
    """Fields of TriggerTest: whether a run would start, with which inputs, or why none would. A handler is not
    asked: that it may start one is what `reason` says. `takes_event` answers whether a flow declares an input
    `event`, `check_inputs` raises what a start with those inputs would."""
    if not trigger.enabled:
        return {"starts": False, "reason": "it is disabled: enable it, and it takes events again"}
    inputs: dict[str, Any] | None = None
    try:
        rules = saved_rules(json.dumps(trigger.inputs) if trigger.inputs else None, trigger.filter)
        if not rules.wants(event):
            return {"starts": False, "reason": "its filter is not true of the event"}
        if trigger.handler is not None:
            return {"starts": True, "reason": _ASKED.format(handler=trigger.handler)}
        assert trigger.flow_id is not None  # noqa: S101 - a trigger has one of them
        inputs = rules.inputs_for(event)
        if rules.inputs is None and await takes_event(trigger.flow_id):
            inputs = {"event": event.data()}
        await check_inputs(trigger.flow_id, inputs)
    except (ExpressionError, TemplateProblem) as error:
        return {"starts": False, "error": error_view(rules_error(error))}
    except FlowError as error:
        return {"starts": False, "inputs": inputs, "error": error_view(error.as_dict())}
    return {"starts": True, "inputs": inputs}
