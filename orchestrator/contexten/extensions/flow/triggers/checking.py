"""What a trigger does with an event: its filter and its inputs, compiled and checked once, where they enter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ..definition import Constant, ExpressionError, NotJson, Scope, Template, TemplateProblem, check_json
from ..definition.findings import CodeBudget
from ..definition.pointers import pointer
from ..definition.templates import TemplateProblems, compile_condition, compile_template
from ..errors import InvalidArguments, Issue
from ..nearest import nearest_name
from .model import TriggerEvent, TriggerKind

EVENT_FIELDS = ("kind", "type", "id", "payload", "received_at")
"""What `event` has."""

_NO_CONDITIONS = frozenset((("event",), *(("event", name) for name in EVENT_FIELDS if name != "payload")))
"""An object and texts; a payload may be any JSON."""

MAX_INPUTS_BYTES = 64 << 10  # of templates; what they become may be as large as any inputs
_ROOTS = ("event",)
_KEPT = 512  # rules of triggers, compiled


@dataclass(frozen=True, slots=True)
class Rules:
    """A trigger's filter and inputs, compiled."""

    filter: Template
    inputs: Template | None

    def wants(self, event: TriggerEvent) -> bool:
        """Whether the filter is true of the event. Raises ExpressionError where it cannot be told."""
        return self.filter.test(Scope(event=event.data()))

    def inputs_for(self, event: TriggerEvent) -> dict[str, Any]:
        """What the flow gets; values of the event are values there, whatever they look like. Raises ExpressionError."""
        if self.inputs is None:
            return {}
        rendered: dict[str, Any] = self.inputs.render(Scope(event=event.data()))
        return rendered


_ALWAYS = Constant(value=True)


def check_rules(inputs: object, condition: object) -> Rules:
    """The rules of a trigger that is to be saved. Raises InvalidArguments with all that is wrong, below `/inputs` and
    at `/filter`."""
    issues: list[Issue] = []
    if inputs is not None and not isinstance(inputs, Mapping):
        issues.append(Issue(path="/inputs", code="wrong_type", message="an object", got=type(inputs).__name__))
    else:
        try:
            check_json(dict(inputs or {}), max_bytes=MAX_INPUTS_BYTES)
        except NotJson as error:
            issues.append(Issue(path=f"/inputs{error.path}", code=error.code, message=error.reason))
    if condition is not None and not isinstance(condition, str):
        issues.append(Issue(path="/filter", code="wrong_type", message="CEL", got=type(condition).__name__))
    rules = Rules(_ALWAYS, None)
    if not issues:
        problems = TemplateProblems(CodeBudget())
        assert inputs is None or isinstance(inputs, Mapping)  # noqa: S101 - there are no issues
        assert condition is None or isinstance(condition, str)  # noqa: S101 - as above
        rules = _compile(dict(inputs) if inputs else None, condition, problems)
        issues += [_issue(problem) for problem in problems]
        issues += _unknown_fields(rules)
        issues += _no_condition(rules.filter)
    if issues:
        raise InvalidArguments(
            f"The trigger's rules: at {issues[0].path}: {issues[0].message}",
            next=f"Correct the places named in issues; event has {', '.join(EVENT_FIELDS)}.",
            issues=issues,
        )
    return rules


_COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas")


def undeclared_inputs(inputs: Mapping[str, Any] | None, schema: object) -> list[Issue]:
    """The inputs of a trigger that the flow's inputs schema does not name, so that nothing there uses them. A schema
    that is composed of others is not looked into."""
    declared = schema.get("properties") if isinstance(schema, Mapping) else None
    if not inputs or not isinstance(schema, Mapping) or not isinstance(declared, Mapping):
        return []
    if any(keyword in schema for keyword in _COMPOSED):
        return []
    issues = []
    for name in sorted(set(inputs) - set(declared)):
        near = nearest_name(name, sorted(declared))
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(declared)) or 'none'}."
        message = f"The flow declares no input {name[:80]!r}; {hint}"
        path = pointer("inputs", name)
        issues.append(Issue(path=path, code="undeclared_input", message=message, suggestion=near))
    return issues


def missing_inputs(inputs: Mapping[str, Any] | None, schema: object) -> list[Issue]:
    """The inputs that the flow's inputs schema requires, without a default, and that a trigger does not give, so that
    no start of it succeeds. Without `inputs` the flow gets `event` where it declares that."""
    if not isinstance(schema, Mapping):
        return []
    declared = schema.get("properties")
    declared = declared if isinstance(declared, Mapping) else {}
    given = set(inputs) if inputs else {"event"} & set(declared)
    by_default = {name for name, part in declared.items() if isinstance(part, Mapping) and "default" in part}
    issues = []
    for name in sorted(set(schema.get("required", ())) - given - by_default):
        near = nearest_name(name, sorted(given - set(declared)))
        hint = f"; did you mean it by {near!r}?" if near else "."
        message = f"The flow requires the input {name[:80]!r}, which the trigger does not give{hint}"
        suggestion = name if near else None
        issues.append(Issue(path="/inputs", code="missing_input", message=message, got=near, suggestion=suggestion))
    return issues


