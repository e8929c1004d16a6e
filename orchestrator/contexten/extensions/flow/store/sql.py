"""The statements of this folder's .sql files, by name."""

from __future__ import annotations

import re
from importlib.resources import files
from types import MappingProxyType

_HEADER = re.compile(r"^-- name: (\w+).*$", re.MULTILINE)


def _load() -> MappingProxyType[str, str]:
    statements: dict[str, str] = {}
    for file in files(__package__).iterdir():
        if file.name.endswith(".sql"):
            parts = _HEADER.split(file.read_text(encoding="utf-8"))
            named = dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))
            if twice := statements.keys() & named.keys():
                raise ValueError(f"two statements are named {', '.join(sorted(twice))}")
            statements |= named
    return MappingProxyType(statements)


SQL = _load()
"""Every statement that this library runs, by name."""
