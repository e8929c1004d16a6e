"""The format as a JSON Schema, for editors, hosts and agents."""

from __future__ import annotations

from typing import Any

from .model import DEFINITION


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a definition. Every definition that the checker accepts fits it.

    What a schema cannot say (unique names, dependencies, templates, tools) is the checker's.
    """
    schema = DEFINITION.json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Contexten Flow workflow definition",
        **{key: value for key, value in schema.items() if key != "title"},
    }
