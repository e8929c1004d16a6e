"""Did-you-mean over a few known names; the checker of definitions, which guesses many, has `NameGuesser`."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_CHARS = 128  # of a name: what is longer is no slip of the pen


def nearest_name(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known name that was probably meant; `likeness` (0 to 1, difflib's ratio) is the least that counts."""
    import difflib

    return next(iter(difflib.get_close_matches(name[:_MAX_CHARS], list(known), n=1, cutoff=likeness)), None)
