"""An attempt as data: what goes to a worker and comes back."""

from __future__ import annotations

import pytest

from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.prefect.payload import PoolAttempt, SecretReferences, Verdict

from .conftest import about, call


def test_an_attempt_is_the_same_after_its_way() -> None:
    task = call("a", "b", parameters={"x": [1, {"y": "ü"}]}, secrets={"x": frozenset({"K"})}, upstream={"t": None})
    context = about(inputs={"i": 1}, context={"environment": "e"}, item_index=0, timeout_s=1.5)
    sent = PoolAttempt(task=task, context=context, mark="m", lease_ttl_s=15)
    got = PoolAttempt.parse(sent.as_text())
    assert got.task == task
    assert (got.context.attempt_id, got.context.inputs, got.context.item_index, got.context.timeout_s) == (
        context.attempt_id,
        {"i": 1},
        0,
        1.5,
    )
    assert (got.mark, got.lease_ttl_s) == ("m", 15)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"format": 1}', '{"format": 1, "task": {"nme": 1}}'])
def test_what_is_no_attempt_is_refused(text: str | None) -> None:
    with pytest.raises(AttemptError, match="no attempt that this worker understands") as caught:
        PoolAttempt.parse(text)
    assert caught.value.kind == "invalid"


def test_an_attempt_of_another_version_is_refused_with_what_to_do() -> None:
    with pytest.raises(AttemptError, match="run the same version"):
        PoolAttempt.parse('{"format": 999}')


def test_a_reference_is_resolved_within_text_lists_and_objects() -> None:
    references = SecretReferences()
    key, user = references.text("KEY"), references.text("USER")
    parameters = {"p": [f"{user}:{key}", {"h": f"Bearer {key}"}, 7, None]}
    resolved = references.resolve(parameters, {"p": frozenset({"KEY", "USER"})}, {"KEY": "k", "USER": "u"}.__getitem__)
    assert resolved == {"p": ["u:k", {"h": "Bearer k"}, 7, None]}


def test_text_that_only_looks_like_a_reference_stays_as_it_is() -> None:
    theirs, ours = SecretReferences(), SecretReferences()
    parameters = {"p": theirs.text("KEY")}
    assert ours.resolve(parameters, {"p": frozenset({"KEY"})}, lambda name: "k") == parameters


def test_a_secret_that_the_parameter_was_not_rendered_with_is_not_put_in_place() -> None:
    references = SecretReferences()
    parameters = {"p": references.text("OTHER")}
    with pytest.raises(AttemptError, match="computes with a secret"):
        references.resolve(parameters, {"p": frozenset({"KEY"})}, lambda name: "k")
    assert references.resolve(parameters, {}, lambda name: "k") == parameters


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict(output={"a": [1, None]}, lines=3),
        Verdict(output=None),
        Verdict(failure=AttemptError("no", kind="network", details={"status": 503}), tool="http_client", lines=1),
    ],
)
def test_a_verdict_is_the_same_after_its_way(verdict: Verdict) -> None:
    got = Verdict.parse(verdict.as_text())
    assert (got.output, got.tool, got.lines) == (verdict.output, verdict.tool, verdict.lines)
    told = [(f.message, f.kind, f.details) if f else None for f in (got.failure, verdict.failure)]
    assert told[0] == told[1]
