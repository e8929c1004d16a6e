"""The documentation that agents read: a text a topic, shown by get_reference, by `flow://reference/{topic}` and in
docs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from contexten.extensions.flow.views import AgentsView

from .schema import schema_text
from .toolbox import describe_tools

__all__ = ["TEXT_TOPICS", "TOPICS", "reference_text"]

TOPICS: Mapping[str, str] = MappingProxyType(
    {
        "format": "the definition format: stages, tasks, dependencies, conditions, loops, retries, with full examples",
        "expressions": "templates and conditions: CEL, what is in scope, our functions, pitfalls",
        "tools": "the tools that tasks may require, their parameters and outputs, on this server now",
        "strategies": "which queued run starts next, and on which agent: the five strategies",
        "recovery": "retries, kinds of errors, recovery, circuits, what a crash or restart does, retry and rerun_from",
        "engines": "what drives a run's tasks",
        "best-practices": "how to compose, run and mend flows with few calls",
        "troubleshooting": "symptoms, causes and what to do",
        "schema": "the JSON Schema of definitions",
    }
)
"""Every topic and what it is about, in the order in which they are listed."""

TEXT_TOPICS = tuple(topic for topic in TOPICS if topic != "schema")
"""The topics whose text is Markdown."""


@cache
def _stored(topic: str) -> str:
    return files(__package__).joinpath(f"{topic}.md").read_text(encoding="utf-8")


def reference_text(topic: str, agents: AgentsView | None = None) -> str:
    """The text of a topic, in Markdown (of `schema`: JSON).

    `agents` adds to `tools` what this process offers. Raises KeyError for a topic that is not in TOPICS.
    """
    if topic not in TOPICS:
        raise KeyError(topic)
    if topic == "schema":
        return schema_text()
    text = _stored(topic)
    if topic == "tools" and agents is not None:
        text = text.rstrip() + "\n\n" + describe_tools(agents)
    return text
