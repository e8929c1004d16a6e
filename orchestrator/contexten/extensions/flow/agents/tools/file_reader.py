"""file_reader: the content of a file below the allowed folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio
from pydantic import Field
from typing_extensions import override

from ...errors import AttemptError, Issue
from ...outside.daemon_thread import call_in_daemon_thread
from ...outside.folders import Folders
from ...settings import FlowSettings
from ..protocol import AttemptContext, Json
from .formats import Format, FormatError, decode
from .tool import Absent, Tool, ToolEnvironment, ToolParameters

_BY_SUFFIX: dict[str, Format] = {".json": "json", ".csv": "csv"}


def format_of(path: str, format: Format) -> Format:
    """The format meant: `auto` goes by the path's ending and is text where that tells nothing."""
    if format != "auto":
        return format
    return next((known for suffix, known in _BY_SUFFIX.items() if path.lower().endswith(suffix)), "text")


class FileReaderParameters(ToolParameters):
    """What file_reader takes."""

    path: str = Field(
        min_length=1,
        max_length=4096,
        description="the file, relative to the first allowed folder or absolute below any of them",
        examples=["data/orders.json"],
    )
    format: Format = Field(
        "auto",
        description="auto (json and csv by the path's ending, else text), json (parsed), text, csv (a list of objects "
        "by the header row), lines (a list of strings), bytes (base64)",
    )


class FileReader(Tool[FileReaderParameters]):
    """Reads regular files, on a thread that a cancelled attempt leaves to itself."""

    name = "file_reader"
    description = (
        "Reads a file below the folders that the settings allow. Output: its content, parsed as `format` says "
        "(json and csv by the path's ending unless told otherwise)."
    )
    parameters = FileReaderParameters

    def __init__(self, settings: FlowSettings) -> None:
        self._folders = Folders(settings.allow_paths)
        self._max_bytes = settings.max_output_bytes
        self._limiter = anyio.CapacityLimiter(32)

    @override
    def warnings(self, parameters: Mapping[str, Any], /) -> Sequence[Issue]:
        """A path that is outside the allowed folders."""
        return self._folders.warnings(parameters.get("path"))

    @override
    async def run(
        self,
        parameters: FileReaderParameters,
        previous: Json | Absent,
        context: AttemptContext,
        environment: ToolEnvironment,
    ) -> Json:
        return await call_in_daemon_thread(
            partial(self._read, parameters), name="flow-file-reader", limiter=self._limiter
        )

    def _read(self, parameters: FileReaderParameters) -> Json:
        content = self._folders.read(parameters.path, max_bytes=self._max_bytes)
        try:
            return decode(content, format_of(parameters.path, parameters.format))
        except FormatError as error:
            raise AttemptError(f"{parameters.path!r} is {error}.", kind="invalid") from None
