"""Tasks of type agent: whether a language model is told what to do, and its options make sense."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .agentoptions import MAX_MEMBERS, OBJECTIVE, OPTIONS, AgentOptions, Member
from .findings import Findings
from .model import Task
from .parameters import check_part
from .templates import has_template

_TAKER = "agent"


def check_agent_task(task: Task, path: str, parameters: str, findings: Findings) -> None:
    """Report what keeps a model from working on this task; `parameters` is the pointer of its parameters."""
    if not (task.description or "").strip() and not task.parameters.get(OBJECTIVE):
        findings.error(
            path,
            "missing_objective",
            f"a task of type agent says what to do in its description, or in parameters.{OBJECTIVE}",
            expected="description",
        )
    check_description(task, path, findings)
    options = task.parameters.get(OPTIONS)
    place = f"{parameters}/{OPTIONS}"
    if options is None or (isinstance(options, str) and has_template(options)):
        return
    if not isinstance(options, Mapping):
        findings.error(place, "wrong_type", "the options of an agent are an object", got=str(options)[:100])
        return
    check_part(
        AgentOptions,
        {name: value for name, value in options.items() if name != "agents"},
        place,
        findings,
        taker=_TAKER,
    )
    members = options.get("agents", ())
    if isinstance(members, str) and has_template(members):
        return
    if not isinstance(members, Sequence) or isinstance(members, str) or len(members) > MAX_MEMBERS:
        findings.error(f"{place}/agents", "invalid_parameters", f"agents is a list of {MAX_MEMBERS} members at most")
        return
    _Team(options, members, task.required_tools, place, findings).check()


def check_description(task: Task, path: str, findings: Findings) -> None:
    """Warn of templates in a description: a model gets it as it stands."""
    if not has_template(task.description):
        return
    source, target = f"{path}/description", f"{path}/parameters/{OBJECTIVE}"
    patch: list[dict[str, Any]] | None = [{"op": "move", "from": source, "path": target}]
    if "parameters" not in task.model_fields_set:
        patch = [{"op": "add", "path": f"{path}/parameters", "value": {}}, *(patch or ())]
    elif OBJECTIVE in task.parameters or (task.required_tools and task.type != _TAKER):  # tools may refuse it
        patch = None
    findings.warn(
        source,
        "unrendered_template",
        f"templates are rendered in parameters only; put this text into parameters.{OBJECTIVE}",
        patch=patch,
    )


class _Team:
    """Several agents on one task."""

    def __init__(
        self,
        options: Mapping[str, Any],
        members: Sequence[Any],
        tools: Sequence[str],
        path: str,
        findings: Findings,
    ) -> None:
        self._options = options
        self._members = members
        self._tools = tools
        self._path = path
        self._findings = findings

    def check(self) -> None:
        names: list[str] = []
        for place, member in enumerate(self._members):
            where = f"{self._path}/agents/{place}"
            if not isinstance(member, Mapping):
                self._findings.error(where, "wrong_type", "a member of agents is an object with a name")
                continue
            check_part(Member, member, where, self._findings, taker="a member of agents")
            self._check_tools(member, where)
            name = member.get("name")
            if isinstance(name, str):
                if name in names:
                    self._findings.error(
                        f"{where}/name", "duplicate_member", f"two members of agents are named {name[:80]!r}", got=name
                    )
                names.append(name)
        self._check_pattern(names)

    def _check_tools(self, member: Mapping[str, Any], where: str) -> None:
        tools = member.get("tools")
        for place, tool in enumerate(tools if isinstance(tools, list | tuple) else ()):
            if isinstance(tool, str) and tool not in self._tools and not has_template(tool):
                self._unknown(
                    f"{where}/tools/{place}",
                    "tool_not_required",
                    f"the task's required_tools do not name {tool[:80]!r}",
                    tool,
                    self._tools,
                )

    def _check_pattern(self, names: list[str]) -> None:
        pattern = self._options.get("pattern", "single")
        if pattern in ("graph", "swarm") and not self._members:
            self._findings.error(
                f"{self._path}/pattern", "missing_members", f"a {pattern} needs agents: name its members", got=pattern
            )
            return
        edges = self._options.get("edges")
        if edges and pattern != "graph":
            self._findings.error(f"{self._path}/edges", "unused_field", "edges are those of pattern graph", got=pattern)
            return
        known: list[tuple[str, str]] = []
        for place, edge in enumerate(edges if isinstance(edges, list | tuple) else ()):
            ends = edge if isinstance(edge, list | tuple) and len(edge) == 2 else ()
            for end, name in enumerate(ends):
                self._check_member(f"{self._path}/edges/{place}/{end}", name, names)
            if all(isinstance(name, str) and name in names for name in ends) and ends:
                known.append((ends[0], ends[1]))
        if "entry" in self._options and self._options["entry"] is not None:
            self._check_member(f"{self._path}/entry", self._options["entry"], names)
        self._check_order(names, known)

    def _check_member(self, path: str, name: Any, names: Collection[str]) -> None:
        if isinstance(name, str) and name not in names and not has_template(name):
            self._unknown(path, "unknown_member", f"no member of agents is named {name[:80]!r}", name, names)

    def _unknown(self, path: str, code: str, message: str, got: str, known: Collection[str]) -> None:
        near = self._findings.guesser.nearest(got, known)
        self._findings.error(
            path,
            code,
            message + (f"; did you mean {near!r}?" if near else f"; there are {', '.join(known)}" if known else ""),
            got=got[:200],
            suggestion=near,
            patch=[{"op": "replace", "path": path, "value": near}] if near else None,
        )

    def _check_order(self, names: Sequence[str], edges: Sequence[tuple[str, str]]) -> None:
        """A member begins when all that hand on to it are done: in a circle none ever does."""
        waits = {name: {giver for giver, taker in edges if taker == name} for name in names}
        while True:
            free = [name for name, givers in waits.items() if not givers]
            if not free:
                break
            for name in free:
                del waits[name]
            for givers in waits.values():
                givers.difference_update(free)
        if waits:
            circle = _circle(waits)
            shown = " -> ".join(circle)
            self._findings.error(f"{self._path}/edges", "cycle", f"the agents wait for one another: {shown}", got=shown)


def _circle(waits: Mapping[str, set[str]]) -> list[str]:
    """One of the circles, in the order in which its members would hand on."""
    trail = [min(waits)]
    while True:
        name = min(waits[trail[-1]])
        if name in trail:
            return [name, *reversed(trail[trail.index(name) :])]
        trail.append(name)
