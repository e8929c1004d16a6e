"""Who could serve each task: its kind, its tools, the agents that offer them, the flow that it starts."""

from __future__ import annotations

from ..recovery.kinds import BUILTIN_KINDS, known_kinds
from .agentchecks import check_agent_task, check_description
from .catalog import AgentSpec, Catalog, ToolSpec
from .findings import Findings
from .model import KINDS, KINDS_NOT_YET, Task, WorkflowDefinition
from .parameters import check_flow_parameters, check_pipeline, check_wait
from .plan import TaskNode
from .schemas import misfits
from .templates import Template, has_template


class Serving:
    """Checks tasks one by one against a catalog."""

    def __init__(self, catalog: Catalog, findings: Findings, flow_id: str | None) -> None:
        self._catalog = catalog
        self._findings = findings
        self._flow_id = flow_id
        self._offers = [(agent, frozenset(agent.tools)) for agent in catalog.agents]
        self._known_tools = dict.fromkeys((*catalog.tools, *(tool for agent in catalog.agents for tool in agent.tools)))
        self._toolless: list[TaskNode] = []
        self._has_model = catalog.has_model or any(agent.is_model for agent in catalog.agents)
        self._types = {agent.agent_type for agent in catalog.agents}

    def check(self, node: TaskNode) -> None:
        """Report what keeps this task from running here."""
        task, path = node.task, node.path
        parameters = f"{path}/parameters" if "parameters" in task.model_fields_set else path
        if node.name in self._findings.placeholders:
            return
        if task.type in KINDS_NOT_YET:
            self._findings.error(
                f"{path}/type",
                "not_available_yet",
                f"tasks of type {task.type} are part of the format, but this version does not run them yet; "
                f"available are {', '.join(KINDS)}, and free text with required_tools",
                got=task.type,
            )
        elif task.type == "wait":
            check_wait(task.parameters, parameters, self._findings)
            self._no_tools(task, path)
        elif task.type == "flow":
            check_flow_parameters(task.parameters, parameters, self._findings)
            self._no_tools(task, path)
            self._flow(task, path)
        elif task.type == "agent":
            self._agent(task, path, parameters)
        else:
            self._type(task, path)
            self._agents(node, parameters)
            if self._has_model and task.type not in KINDS:  # on some engines the model's
                check_description(task, path, self._findings)
        self._fields(task, path)
        if node.cache_key is not None:
            self._cache(node, node.cache_key)

    def finish(self) -> None:
        """Report what is said once of all the tasks that were checked."""
        if not self._toolless:
            return
        names = [node.name for node in self._toolless]
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        tasks, their = ("the task", "its") if len(names) == 1 else ("the tasks", "their")
        self._findings.warn(
            self._toolless[0].path,
            "no_tools",
            f"no tools are named by {tasks} {shown}: the built-in agent returns {their} parameters as {their} output",
        )

    def _no_tools(self, task: Task, path: str) -> None:
        if task.required_tools:
            self._findings.warn(
                f"{path}/required_tools", "unused_field", f"a task of type {task.type} uses no tools; they are ignored"
            )

    def _fields(self, task: Task, path: str) -> None:
        for place, kind in enumerate((task.retry and task.retry.on) or ()):
            self._kind(kind, f"{path}/retry/on/{place}")
        if task.for_each is None:
            for field in ("max_parallel", "continue_on_item_failure"):
                if getattr(task, field):
                    self._findings.error(
                        f"{path}/{field}",
                        "unused_field",
                        f"{field} is about the items of for_each, which the task does not have",
                    )

    def _kind(self, kind: str, path: str) -> None:
        """Warn of a kind of error that nothing known here has; a stranger's exception may have it all the same."""
        if kind in known_kinds() or kind in self._catalog.kinds or kind in self._findings.placeholders:
            return
        near = self._findings.guesser.nearest(kind, sorted(BUILTIN_KINDS | self._catalog.kinds))
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(sorted(BUILTIN_KINDS))}"
        self._findings.warn(
            path,
            "unusual_kind",
            f"no error known here is of kind {kind[:80]!r}: the task is tried again for it only where an agent's own "
            f"errors have that kind; {hint}",
            got=kind[:200],
            suggestion=near,
        )

    def _cache(self, node: TaskNode, key: Template) -> None:
        path = f"{node.path}/cache"
        if node.task.type in ("wait", "flow"):
            self._findings.error(
                path,
                "unused_field",
                f"a task of type {node.task.type} has no output of its own to serve others; tasks that use tools have",
            )
        reached = {root for _, expression in key.expressions() for root, *_ in expression.paths}
        if node.for_each is not None and not reached & {"item", "index"}:
            self._findings.warn(
                f"{path}/key",
                "shared_cache_key",
                "all items share this key, so one's output serves the others; use item",
            )
        elif not reached and not node.parameters.is_constant:
            self._findings.warn(
                f"{path}/key",
                "shared_cache_key",
                "the key is always the same, though the parameters are not: one run's output serves all others",
            )

    def _type(self, task: Task, path: str) -> None:
        if task.type in KINDS:
            return
        folded = task.type.strip().casefold()
        if folded in KINDS or folded in KINDS_NOT_YET:
            self._findings.warn(
                f"{path}/type",
                "unusual_type",
                f"{task.type!r} is free text here; did you mean the kind {folded!r}?",
                got=task.type,
                suggestion=folded,
                patch=[{"op": "replace", "path": f"{path}/type", "value": folded}] if folded in KINDS else None,
            )

    # agents

    def _agents(self, node: TaskNode, parameters: str) -> None:
        task, path = node.task, node.path
        names = self._meant(task, path)
        if names is None:
            return
        required = frozenset(names)
        is_plain = task.type in KINDS
        able = [agent for agent, tools in self._offers if required <= tools and not (is_plain and agent.is_model)]
        preferred = task.preferred_agent_type
        if not able and self._has_model and not is_plain:
            self._needs_model(path, f"no one agent offers all of {', '.join(names)}")
            return
        if not able:
            self._nobody(names, path)
            return
        if preferred is not None:
            self._preference(preferred, able, path)
        chosen = [agent for agent in able if agent.agent_type == preferred] or able
        if not all(agent.builtin for agent in chosen):
            return
        if not names:
            self._toolless.append(node)
            return
        specs = [self._catalog.tools[name] for name in names if name in self._catalog.tools]
        if len(names) > 1 and any(spec.is_alone for spec in specs):
            self._findings.error(
                f"{path}/required_tools", "no_pipeline", "a task calls one tool of an MCP server; split it", got=names
            )
        elif len(specs) == len(names):
            if self._has_model and not is_plain:
                self._free_text(task, specs, path, parameters)
            else:
                check_pipeline(specs, task.parameters, parameters, self._findings)

    def _free_text(self, task: Task, specs: list[ToolSpec], path: str, parameters: str) -> None:
        """What does not fit the tools may yet be for a model."""
        own = Findings()
        own.schema_steps, own.code = self._findings.schema_steps, self._findings.code
        check_pipeline(specs, task.parameters, parameters, own)
        if own.errors:
            self._needs_model(path, f"the parameters are not those of {', '.join(spec.name for spec in specs)}")

    def _needs_model(self, path: str, why: str) -> None:
        self._findings.warn(
            f"{path}/type",
            "needs_model_engine",
            f"{why}: only a language model can do this task, with framework strands or controlflow, or type agent",
        )

    def _agent(self, task: Task, path: str, parameters: str) -> None:
        check_agent_task(task, path, parameters, self._findings)
        if self._meant(task, path) is None:
            return
        preferred = task.preferred_agent_type
        if preferred is not None and preferred not in self._types:
            near = self._findings.guesser.nearest(preferred, dict.fromkeys(self._types))
            self._findings.warn(
                f"{path}/preferred_agent_type",
                "no_preferred_agent",
                f"no agent of type {preferred[:80]!r} is here; the configured model will take the task."
                + (f" Did you mean {near!r}?" if near else ""),
                got=preferred[:200],
                suggestion=near,
            )
        if not self._has_model:
            self._findings.warn(
                f"{path}/type",
                "no_model",
                "no language model is configured here: set CONTEXTEN_FLOW_MODEL before the flow is run",
            )

    def _meant(self, task: Task, path: str) -> list[str] | None:
        """The tools by their right names; None where one of them cannot be made out."""
        meant: list[str | None] = []
        for place, name in enumerate(task.required_tools):
            if name in self._findings.placeholders:
                meant.append(None)
            elif name in self._known_tools:
                meant.append(name)
            elif self._catalog.reason_without is not None and (reason := self._catalog.reason_without(name)):
                meant.append(None)
                self._findings.error(f"{path}/required_tools/{place}", "no_able_agent", reason, got=name[:200])
            else:
                near = self._findings.guesser.nearest(name, self._known_tools)
                hint = f"; did you mean {near!r}?" if near else f"; there are {', '.join(list(self._known_tools)[:20])}"
                where = f"{path}/required_tools/{place}"
                meant.append(near)
                self._findings.error(
                    where,
                    "unknown_tool",
                    f"no agent offers a tool {name[:80]!r}{hint}",
                    got=name[:200],
                    suggestion=near,
                    patch=[{"op": "replace", "path": where, "value": near}] if near else None,
                )
        names = [name for name in meant if name is not None]
        return names if len(names) == len(meant) else None

    def _nobody(self, names: list[str], path: str) -> None:
        if not self._offers:
            message = "there is no agent"
        elif len(names) == 1:
            message = f"no agent offers the tool {names[0]} now"
        else:
            best, tools = max(self._offers, key=lambda offer: len(offer[1] & frozenset(names)))
            lacking = ", ".join(name for name in names if name not in tools)
            message = f"no one agent offers all of these tools ({best.name} lacks {lacking}); split the task"
        self._findings.error(
            f"{path}/required_tools" if names else path,
            "no_able_agent",
            message,
            got=names,
        )

    def _preference(self, preferred: str, able: list[AgentSpec], path: str) -> None:
        if any(agent.agent_type == preferred for agent in able):
            return
        near = self._findings.guesser.nearest(preferred, dict.fromkeys(agent.agent_type for agent in able))
        why = "has the tools" if preferred in self._types else "is here"
        hint = f" Did you mean {near!r}?" if near else ""
        self._findings.warn(
            f"{path}/preferred_agent_type",
            "no_preferred_agent",
            f"no agent of type {preferred[:80]!r} {why}; {able[0].name} will take the task.{hint}",
            got=preferred[:200],
            suggestion=near,
        )

    # sub-flows

    def _flow(self, task: Task, path: str) -> None:
        flow_id = task.parameters.get("flow_id")
        if not isinstance(flow_id, str) or has_template(flow_id):
            return
        where = f"{path}/parameters/flow_id"
        if flow_id == self._flow_id:
            self._findings.error(
                where, "recursion", f"the flow starts itself: {flow_id} -> {flow_id}", got=f"{flow_id} -> {flow_id}"
            )
            return
        if self._catalog.flows is None:
            return
        definition = self._catalog.flows(flow_id)
        if not isinstance(definition, WorkflowDefinition):
            known = list(self._catalog.flow_ids()) if self._catalog.flow_ids else []
            near = self._findings.guesser.nearest(flow_id, [other for other in known if other != self._flow_id])
            hint = f"; did you mean {near!r}?" if near else "; create it first"
            self._findings.error(
                where,
                "unknown_flow",
                f"no flow has the id {flow_id[:128]!r}{hint}",
                got=flow_id[:200],
                suggestion=near,
                patch=[{"op": "replace", "path": where, "value": near}] if near else None,
            )
            return
        chain = self._way_back(flow_id, definition)
        if chain:
            shown = " -> ".join(chain)
            self._findings.error(where, "recursion", f"the flow comes back to itself: {shown}", got=shown)
        self._sub_inputs(task, definition, f"{path}/parameters")

    def _way_back(self, flow_id: str, definition: WorkflowDefinition) -> list[str] | None:
        """The chain of flows from here back to this one (or round and round further on), if there is one."""
        start = self._flow_id
        seen: set[str] = set()
        trails = [([*([start] if start else []), flow_id], definition)]
        while trails:
            trail, current = trails.pop()
            for other in _sub_flows(current):
                if other in trail:
                    return [*trail[trail.index(other) :], other]
                if other in seen or len(seen) > 1000 or self._catalog.flows is None:
                    continue
                seen.add(other)
                found = self._catalog.flows(other)
                if isinstance(found, WorkflowDefinition):
                    trails.append(([*trail, other], found))
        return None

    def _sub_inputs(self, task: Task, definition: WorkflowDefinition, parameters: str) -> None:
        inputs, path = task.parameters.get("inputs", {}), f"{parameters}/inputs"
        schema = definition.inputs
        if not isinstance(inputs, dict) or schema is None or schema is True:
            return
        filled = dict(inputs)
        properties = schema.get("properties") if isinstance(schema, dict) else None
        for name, part in properties.items() if isinstance(properties, dict) else ():
            if name not in filled and isinstance(part, dict) and "default" in part:
                filled[name] = part["default"]
        for issue in misfits(schema, filled, path=path, with_templates=True, steps=self._findings.schema_steps):
            place = issue.path if "inputs" in task.parameters else parameters
            self._findings.error(place, "invalid_inputs", f"the flow it starts refuses this: {issue.message}")


def _sub_flows(definition: WorkflowDefinition) -> list[str]:
    tasks = (*definition.tasks(), *definition.compensations())
    found = [task.parameters.get("flow_id") for task in tasks if task.type == "flow"]
    return [flow_id for flow_id in found if isinstance(flow_id, str)]
