"""Which engine a run gets: by name, or by what its definition asks for."""

from __future__ import annotations

import pytest

from contexten.extensions.flow.definition import WorkflowDefinition
from contexten.extensions.flow.engines import EngineReference, choice, choose_engine
from contexten.extensions.flow.errors import EngineUnavailable, InvalidArguments

PLAIN = WorkflowDefinition(stages=())
COMPLEX = WorkflowDefinition(stages=(), complex_orchestration=True)
MONITORED = WorkflowDefinition(stages=(), monitoring_required=True)
BOTH = WorkflowDefinition(stages=(), complex_orchestration=True, monitoring_required=True)
ALL = ("strands", "controlflow", "prefect")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, *ALL)


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(choice, "installed_version", lambda name: "1.0" if name in names else None)


@pytest.mark.parametrize("framework", ["auto", "native", "NATIVE", " auto "])
def test_auto_and_native_are_native(framework: str) -> None:
    assert choose_engine(framework, PLAIN) == EngineReference("native")


@pytest.mark.parametrize("framework", ["strands", "ControlFlow", " prefect"])
def test_an_installed_engine_is_had_by_name(framework: str) -> None:
    assert choose_engine(framework, PLAIN) == EngineReference(framework.strip().lower())


@pytest.mark.parametrize(
    ("definition", "enabled", "has_prefect", "engine"),
    [
        (COMPLEX, (), False, "native"),
        (COMPLEX, ALL, False, "controlflow"),
        (MONITORED, ALL, False, "native"),
        (MONITORED, ALL, True, "prefect"),
        (MONITORED, ("controlflow",), True, "native"),
        (BOTH, ALL, True, "controlflow"),
        (BOTH, ("prefect",), True, "prefect"),
        (PLAIN, ALL, True, "native"),
    ],
)
def test_auto_goes_by_the_definition_and_takes_only_what_is_enabled(
    definition: WorkflowDefinition, enabled: tuple[str, ...], has_prefect: bool, engine: str
) -> None:
    assert choose_engine("auto", definition, enabled=enabled, has_prefect=has_prefect).name == engine


def test_auto_never_takes_what_is_not_installed_or_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("auto", COMPLEX, enabled=ALL, forbidden=("controlflow",)).name == "native"
    install(monkeypatch)
    assert choose_engine("auto", COMPLEX, enabled=ALL).name == "native"


@pytest.mark.parametrize("framework", ALL)
def test_a_missing_engine_asked_for_by_name_answers_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    install(monkeypatch)
    with pytest.raises(EngineUnavailable) as caught:
        choose_engine(framework, PLAIN)
    assert f"pip install 'contexten-flow[{framework}]'" in (caught.value.next or "")


def test_a_forbidden_engine_is_refused_even_by_name() -> None:
    with pytest.raises(EngineUnavailable, match="enable_prefect=False"):
        choose_engine("prefect", PLAIN, forbidden=("prefect",))


@pytest.mark.parametrize(("framework", "suggestion"), [("natve", "native"), ("", None), (7, None)])
def test_an_unknown_engine_is_refused_with_those_there_are(framework: object, suggestion: str | None) -> None:
    with pytest.raises(InvalidArguments) as caught:
        choose_engine(framework, PLAIN)
    (issue,) = caught.value.issues
    assert (issue.path, issue.suggestion) == ("/framework", suggestion)
    assert issue.expected == ["auto", "native", *ALL]


def test_a_work_pool_is_kept_with_the_engine() -> None:
    reference = choose_engine("prefect", PLAIN, pool="my pool")
    assert EngineReference.parse(str(reference)) == reference == EngineReference("prefect", "my pool")
    assert EngineReference.parse("native") == EngineReference("native")


@pytest.mark.parametrize(
    ("framework", "pool"),
    [("auto", "p"), ("native", "p"), ("strands", "p"), ("prefect", ""), ("prefect", 7), ("prefect", "a:b")],
)
def test_a_work_pool_that_cannot_be_is_refused(framework: str, pool: object) -> None:
    with pytest.raises(InvalidArguments) as caught:
        choose_engine(framework, PLAIN, pool=pool)
    assert caught.value.issues[0].path == "/work_pool"
