"""What a check has found so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import Issue
from .names import NameGuesser
from .pointers import lookup

MAX_ISSUES = 1000
MAX_SCHEMA_PARTS = 10_000  # of the JSON Schemas in one definition: about 0.3 s
MAX_SCHEMA_STEPS = 50_000  # of checking the literal inputs of sub-flows against their schemas: about 0.4 s
MAX_CODE = 50_000  # characters of expressions and queries in one definition: 0.5 s at 10 us each, the worst measured
_ABSENT = object()


class TooManyIssues(Exception):
    """The check has found as many errors as it tells; it ends here, so that what is all wrong takes no longer."""


class Steps:
    """How many more steps may be taken; `take` answers whether there were as many."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, steps: int = 1) -> bool:
        self.left -= steps
        return self.left >= 0


class CodeBudget:
    """How much more code (expressions, queries) may be compiled in one check."""

    def __init__(self) -> None:
        self._left = MAX_CODE
        self._known: set[str] = set()

    def admits(self, source: str, size: int) -> bool:
        """Whether there is room for it; what was admitted before costs 1, as it is not compiled again."""
        self._left -= 1 if source in self._known else size
        self._known.add(source)
        return self._left >= 0


class Findings:
    """Errors and warnings of one check, in the places of the document as it was given.

    The check goes on with a mended copy of a broken definition; `moved` says where the copy differs
    in place, so that what is found there is told where the reader has it.
    """

    def __init__(self) -> None:
        self.errors: list[Issue] = []
        self.warnings: list[Issue] = []
        self.guesser = NameGuesser()
        self.placeholders: set[str] = set()
        """Names in the copy that stand for what was missing: nothing is said about them."""
        self._moved: list[tuple[str, str]] = []
        self.schema_parts_left = MAX_SCHEMA_PARTS
        self.code = CodeBudget()
        self.schema_steps = Steps(MAX_SCHEMA_STEPS)

    def move(self, copy: str, given: str) -> None:
        """What is at `copy` in the mended copy is at `given` in the document (JSON Pointers)."""
        self._moved.append((copy, given))

    def error(self, path: str, code: str, message: str, **more: Any) -> None:
        """Add an error; `more` are the further fields of Issue. Raises TooManyIssues where no more fit."""
        if len(self.errors) >= MAX_ISSUES:
            raise TooManyIssues
        self.errors.append(self._placed(Issue(path=path, code=code, message=message, **more)))

    @property
    def takes_warnings(self) -> bool:
        """Whether a further warning will be told."""
        return len(self.warnings) < MAX_ISSUES

    def warn(self, path: str, code: str, message: str, **more: Any) -> None:
        """Add a warning."""
        if self.takes_warnings:
            self.warnings.append(self._placed(Issue(path=path, code=code, message=message, **more)))

    def _placed(self, issue: Issue) -> Issue:
        if not self._moved:
            return issue
        patch = issue.patch and [
            {key: self._given(value) if key in ("path", "from") else value for key, value in operation.items()}
            for operation in issue.patch
        ]
        return replace(issue, path=self._given(issue.path), patch=patch)

    def _given(self, path: str) -> str:
        for copy, given in reversed(self._moved):
            if path == copy or path.startswith(f"{copy}/"):
                path = given + path[len(copy) :]
        return path


def describe(value: Any) -> str:
    """What kind of JSON value it is, for `got`; short scalars are shown."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {value[:60]!r}" if value else "an empty string"
    if isinstance(value, Mapping):
        return "an object"
    return "a list"


def value_at(document: Any, tokens: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], Any]:
    """As far as the tokens lead into the document, and what is there."""
    for length in range(len(tokens), -1, -1):
        try:
            return tokens[:length], lookup(document, tokens[:length])
        except (LookupError, TypeError):
            continue
    return (), document
