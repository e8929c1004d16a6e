"""When schedules fire: over changes of the clock, and after servers were away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contexten.extensions.flow.errors import InvalidArguments
from contexten.extensions.flow.triggers.configs import CatchUp, CronConfig, IntervalConfig, OnceConfig, parse_config
from contexten.extensions.flow.triggers.cron import times
from contexten.extensions.flow.triggers.model import TriggerKind
from contexten.extensions.flow.triggers.schedule import due, next_after

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

CHANGES = [
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("America/Havana", date(2026, 3, 8)),  # midnight does not exist
    ("America/Havana", date(2026, 11, 1)),  # the hour from midnight on exists twice
    ("Africa/Cairo", date(2026, 4, 24)),
    ("Africa/Cairo", date(2026, 10, 29)),  # the hour up to midnight exists twice
    ("Australia/Lord_Howe", date(2026, 4, 5)),  # by half an hour
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("America/St_Johns", date(2026, 3, 8)),
    ("Pacific/Chatham", date(2026, 9, 27)),
    ("Asia/Kolkata", date(2026, 3, 29)),
    ("UTC", date(2026, 3, 29)),
]


@dataclass(frozen=True)
class Field:
    """One field of an expression, with what it means told apart from the library that reads it."""

    text: str
    values: frozenset[int]

    @classmethod
    def every(cls, low: int, high: int, step: int) -> Field:
        return cls("*" if step == 1 else f"*/{step}", frozenset(range(low, high + 1, step)))

    @classmethod
    def of(cls, values: frozenset[int]) -> Field:
        return cls(",".join(str(value) for value in sorted(values)), values)


def fields(low: int, high: int, steps: list[int]) -> st.SearchStrategy[Field]:
    some = st.frozensets(st.integers(low, high), min_size=1, max_size=4).map(Field.of)
    return some | st.sampled_from(steps).map(lambda step: Field.every(low, high, step))


@dataclass(frozen=True)
class Cron:
    minute: Field
    hour: Field
    day: Field
    weekday: Field

    @property
    def text(self) -> str:
        return f"{self.minute.text} {self.hour.text} {self.day.text} * {self.weekday.text}"

    @property
    def follows_the_wall_clock(self) -> bool:
        return self.minute.text.startswith("*") or self.hour.text.startswith("*")

    def matches(self, local: datetime) -> bool:
        is_day, is_weekday = local.day in self.day.values, local.isoweekday() % 7 in self.weekday.values
        has_star = self.day.text.startswith("*") or self.weekday.text.startswith("*")
        return (
            local.minute in self.minute.values
            and local.hour in self.hour.values
            and (is_day and is_weekday if has_star else is_day or is_weekday)
        )


CRONS = st.builds(
    Cron, fields(0, 59, [1, 7, 10, 30]), fields(0, 23, [1, 2, 6]), fields(1, 31, [1]) | st.just(Field.every(1, 31, 1)),
    fields(0, 6, [1]) | st.just(Field.every(0, 6, 1)),
)  # fmt: skip


def expected(cron: Cron, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """What Debian's manual says, one minute at a time."""
    if cron.follows_the_wall_clock:
        instants = minutes(after, until)
        return [at for at in instants if cron.matches(at.astimezone(zone))]
    local = after.astimezone(zone).replace(second=0, tzinfo=None) - DAY
    found = set()
    while local < until.astimezone(zone).replace(tzinfo=None) + DAY:
        if cron.matches(local):
            at = local.replace(tzinfo=zone)
            while at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != at.replace(tzinfo=None):
                at += MINUTE  # it does not exist
            found.add(at.astimezone(UTC))
        local += MINUTE
    return sorted(at for at in found if after < at <= until)


def minutes(after: datetime, until: datetime) -> Iterator[datetime]:
    at = after.replace(second=0, microsecond=0) + MINUTE
    while at <= until:
        yield at
        at += MINUTE


EVERY_DAY = (Field.every(1, 31, 1), Field.every(0, 6, 1))


@example(Cron(Field.of(frozenset({30})), Field.of(frozenset({2})), *EVERY_DAY), CHANGES[0], -300, 7)
@example(Cron(Field.every(0, 59, 10), Field.of(frozenset({2})), *EVERY_DAY), CHANGES[8], -600, 0)
@example(Cron(Field.every(0, 59, 30), Field.of(frozenset({0})), *EVERY_DAY), CHANGES[6], -600, 0)
@example(Cron(Field.of(frozenset({45})), Field.of(frozenset({1})), *EVERY_DAY), CHANGES[3], 380, 0)
@given(CRONS, st.sampled_from(CHANGES), st.integers(-1200, 1200), st.integers(0, 59))
def test_a_cron_schedule_fires_at_all_its_times_and_no_others_however_clocks_change(
    cron: Cron, change: tuple[str, date], minutes_off: int, second: int
) -> None:
    zone = ZoneInfo(change[0])
    after = datetime.combine(change[1], time(), UTC) + timedelta(minutes=minutes_off, seconds=second)
    until = after + DAY / 2
    found = list(takewhile(lambda at: at <= until, times(cron.text, zone, after)))
    assert found == expected(cron, zone, after, until)


