"""The checker: one for every entrance, all problems in one answer, mends that were tried before they are offered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidArguments, InvalidDefinition, Issue
from .catalog import Catalog, Limits
from .findings import Findings, TooManyIssues, describe
from .jsontext import DuplicateKeys, load_json
from .model import WorkflowDefinition
from .names import is_flow_id, make_flow_id
from .naming import mend_names, named_stages, named_tasks
from .patching import apply_patch
from .plan import Draft, Plan
from .references import References
from .schemas import check_schema
from .serving import Serving
from .structure import read_structure
from .templates import TemplateProblems
from .values import NotJson, check_json

_MAX_TRIES = 60  # patches tried in one check
_BYTES_A_TASK = 700  # a task with defaults costs as much as that many bytes
_MAX_TRIED_BYTES = 1 << 18  # of definitions checked again for them: about 0.3 s


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What the checker says of one definition."""

    definition: WorkflowDefinition | None
    """None where there are errors."""
    plan: Plan | None
    """Likewise."""
    issues: tuple[Issue, ...]
    """Errors: with any of them the definition is refused."""
    warnings: tuple[Issue, ...]

    def raise_if_invalid(self) -> None:
        """Raises InvalidDefinition with the issues, its message naming the first three."""
        if not self.issues:
            return
        shown = "; ".join(f"{issue.path or 'at the top'}: {issue.message}" for issue in self.issues[:3])
        more = f"; and {len(self.issues) - 3} more" if len(self.issues) > 3 else ""
        count = "1 problem" if len(self.issues) == 1 else f"{len(self.issues)} problems"
        has_patch = any(issue.patch for issue in self.issues)
        raise InvalidDefinition(
            f"the definition has {count}: {shown}{more}",
            next="correct the places named in issues"
            + (" (an issue's patch is an RFC 6902 list that mends it)" if has_patch else "")
            + " and send it again; validate_only checks without saving",
            issues=self.issues,
        )


def check(
    raw: object, catalog: Catalog | None = None, limits: Limits | None = None, *, flow_id: str | None = None
) -> CheckReport:
    """Check a definition given as JSON data, as JSON text, or as a WorkflowDefinition.

    Never raises, whatever is given. `flow_id` is the id that the flow has or will have, where it is not
    the definition's own: a sub-flow that leads back to it is refused.
    """
    catalog, limits = catalog or Catalog(), limits or Limits()
    if isinstance(raw, WorkflowDefinition):
        raw = raw.as_dict()
    findings = Findings()
    document = _read(raw, limits, findings)
    if document is None:
        return CheckReport(definition=None, plan=None, issues=tuple(findings.errors), warnings=tuple(findings.warnings))
    report = _inspect(document, catalog, limits, findings, flow_id)
    if not any(issue.patch for issue in (*report.issues, *report.warnings)):
        return report
    return _try_patches(document, report, catalog, limits, flow_id)


def _read(raw: object, limits: Limits, findings: Findings) -> dict[str, Any] | None:
    """The definition as JSON data of our own, or None where it is none."""
    if isinstance(raw, bytes | bytearray):
        try:
            raw = raw.decode("utf-8")
        except UnicodeDecodeError:
            findings.error("", "malformed_json", "the text is not UTF-8")
            return None
    if isinstance(raw, str):
        if len(raw) > limits.max_definition_bytes * 2:
            findings.error("", "too_large", f"a definition has at most {limits.max_definition_bytes:,} bytes as JSON")
            return None
        try:
            raw = load_json(raw)
        except DuplicateKeys as problem:
            for path, key in problem.keys:
                findings.error(
                    path,
                    "duplicate_key",
                    f"the key {key[:80]!r} is there more than once in its object; keep one of them",
                )
            raw = problem.document
        except json.JSONDecodeError as problem:
            findings.error(
                "", "malformed_json", f"not JSON: {problem.msg} (line {problem.lineno}, column {problem.colno})"
            )
            return None
        except RecursionError:
            findings.error("", "too_deep", "the JSON is nested too deeply")
            return None
        except ValueError:  # an integer of thousands of digits
            findings.error("", "not_json", "a number has too many digits; give it as a string")
            return None
    try:
        text = check_json(raw, max_bytes=limits.max_definition_bytes)
    except NotJson as problem:
        if problem.code == "too_large":
            findings.error("", "too_large", f"a definition has at most {limits.max_definition_bytes:,} bytes as JSON")
        else:
            findings.error(problem.path, problem.code, problem.reason)
        return None
    except Exception:  # noqa: BLE001 - objects with hostile methods: whatever they raise, they are no JSON data
        findings.error("", "not_json", "the definition is not plain JSON data")
        return None
    document = json.loads(text)
    if not isinstance(document, dict):
        findings.error("", "wrong_type", f"a definition is an object, got {describe(document)}", expected="an object")
        return None
    return document


def _inspect(
    document: dict[str, Any], catalog: Catalog, limits: Limits, findings: Findings, flow_id: str | None
) -> CheckReport:
    copy = json.loads(json.dumps(document))
    definition: WorkflowDefinition | None = None
    plan: Plan | None = None
    issues: tuple[Issue, ...] = ()
    try:
        definition = _structure(copy, limits, findings)
        if definition is not None:
            plan = _meaning(definition, copy, catalog, limits, findings, flow_id)
    except TooManyIssues:
        more = f"more is wrong: these are the first {len(findings.errors):,} problems; mend them, then check again"
        issues = (Issue(path="", code="too_many_issues", message=more),)
    issues = (*findings.errors, *issues)
    if issues:
        definition = plan = None
    return CheckReport(definition=definition, plan=plan, issues=issues, warnings=tuple(findings.warnings))


