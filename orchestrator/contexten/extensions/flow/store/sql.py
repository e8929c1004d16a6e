"""The statements of queries.sql, by name."""

from __future__ import annotations

import re
from importlib.resources import files
from types import MappingProxyType

_HEADER = re.compile(r"^-- name: (\w+).*$", re.MULTILINE)


def _load() -> MappingProxyType[str, str]:
    parts = _HEADER.split((files(__package__) / "queries.sql").read_text(encoding="utf-8"))
    return MappingProxyType({name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)})


SQL = _load()
"""Every statement that this library runs, by name."""
