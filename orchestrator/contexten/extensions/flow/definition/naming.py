"""Names that are no identifiers, or are there twice: mended everywhere they are used."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonpatch

from .findings import Findings
from .names import is_identifier, make_identifier
from .pointers import escape
from .templates import Source, TemplateProblem, split_template

_TEMPLATED = ("parameters", "when", "for_each", "cache", "output")
_MAX_MENDS = 30  # each looks through the whole document


def mend_names(document: dict[str, Any], findings: Findings) -> None:
    """Report bad and repeated names of stages and tasks, and mend them in `document`, the checker's own copy."""
    stages, tasks = list(named_stages(document)), list(named_tasks(document))
    stage_names = _Names(document, "stage", "", findings)
    task_names = _Names(document, "task", "task", findings)
    stage_names.taken = {stage["name"] for _, stage in stages if isinstance(stage.get("name"), str)}
    task_names.taken = {task["name"] for _, task in tasks if isinstance(task.get("name"), str)}
    for path, stage in stages:
        stage_names.visit(stage, f"{path}/name")
    for path, task in tasks:
        task_names.visit(task, f"{path}/name")


def named_stages(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every stage in JSON data that may be no definition, with its JSON Pointer."""
    return _objects(document.get("stages"), "/stages")


def named_tasks(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Likewise every task: those of the stages, then those of on_failure."""
    tasks = [found for path, stage in named_stages(document) for found in _objects(stage.get("tasks"), f"{path}/tasks")]
    yield from tasks
    for path, task in (*tasks, ("", document)):
        yield from _objects(task.get("on_failure"), f"{path}/on_failure")


def _objects(parts: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, dict):
            yield f"{path}/{index}", part


class _Names:
    def __init__(self, document: dict[str, Any], kind: str, default: str, findings: Findings) -> None:
        self._document = document
        self._kind = kind
        self._default = default or kind
        self._findings = findings
        self._seen: dict[str, str] = {}
        self._mended = 0
        self.taken: set[str] = set()

    def visit(self, part: dict[str, Any], path: str) -> None:
        name = part.get("name")
        if not isinstance(name, str):
            return
        first = self._seen.get(name)
        if first is None:
            self._seen[name] = path
            if is_identifier(name):
                return
            better = make_identifier(name, self.taken, default=self._default)
            self._mended += 1
            is_few = self._mended <= _MAX_MENDS
            operations = [{"op": "replace", "path": path, "value": better}]
            if is_few:
                operations += self._uses(name, better)
            self._findings.error(
                path,
                "invalid_name",
                f"{name[:80]!r} is no identifier (a letter or _, then up to 63 letters, digits or _)",
                expected="[A-Za-z_][A-Za-z0-9_]{0,63}",
                got=name[:200],
                suggestion=better,
                patch=operations if is_few else None,
            )
            jsonpatch.apply_patch(self._document, operations, in_place=True)
        else:
            better = make_identifier(name, self.taken, default=self._default)
            if better == name:  # only where the first of them was mended already
                better = make_identifier(f"{name}_2", self.taken, default=self._default)
            operations = [{"op": "replace", "path": path, "value": better}]
            self._findings.error(
                path,
                "duplicate_name",
                f"the {self._kind} {name[:80]!r} is there already at {first}; what names it means that one",
                got=name[:200],
                suggestion=better,
                patch=operations,
            )
            part["name"] = better
        self.taken.add(better)
        self._seen.setdefault(better, path)

    def _uses(self, name: str, better: str) -> list[dict[str, Any]]:
        """Replacements wherever the document names it: depends_on, `stage:<name>`, templates."""
        plain = {name: better} if self._kind == "task" else {}
        prefixed = {f"stage:{name}": f"stage:{better}"} if self._kind == "stage" else {}
        operations: list[dict[str, Any]] = []

        def in_depends(value: str) -> str:
            return plain.get(value) or prefixed.get(value) or value

        def in_stages(value: str) -> str:
            return better if value == name else value

        def in_text(value: str) -> str:
            return rename_task(value, name, better)

        def in_bare_text(value: str) -> str:
            return rename_task(value, name, better, is_bare=True)

        for path, task in named_tasks(self._document):
            _replace_in(operations, task.get("depends_on"), f"{path}/depends_on", in_depends)
        if self._kind == "stage":
            for path, stage in named_stages(self._document):
                _replace_in(operations, stage.get("depends_on"), f"{path}/depends_on", in_stages)
            return operations
        for path, part in self._templated():
            for key in _TEMPLATED:
                change = in_bare_text if key in ("when", "for_each") else in_text
                _replace_in(operations, part.get(key), f"{path}/{key}", change)
        return operations

    def _templated(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "", {"output": self._document.get("output")}
        for path, stage in named_stages(self._document):
            yield path, {"when": stage.get("when")}
        yield from named_tasks(self._document)


def _replace_in(operations: list[dict[str, Any]], value: Any, path: str, change: Callable[[str], str]) -> None:
    if isinstance(value, str):
        changed = change(value)
        if changed != value:
            operations.append({"op": "replace", "path": path, "value": changed})
    elif isinstance(value, dict):
        for key, inner in value.items():
            _replace_in(operations, inner, f"{path}/{escape(key)}", change)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _replace_in(operations, inner, f"{path}/{index}", change)


def rename_task(text: str, name: str, better: str, *, is_bare: bool = False) -> str:
    """The string with `tasks.<name>` replaced in its expressions; `is_bare`: the string may be one without braces."""
    return replace_member(text, "tasks", name, better, is_bare=is_bare)


def replace_member(text: str, root: str, name: str, better: str, *, is_bare: bool = False) -> str:
    """The string with `root.name` or `root["name"]` replaced by `root.better` in its expressions."""
    if root not in text or name not in text:
        return text
    escaped = re.escape(name)
    pattern = re.compile(
        rf"(?<![\w.])({re.escape(root)}\s*)(?:\.\s*{escaped}(?![\w-])|\[\s*(?:'{escaped}'|\"{escaped}\")\s*\])"
    )

    def change(expression: str) -> str:
        return pattern.sub(lambda match: f"{match.group(1)}.{better}", expression)

    return change_expressions(text, change, is_bare=is_bare)


def change_expressions(text: str, change: Callable[[str], str], *, is_bare: bool = False) -> str:
    """The string with `change` made in its expressions alone; `is_bare`: the string may be one without braces."""
    if is_bare and "{{" not in text:
        return change(text)
    try:
        parts = split_template(text)
    except TemplateProblem:
        return text
    return "".join(f"{{{{{change(part.source)}}}}}" if isinstance(part, Source) else part for part in parts)
