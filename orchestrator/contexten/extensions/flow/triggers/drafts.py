"""Triggers that are to be saved: what was asked for, checked where it enters, as the row to save."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from ..actor import Actor
from ..clock import make_secret
from ..errors import InvalidArguments, Issue
from ..nearest import checked_choice, nearest_name
from ..settings import FlowSettings
from ..store.triggers import TriggerRow
from .checking import check_rules
from .configs import FileConfig, IntervalConfig, OnceConfig, ScheduleConfig, TriggerConfig, parse_config
from .model import TriggerKind
from .schedule import next_after, planned_id

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it is part of a URL
_MAX_NAME = 200
_MICROSECOND = 1e-6


class Drafts:
    """Makes rows of what is asked for."""

    def __init__(self, settings: FlowSettings, secrets: Collection[str]) -> None:
        """`secrets` are the names of those that the settings grant."""
        self._settings = settings
        self._secrets = secrets

    def new(
        self,
        *,
        trigger_id: str,
        kind: TriggerKind,
        config: TriggerConfig,
        flow_id: str | None,
        handler: str | None,
        inputs: Mapping[str, Any] | None,
        condition: str | None,
        name: str | None,
        now: datetime,
        actor: Actor,
    ) -> TriggerRow:
        """A new trigger. Raises InvalidArguments."""
        if (flow_id is None) == (handler is None):
            raise InvalidArguments(
                "A trigger starts a flow: flow_id says which.",
                next="Call list_flows() to see the flows.",
                issues=[Issue(path="/flow_id", code="missing_argument", message="a flow's id")],
            )
        check_rules(inputs, condition)
        self._check(config)
        return TriggerRow(
            trigger_id=_checked_id(trigger_id),
            name=_checked_name(name) if name is not None else f"{kind} of {flow_id or handler}"[:_MAX_NAME],
            kind=kind,
            config=_text(config.model_dump(mode="json", exclude_none=True)),
            flow_id=flow_id,
            handler=handler,
            inputs=_text(inputs) if inputs else None,
            filter=condition,
            secret=_new_secret(kind, config),
            enabled=True,
            next_at=_first(config, now, now),
            at=now.timestamp(),
            actor=str(actor),
            is_bounded=config.is_bounded,
        )

    def changed(
        self,
        before: sqlite3.Row,
        *,
        config: Mapping[str, Any] | None,
        inputs: Mapping[str, Any] | None,
        condition: str | None,
        name: str | None,
        enabled: bool | None,
        now: datetime,
        actor: Actor,
    ) -> tuple[TriggerRow, TriggerConfig]:
        """A trigger as it will be, and its config; None leaves what is there. Raises InvalidArguments."""
        kind = TriggerKind(before["kind"])
        parsed = parse_config(kind, json.loads(before["config"]) if config is None else config)
        new_inputs = inputs if inputs is not None else json.loads(before["inputs"]) if before["inputs"] else None
        new_filter = before["filter"] if condition is None else condition or None
        check_rules(inputs, condition or None)  # what stays may be of a time with other rules or settings
        if config is not None:
            self._check(parsed)
        if before["secret"] is None and parsed.secret_name is None and kind.is_hook:
            raise InvalidArguments(
                "The trigger has no secret but the one that its config names.",
                next="Name a secret, or create another trigger: its secret is shown then.",
                issues=[Issue(path="/config/secret", code="missing_argument", message="the name of a secret")],
            )
        is_enabled = bool(before["enabled"]) if enabled is None else enabled
        next_at: float | None = before["next_at"]
        if not is_enabled:
            next_at = None
        elif config is not None or not before["enabled"]:
            next_at = _first(parsed, now, datetime.fromtimestamp(before["created_at"], UTC))
        row = TriggerRow(
            trigger_id=before["trigger_id"],
            name=before["name"] if name is None else _checked_name(name),
            kind=kind,
            config=_text(parsed.model_dump(mode="json", exclude_none=True)),
            flow_id=before["flow_id"],
            handler=before["handler"],
            inputs=_text(new_inputs) if new_inputs else None,
            filter=new_filter,
            secret=None,
            enabled=is_enabled,
            next_at=next_at,
            at=max(now.timestamp(), before["updated_at"] + _MICROSECOND),  # each change has a time of its own
            before=before["updated_at"],
            actor=str(actor),
            is_bounded=parsed.is_bounded,
        )
        return row, parsed

    def _check(self, config: TriggerConfig) -> None:
        """Raises InvalidArguments where the config asks for what this server does not grant."""
        if isinstance(config, FileConfig):
            from .files import check_path  # its library is loaded only where something is watched

            check_path(config, self._settings.allow_paths)
        name = config.secret_name
        if name is None or name in self._secrets:
            return
        near = nearest_name(name, sorted(self._secrets))
        hint = f"; did you mean {near!r}?" if near else ""
        raise InvalidArguments(
            f"The settings name no secret {name!r}{hint}",
            next="Name it in the server's setting secrets (CONTEXTEN_FLOW_SECRETS), and set its variable.",
            issues=[
                Issue(
                    path="/config/secret",
                    code="unknown_secret",
                    message=f"no such secret{hint}",
                    got=name,
                    suggestion=near,
                )
            ],
        )


def checked_kind(kind: str) -> TriggerKind:
    """Raises InvalidArguments, with did-you-mean."""
    return TriggerKind(checked_choice("kind", kind, tuple(TriggerKind)))


def check_same(before: sqlite3.Row, row: TriggerRow) -> None:
    """Raises InvalidArguments where a trigger that is there is not as asked for."""
    names = ("name", "kind", "config", "flow_id", "handler", "inputs", "filter")
    differing = [name for name in names if before[name] != getattr(row, name)]
    if differing:
        raise InvalidArguments(
            f"The trigger {row.trigger_id!r} exists with another {', '.join(differing)}.",
            next="Change it by update, delete it, or take another trigger_id.",
            issues=[
                Issue(path="/trigger_id", code="trigger_exists", message="a trigger has that id", got=row.trigger_id)
            ],
        )


def _checked_id(trigger_id: str) -> str:
    if _ID.fullmatch(trigger_id):
        return trigger_id
    wanted = "1 to 100 letters, digits, '.', '_' and '-', a letter or digit first"
    raise InvalidArguments(
        f"trigger_id must have {wanted}.",
        issues=[Issue(path="/trigger_id", code="invalid_value", message=wanted, got=trigger_id[:100])],
    )


def _checked_name(name: str) -> str:
    if 0 < len(name.strip()) <= _MAX_NAME and name.isprintable():
        return name.strip()
    wanted = f"1 to {_MAX_NAME} printable characters"
    raise InvalidArguments(
        f"name must have {wanted}.", issues=[Issue(path="/name", code="invalid_value", message=wanted)]
    )


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, sort_keys=True)


def _first(config: TriggerConfig, now: datetime, created_at: datetime) -> float | None:
    """When a schedule that was made then fires next. Raises InvalidArguments where that is never."""
    if not isinstance(config, ScheduleConfig):
        return None
    if isinstance(config, IntervalConfig) and config.start_at is None:
        config = config.model_copy(update={"start_at": created_at})  # its beat outlasts every change
    first = next_after(config, now)
    if first is not None:
        return first.timestamp()
    path = "/config/at" if isinstance(config, OnceConfig) else "/config"
    raise InvalidArguments(
        f"The schedule never fires: it is {planned_id(now)} now.",
        next="Give a time that is still to come.",
        issues=[Issue(path=path, code="out_of_range", message="a time to come")],
    )


def _new_secret(kind: TriggerKind, config: TriggerConfig) -> str | None:
    """A hook's secret, where none is named: as Standard Webhooks writes one, or for others in hex."""
    if config.secret_name is not None or not kind.is_hook:
        return None
    secret = make_secret()
    return "whsec_" + base64.b64encode(secret).decode() if kind is TriggerKind.WEBHOOK else secret.hex()
