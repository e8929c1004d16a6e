"""Engines: the native one is always there, the others are refused as what a later version brings."""

from __future__ import annotations

import pytest

from contexten.extensions.flow.engines import choose_engine, engine_views
from contexten.extensions.flow.errors import InvalidArguments, NotAvailableYet


@pytest.mark.parametrize("framework", ["auto", "native", "NATIVE", " auto "])
def test_auto_and_native_are_native(framework: str) -> None:
    assert choose_engine(framework) == "native"


@pytest.mark.parametrize("framework", ["strands", "ControlFlow", "prefect"])
def test_engines_of_later_versions_are_refused_as_such(framework: str) -> None:
    with pytest.raises(NotAvailableYet) as caught:
        choose_engine(framework)
    assert caught.value.code == "not_available_yet"
    assert "native" in (caught.value.next or "")


@pytest.mark.parametrize(("framework", "suggestion"), [("natve", "native"), ("", None), (None, None), (7, None)])
def test_an_unknown_engine_is_refused_with_those_there_are(framework: object, suggestion: str | None) -> None:
    with pytest.raises(InvalidArguments) as caught:
        choose_engine(framework)
    (issue,) = caught.value.issues
    assert (issue.path, issue.expected, issue.suggestion) == ("/framework", ["auto", "native"], suggestion)


def test_what_is_not_there_is_not_advertised() -> None:
    assert [view.name for view in engine_views()] == ["native"]
