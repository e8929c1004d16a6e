"""The circuit breaker, told the time: what it lets through, and that no order of events can upset it."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from contexten.extensions.flow.recovery.breaker import COUNTED_KINDS, CircuitBreaker, CircuitState, Ticket
from contexten.extensions.flow.recovery.kinds import BUILTIN_KINDS


def fail(breaker: CircuitBreaker, *times: float, key: str = "a", kind: str = "network") -> None:
    for now in times:
        breaker.record(breaker.begin(key, now), kind, now)


def test_five_failures_in_a_row_open_the_circuit_for_half_a_minute() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 1, 2, 3)
    assert breaker.state("a", 3) is CircuitState.CLOSED
    assert breaker.open_until("a") is None
    fail(breaker, 4)
    assert breaker.state("a", 4) is CircuitState.OPEN
    assert breaker.open_until("a") == 34
    assert [breaker.allows("a", now) for now in (4, 33.9, 34)] == [False, False, True]
    assert breaker.state("a", 34) is CircuitState.HALF_OPEN


def test_each_key_has_a_circuit_of_its_own() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 0, 0, 0, 0)
    assert breaker.allows("b", 0)


def test_a_success_begins_the_count_anew() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 1, 2, 3)
    breaker.record(breaker.begin("a", 4), None, 4)
    assert len(breaker) == 0
    fail(breaker, 5, 6, 7, 8)
    assert breaker.allows("a", 8)


def test_failures_that_are_far_apart_do_not_add_up() -> None:
    breaker = CircuitBreaker(window_s=60)
    fail(breaker, 0, 20, 40, 60, 80, 100)
    assert breaker.allows("a", 100)
    fail(breaker, 115)  # the last five within 75 s
    assert breaker.allows("a", 115)
    fail(breaker, 120)  # the last five within 60 s
    assert not breaker.allows("a", 120)


@pytest.mark.parametrize("kind", sorted(BUILTIN_KINDS | {"custom_error"}))
def test_only_kinds_that_speak_against_it_count(kind: str) -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 1, 2, 3, 4, kind=kind)
    assert breaker.allows("a", 4) == (kind not in {"agent_failure", "timeout", "network", "resource"})


def test_a_failure_of_another_kind_neither_counts_nor_begins_the_count_anew() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 1, 2, 3)
    fail(breaker, 3, kind="invalid")
    fail(breaker, 4)
    assert not breaker.allows("a", 4)


def test_one_probe_at_a_time_is_let_through() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 0, 0, 0, 0)
    assert breaker.allows("a", 30)
    assert breaker.allows("a", 30)  # asking takes nothing
    breaker.begin("a", 30)
    assert not breaker.allows("a", 30)
    assert breaker.open_until("a") == 60


def test_a_probes_success_closes_the_circuit() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 0, 0, 0, 0)
    breaker.record(breaker.begin("a", 31), None, 32)
    assert breaker.state("a", 32) is CircuitState.CLOSED
    fail(breaker, 33, 33, 33, 33)
    assert breaker.allows("a", 33)
    fail(breaker, 33)
    assert breaker.open_until("a") == 63  # the time begins anew as well


def test_each_failed_probe_doubles_the_time_up_to_ten_minutes() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 0, 0, 0)
    now, waits = 0.0, []
    for _ in range(8):
        fail(breaker, now)
        until = breaker.open_until("a")
        assert until is not None
        waits.append(until - now)
        now = until
    assert waits == [30, 60, 120, 240, 480, 600, 600, 600]


@pytest.mark.parametrize("kind", ["invalid", "interrupted", "rate_limit"])
def test_a_probe_that_says_nothing_makes_room_for_another(kind: str) -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 0, 0, 0, 0)
    fail(breaker, 30, kind=kind)
    assert breaker.state("a", 30) is CircuitState.HALF_OPEN
    assert breaker.allows("a", 30)


def test_a_probe_that_gets_lost_closes_nobody_off_and_a_slow_one_still_counts() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 0, 0, 0, 0)
    slow = breaker.begin("a", 30)
    assert breaker.allows("a", 60)
    breaker.begin("a", 60)
    breaker.record(slow, None, 61)
    assert breaker.state("a", 61) is CircuitState.CLOSED


@pytest.mark.parametrize("kind", [None, "network", "invalid"])
def test_attempts_from_before_the_opening_change_nothing(kind: str | None) -> None:
    breaker = CircuitBreaker()
    early, late = breaker.begin("a", 0), breaker.begin("a", 0)
    fail(breaker, 0, 0, 0, 0, 0)
    breaker.record(early, kind, 1)
    assert breaker.open_until("a") == 30
    probe = breaker.begin("a", 30)
    breaker.record(late, kind, 31)
    assert breaker.open_until("a") == 60  # the probe's place is still taken
    breaker.record(probe, None, 32)
    assert breaker.state("a", 32) is CircuitState.CLOSED


def test_a_probe_of_an_earlier_opening_changes_nothing() -> None:
    breaker = CircuitBreaker()
    fail(breaker, 0, 0, 0, 0, 0)
    old = breaker.begin("a", 30)
    fail(breaker, 60)
    breaker.record(old, None, 61)
    assert breaker.open_until("a") == 120


def test_keys_are_bounded_and_the_one_told_of_longest_ago_goes_first() -> None:
    breaker = CircuitBreaker(failures=1, max_keys=2)
    for key in ("a", "b"):
        fail(breaker, 0, key=key)
    fail(breaker, 30, key="a")
    fail(breaker, 31, key="c")
    assert len(breaker) == 2
    assert [breaker.allows(key, 31) for key in "abc"] == [False, True, False]


@pytest.mark.parametrize(
    "wrong",
    [{"failures": 0}, {"max_keys": 0}, {"window_s": 0}, {"open_s": 0}, {"open_s": 700}, {"window_s": float("nan")}],
)
def test_senseless_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"from 1|over 0"):
        CircuitBreaker(**wrong)  # type: ignore[arg-type]  # one of them


KEYS = st.sampled_from("ab")
LIMIT, WINDOW_S, OPEN_S, MAX_OPEN_S = 3, 20.0, 10.0, 35.0


class _Model:
    """One circuit as the contract tells it, kept the slow way: all that happened since it last was closed."""

    def __init__(self) -> None:
        self.row: list[float] = []
        self.openings: list[tuple[float, int]] = []
        """(when, number) since it was closed."""
        self.probe_until = 0.0

    @property
    def until(self) -> float:
        opened_at, _ = self.openings[-1]
        return opened_at + min(OPEN_S * 2.0 ** (len(self.openings) - 1), MAX_OPEN_S)


class BreakerMachine(RuleBasedStateMachine):
    """Attempts begin whether they may or not, end in any order, as anything, at any time; some never end."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = 0
        self.breaker = CircuitBreaker(failures=LIMIT, window_s=WINDOW_S, open_s=OPEN_S, max_open_s=MAX_OPEN_S)
        self.models = {"a": _Model(), "b": _Model()}

    def half_open(self, model: _Model) -> bool:
        return bool(model.openings) and self.now >= model.until

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 5.0, 10.0, 20.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tickets, key=KEYS)
    def begin(self, key: str) -> tuple[Ticket, int]:
        model = self.models[key]
        number = 0
        if self.half_open(model):
            number = model.openings[-1][1]
            model.probe_until = self.now + OPEN_S
        return self.breaker.begin(key, self.now), number

    @rule(begun=consumes(tickets), kind=st.sampled_from([None, "network", "timeout", "invalid", "interrupted"]))
    def end(self, begun: tuple[Ticket, int], kind: str | None) -> None:
        ticket, number = begun
        self.breaker.record(ticket, kind, self.now)
        model = self.models[ticket.key]
        if model.openings and number != model.openings[-1][1]:
            return
        if kind is None:
            self.models[ticket.key] = _Model()
        elif kind in COUNTED_KINDS:
            model.row.append(self.now)
            last = model.row[-LIMIT:]
            if model.openings or (len(last) == LIMIT and last[-1] - last[0] <= WINDOW_S):
                self.number += 1
                model.openings.append((self.now, self.number))
                model.probe_until = 0.0
        else:
            model.probe_until = 0.0

    @invariant()
    def it_is_as_the_contract_tells(self) -> None:
        for key, model in self.models.items():
            if not model.openings:
                expected, until = CircuitState.CLOSED, None
            else:
                expected = CircuitState.HALF_OPEN if self.half_open(model) else CircuitState.OPEN
                until = max(model.until, model.probe_until)
            assert self.breaker.state(key, self.now) is expected
            assert self.breaker.open_until(key) == until
            assert self.breaker.allows(key, self.now) == (until is None or self.now >= until)

    @invariant()
    def nobody_is_closed_off_for_longer_than_the_longest_time(self) -> None:
        assert all(self.breaker.allows(key, self.now + MAX_OPEN_S) for key in self.models)

    @invariant()
    def only_keys_that_failed_lately_are_kept(self) -> None:
        assert len(self.breaker) == sum(bool(model.row) for model in self.models.values())


BreakerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreaker = BreakerMachine.TestCase
