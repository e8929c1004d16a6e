"""Which secrets flows may name, and who may receive them."""

from __future__ import annotations

import os
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from ..outside.urls import host_and_port

_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_NO_TARGET = "an empty target: name a host or tool:NAME; a secret without any target may go to any tool"


class SecretGrant(BaseModel):
    """A secret that flows may name as `secrets.<name>`, and who may receive its value.

    In the environment: `NAME`, `NAME@api.example.com`, `NAME@tool:shell`, several targets joined by `+`.
    Without a target any tool of this server may receive it. The value is read from the environment
    variable `variable` (the secret's own name by default) when an attempt starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    variable: str = ""
    hosts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _SECRET_NAME.fullmatch(name):
            raise ValueError(f"a secret's name is an identifier, got {name!r}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _read_targets(cls, given: Any) -> Any:
        """Read the short form of the environment. An empty target is not the absence of targets."""
        if isinstance(given, str):
            name, at, targets = given.partition("@")
            given = {"name": name.strip()}
            for target in map(str.strip, targets.split("+") if at else ()):
                kind = "tools" if target.startswith("tool:") else "hosts"
                given.setdefault(kind, []).append(target.removeprefix("tool:"))
        if isinstance(given, dict) and [] in (given.get("hosts"), given.get("tools")):  # a file's; the default is ()
            raise ValueError(_NO_TARGET)
        return given

    @field_validator("hosts", "tools")
    @classmethod
    def _check_targets(cls, targets: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for target in targets:
            if not target.strip():
                raise ValueError(_NO_TARGET)
            if info.field_name == "hosts":
                host_and_port(target)
        return targets

    def value(self) -> str | None:
        """The secret's value, or None where its variable is unset or empty."""
        return os.environ.get(self.variable or self.name) or None
