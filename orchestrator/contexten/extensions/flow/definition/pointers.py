"""JSON Pointers (RFC 6901), the way an issue says where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def pointer(*tokens: str | int) -> str:
    """The pointer made of these keys and indexes; the empty one is the whole document."""
    return "".join(f"/{escape(token)}" for token in tokens)


def join(base: str, tokens: Iterable[str | int]) -> str:
    """`base`, and these keys and indexes below it."""
    return base + "".join(f"/{escape(token)}" for token in tokens)


def escape(token: str | int) -> str:
    """One key or index as it stands between slashes."""
    return str(token).replace("~", "~0").replace("/", "~1")


def lookup(document: Any, tokens: Iterable[str | int]) -> Any:
    """What stands there in JSON data. Raises LookupError where nothing does."""
    for token in tokens:
        is_index = isinstance(document, list | tuple) and isinstance(token, int)
        if not is_index and not isinstance(document, dict):
            raise LookupError(token)
        document = document[token]
    return document
