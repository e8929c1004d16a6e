"""Tools as models call them: nothing secret gets out, nothing but failures of a kind is raised."""

from __future__ import annotations

from typing import Any

import pytest

from contexten.extensions.flow import FlowSettings
from contexten.extensions.flow.agents.protocol import AttemptContext, Ending, Json, TaskCall
from contexten.extensions.flow.agents.registry import AgentRegistry
from contexten.extensions.flow.agents.secrets import SecretVault
from contexten.extensions.flow.agents.tool_agent import BuiltinToolAgent
from contexten.extensions.flow.clock import SystemClock
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.models.shortening import MAX_TOOL_OUTPUT
from contexten.extensions.flow.models.toolbox import Reply, Toolbox
from contexten.extensions.flow.recovery.error_kinds import ErrorKinds
from contexten.extensions.flow.scheduling.rates import RateLimits
from contexten.extensions.flow.settings import SecretGrant

pytestmark = pytest.mark.anyio

WORD = "open sesame"


class Shy(Exception):
    """Of a user's own."""


class Bench:
    """A toolbox with one tool, which does `deed`, and what the journal was told."""

    def __init__(self, **settings: Any) -> None:
        whole = FlowSettings(secrets=(SecretGrant(name="VAULT_WORD"),), **settings)
        clock, self.vault = SystemClock(), SecretVault(whole)
        builtin = BuiltinToolAgent(whole, clock, self.vault)
        self.kinds = ErrorKinds({"Shy": "hidden"})
        self._toolbox = Toolbox(
            AgentRegistry({"deed": self._do}, builtin, []),
            RateLimits(whole.rates),
            clock,
            vault=self.vault,
            settings=whole,
            kinds=lambda: self.kinds,
        )
        self.outcome: Any = None
        self.told: list[dict[str, Json]] = []
        self.attempt = AttemptContext(
            run_id="run",
            flow_id="flow",
            task="task",
            attempt=1,
            attempt_id="attempt",
            inputs={},
            context={},
            record_sink=lambda event, data: self.told.append(data),
        )

    async def _do(self, task: TaskCall, context: AttemptContext) -> Json:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if callable(self.outcome):
            return self.outcome(context)
        return self.outcome

    async def call(self, outcome: Any) -> Json:
        self.outcome = outcome
        return await self._toolbox.call("deed", {"a": 1}, self.attempt)

    async def answer(self, outcome: Any) -> Reply:
        self.outcome = outcome
        return await self._toolbox.answer("deed", {"a": 1}, self.attempt)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("VAULT_WORD", WORD)
    return Bench()


async def test_outputs_are_masked(bench: Bench) -> None:
    assert await bench.call({"said": [f"It is {WORD}."]}) == {"said": ["It is [secret:VAULT_WORD]."]}
    assert await bench.answer(WORD) == Reply(text="[secret:VAULT_WORD]", is_error=False)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (LookupError(f"no {WORD}"), "lookup_error", "LookupError: no [secret:VAULT_WORD]"),
        (Shy(f"no {WORD}"), "hidden", "Shy: no [secret:VAULT_WORD]"),
        (AttemptError(f"no {WORD}", kind="network"), "network", "no [secret:VAULT_WORD]"),
    ],
)
async def test_whatever_a_tool_raises_is_a_masked_failure_of_the_kind_that_the_rules_say(
    bench: Bench, error: Exception, kind: str, message: str
) -> None:
    with pytest.raises(AttemptError) as failed:
        await bench.call(error)
    assert (failed.value.kind, failed.value.message) == (kind, message)
    assert failed.value.__suppress_context__
    assert bench.told[-1]["error"] == {"kind": kind, "message": message}
    assert await bench.answer(error) == Reply(text=f"{kind}: {message}", is_error=True)


async def test_the_details_of_a_failure_are_masked_too(bench: Bench) -> None:
    with pytest.raises(AttemptError) as failed:
        await bench.call(AttemptError("no", kind="network", details={"status": 500, "body": WORD}))
    assert failed.value.details == {"status": 500, "body": "[secret:VAULT_WORD]"}


async def test_rules_that_change_count_from_then_on(bench: Bench) -> None:
    bench.kinds = ErrorKinds({"Shy": "loud"})
    with pytest.raises(AttemptError) as failed:
        await bench.call(Shy())
    assert failed.value.kind == "loud"


@pytest.mark.parametrize("output", [object(), {"a": {1, 2}}, {1: "a"}, "\ud800", float("nan")])
async def test_an_output_that_is_no_json_is_told_as_a_failure(bench: Bench, output: Any) -> None:
    reply = await bench.answer(output)
    assert reply.is_error
    assert reply.text.startswith("invalid: The output of 'deed' cannot be passed on: ")
    assert bench.told[-1]["ok"] is False


async def test_an_output_that_is_larger_than_any_may_be_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_WORD", WORD)
    reply = await Bench(max_output_bytes=100_000).answer("x" * 200_000)
    assert reply.is_error
    assert "100000 bytes" in reply.text.replace(",", "").replace("_", "")


async def test_a_model_is_told_how_much_of_a_long_output_is_not_shown(bench: Bench) -> None:
    reply = await bench.answer("x" * (MAX_TOOL_OUTPUT + 5))
    assert reply.text == f"{'x' * MAX_TOOL_OUTPUT}\n[cut: 5 of {MAX_TOOL_OUTPUT + 5} characters are not shown]"


async def test_a_tool_learns_why_the_attempt_that_called_it_ends(bench: Bench) -> None:
    heard: list[Ending | None] = []

    def deed(context: AttemptContext) -> None:
        heard.append(context.ending)
        bench.attempt.end(Ending.TIMED_OUT)
        bench.attempt.end(Ending.STOPPING)
        heard.append(context.ending)
        context.tool = "deed"

    await bench.call(deed)
    assert heard == [None, Ending.TIMED_OUT]
    assert bench.attempt.tool is None  # a failure later is not the tool's
