"""Flows: checking, saving and versioning definitions."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeGuard

from ..actor import Actor
from ..agents.registry import AgentRegistry
from ..agents.secrets import SecretVault
from ..answers.reading import Answers
from ..clock import Clock
from ..definition import (
    Catalog,
    CheckReport,
    Limits,
    Plan,
    WorkflowDefinition,
    apply_patch,
    check,
    is_flow_id,
    load_json,
    make_flow_id,
)
from ..errors import FlowExists, InvalidArguments, Issue
from ..recovery.rules import RecoveryRules
from ..settings import FlowSettings
from ..store import Store
from ..store import flows as changes
from ..store.sql import SQL
from ..views import FlowSaved, IssueView
from .plans import Plans
from .planview import plan_view

FLOWS_KEPT = 256
LARGE_DEFINITION = 100_000  # characters
LARGE_COUNT = 100  # tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedFlow:
    """A saved version with its plan."""

    flow_id: str
    version: int
    name: str
    plan: Plan
    title: str | None = None
    """What the definition was called that came with a submission, whatever its flow is called."""


class Flows:
    """The definitions of one database.

    The latest versions that were asked for last are kept; whoever uses one to record a run has the change check that
    it is still the latest, and calls `forget` where it is not.
    """

    def __init__(
        self,
        *,
        store: Store,
        registry: AgentRegistry,
        vault: SecretVault,
        settings: FlowSettings,
        clock: Clock,
        answers: Answers,
        plans: Plans,
        rules: Callable[[], RecoveryRules],
    ) -> None:
        """`rules` answers what is done about failures now."""
        self._rules = rules
        self._store = store
        self._registry = registry
        self._vault = vault
        self._clock = clock
        self._answers = answers
        self._plans = plans
        self._latest: OrderedDict[str, SavedFlow] = OrderedDict()
        self._has_model = settings.model is not None
        self._limits = Limits(
            max_definition_bytes=settings.max_definition_bytes,
            max_tasks=settings.max_tasks,
            max_for_each_items=settings.max_for_each_items,
        )

    async def saved(self, flow_id: str, version: int | None) -> SavedFlow:
        """A saved version (None: the latest) with its plan. Raises FlowNotFound."""
        kept = self._latest.get(flow_id)
        if kept is not None and version in (None, kept.version):
            return kept
        row = await self._store.row(SQL["read_flow"], (version, flow_id))
        if row is None:
            raise await self._answers.no_flow(flow_id, version)
        number = version or int(row["version"])
        plan, _ = await self._plans.plan_of(flow_id, number)
        flow = SavedFlow(flow_id=flow_id, version=number, name=row["name"], plan=plan)
        if version is None:
            self._latest[flow_id] = flow
            if len(self._latest) > FLOWS_KEPT:
                self._latest.popitem(last=False)
        return flow

    def forget(self, flow_id: str) -> None:
        """The flow may have a new version."""
        self._latest.pop(flow_id, None)

    def gone(self, flow_ids: Iterable[str]) -> None:
        """These flows are no more; their ids may become others'."""
        for flow_id in flow_ids:
            self.forget(flow_id)
            self._plans.forget(flow_id)

    async def create(
        self,
        raw: object,
        *,
        name: str | None,
        description: str | None,
        flow_id: str | None,
        validate_only: bool,
        listed: bool,
        actor: Actor,
    ) -> tuple[FlowSaved, SavedFlow]:
        """Check a definition and save it; one that came with a submission is not `listed`, and is the version of its
        flow that differs in name and description at most. Raises InvalidDefinition, InvalidArguments, FlowExists."""
        check_name(name)
        if flow_id is not None and not is_flow_id(flow_id):
            raise _bad_flow_id(flow_id)
        report, definition = await self.check(raw, name=name, description=description, flow_id=flow_id)
        title = name or definition.name
        digest = _digest(definition, title)
        the_id = flow_id or definition.id or f"{make_flow_id(title or 'flow')[:100]}-{digest[:8]}"
        assert report.plan is not None  # noqa: S101 - a valid definition has a plan
        flow = SavedFlow(flow_id=the_id, version=0, name=title or the_id, plan=report.plan, title=title)
        existing = False
        if not validate_only:
            save = self._save(the_id, title, definition, digest, actor, listed=listed)
            try:
                version, existing = await self._store.write(partial(_create, save))
                flow = replace(flow, version=version)
            except FlowExists:
                alike = None if listed else await self._alike(the_id, definition)
                if alike is None:
                    raise
                flow, existing = replace(alike, title=title), True
        saved = self._saved(the_id, flow.name, flow.version, report, existing=existing, validate_only=validate_only)
        return saved, flow

    async def _alike(self, flow_id: str, definition: WorkflowDefinition) -> SavedFlow | None:
        """The latest version of a flow with that content, whatever it is called there."""
        content = _content(definition.as_dict())
        row = await self._store.row(SQL["read_flow"], (None, flow_id))
        for version in range(int(row["version"]) if row is not None else 0, 0, -1):  # one at a time: they may be large
            row = await self._store.row(SQL["read_definition"], (flow_id, version))
            if row is not None and _content(json.loads(row["definition"])) == content:
                return await self.saved(flow_id, version)
        return None

    async def update(
        self, flow_id: str, *, raw: object | None, patch: list[dict[str, Any]] | None, actor: Actor
    ) -> tuple[FlowSaved, SavedFlow]:
        """Save a flow's next version, whole or patched. Raises FlowNotFound, InvalidArguments, InvalidDefinition.

        The flow keeps its name unless the name in its definition changes: it may have been created under another one.
        """
        if (raw is None) == (patch is None):
            raise InvalidArguments(
                "update_flow takes either workflow_def or patch.",
                next="Pass the whole definition as workflow_def, or RFC 6902 operations as patch.",
            )
        current = await self._answers.flow(flow_id, None)
        expected = current.version if patch is not None else None
        if patch is not None:
            raw = apply_patch(current.definition or {}, patch)
        before = (current.definition or {}).get("name")
        report, definition = await self.check(raw, name=before, flow_id=flow_id)
        title = definition.name if definition.name != before else before and current.name
        save = self._save(flow_id, title, definition, _digest(definition, title), actor, listed=True)
        version, existing = await self._store.write(partial(_update, save, expected))
        self.forget(flow_id)
        assert report.plan is not None  # noqa: S101 - a valid definition has a plan
        return (
            self._saved(flow_id, title, version, report, existing=existing),
            SavedFlow(flow_id=flow_id, version=version, name=save.name, plan=report.plan),
        )

    async def check(
        self,
        raw: object,
        *,
        name: str | None = None,
        description: str | None = None,
        flow_id: str | None = None,
    ) -> tuple[CheckReport, WorkflowDefinition]:
        """Check a definition; `name` is for one without a name, `description` replaces its own.

        Raises InvalidDefinition with all problems.
        """
        if isinstance(raw, WorkflowDefinition):
            raw = raw.as_dict()
        if isinstance(raw, str | bytes):
            with suppress(ValueError, RecursionError):  # the checker says what is wrong with the text
                raw = load_json(raw)
        if isinstance(raw, Mapping):
            raw = dict(raw)
            if name is not None and raw.get("name") is None:
                raw["name"] = name
            if description is not None:
                raw["description"] = description
        await self._registry.ready(_tools(raw))
        catalog = await self._catalog(raw)
        if _is_large(raw):  # off the event loop: checking may take seconds
            report = await asyncio.to_thread(check, raw, catalog, self._limits, flow_id=flow_id)
        else:
            report = check(raw, catalog, self._limits, flow_id=flow_id)
        disabled = self._registry.disabled_tools()
        report = replace(report, issues=tuple(_with_hint(issue, disabled) for issue in report.issues))
        report.raise_if_invalid()
        assert report.definition is not None  # noqa: S101 - no issues
        return report, report.definition

    async def _catalog(self, raw: object) -> Catalog:
        known: dict[str, WorkflowDefinition | None] = {}
        pending = list(_flow_ids(raw))
        while pending:
            flow_id = pending.pop()
            if flow_id in known or len(known) > self._limits.max_tasks:
                continue
            row = await self._store.row(SQL["read_flow"], (None, flow_id))
            known[flow_id] = None if row is None else WorkflowDefinition.model_validate_json(row["definition"])
            if row is not None:
                pending.extend(_flow_ids(json.loads(row["definition"])))
        missing = any(definition is None for definition in known.values())
        ids = [str(row[0]) for row in await self._store.rows(SQL["flow_ids"])] if missing else []
        return Catalog(
            tools=self._registry.tool_specs(),
            agents=self._registry.agent_specs(),
            has_model=self._has_model,
            reason_without=self._registry.reason_without,
            secrets=self._vault.names,
            kinds=self._rules().named_kinds(),
            flows=known.get,
            flow_ids=lambda: ids,
        )

    def _save(
        self,
        flow_id: str,
        title: str | None,
        definition: WorkflowDefinition,
        digest: str,
        actor: Actor,
        *,
        listed: bool,
    ) -> changes.SaveFlow:
        return changes.SaveFlow(
            flow_id=flow_id,
            name=title or flow_id,
            description=definition.description,
            tags=json.dumps(list(definition.tags), ensure_ascii=False),
            digest=digest,
            definition=json.dumps(definition.as_dict(), ensure_ascii=False),
            at=self._clock.timestamp(),
            actor=str(actor),
            listed=listed,
        )

    def _saved(
        self,
        flow_id: str,
        title: str | None,
        version: int,
        report: CheckReport,
        *,
        existing: bool,
        validate_only: bool = False,
    ) -> FlowSaved:
        assert report.plan is not None  # noqa: S101 - a valid definition has a plan
        return FlowSaved(
            flow_id=flow_id,
            name=title or flow_id,
            version=version,
            existing=existing,
            validate_only=validate_only,
            plan=plan_view(report.plan),
            warnings=[IssueView(**issue.as_dict()) for issue in report.warnings],
            next=(
                "Call create_flow without validate_only to save it."
                if validate_only
                else f"Call execute_flow(flow_id={flow_id!r})."
            ),
        )


