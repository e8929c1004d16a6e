"""What users say that errors are: rules by exception, HTTP status or exit code, before the built-in kinds."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import AttemptError
from .kinds import check_kind, classify

_Rule = Callable[[BaseException], bool]
_CODE = re.compile(r"(http|exit):(-?[0-9]{1,5})")
_CLASS_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class ErrorKinds:
    """Rules in order: the first one that fits an error says its kind; where none does, `kinds.classify` does.

    Rules are mappings from an exception class, its name, its dotted name, `http:STATUS` or `exit:CODE` to a kind. A
    class and its name fit subclasses too, as in an `except`. `http:423` fits a failed answer of http_client, and an
    exception that carries a response; `exit:75` a failed command of shell, and subprocess.CalledProcessError.
    """

    __slots__ = ("_rules",)

    def __init__(self, *rules: Mapping[Any, str]) -> None:
        """Earlier mappings go first. Raises TypeError or ValueError, naming the rule, where one makes no sense."""
        self._rules: list[tuple[_Rule, str]] = []
        for mapping in rules:
            for key, kind in mapping.items():
                try:
                    check_kind(kind)
                except ValueError as error:
                    raise ValueError(f"{_shown(key)}: {error}") from None
                self._rules.append((_rule(key), kind))

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that its rules name."""
        return frozenset(kind for _, kind in self._rules)

    def classify(self, exc: BaseException) -> str:
        """The kind of a failure."""
        return classify(exc, self._find) if self._rules else classify(exc)

    def _find(self, exc: BaseException) -> str | None:
        return next((kind for fits, kind in self._rules if fits(exc)), None)


def _rule(key: object) -> _Rule:
    if isinstance(key, type) and issubclass(key, BaseException):
        wanted = key
        return lambda exc: isinstance(exc, wanted)
    if not isinstance(key, str):
        raise TypeError(f"{key!r} is neither an exception class nor text")
    if code := _CODE.fullmatch(key):
        number = int(code[2])
        if code[1] == "exit":
            return lambda exc: _exit_code(exc) == number
        if not 400 <= number <= 599:
            raise ValueError(f"{key!r}: only statuses from 400 to 599 are failures")
        return lambda exc: _status(exc) == number
    if _CLASS_NAME.fullmatch(key):
        name = key
        return lambda exc: any(name in _names(cls) for cls in type(exc).__mro__)
    raise ValueError(
        f"{key!r} names no error: give an exception's name (MyError, package.module.MyError), "
        "http:STATUS (http:423) or exit:CODE (exit:75)"
    )


def _names(cls: type) -> tuple[str, str, str]:
    return cls.__name__, cls.__qualname__, f"{cls.__module__}.{cls.__qualname__}"


def _status(exc: BaseException) -> Any:
    if isinstance(exc, AttemptError):
        return (exc.details or {}).get("status")
    return _attribute(_attribute(exc, "response"), "status_code")


def _exit_code(exc: BaseException) -> Any:
    if isinstance(exc, AttemptError):
        return (exc.details or {}).get("exit_code")
    return exc.returncode if isinstance(exc, subprocess.CalledProcessError) else None


def _attribute(value: object, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property of a stranger's exception may raise anything
        return None


def _shown(key: object) -> str:
    return key.__qualname__ if isinstance(key, type) else repr(key)
