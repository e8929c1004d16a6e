"""Names in a definition: what is one, how a bad one is mended, and which known one was probably meant."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable
from difflib import SequenceMatcher

MAX_FLOW_ID = 128
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NOT_IDENTIFIER = re.compile(r"[^A-Za-z0-9_]+")
_NOT_SLUG = re.compile(r"[^a-z0-9._-]+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u2028\u2029\ud800-\udfff]")
_LIKENESS = 0.7  # of difflib's ratio: one slip in a short name, two or three in a long one
_SHORT_LIKENESS = 0.65  # up to four letters, so that two swapped ones of three are seen
_MARGIN = 0.05  # by which the nearest name has to be nearer than any other, so that it is no toss-up
_MAX_COMPARISONS = 20_000  # of names, in one check: about 0.3 s where everything is misspelt


def is_identifier(name: object) -> bool:
    """Whether `name` may name a task or a stage: `[A-Za-z_][A-Za-z0-9_]{0,63}`."""
    return isinstance(name, str) and _IDENTIFIER.fullmatch(name) is not None


def make_identifier(text: str, taken: Container[str] = (), *, default: str = "task") -> str:
    """The identifier nearest to `text` that is not `taken` (`_2`, `_3`, ... are added)."""
    plain = unicodedata.normalize("NFKD", text[:256]).encode("ascii", "ignore").decode()
    name = _NOT_IDENTIFIER.sub("_", plain).strip("_") or default
    if name[0].isdigit():
        name = f"_{name}"
    return _untaken(name[:64], taken, "_")


def is_flow_id(flow_id: object) -> bool:
    """Whether a given flow id can be taken as it is: 1 to 128 characters, no control characters or slashes."""
    return (
        isinstance(flow_id, str)
        and 0 < len(flow_id) <= MAX_FLOW_ID
        and _UNPRINTABLE.search(flow_id) is None
        and flow_id.strip() == flow_id
    )


def make_flow_id(text: str, taken: Container[str] = ()) -> str:
    """A flow id (`[a-z0-9][a-z0-9._-]*`, up to 64 characters) made of a flow's name, not among `taken`."""
    plain = unicodedata.normalize("NFKD", text[:256]).encode("ascii", "ignore").decode().lower()
    slug = _NOT_SLUG.sub("-", plain).strip("._-")[:64].strip("._-") or "flow"
    return _untaken(slug, taken, "-")


def _untaken(name: str, taken: Container[str], joint: str) -> str:
    candidate, number = name, 2
    while candidate in taken:
        suffix = f"{joint}{number}"
        candidate, number = name[: 64 - len(suffix)] + suffix, number + 1
    return candidate


class NameGuesser:
    """Did-you-mean over known names, with a bound on the work of all its guesses together."""

    def __init__(self) -> None:
        self._left = _MAX_COMPARISONS

    def nearest(self, name: str, known: Iterable[str]) -> str | None:
        """The known name that `name` plainly stands for; None where none or two are near, or the bound is reached."""
        if len(name) > 128:
            return None
        folded = _fold(name)
        matcher = SequenceMatcher(autojunk=False)
        matcher.set_seq2(folded)
        least = _LIKENESS if len(name) > 4 else _SHORT_LIKENESS
        best, best_ratio, second_ratio = None, least, 0.0
        for candidate in known:
            if self._left <= 0:
                return None
            self._left -= 1
            other = _fold(candidate)
            if other == folded:
                return candidate
            matcher.set_seq1(other)
            floor = max(least, best_ratio - _MARGIN)
            if matcher.real_quick_ratio() > floor and matcher.quick_ratio() > floor:
                ratio = matcher.ratio()
                if ratio > best_ratio:
                    best, best_ratio, second_ratio = candidate, ratio, best_ratio if best else 0.0
                else:
                    second_ratio = max(second_ratio, ratio)
        return best if best_ratio - second_ratio > _MARGIN else None


def _fold(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")
