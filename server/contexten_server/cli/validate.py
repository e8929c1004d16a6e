"""`contexten-flow validate FILE`: every problem of a definition, and their mends."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contexten.extensions.flow.errors import InvalidArguments, InvalidDefinition
from contexten_server.cli.conduct import conduct, load_settings
from contexten_server.cli.definition_file import read_definition
from contexten_server.cli.exits import Exit
from contexten_server.cli.options import Db, DefinitionFile, Json
from contexten_server.cli.screen import Screen

if TYPE_CHECKING:
    from contexten.extensions.flow.service import FlowService
    from contexten.extensions.flow.views import FlowSaved

MOST_FIXES = 500
"""Mends of one definition: each is checked again, and a definition with more problems is better written anew."""


def validate(
    file: DefinitionFile,
    fix: Annotated[bool, typer.Option("--fix", help="Apply the mends that the checker knows, and write FILE.")] = False,
    stdout: Annotated[
        bool, typer.Option("--stdout", help="With --fix: print the mended definition instead of writing FILE.")
    ] = False,
    db: Db = None,
    as_json: Json = False,
) -> None:
    """Check a definition without saving it: every problem with its place, its reason and its mend.

    Exit codes: 0 valid (or made valid), 1 problems are left, 2 wrong usage, 3 database not usable.
    """
    screen = Screen(as_json=as_json)
    conduct(screen, partial(_validate, screen, file, db, fix=fix, stdout=stdout or file == "-"))


async def _validate(screen: Screen, file: str, db: Path | None, *, fix: bool, stdout: bool) -> Exit:
    definition = read_definition(file)
    applied: list[dict[str, Any]] = []
    async with _checker(db) as service:
        saved, issues = await _check(service, definition)
        while fix and len(applied) < MOST_FIXES and (mend := _next_mend(definition, issues)):
            issue, definition = mend
            applied.append(issue)
            saved, issues = await _check(service, definition)
    if applied:
        _write(screen, file, definition, stdout=stdout)
    _report(screen, file, saved, issues, applied, definition if fix else None)
    return Exit.FAILED if issues else Exit.OK


@asynccontextmanager
async def _checker(db: Path | None) -> AsyncIterator[FlowService]:
    """A service that only answers: on the database, since sub-flows are looked up there, else on an empty one."""
    from contexten.extensions.flow.service import FlowService

    settings = load_settings(db)
    with tempfile.TemporaryDirectory(prefix="contexten-flow-") as folder:
        if not settings.database.exists():
            empty = settings.model_copy(update={"database": Path(folder) / "empty.sqlite3"})
            async with FlowService(empty, holder="contexten-flow validate") as service:
                yield service
            return
        async with FlowService(settings, drive=False, holder="contexten-flow validate") as service:
            yield service


async def _check(service: FlowService, definition: Any) -> tuple[FlowSaved | None, list[dict[str, Any]]]:
    from contexten.extensions.flow.actor import Actor

    actor = Actor(client="contexten-flow", transport="cli", tool="validate")
    try:
        saved = await service.create_flow(workflow_def=copy.deepcopy(definition), validate_only=True, actor=actor)
    except InvalidDefinition as error:
        return None, [issue.as_dict() for issue in error.issues]
    return saved, []


def _next_mend(definition: Any, issues: list[dict[str, Any]]) -> tuple[dict[str, Any], Any] | None:
    """The first issue whose patch applies and changes something, and the definition after it."""
    from contexten.extensions.flow.definition import apply_patch

    for issue in issues:
        if not issue.get("patch"):
            continue
        try:
            mended = apply_patch(definition, issue["patch"])
        except InvalidArguments:
            continue
        if mended != definition:
            return issue, mended
    return None


def _write(screen: Screen, file: str, definition: Any, *, stdout: bool) -> None:
    if not stdout:
        text = json.dumps(definition, indent=2, ensure_ascii=False) + "\n"
        Path(file).expanduser().write_text(text, encoding="utf-8")
    elif not screen.as_json:
        screen.data(definition)


def _report(
    screen: Screen,
    file: str,
    saved: FlowSaved | None,
    issues: list[dict[str, Any]],
    applied: list[dict[str, Any]],
    definition: Any,
) -> None:
    if screen.as_json:
        answer: dict[str, Any] = {"valid": not issues, "issues": issues, "fixed": applied}
        if saved is not None:
            answer |= {"plan": saved.plan.data(), "warnings": [warning.data() for warning in saved.warnings]}
        if definition is not None:
            answer["definition"] = definition
        screen.data(answer)
        return
    for issue in applied:
        screen.note(f"fixed {issue['path'] or '/'}: {issue['message']}", style="green")
    for issue in issues:
        screen.issue(issue, style="red")
        if issue.get("patch"):
            screen.note("      can be mended with --fix")
    if saved is None:
        screen.note(f"{file}: {len(issues)} problem{'s' if len(issues) != 1 else ''}", style="bold red")
        return
    for warning in saved.warnings:
        screen.issue(warning.data(), style="yellow")
    plan = saved.plan
    screen.note(f"{file}: valid, {plan.stages} stages, {plan.tasks} tasks", style="green")
