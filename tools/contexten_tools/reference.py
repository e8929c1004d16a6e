"""get_reference."""

from __future__ import annotations

from typing import Annotated, Any

from mcp_types import ToolAnnotations
from pydantic import BaseModel, Field, WithJsonSchema

from contexten.extensions.flow.errors import InvalidArguments, Issue
from contexten.extensions.flow.nearest import nearest_name
from contexten.extensions.flow.reference import TOPICS, reference_text
from contexten_tools.app import App
from contexten_tools.arguments import Arguments
from contexten_tools.calls import Call
from contexten_tools.schemas import answer_schema
from contexten_tools.toolserver import FlowTool, ToolServer

REFERENCE = """\
The documentation that an agent needs, a topic at a time: "format" (the definition format with full examples: read \
it before composing a flow), "expressions" (templates and conditions in CEL), "tools" (the built-in tools and \
their parameters), "strategies", "recovery" (retries, kinds of errors, what a restart does), "engines", \
"best-practices", "troubleshooting", and "schema" (the JSON Schema of definitions). Without a topic it lists them."""


class TopicView(BaseModel):
    """A topic and what it is about."""

    topic: str
    about: str


class ReferenceView(BaseModel):
    """The answer to get_reference."""

    topics: list[TopicView] | None = Field(None, description="what there is, where no topic was asked for")
    topic: str | None = None
    text: str | None = Field(None, description="the topic's text, in Markdown (of schema: JSON)")


class GetReference(Arguments):
    """Of get_reference."""

    topic: (
        Annotated[str, Field(min_length=1, max_length=80), WithJsonSchema({"type": "string", "enum": list(TOPICS)})]
        | None
    ) = Field(None, description="which text; without it the topics are listed")


def register(server: ToolServer, app: App) -> None:
    """Add get_reference."""

    async def get_reference(given: GetReference, call: Call) -> dict[str, Any]:  # noqa: ARG001 - the shape of every tool
        if given.topic is None:
            return {"topics": [{"topic": topic, "about": about} for topic, about in TOPICS.items()]}
        topic = given.topic.strip().lower().replace("_", "-").replace(" ", "-")
        if topic not in TOPICS:
            near = nearest_name(topic, TOPICS, likeness=0.4)
            raise InvalidArguments(
                f"There is no topic {given.topic!r}." + (f" Did you mean {near!r}?" if near else ""),
                next="Call get_reference without a topic for the list.",
                issues=[
                    Issue(
                        path="/topic",
                        code="invalid_value",
                        message="No such topic.",
                        expected=list(TOPICS),
                        got=given.topic,
                        suggestion=near,
                    )
                ],
            )
        return {"topic": topic, "text": reference_text(topic, await app.service.agents())}

    server.add_flow_tool(
        FlowTool(
            name="get_reference",
            title="Reference",
            description=REFERENCE,
            arguments=GetReference,
            answer=lambda: answer_schema(ReferenceView),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
            run=get_reference,
        )
    )
