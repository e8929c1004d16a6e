"""Several agents on one task: graphs and swarms of Strands, made from a task's options or given from Python."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..agents.protocol import Json
from ..definition.agentoptions import AgentOptions
from ..errors import AttemptError
from ..recovery.kinds import AGENT_FAILURE, INVALID
from .conversation import last_result, words_of

if TYPE_CHECKING:
    from strands import Agent
    from strands.multiagent import Swarm
    from strands.multiagent.base import MultiAgentBase, MultiAgentResult, NodeResult
    from strands.multiagent.graph import Graph

UNBOUNDED_S = 1e9  # the attempt's own timeouts hold; Strands wants a number


def make_team(options: AgentOptions, agents: Sequence[Agent], max_turns: int) -> Graph | Swarm:
    """The team of the options, whose `agents` are these, in order. Not for the event loop: Strands runs one of its own
    meanwhile. Raises AttemptError (invalid) where the options make no team."""
    members = {agent.name: agent for agent in agents}
    entry = options.entry or next(iter(members))
    known = {*options.edges, (entry, entry)}
    strangers = sorted({name for edge in known for name in edge} - members.keys())
    if strangers or len(members) < len(agents):
        what = f"no member is called {', '.join(strangers)}" if strangers else "two members have one name"
        raise AttemptError(f"The agents of the task make no {options.pattern}: {what}.", kind=INVALID)
    if options.pattern == "swarm":
        return _swarm(agents, members[entry], max_turns)
    return _graph(options, members, max_turns)


def _swarm(agents: Sequence[Agent], entry: Agent, max_turns: int) -> Swarm:
    from strands.multiagent import Swarm

    return Swarm(
        list(agents),
        entry_point=entry,
        max_handoffs=max_turns,
        max_iterations=max_turns,
        execution_timeout=UNBOUNDED_S,
        node_timeout=UNBOUNDED_S,
    )


def _graph(options: AgentOptions, members: Mapping[str, Agent], max_turns: int) -> Graph:
    from strands.multiagent import GraphBuilder

    before: dict[str, set[str]] = {name: set() for name in members}
    for giver, taker in options.edges:
        before[taker].add(giver)
    begin = [options.entry] if options.entry else [name for name, givers in before.items() if not givers]
    if not begin:
        raise AttemptError("The agents of the task make no graph: each waits for another; name an entry.", kind=INVALID)
    builder = GraphBuilder()
    for name, agent in members.items():
        builder.add_node(agent, name)
    for giver, taker in options.edges:
        builder.add_edge(giver, taker, _all_done(frozenset(before[taker])))
    for name in begin:
        builder.set_entry_point(name)
    builder.set_max_node_executions(max_turns)
    return builder.build()


def _all_done(givers: frozenset[str]) -> Callable[[Any], bool]:
    """A member begins when all that hand on to it are done; of itself Strands begins it with the first."""

    def are_done(state: Any) -> bool:
        return givers <= {node.node_id for node in state.completed_nodes}

    return are_done


async def work(
    team: MultiAgentBase,
    prompt: str,
    note: Callable[[str], None],
    heard: Callable[[str, dict[str, Any]], None] = lambda node, event: None,
) -> Json:
    """Have a team work: the words of the last, or of all that nobody follows, by name.

    `note` is told of members that begin, end and hand on, `heard` of the events of each. Raises AttemptError, or
    whatever a member raised.
    """

    def hear(event: dict[str, Any]) -> None:
        _tell(event, note)
        if event.get("type") == "multiagent_node_stream":
            heard(str(event["node_id"]), event["event"])

    with _quiet():
        result: MultiAgentResult = await last_result(team.stream_async(prompt), hear)
    for node in result.results.values():
        if isinstance(node.result, Exception):
            raise node.result
    if result.status.value != "completed":
        raise AttemptError(
            f"The agents came to no end ({result.status.value}): they were {len(result.results)} when it was given up.",
            kind=AGENT_FAILURE,
        )
    return _said(team, result)


_IS_AT_WORK: ContextVar[bool] = ContextVar("team_is_at_work", default=False)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING or not _IS_AT_WORK.get()


@contextmanager
def _quiet() -> Iterator[None]:
    """A failure of the team is the attempt's, which tells it, masked; Strands would log it too, with a stack trace."""
    for name in ("strands.multiagent.graph", "strands.multiagent.swarm"):
        logging.getLogger(name).addFilter(_is_not_ours)  # once, however often
    token = _IS_AT_WORK.set(True)
    try:
        yield
    finally:
        _IS_AT_WORK.reset(token)


def _said(team: Any, result: Any) -> Json:
    history = getattr(result, "node_history", None)
    if history:
        return _words(result.results[history[-1].node_id])
    order = [node.node_id for node in getattr(result, "execution_order", [])]
    followed = {edge.from_node.node_id for edge in getattr(team, "edges", ()) if edge.to_node.node_id in order}
    last = [name for name in dict.fromkeys(order) if name not in followed] or order[-1:]
    if len(last) == 1:
        return _words(result.results[last[0]])
    return {name: _words(result.results[name]) for name in last}


def _words(node: NodeResult) -> str:
    return "\n\n".join(words_of(result) for result in node.get_agent_results())


def _tell(event: Mapping[str, Any], note: Callable[[str], None]) -> None:
    match event.get("type"):
        case "multiagent_node_start":
            note(f"{event['node_id']} begins")
        case "multiagent_node_stop":
            result = event["node_result"]
            note(f"{event['node_id']} ended as {result.status.value} after {result.execution_time} ms")
        case "multiagent_handoff":
            note(f"{', '.join(event['from_node_ids'])} handed on to {', '.join(event['to_node_ids'])}")
        case _:
            pass
