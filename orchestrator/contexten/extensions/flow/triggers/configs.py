"""What a trigger of each kind is told: its `config`, parsed and checked once, where it enters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails, to_json

from ..definition.pointers import pointer
from ..errors import InvalidArguments, Issue
from ..nearest import nearest_name
from ..scheduling.rates import RateLimit
from .cron import check_expression
from .model import TriggerKind


class CatchUp(StrEnum):
    """What becomes of planned times that passed while no server ran."""

    NONE = "none"
    """Nothing: a time is over where it passed more than a minute ago."""
    LATEST = "latest"
    """The last of them fires, once."""
    ALL = "all"
    """Each of them fires, in order; of more than 100 the last 100."""


class Overlap(StrEnum):
    """What happens at a planned time while a run of the same schedule has not ended."""

    ALLOW = "allow"
    """Both run."""
    SKIP = "skip"
    """The new one does not start."""
    QUEUE = "queue"
    """The new one starts when the other has ended."""
    CANCEL_PREVIOUS = "cancel_previous"
    """The other is cancelled, and the new one starts."""


SecretName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
"""A name in the setting `secrets`; never the secret itself."""

_YEARS = range(1970, 9001)


def _in_utc(time: datetime) -> datetime:
    if time.year not in _YEARS:
        raise ValueError(f"its year must be one from {_YEARS[0]} to {_YEARS[-1]}.")
    return time.astimezone(UTC)


Time = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with its zone, kept in UTC; of years far from the ends of what can be reckoned with."""

Text = Annotated[str, Field(min_length=1, max_length=200)]
_Texts = Annotated[tuple[Text, ...], Field(max_length=100)]


class TriggerConfig(BaseModel):
    """What a trigger of any kind may be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    rate: str | None = Field(None, max_length=40, examples=["10/1m"])
    """Starts at most so many runs an interval; further deliveries wait."""
    max_active: int | None = Field(None, ge=1, le=100_000)
    """Runs of this trigger at once; further deliveries wait in order."""
    max_pending: int = Field(10_000, ge=1, le=100_000)
    """Deliveries that wait at most; beyond it the sender is told to come back (429)."""

    @field_validator("rate")
    @classmethod
    def _check_rate(cls, rate: str | None) -> str | None:
        if rate is not None:
            RateLimit.parse(rate)
        return rate

    @property
    def is_bounded(self) -> bool:
        """Whether it matters to the trigger how many of its runs are under way."""
        return self.max_active is not None

    @property
    def secret_name(self) -> str | None:
        """The secret of the settings that the sender signs with; None where a secret is made, or none is needed."""
        name: str | None = getattr(self, "secret", None)
        return name


class ScheduleConfig(TriggerConfig):
    """What a schedule of any kind may be told."""

    catch_up: CatchUp = CatchUp.LATEST
    overlap: Overlap = Overlap.SKIP

    @property
    def is_bounded(self) -> bool:
        """Whether it matters to the trigger how many of its runs are under way."""
        return super().is_bounded or self.overlap is not Overlap.ALLOW


class CronConfig(ScheduleConfig):
    """Fires at the times that a cron expression matches."""

    expression: str = Field(min_length=1, max_length=200, examples=["0 9 * * MON-FRI"])
    timezone: str = Field("UTC", max_length=100, examples=["Europe/Berlin"])
    """A name of the IANA time zone database."""

    @field_validator("expression")
    @classmethod
    def _check_expression(cls, expression: str) -> str:
        check_expression(expression)
        return expression

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of the database, such as America
            near = nearest_name(timezone, sorted(available_timezones()))
            hint = f"did you mean {near!r}?" if near else "write a name such as 'Europe/Berlin' or 'UTC'."
            raise ValueError(f"there is no time zone {timezone[:60]!r}; {hint}") from None
        return timezone

    @property
    def zone(self) -> ZoneInfo:
        """The time zone itself."""
        return ZoneInfo(self.timezone)


class IntervalConfig(ScheduleConfig):
    """Fires every so many seconds, counted from `start_at` or else from its creation."""

    every_s: float = Field(ge=1, le=10 * 366 * 86_400, allow_inf_nan=False)
    start_at: Time | None = None
    """When it fires first."""


class OnceConfig(ScheduleConfig):
    """Fires at one time."""

    at: Time


class GithubConfig(TriggerConfig):
    """Hears a GitHub webhook."""

    events: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(:[a-z0-9_]+)?$", max_length=120)], ...],
        Field(max_length=100),
    ] = ()
    """`pull_request` or `pull_request:opened`; none given: every event."""
    repositories: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$", max_length=200)], ...], Field(max_length=1000)
    ] = ()
    """`owner/name` or `owner/*`; none given: every repository that sends."""
    secret: SecretName | None = None
    """None: a secret is made, and shown once."""


class LinearConfig(TriggerConfig):
    """Hears a Linear webhook."""

    events: _Texts = ()
    """`Issue` or `Issue:create`; none given: every event."""
    secret: SecretName | None = None
    """Names the signing secret that Linear shows. None: one is made, and shown once, for Linear's API to take."""


