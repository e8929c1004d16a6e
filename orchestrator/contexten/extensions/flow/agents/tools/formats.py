"""Formats of text and bytes that tools read and write; one vocabulary for all of them, since a pipeline shares its
parameters."""

from __future__ import annotations

import base64
import binascii
import codecs
import csv
import io
from typing import Any, Literal

from ...outside.json_text import JsonTextError, dump_json, mend_text, parse_json

Format = Literal["auto", "json", "text", "csv", "lines", "bytes"]

# Python codecs that are no character sets, or that take quadratic time, or that yield lone surrogates.
_REFUSED_CODECS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "utf-7", "mbcs"})


class FormatError(ValueError):
    """The content does not have the format; the message says where."""


def decode(content: bytes, format: Format, *, charset: str = "utf-8") -> Any:
    """Content as JSON data: json parsed, text, csv as a list of objects by the header row, lines as a list of strings,
    bytes as base64 text. `auto` is text. Raises FormatError."""
    if format == "bytes":
        return base64.b64encode(content).decode()
    text = decode_text(content, charset)
    if format == "json":
        try:
            return parse_json(text, mends=True)
        except JsonTextError as error:
            raise FormatError(str(error)) from None
    if format == "csv":
        return _read_csv(text)
    if format == "lines":
        return text.splitlines()
    return text


def decode_text(content: bytes, charset: str = "utf-8") -> str:
    """Text in that character set (UTF-8 where it is unknown), without a byte order mark; what is not, as U+FFFD."""
    try:
        name = codecs.lookup(charset).name
        if name == "utf-8" or name in _REFUSED_CODECS:
            name = "utf-8-sig"
        return mend_text(content.decode(name, "replace"))
    except (LookupError, ValueError):
        return content.decode("utf-8-sig", "replace")


def _read_csv(text: str) -> list[dict[str, Any]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise FormatError(f"not CSV: {error} at line {reader.line_num}") from None
    if not rows:
        return []
    header, *records = rows
    if len(set(header)) < len(header):
        raise FormatError("not CSV with a header row: two columns have the same name")
    for number, record in enumerate(records, start=2):
        if len(record) > len(header):
            raise FormatError(f"not CSV: row {number} has {len(record)} values for {len(header)} columns")
    return [dict(zip(header, record + [None] * (len(header) - len(record)), strict=True)) for record in records]


def encode(value: Any, format: Format) -> bytes:
    """JSON data as content. `auto`: a string as it is, anything else as JSON. Raises FormatError."""
    if format == "bytes":
        if not isinstance(value, str):
            raise FormatError("bytes are given as base64 text")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise FormatError("the content is not base64 text") from None
    if format == "csv" and not isinstance(value, str):
        return _write_csv(value).encode()
    if format == "lines" and isinstance(value, list):
        return "".join(f"{_plain(item)}\n" for item in value).encode()
    if isinstance(value, str) and format != "json":
        return value.encode()
    return (dump_json(value, indent=2) + "\n").encode()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dump_json(value)


def _write_csv(value: Any) -> str:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise FormatError("CSV is written from a list of objects, one a row")
    columns = list(dict.fromkeys(name for row in value for name in row))
    target = io.StringIO(newline="")
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    for row in value:
        writer.writerow(["" if (cell := row.get(name)) is None else _plain(cell) for name in columns])
    return target.getvalue()
