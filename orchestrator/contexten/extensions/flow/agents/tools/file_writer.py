"""file_writer: a file below the allowed folders, written as a whole or added to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio.to_thread
from pydantic import Field
from typing_extensions import override

from ...errors import AttemptError, Issue
from ...outside.folders import Folders
from ...settings import FlowSettings
from ..protocol import AttemptContext, Json
from .formats import Format, FormatError, encode
from .tool import Absent, Tool, ToolEnvironment, ToolParameters, body_of


class FileWriterParameters(ToolParameters):
    """What file_writer takes."""

    path: str = Field(
        min_length=1,
        max_length=4096,
        description="the file, relative to the first allowed folder or absolute below any of them; missing folders "
        "are made",
        examples=["reports/summary.json"],
    )
    content: Json = Field(
        None,
        description="what to write; a value that is not a string is written as JSON. Defaults to the output before "
        "(of http_client, its body)",
    )
    format: Format = Field(
        "auto",
        description="auto (a string as it is, anything else as JSON), json, text, csv (from a list of objects), "
        "lines (from a list), bytes (from base64)",
    )
    append: bool = Field(
        False,
        description="add to the end instead of replacing the file; an attempt repeated after a crash may add twice",
    )


class FileWriter(Tool[FileWriterParameters]):
    """Writes files, in a worker thread. Replacing is atomic and safe to repeat; appending is not."""

    name = "file_writer"
    description = (
        "Writes `content` to a file below the folders that the settings allow, replacing it atomically (or appending). "
        "Output: {path, bytes}."
    )
    piped = frozenset({"content"})
    parameters = FileWriterParameters

    def __init__(self, settings: FlowSettings) -> None:
        self._folders = Folders(settings.allow_paths)
        self._max_bytes = settings.max_output_bytes

    @override
    def warnings(self, parameters: Mapping[str, Any], /) -> Sequence[Issue]:
        """A path that is outside the allowed folders."""
        return self._folders.warnings(parameters.get("path"))

    @override
    async def run(
        self,
        parameters: FileWriterParameters,
        previous: Json | Absent,
        context: AttemptContext,
        environment: ToolEnvironment,
    ) -> Json:
        if "content" in parameters.model_fields_set:
            content = parameters.content
        elif isinstance(previous, Absent):
            raise AttemptError(
                "parameters/content is missing: nothing came before file_writer in this task.", kind="invalid"
            )
        else:
            content = body_of(previous)
        return await anyio.to_thread.run_sync(partial(self._write, parameters, content))

    def _write(self, parameters: FileWriterParameters, content: Json) -> Json:
        try:
            encoded = encode(content, parameters.format)
        except FormatError as error:
            raise AttemptError(f"The content cannot be written: {error}.", kind="invalid") from None
        except ValueError:
            raise AttemptError("The content is not valid text or JSON data.", kind="invalid") from None
        if len(encoded) > self._max_bytes:
            raise AttemptError(
                f"The content has {len(encoded)} bytes; at most {self._max_bytes} may be written.", kind="invalid"
            )
        write = self._folders.append if parameters.append else self._folders.write
        write(parameters.path, encoded)
        return {"path": parameters.path, "bytes": len(encoded)}