class SlackConfig(TriggerConfig):
    """Hears a Slack app: its slash commands and its events."""

    events: _Texts = ()
    """`app_mention` or, with a subtype, `message:channel_join`."""
    commands: Annotated[
        tuple[Annotated[str, Field(pattern=r"^/\S+$", max_length=64)], ...],
        Field(max_length=100),
    ] = ()
    """`/deploy`. Neither commands nor events given: every one of both."""
    secret: SecretName | None = None
    """Names the app's signing secret. None: one is made, and shown once, for senders of your own only."""
    response: Literal["ephemeral", "in_channel"] = "ephemeral"
    """Who sees the answer to a command: who gave it, or the whole channel."""


class WebhookConfig(TriggerConfig):
    """Hears signed webhooks of any sender that keeps to Standard Webhooks."""

    types: _Texts = ()
    """The payload's `type`, such as `invoice.paid`; none given: every type."""
    secret: SecretName | None = None
    """None: a secret is made, and shown once."""


class FileConfig(TriggerConfig):
    """Watches a folder or a file below one of the folders of the setting `allow_paths`."""

    path: str = Field(min_length=1, max_length=4096)
    patterns: Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)] = ("*",)
    """Shell patterns of file names (`*.csv`), or, with a slash, of paths below `path` (`in/*.csv`)."""
    changes: Annotated[tuple[Literal["added", "modified", "deleted"], ...], Field(min_length=1)] = (
        "added",
        "modified",
    )
    recursive: bool = True
    settle_s: float = Field(0.5, ge=0.05, le=60, allow_inf_nan=False)
    """A file is told of when nothing has changed it for so long."""


class FlowConfig(TriggerConfig):
    """Hears the end of runs of other flows."""

    flow_ids: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(min_length=1)]
    states: Annotated[tuple[Literal["completed", "failed", "cancelled"], ...], Field(min_length=1)] = ("completed",)


CONFIGS: Mapping[TriggerKind, type[TriggerConfig]] = MappingProxyType(
    {
        TriggerKind.CRON: CronConfig,
        TriggerKind.INTERVAL: IntervalConfig,
        TriggerKind.ONCE: OnceConfig,
        TriggerKind.GITHUB: GithubConfig,
        TriggerKind.LINEAR: LinearConfig,
        TriggerKind.SLACK: SlackConfig,
        TriggerKind.WEBHOOK: WebhookConfig,
        TriggerKind.FILE: FileConfig,
        TriggerKind.FLOW: FlowConfig,
    }
)


def parse_config(kind: TriggerKind, config: Mapping[str, Any]) -> TriggerConfig:
    """The configuration of a trigger of that kind, from JSON data.

    Raises InvalidArguments with everything that is wrong, below `/config`.
    """
    model = CONFIGS[kind]
    try:
        return model.model_validate_json(to_json(dict(config), serialize_unknown=True))  # JSON's own types, strictly
    except ValidationError as error:
        issues = [_issue(model, problem) for problem in error.errors(include_url=False)]
    issues.sort(key=lambda issue: issue.suggestion is None)  # what is misspelt says why something is missing
    more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
    raise InvalidArguments(
        f"The config of {_a_trigger(kind)}: at {issues[0].path}: {issues[0].message}{more}",
        next=f"Correct it; {_a_trigger(kind)} takes {', '.join(_names(model))}.",
        issues=issues,
    )


def _a_trigger(kind: TriggerKind) -> str:
    """`a cron trigger`, `an interval trigger`."""
    return f"{'an' if kind is TriggerKind.INTERVAL else 'a'} {kind} trigger"


@cache
def _names(model: type[TriggerConfig]) -> tuple[str, ...]:
    """The kind's own fields first."""
    return tuple(sorted(model.model_fields, key=lambda name: name in ScheduleConfig.model_fields))


_MEANT = MappingProxyType(
    {
        "expression": ("cron", "schedule"),
        "timezone": ("tz",),
        "every_s": ("interval", "interval_s", "seconds"),
        "at": ("run_at", "time", "when", "date"),
        "repositories": ("repo", "repos"),
        "types": ("events", "event"),
        "events": ("types", "type"),
        "path": ("folder", "directory", "dir"),
        "patterns": ("glob", "globs"),
        "changes": ("events", "event"),
        "states": ("on",),
    }
)
"""Other words for a field, which are too unlike its name to be taken for slips of the pen, or more like another's."""

_CODES = {"missing": "missing_argument", "extra_forbidden": "unknown_argument"}


def _meant(name: str, known: Sequence[str]) -> str | None:
    word = name.lower()
    return next((field for field in known if word in _MEANT.get(field, ())), None) or nearest_name(word, known)


def _issue(model: type[TriggerConfig], problem: ErrorDetails) -> Issue:
    location, code = problem["loc"], _CODES.get(problem["type"], "invalid_value")
    message, suggestion = problem["msg"].removeprefix("Value error, "), None
    name = str(location[-1])[:60] if location else ""
    if problem["type"] == "missing":
        message = f"{name!r} is missing."
    elif problem["type"] == "extra_forbidden":
        suggestion = _meant(name, _names(model))
        hint = f"did you mean {suggestion!r}?" if suggestion else f"there are {', '.join(_names(model))}."
        message = f"{name!r} is not known; {hint}"
    elif problem["type"].startswith(("datetime_", "timezone_")):
        message = "A time with its zone is expected, such as '2030-01-01T09:00:00Z'."
    return Issue(path=pointer("config", *location), code=code, message=message, suggestion=suggestion)
