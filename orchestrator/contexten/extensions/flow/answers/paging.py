"""Lists in pages: which page was asked for, of which list, and with which filters."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from ..errors import InvalidArguments, Issue
from ..store.cursors import decode

MAX_PAGE = 200
DEFAULT_PAGE = 20
_LAST = 1 << 62


def list_name(database: str, kind: str, *filters: str | None) -> str:
    """What the pages of that list of that database are marked with."""
    asked = json.dumps([kind, *filters]).encode()
    return f"{database}-{hashlib.sha256(asked).hexdigest()[:8]}"


def place_of_page(name: str, page: str | None) -> int:
    """The place before which the page begins. Raises InvalidArguments where it is of another list."""
    if page is None:
        return _LAST
    seq = decode(name, page)
    if seq is None:
        raise InvalidArguments(
            "That page is not of this list.",
            next="Pass next_page of the last answer with its kind and filters, or leave page out to begin again.",
            issues=[Issue(path="/page", code="invalid_page", message="no page of this list", got=page[:100])],
        )
    return seq


def check_list(status: str | None, states: Sequence[str], limit: object) -> str | None:
    """The state to list by, which may be given in any case. Raises InvalidArguments."""
    if isinstance(status, str):
        status = status.strip().lower()
    if status is not None and status not in states:
        raise InvalidArguments(
            f"There is no state {status!r}.",
            next=f"Use one of {', '.join(states)}.",
            issues=[
                Issue(
                    path="/status_filter",
                    code="unknown_state",
                    message="no such state",
                    expected=states,
                    got=status,
                )
            ],
        )
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_PAGE:
        raise InvalidArguments(
            f"limit is {str(limit)[:100]}; it is a whole number from 1 to {MAX_PAGE}.",
            issues=[Issue(path="/limit", code="out_of_range", message=f"1 to {MAX_PAGE}", got=str(limit)[:100])],
        )
    return status


def containing(search: str | None) -> str | None:
    """What LIKE compares with to find the text anywhere, whatever the case of its ASCII letters."""
    return None if search is None else "%" + re.sub(r"([%_\\])", r"\\\1", search) + "%"
