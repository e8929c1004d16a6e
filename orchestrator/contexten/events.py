"""What a program does about events: functions and rules by type of event.

All events of a sender come by one trigger, since a sender knows one URL: `github` at /hooks/github, and so on. Of the
functions that are declared for an event's type, in their order, the first that answers a flow starts it.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .extensions.flow.errors import InvalidArguments, Issue
from .extensions.flow.nearest import nearest_name
from .extensions.flow.triggers.checking import check_rules
from .extensions.flow.triggers.configs import parse_config
from .extensions.flow.triggers.model import TriggerEvent, TriggerKind

if TYPE_CHECKING:
    from .extensions.flow.runs.submission import RunRequest
    from .extensions.flow.service import FlowService


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFlow:
    """Which flow an event starts: a saved one, or a definition; the rest as FlowManager.execute_flow takes it."""

    flow_id: str | None = None
    workflow_def: object | None = None
    name: str | None = None
    inputs: Mapping[str, Any] | None = None
    priority: int | str | None = None
    deadline: object | None = None
    dependencies: Sequence[str] | None = None
    framework: str = "auto"
    timeout_s: float | None = None

    def request(self) -> RunRequest:
        """As the service takes it."""
        given = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        request: RunRequest = {name: value for name, value, default in given if value != default}  # type: ignore[assignment]  # its keys are this class's fields
        return request


_FIELDS = [field.name for field in fields(StartFlow)]
_TYPES: dict[str, type] = {"flow_id": str, "name": str, "framework": str, "inputs": Mapping}
"""Of the fields that are not checked where a run is submitted."""

Answer: TypeAlias = StartFlow | Mapping[str, Any] | None
"""What an event starts; a mapping has fields of StartFlow, None starts nothing."""

EventFunction: TypeAlias = Callable[[TriggerEvent], "Awaitable[Answer] | Answer"]
"""Decides, async or not, what an event starts. It may be called again for an event after a crash, and must answer the
same flow for the same event: the run is recorded once for a flow."""

FunctionT = TypeVar("FunctionT", bound=EventFunction)
_Rule: TypeAlias = Callable[["FlowService", TriggerEvent], Awaitable["RunRequest | None"]]


class Source(ABC):
    """What is declared about the events of one trigger."""

    def __init__(self, kind: TriggerKind, trigger_id: str, check_closed: Callable[[], None]) -> None:
        """`check_closed` raises where the app is open, and nothing may be declared any more."""
        self.kind = kind
        self.trigger_id = trigger_id
        self._check_closed = check_closed
        self._rules: list[tuple[str | None, _Rule]] = []

    @property
    def is_used(self) -> bool:
        """Whether anything is declared."""
        return bool(self._rules)

    @property
    def types(self) -> list[str]:
        """The types of events that something is declared for."""
        return sorted({type for type, _ in self._rules if type is not None})

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What the trigger is told."""

    def _declare(self, type: str | None, rule: _Rule) -> None:
        self._check_closed()
        self._rules.append((type, rule))

    def _ask(self, type: str | None, function: EventFunction) -> None:
        async def ask(_service: FlowService, event: TriggerEvent) -> RunRequest | None:
            answer = function(event)
            return _request(await answer if inspect.isawaitable(answer) else answer)

        self._declare(type, ask)

    def _start(self, type: str, flow_id: str, inputs: Mapping[str, Any] | None, condition: str | None) -> None:
        rules = check_rules(inputs, condition)

        async def start(service: FlowService, event: TriggerEvent) -> RunRequest | None:
            if not rules.wants(event):
                return None
            if inputs is not None:
                return {"flow_id": flow_id, "inputs": rules.inputs_for(event)}
            definition = (await service.get_flow(flow_id)).definition or {}
            takes_event = "event" in (definition.get("inputs") or {}).get("properties", {})
            return {"flow_id": flow_id, "inputs": {"event": event.data()} if takes_event else {}}

        self._declare(type, start)

    async def decide(self, service: FlowService, event: TriggerEvent) -> RunRequest | None:
        """What the event starts."""
        for type, rule in self._rules:
            if type in (None, event.type, event.type.partition(":")[0]):
                request = await rule(service, event)
                if request is not None:
                    return request
        return None


