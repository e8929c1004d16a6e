"""Text that others wrote, made safe to print: it moves no cursor, sets no colour and reorders nothing."""

from __future__ import annotations

import json
import re
from typing import Any

_REPLACEMENT = "\ufffd"

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_BREAKS = "\u2028\u2029"
_LONE_SURROGATES = "\ud800-\udfff"
"""They have no encoding: writing one fails."""

_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}{_BREAKS}{_LONE_SURROGATES}]")
_UNSAFE_IN_LINE = re.compile(f"[\x00-\x1f\x7f-\x9f{_BIDI}{_BREAKS}{_LONE_SURROGATES}]")


def printable(text: str) -> str:
    """The text with a replacement character for each control and bidi character; lines and tabs stay."""
    return _UNSAFE.sub(_REPLACEMENT, text.replace("\r\n", "\n"))


def in_line(text: str) -> str:
    """The same for text that belongs on one line, such as a name: line breaks and tabs are replaced too."""
    return _UNSAFE_IN_LINE.sub(_REPLACEMENT, text)


def json_text(data: Any, *, indent: int | None = None) -> str:
    """Data as JSON text of the same meaning, with such characters escaped."""
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
