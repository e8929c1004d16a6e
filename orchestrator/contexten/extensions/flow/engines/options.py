"""Which options of an agent's task an engine can never do: the definition is right, and another engine may do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..definition.agentoptions import OPTIONS
from ..definition.model import Task
from ..definition.templates import has_template
from ..errors import Issue

TAKES_TURNS = "controlflow"
"""The engine on which several agents take turns; on the others they are a graph or a swarm of Strands."""

Problem = Callable[[str], str | None]
"""Why a model cannot be used, with what mends it."""


def misfits(task: Task, engine: str, problem: Problem) -> list[Issue]:
    """What of the task's literal options that engine cannot do; the paths begin at the task."""
    options = task.parameters.get(OPTIONS)
    if not isinstance(options, Mapping):
        return []
    return [*_of_pattern(options, engine), *_of_models(options, problem)]


def _of_pattern(options: Mapping[str, Any], engine: str) -> Iterator[Issue]:
    pattern = options.get("pattern") or "single"
    if engine == TAKES_TURNS:
        name = "pattern" if pattern in ("graph", "swarm") else "edges"
        if pattern in ("graph", "swarm") or options.get("edges"):
            yield _issue(
                name,
                f"graphs and swarms are patterns of the engines native and strands; on {engine} several agents take "
                "turns: leave pattern and edges out and choose a turn_strategy",
                got=pattern,
            )
    elif pattern == "single" and isinstance(options.get("agents"), list | tuple) and options["agents"]:
        yield _issue(
            "agents",
            f"on {engine} several agents need to know how they work together: set the option pattern to graph or swarm",
            expected=["graph", "swarm"],
        )


def _of_models(options: Mapping[str, Any], problem: Problem) -> Iterator[Issue]:
    members = options.get("agents")
    members = members if isinstance(members, list | tuple) else ()
    named = [("model", options.get("model"))]
    named += [
        (f"agents/{place}/model", one.get("model")) for place, one in enumerate(members) if isinstance(one, Mapping)
    ]
    for place, model in named:
        if isinstance(model, str) and not has_template(model) and (why := problem(model)) is not None:
            yield _issue(place, why, got=model[:200])


def _issue(place: str, message: str, **more: Any) -> Issue:
    return Issue(path=f"/parameters/{OPTIONS}/{place}", code="unfit_option", message=message, **more)
