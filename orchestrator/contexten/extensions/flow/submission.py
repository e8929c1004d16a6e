"""Submitting a run: everything is checked, then one durable change records it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

from .actor import Actor
from .agents.registry import AgentRegistry
from .clock import Clock, make_id
from .definition import NotJson, Plan, check_inputs, check_json
from .engines import choose_engine
from .errors import InvalidArguments, InvalidDefinition, InvalidInputs, Issue, NotAvailableYet
from .flows import SavedFlow
from .priorities import parse_priority
from .settings import FlowSettings
from .store import NewRun
from .strategies import Strategy

KINDS_WITHOUT_AGENT = frozenset({"wait", "flow"})
MAX_KEY_CHARS = 200


class RunRequest(TypedDict, total=False):
    """What a caller asks for: a saved flow by `flow_id` (and `version`), or a `workflow_def` (and its `name`)."""

    flow_id: str | None
    workflow_def: object | None
    name: str | None
    version: int | None
    inputs: Mapping[str, Any] | None
    priority: int | str | None
    deadline: object | None
    dependencies: list[str] | None
    framework: str
    timeout_s: float | None
    idempotency_key: str | None


def new_run(
    flow: SavedFlow,
    request: RunRequest,
    *,
    strategy: Strategy,
    registry: AgentRegistry,
    settings: FlowSettings,
    clock: Clock,
    actor: Actor,
) -> NewRun:
    """The run to record. Raises InvalidArguments, InvalidInputs, InvalidDefinition, NotAvailableYet."""
    timeout_s, idempotency_key = request.get("timeout_s"), request.get("idempotency_key")
    if request.get("deadline") is not None:
        raise NotAvailableYet(
            "deadline is not available in this version.", next="Use timeout_s to bound how long the run may take."
        )
    if request.get("dependencies"):
        raise NotAvailableYet(
            "dependencies is not available in this version.",
            next="Wait for the other run with wait_for_flow, or call it as a sub-flow (a task of type flow).",
        )
    engine = choose_engine(request.get("framework", "auto"))
    level = parse_priority(request.get("priority"))
    check_timeout(timeout_s)
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_KEY_CHARS:
        raise InvalidArguments(
            f"idempotency_key must have 1 to {MAX_KEY_CHARS} characters.",
            issues=[Issue(path="/idempotency_key", code="out_of_range", message=f"1 to {MAX_KEY_CHARS} characters")],
        )
    text = encode_inputs(flow.plan, request.get("inputs"), settings)
    check_agents(flow.plan, registry)
    now = clock.timestamp()
    version = request.get("version") if request.get("workflow_def") is None else flow.version
    content = json.dumps([version, text, level, engine, timeout_s], sort_keys=True)
    return NewRun(
        run_id=make_id("run_", now),
        flow_id=flow.flow_id,
        version=flow.version,
        name=flow.name,
        framework=engine,
        priority=level,
        queue_key=strategy.key(enqueued_at=now, priority=level),
        inputs=text,
        total=len(flow.plan.tasks),
        created_at=now,
        timeout_s=timeout_s,
        idempotency_key=idempotency_key,
        request_digest=hashlib.sha256(content.encode()).hexdigest() if idempotency_key is not None else None,
        is_latest=request.get("version") is None and request.get("workflow_def") is None,
        actor=str(actor),
    )


def check_timeout(timeout_s: object) -> None:
    """Raises InvalidArguments where it is not a positive number of seconds (or None)."""
    if timeout_s is None:
        return
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not math.isfinite(float(str(timeout_s))) or float(str(timeout_s)) <= 0:
        raise InvalidArguments(
            "timeout_s must be a positive number of seconds.",
            issues=[Issue(path="/timeout_s", code="out_of_range", message="more than 0", got=str(timeout_s)[:100])],
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


def check_agents(plan: Plan, registry: AgentRegistry) -> None:
    """Raises InvalidDefinition where no agent of this process can take a task."""
    issues = []
    disabled = registry.disabled_tools()
    for node in plan.tasks.values():
        if node.task.type in KINDS_WITHOUT_AGENT or registry.select(node.task) is not None:
            continue
        off = [f"{tool} is off: {disabled[tool]}" for tool in node.task.required_tools if tool in disabled]
        issues.append(
            Issue(
                path=f"{node.path}/required_tools",
                code="no_able_agent",
                message=f"no agent here offers all tools of task {node.name}" + (f" ({'; '.join(off)})" if off else ""),
                got=list(node.task.required_tools),
            )
        )
    if issues:
        raise InvalidDefinition(
            f"The flow cannot run here: {issues[0].message}.",
            next="Call list_agents() to see agents and tools, then update_flow or enable the tool.",
            issues=issues,
        )