def _structure(document: dict[str, Any], limits: Limits, findings: Findings) -> WorkflowDefinition | None:
    count = _count_tasks(document)
    if count > limits.max_tasks:
        findings.error(
            "/stages",
            "too_many_tasks",
            f"the definition has {count:,} tasks, at most {limits.max_tasks:,} are allowed; use for_each or sub-flows",
            expected=limits.max_tasks,
            got=count,
        )
        return None
    mend_names(document, findings)
    return read_structure(document, findings)


def _count_tasks(document: dict[str, Any]) -> int:
    stages = document.get("stages")
    count = len(stages) // 2 if isinstance(stages, list) else 0  # stages without tasks count for a little
    lists = [stage.get("tasks") for _, stage in named_stages(document)]
    lists += [part.get("on_failure") for part in (document, *(task for _, task in named_tasks(document)))]
    return count + sum(len(tasks) for tasks in lists if isinstance(tasks, list))


def _meaning(
    definition: WorkflowDefinition,
    document: dict[str, Any],
    catalog: Catalog,
    limits: Limits,
    findings: Findings,
    flow_id: str | None,
) -> Plan | None:
    if definition.id is not None and not is_flow_id(definition.id):
        better = make_flow_id(definition.id)
        findings.error(
            "/id",
            "invalid_id",
            "a flow's id has up to 128 characters, no control characters or slashes, no white space around it",
            got=definition.id[:200],
            suggestion=better,
            patch=[{"op": "replace", "path": "/id", "value": better}],
        )
    if not definition.tasks() and not findings.placeholders:
        findings.error("/stages", "no_tasks", "the definition has no task")
    problems = TemplateProblems(findings.code)
    draft = Draft(definition, problems)
    order = References(draft, document, catalog, findings).check(problems)
    serving = Serving(catalog, findings, flow_id or definition.id)
    for node in draft.tasks.values():
        serving.check(node)
        if node.task.output_schema is not None:
            check_schema(node.task.output_schema, f"{node.path}/output_schema", findings)
        each = node.task.for_each
        if isinstance(each, tuple) and len(each) > limits.max_for_each_items:
            findings.error(
                f"{node.path}/for_each",
                "too_many_items",
                f"for_each has {len(each):,} items, at most {limits.max_for_each_items:,} are allowed",
            )
    serving.finish()
    if definition.inputs is not None:
        check_schema(definition.inputs, "/inputs", findings)
    for index, stage in enumerate(definition.stages):
        path = f"/stages/{index}"
        if not stage.tasks and definition.tasks() and stage.name not in findings.placeholders:
            findings.warn(path, "no_tasks", f"the stage {stage.name} has no task")
        if stage.max_parallel is not None and stage.execution_mode == "sequential":
            findings.warn(f"{path}/max_parallel", "unused_field", "max_parallel has no effect in a sequential stage")
    return None if order is None or findings.errors else draft.plan(order)


def _try_patches(
    document: dict[str, Any], report: CheckReport, catalog: Catalog, limits: Limits, flow_id: str | None
) -> CheckReport:
    """The report with only those patches that mend their issue and bring no new one."""
    errors = Counter(issue.code for issue in report.issues)
    warnings = Counter(issue.code for issue in report.warnings)
    tries = _MAX_TRIES
    size = max(len(json.dumps(document)), _BYTES_A_TASK * _count_tasks(document))
    left = _MAX_TRIED_BYTES

    def tried(issues: Sequence[Issue], *, are_errors: bool) -> tuple[Issue, ...]:
        nonlocal tries, left
        kept: list[Issue] = []
        for issue in issues:
            if issue.patch:
                tries -= 1
                left -= size
                is_sound = tries >= 0 and left >= 0 and mends(issue, are_errors=are_errors)
                issue = issue if is_sound else replace(issue, patch=None)  # noqa: PLW2901 - the same issue
            kept.append(issue)
        return tuple(kept)

    def mends(issue: Issue, *, are_errors: bool) -> bool:
        try:
            mended = apply_patch(document, issue.patch)
        except InvalidArguments:
            return False
        if not isinstance(mended, dict):
            return False
        after = _inspect(mended, catalog, limits, Findings(), flow_id)
        now = Counter(found.code for found in after.issues)
        if are_errors:
            return now <= errors and now[issue.code] < errors[issue.code]
        return now <= errors and Counter(found.code for found in after.warnings)[issue.code] < warnings[issue.code]

    sound, document = _in_turn(tried(report.issues, are_errors=True), document)
    warned, _ = _in_turn(tried(report.warnings, are_errors=False), document)
    return replace(report, issues=sound, warnings=warned)


def _in_turn(issues: Sequence[Issue], document: dict[str, Any]) -> tuple[tuple[Issue, ...], dict[str, Any]]:
    """The issues, the deepest first, with only those patches that apply one after another; the document after them.

    A patch that would write over what one before it wrote is left to the next check.
    """
    ordered: list[Issue] = []
    touched: set[str] = set()
    for issue in sorted(issues, key=_depth, reverse=True):
        if issue.patch:
            written = [step["path"] for step in issue.patch if step["op"] != "move"]
            is_free = not any(place == path or place.startswith(f"{path}/") for path in written for place in touched)
            try:
                mended = apply_patch(document, issue.patch) if is_free else None
            except InvalidArguments:
                mended = None
            if isinstance(mended, dict):
                document = mended
                touched.update(step["path"] for step in issue.patch)
            else:
                issue = replace(issue, patch=None)  # noqa: PLW2901 - the same issue
        ordered.append(issue)
    return tuple(ordered), document


def _depth(issue: Issue) -> int:
    """Of the deepest place that the issue or its patch names."""
    places: list[str] = [
        issue.path,
        *(step[key] for step in issue.patch or () for key in ("path", "from") if key in step),
    ]
    return max(place.count("/") for place in places)
