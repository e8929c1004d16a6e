"""The reference that agents read: complete, and its examples are definitions that the checker takes."""

import json
import re
from collections.abc import Iterator

import pytest

from contexten.extensions.flow.agents.tools import builtin_tools
from contexten.extensions.flow.definition import AgentSpec, Catalog, check
from contexten.extensions.flow.reference import TEXT_TOPICS, TOPICS, reference_text
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.views import AgentsView, ToolView

_EXAMPLE = re.compile(r"```json\n(.*?)```", re.DOTALL)


def _examples() -> Iterator[tuple[str, str]]:
    for topic in TEXT_TOPICS:
        for number, text in enumerate(_EXAMPLE.findall(reference_text(topic)), start=1):
            yield f"{topic}-{number}", text


EXAMPLES = dict(_examples())


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    tools = {name: tool.spec for name, tool in builtin_tools(FlowSettings()).items()}
    agents = (AgentSpec(name="tools", agent_type="tool", tools=tuple(tools), builtin=True),)
    known = check(json.loads(EXAMPLES["format-2"]), Catalog(tools=tools, agents=agents)).definition
    assert known is not None
    return Catalog(
        has_model=True, tools=tools, agents=agents, flows=lambda flow_id: known if flow_id == "sales-report" else None
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_reference_is_a_definition_without_problems(example: str, catalog: Catalog) -> None:
    report = check(json.loads(EXAMPLES[example]), catalog)
    assert [issue.as_dict() for issue in report.issues] == []
    assert [issue.as_dict() for issue in report.warnings] == []


def test_there_are_several_full_examples_of_the_format() -> None:
    assert len([name for name in EXAMPLES if name.startswith("format-")]) >= 3


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_has_a_text_that_fits_one_answer(topic: str) -> None:
    text = reference_text(topic)
    assert 200 < len(text) < 60_000


def test_the_schema_topic_is_the_json_schema_of_definitions() -> None:
    assert "stages" in json.loads(reference_text("schema"))["properties"]


def test_every_field_of_the_format_is_told() -> None:
    schema = json.loads(reference_text("schema"))
    told = reference_text("format")
    fields = set(schema["properties"])
    for definition in schema.get("$defs", {}).values():
        fields |= set(definition.get("properties", {}))
    untold = {field for field in fields if f"`{field}`" not in told and f'"{field}"' not in told}
    assert untold == set()


def test_the_tools_topic_lists_what_this_process_offers() -> None:
    agents = AgentsView(
        agents=[],
        tools=[
            ToolView(
                name=tool.name,
                description=tool.description,
                parameters=tool.parameters.model_json_schema(),
                agents=["tools"],
            )
            for tool in builtin_tools(FlowSettings()).values()
        ],
        engines=[],
        disabled_tools={"shell": "set allow_commands"},
    )
    text = reference_text("tools", agents)
    for tool in agents.tools:
        assert f"### {tool.name}" in text
        for parameter in (tool.parameters or {})["properties"]:
            assert f"- `{parameter}` (" in text
    assert "- `shell`: set allow_commands" in text


def test_an_unknown_topic_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        reference_text("nothing")