@given(CRONS, st.sampled_from(CHANGES), st.integers(-1500, 1500))
def test_asking_for_one_time_after_another_gives_the_same_as_asking_for_all(
    cron: Cron, change: tuple[str, date], minutes_off: int
) -> None:
    config = CronConfig(expression=cron.text, timezone=change[0])
    start = datetime.combine(change[1], time(), UTC) + timedelta(minutes=minutes_off)
    at = next_after(config, start)
    stepped: list[datetime] = []
    while at is not None and len(stepped) < 20:
        stepped.append(at)
        at = next_after(config, at)
    assert stepped == list(islice(times(cron.text, config.zone, start), 20))
    assert all(earlier < later for earlier, later in pairwise([start, *stepped]))


def local_times(expression: str, timezone: str, day: date, *, days: int = 1) -> list[str]:
    zone = ZoneInfo(timezone)
    start = datetime.combine(day, time(), zone).astimezone(UTC) - MINUTE
    until = datetime.combine(day + days * DAY, time(), zone).astimezone(UTC)
    fired = takewhile(lambda at: at < until, times(expression, zone, start))
    return [at.astimezone(zone).isoformat(timespec="minutes") for at in fired]


def test_a_daily_time_that_does_not_exist_fires_when_clocks_are_put_forward() -> None:
    assert local_times("30 2 * * *", "Europe/Berlin", date(2026, 3, 29)) == ["2026-03-29T03:00+02:00"]


def test_a_daily_time_that_exists_twice_fires_the_first_time_only() -> None:
    assert local_times("30 2 * * *", "Europe/Berlin", date(2026, 10, 25)) == ["2026-10-25T02:30+02:00"]


def test_an_hourly_job_follows_the_clock_on_the_wall() -> None:
    assert len(local_times("0 * * * *", "Europe/Berlin", date(2026, 3, 29))) == 23
    assert len(local_times("0 * * * *", "Europe/Berlin", date(2026, 10, 25))) == 25


def test_nicknames_stand_for_their_expressions() -> None:
    assert local_times("@daily", "Asia/Tokyo", date(2026, 1, 1), days=2) == [
        "2026-01-01T00:00+09:00",
        "2026-01-02T00:00+09:00",
    ]


NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def cron(catch_up: CatchUp, expression: str = "0 * * * *") -> CronConfig:
    return CronConfig(expression=expression, catch_up=catch_up)


def test_a_time_still_to_come_is_waited_for() -> None:
    assert due(cron(CatchUp.ALL), NOW + MINUTE, NOW).next == NOW + MINUTE
    assert due(cron(CatchUp.ALL), NOW + MINUTE, NOW).fire == ()


def test_a_time_that_has_just_come_fires_whatever_is_said_of_catching_up() -> None:
    for catch_up in CatchUp:
        answer = due(cron(catch_up), NOW, NOW + timedelta(seconds=2))
        assert (answer.fire, answer.missed, answer.next) == ((NOW,), 0, NOW + timedelta(hours=1))


def test_after_hours_of_downtime_the_policy_says_what_fires() -> None:
    planned, now = NOW - timedelta(hours=5), NOW + timedelta(minutes=10)
    hours = tuple(planned + timedelta(hours=hour) for hour in range(6))
    answers = {catch_up: due(cron(catch_up), planned, now) for catch_up in CatchUp}
    assert {catch_up: (answer.fire, answer.missed) for catch_up, answer in answers.items()} == {
        CatchUp.NONE: ((), 6),
        CatchUp.LATEST: (hours[-1:], 5),
        CatchUp.ALL: (hours, 0),
    }
    assert {answer.next for answer in answers.values()} == {NOW + timedelta(hours=1)}


def test_of_a_year_of_minutes_the_last_hundred_are_made_up_for() -> None:
    answer = due(cron(CatchUp.ALL, "* * * * *"), NOW - 365 * DAY, NOW)
    assert answer.fire == tuple(NOW - minute * MINUTE for minute in range(99, -1, -1))
    assert answer.missed == 900  # of the thousand that are counted


def test_an_interval_keeps_its_beat_when_a_server_was_away() -> None:
    config = IntervalConfig(every_s=90)
    answer = due(config, NOW, NOW + timedelta(seconds=200))
    assert answer.fire == (NOW + timedelta(seconds=180),)
    assert answer.missed == 2
    assert answer.next == NOW + timedelta(seconds=270)
    assert next_after(config, NOW) == NOW + timedelta(seconds=90)


def test_an_interval_with_a_start_counts_from_it() -> None:
    config = IntervalConfig(every_s=3600, start_at=NOW)
    assert next_after(config, NOW - DAY) == NOW
    assert next_after(config, NOW) == NOW + timedelta(hours=1)
    assert next_after(config, NOW + timedelta(minutes=90)) == NOW + timedelta(hours=2)


