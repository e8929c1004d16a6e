"""Submitting a run: everything is checked, then one durable change records it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypedDict

from ..actor import Actor
from ..agents.ability import check_agents
from ..agents.registry import AgentRegistry
from ..clock import Clock, iso, make_id
from ..definition import MAX_S, NotJson, Plan, check_inputs, check_json
from ..engines import Engines
from ..errors import InvalidArguments, InvalidInputs, Issue
from ..flows.saving import SavedFlow, check_name
from ..nearest import checked_choice
from ..scheduling.in_force import Scheduling
from ..scheduling.priorities import parse_priority
from ..settings import FlowSettings
from ..store import NewRun
from ..strategies import QueuedRun
from ..trace_context import current_trace

MAX_KEY_CHARS = 200
MAX_DEPENDENCIES = 100
DELIVERY_KEY = "delivery:"
"""How the idempotency keys of runs begin that triggers start; nobody else may use one."""


class RunRequest(TypedDict, total=False):
    """What a caller asks for: a saved flow by `flow_id` (and `version`), or a `workflow_def`. `name` is what the run is
    called, else it is what the definition or its flow is."""

    flow_id: str | None
    workflow_def: object | None
    name: str | None
    version: int | None
    inputs: Mapping[str, Any] | None
    priority: int | str | None
    deadline: object | None
    on_deadline: str | None
    dependencies: Sequence[str] | None
    on_dependency_failure: str | None
    framework: str | None
    work_pool: str | None
    forbidden_engines: Collection[str]
    timeout_s: float | None
    idempotency_key: str | None


def new_run(
    flow: SavedFlow,
    request: RunRequest,
    *,
    scheduling: Scheduling,
    estimate_s: float | None,
    registry: AgentRegistry,
    engines: Engines,
    settings: FlowSettings,
    clock: Clock,
    actor: Actor,
) -> NewRun:
    """The run to record; `estimate_s` is how long it will probably take. Raises InvalidArguments, InvalidInputs,
    InvalidDefinition, EngineUnavailable."""
    timeout_s, idempotency_key = request.get("timeout_s"), request.get("idempotency_key")
    engine = engines.choose(
        request.get("framework"),
        flow.plan.definition,
        pool=request.get("work_pool"),
        forbidden=request.get("forbidden_engines", ()),
    )
    check_name(request.get("name"))
    staff = engines.staff(engine)
    level = parse_priority(request.get("priority"))
    check_timeout(timeout_s)
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_KEY_CHARS:
        raise InvalidArguments(
            f"idempotency_key must have 1 to {MAX_KEY_CHARS} characters.",
            issues=[Issue(path="/idempotency_key", code="out_of_range", message=f"1 to {MAX_KEY_CHARS} characters")],
        )
    if idempotency_key is not None and idempotency_key.startswith(DELIVERY_KEY) and actor.transport != "trigger":
        raise InvalidArguments(
            f"idempotency_key must not begin with {DELIVERY_KEY!r}: the runs that triggers start have such keys.",
            next="Choose another key.",
            issues=[Issue(path="/idempotency_key", code="invalid_value", message=f"begins with {DELIVERY_KEY!r}")],
        )
    text = encode_inputs(flow.plan, request.get("inputs"), settings)
    check_agents(flow.plan, staff, registry)
    now = clock.timestamp()
    deadline = parse_deadline(request.get("deadline"), now)
    on_deadline = checked_choice("on_deadline", request.get("on_deadline"), ("continue", "cancel"), default="continue")
    dependencies = _dependencies(request.get("dependencies"))
    on_failure = checked_choice(
        "on_dependency_failure", request.get("on_dependency_failure"), ("fail", "run"), default="fail"
    )
    demands = scheduling.demands(flow.plan, staff)
    run_id = make_id("run_", now)
    version = request.get("version") if request.get("workflow_def") is None else flow.version
    asked: list[object] = [version, text, level, engine, timeout_s]
    if deadline is not None or dependencies:
        asked += [str(request.get("deadline")), on_deadline, sorted(dependencies), on_failure]
    name = request.get("name") or flow.title or flow.name
    if name != flow.name:
        asked.append({"name": name})
    content = json.dumps(asked, sort_keys=True)
    return NewRun(
        run_id=run_id,
        flow_id=flow.flow_id,
        version=flow.version,
        name=name,
        framework=engine,
        priority=level,
        queue_key=scheduling.strategy.key(
            QueuedRun(run_id=run_id, seq=0, enqueued_at=now, priority=level, deadline=deadline, estimate_s=estimate_s)
        ),
        keys=scheduling.keys,
        inputs=text,
        total=len(flow.plan.tasks),
        created_at=now,
        timeout_s=timeout_s,
        idempotency_key=idempotency_key,
        request_digest=hashlib.sha256(content.encode()).hexdigest() if idempotency_key is not None else None,
        is_latest=request.get("version") is None and request.get("workflow_def") is None,
        actor=str(actor),
        deadline=deadline,
        on_deadline=on_deadline if deadline is not None else None,
        estimate_s=estimate_s,
        demands=json.dumps(demands, sort_keys=True) if demands else None,
        dependencies=dependencies,
        on_dependency_failure=on_failure,
        trace=current_trace(),
    )


def _dependencies(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    is_list = isinstance(value, list | tuple) and len(value) <= MAX_DEPENDENCIES
    if is_list and all(isinstance(name, str) and name for name in value):  # type: ignore[attr-defined]  # a list
        return tuple(dict.fromkeys(value))  # type: ignore[call-overload]  # as above
    raise InvalidArguments(
        f"dependencies must be a list of up to {MAX_DEPENDENCIES} run ids or flow ids.",
        issues=[Issue(path="/dependencies", code="wrong_type", message="a list of ids", got=str(value)[:100])],
    )


def parse_deadline(value: object, now: float) -> float | None:
    """A deadline in seconds since the epoch: from a time (ISO 8601 or datetime, local where it has no zone) or a number
    of seconds from now. Raises InvalidArguments where it is none of these, or has passed."""
    if value is None:
        return None
    at: float | None = None
    with suppress(ValueError, OverflowError):  # of years that no clock can tell, of numbers that are no float
        if isinstance(value, int | float) and not isinstance(value, bool):
            at = now + float(value)
        elif isinstance(value, datetime):
            at = value.timestamp()
        elif isinstance(value, str):
            at = datetime.fromisoformat(value.strip()).timestamp()
    if at is None or not at - now <= MAX_S:
        raise InvalidArguments(
            "deadline must be a time (ISO 8601, such as 2030-01-31T18:00:00Z) or a number of seconds from now.",
            issues=[Issue(path="/deadline", code="wrong_type", message="a time or seconds", got=str(value)[:100])],
        )
    if at <= now:
        raise InvalidArguments(
            f"The deadline {str(value)[:100]} has passed; it is {iso(now)} now.",
            next="Give a later one, or none.",
            issues=[Issue(path="/deadline", code="out_of_range", message="in the future", got=str(value)[:100])],
        )
    return at


def check_timeout(timeout_s: object) -> None:
    """Raises InvalidArguments where it is not a positive number of seconds, at most MAX_S (or None)."""
    if timeout_s is None:
        return
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not 0 < timeout_s <= MAX_S:  # type: ignore[operator]  # a number
        wanted = f"a positive number of seconds, at most {MAX_S:g}"
        raise InvalidArguments(
            f"timeout_s must be {wanted}.",
            issues=[Issue(path="/timeout_s", code="out_of_range", message=wanted, got=str(timeout_s)[:100])],
        )


def encode_inputs(plan: Plan, inputs: Mapping[str, Any] | None, settings: FlowSettings) -> str:
    """The inputs with the schema's defaults, as JSON text. Raises InvalidInputs with all that is wrong."""
    if inputs is not None and not isinstance(inputs, Mapping):
        raise InvalidInputs(
            "inputs must be an object.",
            issues=[Issue(path="/inputs", code="wrong_type", message="an object", got=type(inputs).__name__)],
        )
    try:
        check_json(dict(inputs or {}), max_bytes=settings.max_definition_bytes)
        filled, issues = check_inputs(plan.definition, dict(inputs or {}))
        if not issues:
            return check_json(filled, max_bytes=settings.max_definition_bytes)
        issues = tuple(replace(issue, path=f"/inputs{issue.path}") for issue in issues)
    except NotJson as error:
        issues = (Issue(path=f"/inputs{error.path}", code=error.code, message=error.reason),)
    first = issues[0]
    raise InvalidInputs(
        f"The inputs do not fit the flow: {first.path}: {first.message}",
        next="Correct the places named in issues and send the call again.",
        issues=issues,
    )
