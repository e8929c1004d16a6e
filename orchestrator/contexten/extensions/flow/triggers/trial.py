"""What a trigger would do about an event, told without doing it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..definition import ExpressionError
from ..errors import FlowError
from .checking import check_rules
from .model import Trigger, TriggerEvent
from .views import error_view


async def foretell(
    trigger: Trigger, event: TriggerEvent, takes_event: Callable[[str], Awaitable[bool]]
) -> dict[str, Any]:
    """Fields of TriggerTest: whether a run would start, with which inputs, or why none would. `takes_event` answers
    whether a flow declares an input `event`."""
    if not trigger.enabled:
        return {"starts": False, "reason": "it is disabled: enable it, and it takes events again"}
    rules = check_rules(trigger.inputs or None, trigger.filter)
    try:
        if not rules.wants(event):
            return {"starts": False, "reason": "its filter is not true of the event"}
        if trigger.handler is not None:
            return {"starts": True, "reason": f"the handler {trigger.handler} decides"}
        assert trigger.flow_id is not None  # noqa: S101 - a trigger has one of them
        if rules.inputs is None and await takes_event(trigger.flow_id):
            return {"starts": True, "inputs": {"event": event.data()}}
        return {"starts": True, "inputs": rules.inputs_for(event)}
    except ExpressionError as error:
        return {"starts": False, "error": error_view({"code": "expression_failed", "message": error.message})}
    except FlowError as error:
        return {"starts": False, "error": error_view(error.as_dict())}
