"""Did-you-mean over a few known words; the checker of definitions, which guesses many, has `NameGuesser`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import InvalidArguments, Issue

_MAX_CHARS = 128  # of a name: what is longer is no slip of the pen
_SHOWN_CHARS = 100


def nearest_name(name: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known name that was probably meant; `likeness` (0 to 1, difflib's ratio) is the least that counts."""
    import difflib

    return next(iter(difflib.get_close_matches(name[:_MAX_CHARS], list(known), n=1, cutoff=likeness)), None)


def checked_choice(name: str, given: object, choices: Sequence[str], *, default: str | None = None) -> str:
    """What was given for an argument that takes one of a few words; `default` for None. Raises InvalidArguments."""
    if given is None and default is not None:
        return default
    if given in choices:
        return str(given)
    issue = wrong_choice(f"/{name}", given, choices)
    hint = f" Did you mean {issue.suggestion!r}?" if issue.suggestion else ""
    raise InvalidArguments(f"{name} is one of {', '.join(choices)}, not {issue.got!r}.{hint}", issues=[issue])


def wrong_choice(path: str, given: object, choices: Sequence[str]) -> Issue:
    """The issue of a word that is none of the choices."""
    shown, known = str(given)[:_SHOWN_CHARS], [str(choice) for choice in choices]
    return Issue(
        path=path,
        code="invalid_value",
        message=f"{shown!r} is none of {', '.join(known)}.",
        expected=known,
        got=shown,
        suggestion=nearest_name(given, known) if isinstance(given, str) else None,
    )
