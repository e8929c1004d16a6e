"""Names that the parts of a definition use for each other: dependencies, what expressions reach, cycles."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from .catalog import Catalog
from .expressions import Expression
from .findings import Findings
from .model import Task, WorkflowDefinition
from .naming import rename_task, replace_member
from .ordering import OrderGraph, Vertex
from .plan import STAGE_PREFIX, Draft, TaskNode
from .pointers import lookup, pointer
from .scope import TASK_FIELDS
from .templates import Template, TemplateProblem

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
        for node in self._draft.tasks.values():
            self._expressions(node.parameters, node, "parameters")
            self._expressions(node.when, node, "when")
            self._expressions(node.for_each, node, "for_each")
        self._expressions(self._draft.output, None, "output")
        graph = self._draft.graph()
        order = graph.order()
        if order is None:
            self._cycles(graph)
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
        elif name not in self._draft.tasks:
            known = [other for other in self._draft.tasks if other != node.name]
            near = self._findings.guesser.nearest(name, known)
            if near is None and name in self._draft.members and name != node.stage:
                near = f"{STAGE_PREFIX}{name}"
            self._unknown(path, "unknown_task", f"no task is called {name[:80]!r}", name, near, known)

    def _self_dependency(self, path: str, message: str) -> None:
        self._findings.error(path, "cycle", f"{message}", patch=[{"op": "remove", "path": path}])

    def _unknown(self, path: str, code: str, message: str, got: str, near: str | None, known: list[str]) -> None:
        if near is None:
            hint = f"; there are {_some(known)}" if known else ""
            patch = [{"op": "remove", "path": path}]
        else:
            hint = f"; did you mean {near!r}?"
            patch = [{"op": "replace", "path": path, "value": near}]
        self._findings.error(path, code, message + hint, got=got[:200], suggestion=near, patch=patch)

    # expressions

    def _template_problem(self, problem: TemplateProblem) -> None:
        cause = problem.cause
        patch, suggestion, hint = None, None, ""
        if cause is not None and cause.name is not None and not cause.is_call:
            text = self._text(problem.path)
            if cause.name in self._draft.tasks and f"{cause.name}" in text:
                better = f"tasks.{cause.name}" if f"{cause.name}.output" in text else f"tasks.{cause.name}.output"
                suggestion, hint = better, f"; did you mean {better!r}?"
                patch = self._rewrite(problem.path, _prefix(text, cause.name, better))
            elif cause.name in self._inputs:
                suggestion = f"inputs.{cause.name}"
                hint = f"; did you mean {suggestion!r}?"
                patch = self._rewrite(problem.path, _prefix(text, cause.name, suggestion))
            elif "-" in problem.expression:
                hint = '; a name with a dash is written in brackets: inputs["a-b"]'
        self._findings.error(
            problem.path,
            "invalid_expression",
            problem.message + hint,
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

    def _path(
        self, path: str, expression: Expression, reached: tuple[str, ...], node: TaskNode | None, place: str
    ) -> None:
        root = reached[0]
        if root == "tasks":
            self._task_path(path, expression, reached, node, is_bare=place in ("when", "for_each"))
        elif root == "secrets":
            self._secret_path(path, expression, reached[1], node, place)
        elif root in ("item", "index"):
            if node is None or node.task.for_each is None:
                self._error(path, expression, f"{root} is in scope only in the parameters of a task with for_each")
            elif place != "parameters":
                self._error(path, expression, f"{root} is in scope in the task's parameters, not in its {place}")
        elif root == "inputs" and len(reached) > 1:
            self._input_path(path, expression, reached[1], place)
        elif root == "context" and len(reached) > 1:
            known = list(self._definition.context)
            if reached[1] not in known and "has(" not in expression.source:
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
        elif name not in self._draft.tasks:
            known = [other for other in self._draft.tasks if node is None or other != node.name]
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

    def _secret_path(self, path: str, expression: Expression, name: str, node: TaskNode | None, place: str) -> None:
        if place != "parameters":
            self._error(path, expression, f"secrets can be used in parameters only, not in {place}")
        elif node is not None and node.task.type in ("wait", "flow"):  # their parameters are recorded
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
        if "has(" in expression.source:
            return
        near = self._findings.guesser.nearest(name, self._inputs)
        hint = f"; did you mean {near!r}?" if near else f"; there are {_some(self._inputs)}"
        patch = None
        if near:
            is_bare = place in ("when", "for_each")
            patch = self._rewrite(path, replace_member(self._text(path), "inputs", name, near, is_bare=is_bare))
        report = self._findings.error if schema.get("additionalProperties") is False else self._findings.warn
        report(
            path,
            "unknown_input",
            f"the flow's inputs have no {name[:80]!r}{hint}",
            got=expression.source[:200],
            suggestion=near,
            patch=patch,
        )

    # cycles

    def _cycles(self, graph: OrderGraph) -> None:
        for cycle in graph.cycles():
            shown = " -> ".join(_shown(cycle))
            path, why = self._place_to_change(cycle)
            self._findings.error(path, "cycle", f"the order has a cycle: {shown}{why}", got=shown)

    def _place_to_change(self, cycle: list[Vertex]) -> tuple[str, str]:
        """Where an edge of the cycle was written down, dependencies before templates before stages."""
        edges = list(pairwise(cycle))
        found: list[tuple[int, str, str]] = []
        for later, earlier in edges:
            if later[0] == "task" and earlier[0] == "task":
                node, other = self._draft.tasks[later[1]], self._draft.tasks[earlier[1]]
                place = _dependency_place(node.task, other)
                if place is not None:
                    found.append((0, f"{node.path}/depends_on/{place}", _why(node, other)))
                    continue
                for rank, template in ((1, node.parameters), (1, node.for_each), (1, node.when)):
                    uses = [] if template is None else [p for p, e in template.expressions() if other.name in e.tasks]
                    found.extend((rank, use, _why(node, other)) for use in uses[:1])
            elif later[0] == "begin":
                stage = next(stage for stage in self._draft.stages if stage.name == later[1])
                if earlier[0] == "task":
                    found.append(
                        (1, pointer("stages", stage.index, "when"), "; a stage's when is asked before it begins")
                    )
                elif self._definition.stages[stage.index].depends_on is not None:
                    place = stage.depends_on.index(earlier[1]) if earlier[1] in stage.depends_on else 0
                    found.append((2, pointer("stages", stage.index, "depends_on", place), ""))
        if not found:
            return "/stages", ""
        _, path, why = min(found, key=lambda entry: entry[0])
        return path, why


def _dependency_place(task: Task, other: TaskNode) -> int | None:
    for place, name in enumerate(task.depends_on):
        if name in (other.name, f"{STAGE_PREFIX}{other.stage}"):
            return place
    return None


def _why(node: TaskNode, other: TaskNode) -> str:
    if node.stage == other.stage:
        return f"; tasks of a sequential stage follow each other, so {node.name} cannot wait for a later one"
    return f"; {other.name} is in stage {other.stage}, which comes after {node.stage} unless depends_on says else"


def _shown(cycle: list[Vertex]) -> list[str]:
    """The tasks of the cycle; stages where it has no two tasks."""
    tasks = [name for kind, name in cycle if kind == "task"]
    if len(set(tasks)) > 1:
        if tasks[0] != tasks[-1]:
            tasks.append(tasks[0])
        return tasks
    names = [name if kind == "task" else f"{STAGE_PREFIX}{name}" for kind, name in cycle]
    shown = [name for index, name in enumerate(names) if index == 0 or name != names[index - 1]]
    return shown if shown[0] == shown[-1] else [*shown, shown[0]]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _prefix(text: str, name: str, better: str) -> str:
    """The text with the bare name replaced where it begins a path."""
    return re.sub(rf"(?<![\w.'\"]){re.escape(name)}(?![\w'\"])", better, text)


def _property_names(schema: object) -> list[str]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return [str(name) for name in properties] if isinstance(properties, dict) else []
