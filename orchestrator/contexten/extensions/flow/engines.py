"""Engines: what drives a run's tasks. This version has the native one, which is always there."""

from __future__ import annotations

from .errors import InvalidArguments, Issue, NotAvailableYet
from .nearest import nearest_name
from .views import EngineView

NATIVE = "native"
_LATER = ("strands", "controlflow", "prefect")


def choose_engine(framework: object) -> str:
    """The engine for `framework`: `auto` chooses. Raises NotAvailableYet, InvalidArguments."""
    name = framework.strip().lower() if isinstance(framework, str) else ""
    if name in ("auto", NATIVE):
        return NATIVE
    if name in _LATER:
        raise NotAvailableYet(
            f"The engine {name!r} is not available in this version.",
            next="Use framework='auto' or 'native': the native engine runs every kind of task of this version.",
        )
    known = ["auto", NATIVE]
    raise InvalidArguments(
        f"There is no engine {framework!r}; framework is one of {', '.join(known)}.",
        issues=[
            Issue(
                path="/framework",
                code="unknown_engine",
                message="no such engine",
                expected=known,
                got=str(framework)[:100],
                suggestion=nearest_name(name, known),
            )
        ],
    )


def engine_views() -> list[EngineView]:
    """The engines of this process."""
    return [EngineView(name=NATIVE, available=True, note="embedded; runs every kind of task")]
