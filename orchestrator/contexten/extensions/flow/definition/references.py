"""Names that the parts of a definition use for each other: dependencies, what expressions reach, cycles."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from .catalog import Catalog
from .cycles import report_cycles
from .expressions import Expression, ExpressionError
from .findings import Findings, describe
from .model import WorkflowDefinition
from .naming import change_expressions, rename_task, replace_member
from .plan import STAGE_PREFIX, Draft, TaskNode
from .pointers import lookup, pointer
from .scope import FAILURE_FIELDS, TASK_FIELDS, Scope
from .templates import Template, TemplateProblem, Value

_MAX_REWRITTEN = 20_000  # characters of a string that a patch repeats
_MISTAKEN = {"outputs": "output", "result": "output", "results": "output", "value": "output", "status": "state"}


class References:
    """Checks one draft; `document` is the JSON data that its pointers lead into."""

    def __init__(self, draft: Draft, document: dict[str, Any], catalog: Catalog, findings: Findings) -> None:
        self._draft = draft
        self._definition: WorkflowDefinition = draft.definition
        self._document = document
        self._catalog = catalog
        self._findings = findings
        self._inputs = _property_names(draft.definition.inputs)

    def check(self, problems: Iterable[TemplateProblem]) -> tuple[str, ...] | None:
        """Report all; the tasks in order, or None where there is a cycle."""
        for problem in problems:
            self._template_problem(problem)
        self._depends_on()
        for stage in self._draft.stages:
            self._expressions(stage.when, None, "when")
            self._fixed(stage.when, bool, "true or false")
        for node in self._draft.tasks.values():
            self._expressions(node.parameters, node, "parameters")
            self._expressions(node.when, node, "when")
            self._fixed(node.when, bool, "true or false")
            self._expressions(node.for_each, node, "for_each")
            self._fixed(node.for_each, list, "a list")
            self._expressions(node.cache_key, node, "cache")
        self._expressions(self._draft.output, None, "output")
        graph = self._draft.graph()
        order = graph.order()
        if order is None:
            report_cycles(self._draft, graph, self._findings)
        return order

    # dependencies

    def _depends_on(self) -> None:
        stages = [stage.name for stage in self._definition.stages]
        for index, stage in enumerate(self._definition.stages):
            for place, name in enumerate(stage.depends_on or ()):
                path = pointer("stages", index, "depends_on", place)
                plain = name.removeprefix(STAGE_PREFIX)
                if plain == stage.name:
                    self._self_dependency(path, f"the stage {name!r} depends on itself")
                elif name not in self._draft.members:
                    known = [other for other in stages if other != stage.name]
                    near = plain if plain in known else self._findings.guesser.nearest(plain, known)
                    self._unknown(path, "unknown_stage", f"no stage is called {name[:80]!r}", name, near, known)
        for node in self._draft.tasks.values():
            if node.on_failure_of is not None and node.task.depends_on:
                path = f"{node.path}/depends_on"
                self._findings.error(
                    path,
                    "unused_field",
                    "on_failure tasks run one after another in the order given, when all others have ended; "
                    "they have no depends_on",
                )
                continue
            for place, name in enumerate(node.task.depends_on):
                self._task_dependency(node, f"{node.path}/depends_on/{place}", name)

    def _task_dependency(self, node: TaskNode, path: str, name: str) -> None:
        if name in self._findings.placeholders:
            return
        if name.startswith(STAGE_PREFIX):
            stage = name.removeprefix(STAGE_PREFIX)
            if stage == node.stage:
                self._self_dependency(path, f"the task {node.name!r} depends on its own stage, so on itself")
            elif stage not in self._draft.members:
                known = [f"{STAGE_PREFIX}{other}" for other in self._draft.members if other != node.stage]
                near = self._findings.guesser.nearest(name, known)
                self._unknown(path, "unknown_stage", f"no stage is called {stage[:80]!r}", name, near, known)
        elif name == node.name:
            self._self_dependency(path, f"the task {name!r} depends on itself")
        elif self._is_later(name, node):
            self._findings.error(path, "cycle", _later(name))
        elif name not in self._draft.tasks:
            known = self._before(node)
            near = self._findings.guesser.nearest(name, known)
            if near is None and name in self._draft.members and name != node.stage:
                near = f"{STAGE_PREFIX}{name}"
            self._unknown(path, "unknown_task", f"no task is called {name[:80]!r}", name, near, known)

    def _is_later(self, name: str, node: TaskNode | None) -> bool:
        """Whether it is an on_failure task that may not have run before the task (None: the whole flow's part)."""
        other = self._draft.tasks.get(name)
        if other is None or other.on_failure_of is None:
            return False
        if node is None or node.on_failure_of is None:
            return True
        if node.on_failure_of == other.on_failure_of:
            return other.index >= node.index
        return node.on_failure_of != ""

    def _before(self, node: TaskNode | None) -> list[str]:
        """The tasks that it may name, as far as its place tells."""
        return [
            other
            for other in self._draft.tasks
            if (node is None or other != node.name) and not self._is_later(other, node)
        ]

    def _self_dependency(self, path: str, message: str) -> None:
        self._findings.error(path, "cycle", f"{message}; leave that out")

    def _unknown(self, path: str, code: str, message: str, got: str, near: str | None, known: list[str]) -> None:
        if near is None:
            hint = f"; there are {_some(known)}" if known else ""
            patch = None
        else:
            hint = f"; did you mean {near!r}?"
            patch = [{"op": "replace", "path": path, "value": near}]
        self._findings.error(path, code, message + hint, got=got[:200], suggestion=near, patch=patch)

    # expressions

    def _template_problem(self, problem: TemplateProblem) -> None:
        cause = problem.cause
        message, patch, suggestion, hint = problem.message, None, None, ""
        if cause is not None and cause.name is not None:
            text = self._text(problem.path)
            if cause.name == "secrets":
                message = "secrets can be used in parameters only: what stands here is recorded"
            elif cause.name in self._draft.tasks and f"{cause.name}" in text:
                better = f"tasks.{cause.name}" if f"{cause.name}.output" in text else f"tasks.{cause.name}.output"
                suggestion, hint = better, f"; did you mean {better!r}?"
                patch = self._rewrite(problem.path, _prefix(text, cause.name, better))
            elif cause.name in self._inputs:
                suggestion = f"inputs.{cause.name}"
                hint = f"; did you mean {suggestion!r}?"
                patch = self._rewrite(problem.path, _prefix(text, cause.name, suggestion))
            elif near := self._findings.guesser.nearest(cause.name, cause.known):
                suggestion, hint = near, f"; did you mean {near!r}?"
                patch = self._rewrite(problem.path, _prefix(text, cause.name, near))
            elif "-" in problem.expression:
                hint = '; a name with a dash is written in brackets: inputs["a-b"]'
        self._findings.error(
            problem.path,
            problem.code,
            message + hint,
            got=problem.expression[:200] or None,
            suggestion=suggestion,
            patch=patch,
        )

    def _text(self, path: str) -> str:
        tokens = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
        value: Any = self._document
        for token in tokens:
            try:
                value = value[int(token)] if isinstance(value, list) else lookup(value, (token,))
            except (LookupError, ValueError):
                return ""
        return value if isinstance(value, str) and len(value) <= _MAX_REWRITTEN else ""

    def _rewrite(self, path: str, changed: str) -> list[dict[str, Any]] | None:
        return [{"op": "replace", "path": path, "value": changed}] if changed != self._text(path) else None

    def _expressions(self, template: Template | None, node: TaskNode | None, place: str) -> None:
        if template is None or template.is_constant:
            return
        for path, expression in dict.fromkeys(template.expressions()):
            for reached in sorted(expression.paths):
                self._path(path, expression, reached, node, place)

    def _fixed(self, template: Template | None, kind: type, expected: str) -> None:
        """Report a condition or list whose value is the same in every run, and of another type."""
        for path, expression in () if template is None else template.expressions():
            if isinstance(template, Value) and expression.is_fixed:
                with suppress(ExpressionError):
                    value = expression.evaluate(Scope())
                    if not isinstance(value, kind):
                        message = f"expected {expected}, and the expression is always {describe(value)}"
                        self._error(path, expression, message, expected=expected)

    def _path(
        self, path: str, expression: Expression, reached: tuple[str, ...], node: TaskNode | None, place: str
    ) -> None:
        root = reached[0]
        if root == "tasks":
            self._task_path(path, expression, reached, node, is_bare=place in ("when", "for_each"))
        elif root == "secrets":
            self._secret_path(path, expression, reached[1], node)
        elif root == "failure":
            self._failure_path(path, expression, reached, node, place)
        elif root in ("item", "index"):
            if node is None or node.task.for_each is None:
                self._error(path, expression, f"{root} is in scope only in the parameters of a task with for_each")
            elif place not in ("parameters", "cache"):
                self._error(path, expression, f"{root} is in scope in the task's parameters, not in its {place}")
        elif root == "inputs" and len(reached) > 1:
            self._input_path(path, expression, reached[1], place)
        elif root == "context" and len(reached) > 1:
            known = self._definition.context
            if reached[1] not in known and "has(" not in expression.source and self._findings.takes_warnings:
                near = self._findings.guesser.nearest(reached[1], known)
                hint = f"; did you mean {near!r}?" if near else ""
                self._findings.warn(
                    path,
                    "unknown_context",
                    f"the flow's context has no {reached[1]!r}{hint}",
                    got=expression.source[:200],
                    suggestion=near,
                )

    def _error(self, path: str, expression: Expression, message: str, **more: Any) -> None:
        self._findings.error(path, "invalid_expression", message, got=expression.source[:200], **more)

    def _task_path(
        self, path: str, expression: Expression, reached: tuple[str, ...], node: TaskNode | None, *, is_bare: bool
    ) -> None:
        name = reached[1]
        if name in self._findings.placeholders:
            return
        if node is not None and name == node.name:
            self._findings.error(path, "cycle", f"the task {name!r} uses its own output", got=expression.source[:200])
        elif self._is_later(name, node):
            self._findings.error(path, "cycle", _later(name), got=expression.source[:200])
        elif name not in self._draft.tasks:
            known = self._before(node)
            near = self._findings.guesser.nearest(name, known)
            hint = f"; did you mean {near!r}?" if near else f"; there are {_some(known)}" if known else ""
            patch = None
            if near is not None:
                patch = self._rewrite(path, rename_task(self._text(path), name, near, is_bare=is_bare))
            self._findings.error(
                path,
                "unknown_task",
                f"no task is called {name[:80]!r}{hint}",
                got=expression.source[:200],
                suggestion=near,
                patch=patch,
            )
        elif len(reached) > 2 and reached[2] not in TASK_FIELDS:
            field = reached[2]
            near = _MISTAKEN.get(field) or self._findings.guesser.nearest(field, TASK_FIELDS)
            hint = (
                f"; did you mean tasks.{name}.{near}?" if near else f"; its output's fields are at tasks.{name}.output"
            )
            better = near or f"output.{field}"
            changed = replace_member(self._text(path), f"tasks.{name}", field, better, is_bare=is_bare)
            self._error(
                path,
                expression,
                f"tasks.{name} has output, state and error, no {field[:80]!r}{hint}",
                suggestion=f"tasks.{name}.{better}",
                patch=self._rewrite(path, changed),
            )

    def _failure_path(
        self, path: str, expression: Expression, reached: tuple[str, ...], node: TaskNode | None, place: str
    ) -> None:
        if node is None or node.on_failure_of is None:
            self._error(path, expression, "failure is in scope only in on_failure tasks")
        elif len(reached) > 1 and reached[1] not in FAILURE_FIELDS:
            field = reached[1]
            near = self._findings.guesser.nearest(field, FAILURE_FIELDS)
            hint = f"; did you mean failure.{near}?" if near else ""
            patch = None
            if near:
                is_bare = place in ("when", "for_each")
                patch = self._rewrite(path, replace_member(self._text(path), "failure", field, near, is_bare=is_bare))
            self._error(
                path,
                expression,
                f"failure has {', '.join(FAILURE_FIELDS)}, no {field[:80]!r}{hint}",
                suggestion=f"failure.{near}" if near else None,
                patch=patch,
            )

    def _secret_path(self, path: str, expression: Expression, name: str, node: TaskNode | None) -> None:
        if node is not None and node.task.type in ("wait", "flow"):  # their parameters are recorded
            self._error(
                path, expression, f"secrets go to tools and agents only, not to a task of type {node.task.type}"
            )
        elif name not in self._catalog.secrets:
            near = self._findings.guesser.nearest(name, sorted(self._catalog.secrets))
            hint = f"; did you mean {near!r}?" if near else "; secrets are named in the server's settings"
            patch = None
            if near:
                patch = self._rewrite(path, replace_member(self._text(path), "secrets", name, near))
            self._findings.error(
                path,
                "unknown_secret",
                f"no secret {name[:80]!r} is granted{hint}",
                got=expression.source[:200],
                suggestion=near,
                patch=patch,
            )

    def _input_path(self, path: str, expression: Expression, name: str, place: str) -> None:
        schema = self._definition.inputs
        if name in self._inputs or not isinstance(schema, dict) or not self._inputs:
            return
        is_closed = schema.get("additionalProperties") is False
        if "has(" in expression.source or not (is_closed or self._findings.takes_warnings):
            return
        near = self._findings.guesser.nearest(name, self._inputs)
        hint = f"; did you mean {near!r}?" if near else f"; there are {_some(self._inputs)}"
        patch = None
        if near:
            is_bare = place in ("when", "for_each")
            patch = self._rewrite(path, replace_member(self._text(path), "inputs", name, near, is_bare=is_bare))
        report = self._findings.error if is_closed else self._findings.warn
        report(
            path,
            "unknown_input",
            f"the flow's inputs have no {name[:80]!r}{hint}",
            got=expression.source[:200],
            suggestion=near,
            patch=patch,
        )


def _later(name: str) -> str:
    return f"{name} is an on_failure task that runs later, when all others have ended, if at all"


def _some(names: Collection[str]) -> str:
    return ", ".join(islice(names, 8)) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _prefix(text: str, name: str, better: str) -> str:
    """The text with the bare name replaced where it begins a path in an expression."""
    pattern = re.compile(rf"(?<![\w.'\"]){re.escape(name)}(?![\w'\"])")
    return change_expressions(text, lambda expression: pattern.sub(better, expression), is_bare=True)


def _property_names(schema: object) -> dict[str, Any]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties if isinstance(properties, dict) else {}
