"""The compiled form of a definition, as the executor walks it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ..errors import InvalidDefinition, Issue
from .model import Stage, Task, WorkflowDefinition
from .ordering import OrderGraph
from .pointers import pointer
from .scope import ROOTS_BUT_SECRETS
from .templates import Constant, Template, TemplateProblems, compile_condition, compile_template, has_template

STAGE_PREFIX = "stage:"
_NO_PARAMETERS = Constant({})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNode:
    """One task, compiled. Implied order (stages, sequential tasks) is the stages', not in `requires`."""

    index: int
    """Its place among all tasks of the definition."""
    name: str
    stage: str
    """Its stage; empty for an on_failure task."""
    task: Task = field(repr=False)
    path: str
    """JSON Pointer of the task in its definition."""
    requires: frozenset[str]
    """Tasks that must end before it: named by depends_on (`stage:` expanded) and by its templates."""
    tolerates: frozenset[str]
    """Those of them whose failure does not skip it, since its `when` names them."""
    parameters: Template = field(repr=False)
    when: Template | None = field(default=None, repr=False)
    for_each: Template | None = field(default=None, repr=False)
    cache_key: Template | None = field(default=None, repr=False)
    on_failure_of: str | None = None
    """Of an on_failure task: the task for whose failure it runs, empty where it is the flow's. None for all others."""
    parameter_secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The secrets that each of its parameters names, of those that name any."""

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets that its parameters name."""
        return frozenset().union(*self.parameter_secrets.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNode:
    """One stage, compiled."""

    index: int
    name: str
    mode: str
    """sequential or parallel."""
    max_parallel: int | None
    continue_on_task_failure: bool
    depends_on: tuple[str, ...]
    """Names of the stages before it: given, or the one before."""
    requires: frozenset[str] = frozenset()
    """Tasks that its `when` names."""
    when: Template | None = field(default=None, repr=False)
    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole definition, compiled."""

    definition: WorkflowDefinition = field(repr=False)
    stages: tuple[StageNode, ...]
    tasks: Mapping[str, TaskNode]
    """In the order of the definition: those of the stages, then those of on_failure."""
    output: Template | None = field(default=None, repr=False)
    order: tuple[str, ...]
    """The names of the stages' tasks, each after all that it depends on or follows."""
    on_failure: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The names of on_failure tasks in their order, by the task whose failure they are for; the flow's own by ""."""
    secrets: frozenset[str] = frozenset()


def compile_plan(definition: WorkflowDefinition) -> Plan:
    """The plan of a definition that the checker accepted before.

    Raises InvalidDefinition where a template does not compile or the order has a cycle, which a
    definition that was checked by another version may bring.
    """
    problems = TemplateProblems()
    draft = Draft(definition, problems)
    if problems:
        issues = [Issue(path=problem.path, code="invalid_expression", message=problem.message) for problem in problems]
        raise InvalidDefinition("the definition's templates do not compile", issues=issues)
    order = draft.graph().order()
    if order is None:
        raise InvalidDefinition("the definition's tasks depend on each other in a cycle")
    return draft.plan(order)


class Draft:
    """A definition whose templates are compiled, but whose order is not known to be free of cycles."""

    def __init__(self, definition: WorkflowDefinition, problems: TemplateProblems) -> None:
        self.definition = definition
        self.members = {stage.name: tuple(task.name for task in stage.tasks) for stage in definition.stages}
        self.stages = [self._stage(index, stage, problems) for index, stage in enumerate(definition.stages)]
        self.tasks: dict[str, TaskNode] = {}
        for stage_index, stage in enumerate(definition.stages):
            for task_index, task in enumerate(stage.tasks):
                path = f"/stages/{stage_index}/tasks/{task_index}"
                self.tasks[task.name] = self._task(stage.name, task, path, problems)
        self.on_failure: dict[str, tuple[str, ...]] = {}
        for failed in definition.tasks():
            if failed.on_failure:
                self._compensations(failed.name, failed.on_failure, self.tasks[failed.name].path, problems)
        if definition.on_failure:
            self._compensations("", definition.on_failure, "", problems)
        self.output = (
            compile_template(definition.output, pointer("output"), problems, ROOTS_BUT_SECRETS)
            if definition.has_output
            else None
        )

    def _stage(self, index: int, stage: Stage, problems: TemplateProblems) -> StageNode:
        path = pointer("stages", index, "when")
        when = None if stage.when is None else compile_condition(stage.when, path, problems, ROOTS_BUT_SECRETS)
        before = (self.definition.stages[index - 1].name,) if index else ()
        return StageNode(
            index=index,
            name=stage.name,
            mode=stage.execution_mode,
            max_parallel=stage.max_parallel,
            continue_on_task_failure=stage.continue_on_task_failure,
            depends_on=before if stage.depends_on is None else tuple(dict.fromkeys(stage.depends_on)),
            requires=when.tasks() if when else frozenset(),
            when=when,
            tasks=self.members[stage.name],
        )

    def _compensations(self, failed: str, tasks: Sequence[Task], path: str, problems: TemplateProblems) -> None:
        for index, task in enumerate(tasks):
            self.tasks[task.name] = self._task("", task, f"{path}/on_failure/{index}", problems, on_failure_of=failed)
        self.on_failure[failed] = tuple(task.name for task in tasks)

    def _task(
        self, stage: str, task: Task, path: str, problems: TemplateProblems, *, on_failure_of: str | None = None
    ) -> TaskNode:
        parameters: Template = Constant(task.parameters) if task.parameters else _NO_PARAMETERS
        if has_template(task.parameters):
            parameters = compile_template(task.parameters, f"{path}/parameters", problems)
        when = each = key = None
        if task.when is not None:
            when = compile_condition(task.when, f"{path}/when", problems, ROOTS_BUT_SECRETS)
        if task.for_each is not None:
            each = compile_condition(task.for_each, f"{path}/for_each", problems, ROOTS_BUT_SECRETS)
        if task.cache is not None:
            key = compile_template(task.cache.key, f"{path}/cache/key", problems, ROOTS_BUT_SECRETS)
        requires = set(self._named(task, stage))
        for template in (parameters, when, each, key):
            if template is not None and not template.is_constant:
                requires |= template.tasks()
        return TaskNode(
            index=len(self.tasks),
            name=task.name,
            stage=stage,
            task=task,
            path=path,
            requires=frozenset(requires),
            tolerates=when.tasks() if when else frozenset(),
            parameters=parameters,
            when=when,
            for_each=each,
            cache_key=key,
            on_failure_of=on_failure_of,
            parameter_secrets={} if parameters.is_constant else parameters.secrets_by_field(),
        )

    def _named(self, task: Task, stage: str) -> Iterable[str]:
        for name in task.depends_on:
            if name == f"{STAGE_PREFIX}{stage}":
                yield task.name  # its own stage: the checker refuses it, and so does the order
            elif name.startswith(STAGE_PREFIX):
                yield from self.members.get(name.removeprefix(STAGE_PREFIX), ())
            else:
                yield name

    def graph(self) -> OrderGraph:
        """What must come before what: dependencies and implied order."""
        graph = OrderGraph()
        for stage in self.stages:
            graph.add_stage(stage.name, stage.tasks, is_sequential=stage.mode == "sequential")
        for stage in self.stages:
            for before in stage.depends_on:
                graph.put_stage_after(stage.name, before)
            for name in stage.requires:
                graph.put_stage_after_task(stage.name, name)
        for node in self.tasks.values():
            for name in node.requires:
                graph.put_after(node.name, name)
        return graph

    def plan(self, order: tuple[str, ...]) -> Plan:
        """The plan, with that order of all tasks."""
        return Plan(
            definition=self.definition,
            stages=tuple(self.stages),
            tasks=MappingProxyType(self.tasks),
            output=self.output,
            order=order,
            on_failure=MappingProxyType(self.on_failure),
            secrets=frozenset().union(*(node.secrets for node in self.tasks.values())),
        )