class Sender(Source):
    """The events of GitHub, Linear or Slack."""

    def __init__(self, kind: TriggerKind, secret: str, check_closed: Callable[[], None]) -> None:
        """`secret` is the name, in the setting `secrets`, of what the sender signs with."""
        super().__init__(kind, str(kind), check_closed)
        self._secret = secret

    def event(self, type: str) -> Callable[[FunctionT], FunctionT]:
        """Ask the decorated function what an event of that type starts: `pull_request:opened`, or `pull_request` for
        all of them. Raises InvalidArguments where there can be no such type."""
        check_text(type, f'@app.{self.kind}.event("{_EXAMPLES[self.kind]}")')

        def decorate(function: FunctionT) -> FunctionT:
            self._check_type(type, name_of(function))
            self._ask(type, function)
            return function

        return decorate

    def on(
        self,
        type: str,
        *,
        flow_id: str,
        inputs: Mapping[str, Any] | None = None,
        filter: str | None = None,  # noqa: A002 - the word of a trigger's field
    ) -> None:
        """Start a flow at events of that type where `filter` (CEL over `event`) is true. `inputs` are templates over
        `event`; without them the flow gets the event where its inputs declare `event`. Raises InvalidArguments."""
        check_text(type, f'app.{self.kind}.on("{_EXAMPLES[self.kind]}", flow_id=...)')
        self._check_type(type, f"the flow {flow_id!r}")
        self._start(type, flow_id, inputs, filter)

    def config(self) -> dict[str, Any]:
        return {**self._heard(self.types), "secret": self._secret}

    def _heard(self, types: list[str]) -> dict[str, Any]:
        """The part of the config that asks for events of those types."""
        return {"events": types}

    def _check_type(self, type: str, asked: str) -> None:
        """Raises InvalidArguments where no event can be of that type; `asked` is what waits for it."""
        try:
            is_one = type.split() == [type]
            parse_config(self.kind, self._heard([type]))
        except InvalidArguments:
            is_one = False
        if not is_one:
            raise _never_heard(asked, type, f"the type of an event is written like {_EXAMPLES[self.kind]!r}")


class Slack(Sender):
    """The events and slash commands of a Slack app."""

    def command(self, command: str) -> Callable[[FunctionT], FunctionT]:
        """Ask the decorated function what a slash command starts, such as `/deploy`. Raises InvalidArguments where it
        begins with no slash."""
        check_text(command, '@app.slack.command("/deploy")')

        def decorate(function: FunctionT) -> FunctionT:
            if not command.startswith("/"):
                raise _never_heard(name_of(function), command, "a command begins with '/'")
            return self.event(command)(function)

        return decorate

    def _heard(self, types: list[str]) -> dict[str, Any]:
        commands = [type for type in types if type.startswith("/")]
        return {"events": [type for type in types if type not in commands], "commands": commands}


class Schedule(Source):
    """The times of one cron expression."""

    def __init__(
        self, trigger_id: str, function: EventFunction, config: dict[str, Any], check_closed: Callable[[], None]
    ) -> None:
        super().__init__(TriggerKind.CRON, trigger_id, check_closed)
        self._config = config
        parse_config(self.kind, config)
        self._ask(None, function)

    def config(self) -> dict[str, Any]:
        return self._config


_EXAMPLES = {
    TriggerKind.GITHUB: "pull_request:opened",
    TriggerKind.LINEAR: "Issue:create",
    TriggerKind.SLACK: "app_mention",
}


def check_text(given: object, example: str) -> None:
    """Raises TypeError, which shows how it is written, where something else than text was given: bare above a function,
    a decorator would be given the function, and declare nothing."""
    if not isinstance(given, str):
        place = f" above {name_of(given)}" if callable(given) else ""
        raise TypeError(f"Write {example}{place}: text is expected in its parentheses, not a {type(given).__name__}.")


def name_of(function: object) -> str:
    """What a function is called."""
    return str(getattr(function, "__name__", type(function).__name__))


def _never_heard(asked: str, given: str, rule: str) -> InvalidArguments:
    return InvalidArguments(
        f"{asked} would never be asked about {given[:80]!r}: {rule}.",
        next="Correct it where it is declared.",
        issues=[Issue(path="/type", code="invalid_value", message=rule, got=given[:80])],
    )


def schedule_exists(trigger_id: str) -> InvalidArguments:
    """The error for a second schedule that would be the same trigger."""
    return InvalidArguments(
        f"A schedule with the id {trigger_id!r} is declared already.",
        next="Give each an id of its own: cron(..., trigger_id=...).",
        issues=[Issue(path="/trigger_id", code="trigger_exists", message="another has that id", got=trigger_id)],
    )


def _request(answer: Answer) -> RunRequest | None:
    if answer is None or isinstance(answer, StartFlow):
        return None if answer is None else _checked(answer)
    if not isinstance(answer, Mapping):
        raise _wrong(f"it answered {type(answer).__name__}", "Answer StartFlow, a mapping with its fields, or None.")
    unknown = [str(name) for name in answer if name not in _FIELDS]
    if unknown:
        near = nearest_name(unknown[0], _FIELDS)
        hint = f"Did you mean {near!r}?" if near else f"There are {', '.join(_FIELDS)}."
        raise _wrong(f"its answer has {unknown[0]!r}", hint)
    return _checked(StartFlow(**answer))


def _checked(start: StartFlow) -> RunRequest:
    """Raises InvalidArguments where a field is of a type that nothing can be made of."""
    for name, wanted in _TYPES.items():
        value = getattr(start, name)
        if value is not None and not isinstance(value, wanted):
            raise _wrong(f"its {name} is {type(value).__name__}", f"Answer a {wanted.__name__} there.")
    return start.request()


def _wrong(what: str, todo: str) -> InvalidArguments:
    issue = Issue(path="", code="invalid_value", message=what)
    return InvalidArguments(f"A function for an event cannot be followed: {what}.", next=todo, issues=[issue])