@given(
    st.floats(1, 1e6).map(lambda seconds: round(seconds, 3)),
    st.integers(0, 10**7),
    st.sampled_from(CatchUp),
)
def test_no_time_fires_twice_or_is_lost_between_two_looks(every_s: float, away_s: int, catch_up: CatchUp) -> None:
    config = IntervalConfig(every_s=every_s, start_at=NOW, catch_up=catch_up)
    first = due(config, NOW, NOW + timedelta(seconds=away_s))
    assert first.next is not None
    assert all(NOW <= at <= NOW + timedelta(seconds=away_s) < first.next for at in first.fire)
    assert first.next - timedelta(seconds=every_s) <= NOW + timedelta(seconds=away_s)
    second = due(config, first.next, first.next)
    assert second.fire == (first.next,)


def test_once_fires_once() -> None:
    config = OnceConfig(at=NOW)
    assert next_after(config, NOW - DAY) == NOW
    assert next_after(config, NOW) is None
    assert due(config, NOW, NOW + DAY).fire == (NOW,)
    assert due(config, NOW, NOW + DAY).next is None


@pytest.mark.parametrize(
    ("kind", "config", "path", "word"),
    [
        ("cron", {"expression": "0 9 * *"}, "/config/expression", "five fields"),
        ("cron", {"expression": "61 9 * * *"}, "/config/expression", "Bad minute"),
        ("cron", {"expression": "0 0 30 2 *"}, "/config/expression", "day-of-month"),
        ("cron", {"expression": "@reboot"}, "/config/expression", "@daily"),
        ("cron", {"expression": "0 9 * * *", "timezone": "Europe/Berln"}, "/config/timezone", "'Europe/Berlin'"),
        ("cron", {"expression": "0 9 * * *", "timezone": "America"}, "/config/timezone", "no time zone"),
        ("cron", {"expression": "0 9 * * *", "timezone": "../../etc/passwd"}, "/config/timezone", "no time zone"),
        ("cron", {"expresion": "0 9 * * *"}, "/config/expresion", "did you mean 'expression'?"),
        ("interval", {"every_s": 0.2}, "/config/every_s", "greater than or equal to 1"),
        ("interval", {"every_s": "60"}, "/config/every_s", "valid number"),
        ("once", {"at": "2026-01-01T00:00:00"}, "/config/at", "zone"),
        ("github", {"events": ["pull request"]}, "/config/events/0", "pattern"),
        ("github", {"rate": "often"}, "/config/rate", "10/1s"),
        ("linear", {"secret": "a-b"}, "/config/secret", "pattern"),
        ("slack", {"secret": "SLACK", "commands": ["deploy"]}, "/config/commands/0", "pattern"),
        ("webhook", {"secret": "whsec_C2FVs/BQIhrscChlQIMV="}, "/config/secret", None),
        ("file", {"path": "in", "changes": ["moved"]}, "/config/changes/0", "'added'"),
        ("flow", {"flow_ids": []}, "/config/flow_ids", "at least 1"),
        ("flow", {"flow_ids": ["a"], "max_pending": 0}, "/config/max_pending", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_told_with_its_place(
    kind: str, config: dict[str, Any], path: str, word: str | None
) -> None:
    with pytest.raises(InvalidArguments) as refused:
        parse_config(TriggerKind(kind), config)
    messages = {issue.path: issue.message for issue in refused.value.issues}
    assert path in messages
    assert word is None or word in messages[path]


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        ("cron", "cron", "expression"),
        ("cron", "schedule", "expression"),
        ("cron", "Time_Zone", "timezone"),
        ("interval", "seconds", "every_s"),
        ("interval", "every", "every_s"),
        ("once", "run_at", "at"),
        ("once", "date", "at"),
        ("github", "repos", "repositories"),
        ("github", "event", "events"),
        ("webhook", "events", "types"),
        ("file", "events", "changes"),
        ("file", "paths", "path"),
        ("flow", "flow_id", "flow_ids"),
    ],
)
def test_another_word_for_a_field_is_told_first_with_the_field_that_was_meant(
    kind: str, given: str, meant: str
) -> None:
    with pytest.raises(InvalidArguments, match=rf"at /config/{given}: '{given}' is not known; did you mean '{meant}'"):
        parse_config(TriggerKind(kind), {given: "x"})


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("cron", {"expression": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "catch_up": "all", "overlap": "queue"}),
        ("interval", {"every_s": 60, "start_at": "2026-01-01T00:00:00+01:00"}),
        ("once", {"at": NOW}),
        ("github", {"events": ["push", "pull_request:opened"], "repositories": ["octo/*"], "rate": "10/1m"}),
        ("linear", {"events": ["Issue:create"], "secret": "LINEAR"}),
        ("slack", {"commands": ["/deploy"], "secret": "SLACK", "response": "in_channel"}),
        ("webhook", {"types": ["invoice.paid"]}),
        ("file", {"path": "in", "patterns": ["*.csv"], "settle_s": 1}),
        ("flow", {"flow_ids": ["nightly"], "states": ["failed"]}),
    ],
)
def test_a_configuration_that_was_recorded_is_read_back_as_it_was(kind: str, config: dict[str, Any]) -> None:
    parsed = parse_config(TriggerKind(kind), config)
    assert parse_config(TriggerKind(kind), parsed.model_dump(mode="json")) == parsed