def check_name(name: object) -> None:
    """Raises InvalidArguments where what a flow or a run is to be called is no text (or None)."""
    if name is not None and not isinstance(name, str):
        raise InvalidArguments(
            f"name must be text; it was {str(name)[:100]!r}.",
            issues=[Issue(path="/name", code="wrong_type", message="text", got=str(name)[:100])],
        )


def _create(save: changes.SaveFlow, tx: Any) -> tuple[int, bool]:
    return changes.create(tx, save)


def _update(save: changes.SaveFlow, expected: int | None, tx: Any) -> tuple[int, bool]:
    return changes.update(tx, save, expected_version=expected)


def _is_large(raw: object) -> bool:
    if isinstance(raw, str | bytes):
        return len(raw) > LARGE_DEFINITION
    stages = raw.get("stages") if isinstance(raw, Mapping) else None
    count = (
        sum(len(stage.get("tasks") or ()) for stage in stages if isinstance(stage, Mapping)) if _is_list(stages) else 0
    )
    return count > LARGE_COUNT


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _with_hint(issue: Issue, disabled: Mapping[str, str]) -> Issue:
    """An issue about a tool that is only switched off says how to switch it on."""
    if issue.code != "unknown_tool" or issue.got not in disabled:
        return issue
    return replace(issue, message=f"the tool {issue.got} is off: {disabled[issue.got]}", suggestion=None, patch=None)