def unknown_flows(flow_ids: Sequence[str], known: Sequence[str]) -> list[Issue]:
    """The flows whose end a trigger is to hear of, and that are not there: it may be that they are saved later."""
    issues = []
    for index, flow_id in enumerate(flow_ids):
        if flow_id in known:
            continue
        near = nearest_name(flow_id, known)
        hint = f"; did you mean {near!r}?" if near else " yet."
        issues.append(
            Issue(
                path=f"/config/flow_ids/{index}",
                code="unknown_flow",
                message=f"There is no flow {flow_id[:128]!r}{hint}",
                got=flow_id,
                suggestion=near,
            )
        )
    return issues


_OWN_SECRETS = MappingProxyType(
    {
        TriggerKind.LINEAR: "Linear signs with the secret made here only where its API makes the webhook with it "
        "(webhookCreate); its settings show a secret of Linear's own. Put Linear's",
        TriggerKind.SLACK: "Slack never signs with the secret made here, but with its app's own signing secret: "
        "the one made is for tests and senders of your own. Put Slack's",
    }
)


def vendors_own_secret(kind: str, secret_name: str | None) -> list[Issue]:
    """That no secret is named for a sender that signs with one of its own, so that one was made."""
    told = _OWN_SECRETS.get(TriggerKind(kind))
    if told is None or secret_name is not None:
        return []
    message = f"{told} into the server's setting secrets (CONTEXTEN_FLOW_SECRETS), and name it in the config."
    return [Issue(path="/config/secret", code="vendors_own_secret", message=message)]


@lru_cache(maxsize=_KEPT)
def saved_rules(inputs: str | None, condition: str | None) -> Rules:
    """The rules of a saved trigger; `inputs` is JSON text. Raises TemplateProblem where another version of this program
    took them and this one does not."""
    return _compile(json.loads(inputs) if inputs else None, condition, None)


def rules_error(error: ExpressionError | TemplateProblem) -> dict[str, Any]:
    """Why saved rules tell nothing of an event, as a delivery keeps it."""
    if isinstance(error, ExpressionError):
        return {"code": "expression_failed", "message": error.message}
    return {"code": error.code, "message": f"at {error.path}: {error.message}"}


def _compile(inputs: dict[str, Any] | None, condition: str | None, problems: TemplateProblems | None) -> Rules:
    return Rules(
        _ALWAYS if condition is None else compile_condition(condition, "/filter", problems, _ROOTS),
        None if not inputs else compile_template(inputs, "/inputs", problems, _ROOTS),
    )


def _issue(problem: TemplateProblem) -> Issue:
    name = problem.cause.name if problem.cause is not None else None
    suggestion = None
    if name in EVENT_FIELDS or name in ("body", "data"):
        suggestion = f"event.{name if name in EVENT_FIELDS else 'payload'}"
    hint = f"; did you mean {suggestion!r}?" if suggestion else ""
    return Issue(
        path=problem.path,
        code=problem.code,
        message=problem.message + hint,
        got=problem.expression[:200] or None,
        suggestion=suggestion,
    )


def _unknown_fields(rules: Rules) -> Iterable[Issue]:
    for template in (rules.filter, rules.inputs):
        for path, expression in () if template is None else template.expressions():
            for name in sorted(expression.names("event") - set(EVENT_FIELDS)):
                near = nearest_name(name, EVENT_FIELDS)
                better = f"event.{near}" if near else f"event.payload.{name}"
                yield Issue(
                    path=path,
                    code="invalid_expression",
                    message=f"event has {', '.join(EVENT_FIELDS)}, no {name[:80]!r}; did you mean {better!r}?",
                    got=expression.source[:200],
                    suggestion=better,
                )


def _no_condition(condition: Template) -> Iterable[Issue]:
    """That a filter is neither true nor false of any event, where that is certain."""
    for path, expression in condition.expressions():
        if expression.path in _NO_CONDITIONS or not expression.may_be_boolean:
            yield Issue(
                path=path,
                code="invalid_expression",
                message="a filter must be true or false, which this never is; compare it with something",
                got=expression.source[:200],
            )


def check_circle(edges: Sequence[tuple[str, str, str]], flow_ids: Sequence[str], flow_id: str) -> None:
    """Raise InvalidArguments, which shows the circle, where the end of one of `flow_ids` starting `flow_id` would make
    flows start each other for ever; `edges` are (trigger_id, flow that ends, flow that starts) of all others."""
    after: dict[str, list[tuple[str, str]]] = {}
    for trigger_id, ended, started in edges:
        after.setdefault(ended, []).append((trigger_id, started))
    ways: dict[str, str] = {flow_id: flow_id}
    pending = [flow_id]
    while pending:
        current = pending.pop()
        if current in flow_ids:
            raise InvalidArguments(
                f"The flow {current!r} would start itself again and again: {current} -> {ways[current]}.",
                next="Leave that flow out of flow_ids, or change or delete one of the triggers named.",
                issues=[
                    Issue(
                        path="/config/flow_ids",
                        code="cycle",
                        message=f"the flow {current!r} would start itself again and again",
                        got=f"{current} -> {ways[current]}",
                    )
                ],
            )
        for trigger_id, started in after.get(current, ()):
            if started not in ways:
                ways[started] = f"{ways[current]} -> ({trigger_id}) {started}"
                pending.append(started)
