"""What a check has found so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import Issue
from .names import NameGuesser
from .pointers import lookup

MAX_ISSUES = 1000
_ABSENT = object()


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
        self._omitted = 0

    def move(self, copy: str, given: str) -> None:
        """What is at `copy` in the mended copy is at `given` in the document (JSON Pointers)."""
        self._moved.append((copy, given))

    def error(self, path: str, code: str, message: str, **more: Any) -> None:
        """Add an error; `more` are the further fields of Issue."""
        if len(self.errors) >= MAX_ISSUES:
            self._omitted += 1
            return
        self.errors.append(self._placed(Issue(path=path, code=code, message=message, **more)))

    def warn(self, path: str, code: str, message: str, **more: Any) -> None:
        """Add a warning."""
        if len(self.warnings) < MAX_ISSUES:
            self.warnings.append(self._placed(Issue(path=path, code=code, message=message, **more)))

    def closing(self) -> tuple[Issue, ...]:
        """All errors; a last one says how many more there are where they were too many."""
        if not self._omitted:
            return tuple(self.errors)
        more = Issue(path="", code="too_many_issues", message=f"{self._omitted:,} more problems are not shown")
        return (*self.errors, more)

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
