"""A small process to check definitions against."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from contexten.extensions.flow.definition import AgentSpec, Catalog, ToolSpec
from contexten.extensions.flow.errors import Issue


class Fetch(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str
    method: str = "GET"
    timeout_s: float | None = Field(None, gt=0)
    headers: dict[str, str] = {}
    json_: Any = Field(None, alias="json")


class Parse(BaseModel):
    text: Any = None
    pointer: str | None = None


class Shape(BaseModel):
    data: Any
    query: str


def _warn_of_private(parameters: Any) -> list[Issue]:
    if "localhost" in str(parameters.get("url")):
        return [Issue(path="/url", code="private_address", message="the address is private")]
    return []


@pytest.fixture
def catalog() -> Catalog:
    """Three built-in tools, their agent, and one secret."""
    specs = [
        ToolSpec(name="http_client", parameters=Fetch, warnings=_warn_of_private),
        ToolSpec(name="json_parser", parameters=Parse, piped=frozenset({"text"})),
        ToolSpec(name="data_processor", parameters=Shape, piped=frozenset({"data"})),
    ]
    tools = {spec.name: spec for spec in specs}
    builtin = AgentSpec(name="builtin", agent_type="tool", tools=tuple(tools), builtin=True)
    return Catalog(tools=tools, agents=(builtin,), secrets=frozenset({"API_TOKEN"}))
