"""json_parser: JSON text into data, whole or the part at a pointer."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio.to_thread
import jsonpointer
from pydantic import Field, field_validator
from typing_extensions import override

from ...errors import AttemptError
from ...outside.json_text import JsonTextError, parse_json
from ..protocol import AttemptContext, Json
from .tool import Absent, Tool, ToolEnvironment, ToolParameters, body_of

_INLINE_CHARS = 1 << 16  # parses in about a millisecond; more goes to a worker thread


class JsonParserParameters(ToolParameters):
    """What json_parser takes."""

    text: Json = Field(
        None,
        description="JSON text; a value that is already parsed passes through. Defaults to the output before (of "
        "http_client, its body)",
    )
    pointer: str | None = Field(
        None,
        max_length=4096,
        description="a JSON Pointer (RFC 6901) to the part to give back",
        examples=["/items/0/price"],
    )

    @field_validator("pointer")
    @classmethod
    def _check_pointer(cls, pointer: str | None) -> str | None:
        if pointer is not None:
            try:
                jsonpointer.JsonPointer(pointer)
            except jsonpointer.JsonPointerException:
                raise ValueError("a JSON Pointer is empty or starts with / and escapes ~ as ~0, / as ~1") from None
        return pointer


class JsonParser(Tool[JsonParserParameters]):
    """Parses; large text in a worker thread."""

    name = "json_parser"
    description = (
        "Parses JSON text (by default the output before it: an HTTP body, a file, a command's output) and gives back "
        "the data, or the part at `pointer`. What is parsed already passes through."
    )
    piped = frozenset({"text"})
    parameters = JsonParserParameters

    @override
    async def run(
        self,
        parameters: JsonParserParameters,
        previous: Json | Absent,
        context: AttemptContext,
        environment: ToolEnvironment,
    ) -> Json:
        if "text" in parameters.model_fields_set:
            value = parameters.text
        elif isinstance(previous, Absent):
            raise AttemptError(
                "parameters/text is missing: nothing came before json_parser in this task.", kind="invalid"
            )
        else:
            value = body_of(previous)
        if isinstance(value, str):
            if len(value) > _INLINE_CHARS:
                value = await anyio.to_thread.run_sync(partial(_parse, value), abandon_on_cancel=True)
            else:
                value = _parse(value)
        return value if parameters.pointer is None else _at(value, parameters.pointer)


def _parse(text: str) -> Any:
    try:
        return parse_json(text.removeprefix("\ufeff"))
    except JsonTextError as error:
        raise AttemptError(f"The text is {error}.", kind="invalid") from None


def _at(value: Any, pointer: str) -> Any:
    try:
        found = jsonpointer.resolve_pointer(value, pointer)
    except jsonpointer.JsonPointerException as error:
        raise AttemptError(f"parameters/pointer: nothing is at {pointer!r}: {error}.", kind="invalid") from None
    if isinstance(found, jsonpointer.EndOfList):
        raise AttemptError(f"parameters/pointer: {pointer!r} ends in '-', which names no item.", kind="invalid")
    return found