def _digest(definition: WorkflowDefinition, title: str | None) -> str:
    """Of what makes a version: the definition without its id, and the flow's name."""
    content = {key: value for key, value in definition.as_dict().items() if key != "id"}
    text = json.dumps(content if title is None else content | {"name": title}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _content(definition: Mapping[str, Any]) -> str:
    """What a definition says, but for what it is called."""
    told = {key: value for key, value in definition.items() if key not in ("id", "name", "description")}
    return json.dumps(told, sort_keys=True)


def _bad_flow_id(flow_id: object) -> InvalidArguments:
    return InvalidArguments(
        "flow_id must be 1 to 128 characters without control characters or slashes.",
        issues=[
            Issue(
                path="/flow_id",
                code="invalid_flow_id",
                message="1 to 128 characters, no control characters or slashes",
                got=str(flow_id)[:150],
                suggestion=make_flow_id(str(flow_id)),
            )
        ],
    )


def _tasks(raw: object) -> list[Mapping[str, Any]]:
    """The tasks of a raw definition; whatever is misshapen is passed over."""
    tasks = [task for stage in _parts(raw, "stages") for task in _parts(stage, "tasks")]
    return [*tasks, *(task for part in (*tasks, raw) for task in _parts(part, "on_failure"))]


def _tools(raw: object) -> set[str]:
    """The tools that a raw definition names."""
    named = [task.get("required_tools") for task in _tasks(raw)]
    return {tool for tools in named if isinstance(tools, list | tuple) for tool in tools if isinstance(tool, str)}


def _flow_ids(raw: object) -> Iterator[str]:
    """The ids of sub-flows that it names."""
    for task in _tasks(raw):
        parameters = task.get("parameters") if task.get("type") == "flow" else None
        flow_id = parameters.get("flow_id") if isinstance(parameters, Mapping) else None
        if isinstance(flow_id, str):
            yield flow_id


def _parts(raw: object, name: str) -> list[Mapping[str, Any]]:
    parts = raw.get(name) if isinstance(raw, Mapping) else None
    return [part for part in parts if isinstance(part, Mapping)] if isinstance(parts, list | tuple) else []
