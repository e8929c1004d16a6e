"""Secrets by reference: who may receive them, and how they are kept out of everything that is recorded.

A secret granted to all tools (`NAME`, without a target) can be read by whoever writes flows: data_processor can turn
it into a form that no mask knows, such as reversed, and file_writer can write it; name the hosts or tools that need it.
"""

from __future__ import annotations

import base64
import json
import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import TypeVar
from urllib.parse import quote, quote_plus

from ..errors import AttemptError, InvalidArguments
from ..settings import FlowSettings
from .protocol import Agent, Json, traits_of

MIN_SECRET_CHARS = 4
"""A shorter value occurs in ordinary text by chance: masking it would spoil outputs and give it away."""

_MIN_BASE64_CHARS = 5  # what four characters leave in base64 at the least
_HTTP_CLIENT = "http_client"

T = TypeVar("T")


class SecretVault:
    """The secrets that the settings name.

    Raises InvalidArguments where a value is too short to be masked, or two grants have one name. Values are read again
    at each use, so that a rotated one counts; every value ever seen stays masked.
    """

    __slots__ = ("_forms", "_grants", "_pattern", "_seen")

    def __init__(self, settings: FlowSettings) -> None:
        self._grants = {grant.name: grant for grant in settings.secrets}
        if len(self._grants) < len(settings.secrets):
            raise InvalidArguments("The settings name a secret twice.", next="Give each secret one entry in secrets.")
        self._seen: dict[str, set[str]] = {}
        self._forms: dict[str, str] = {}  # a form of a value, case-folded -> the secret's name; grows only
        self._pattern: re.Pattern[str] | None = None
        for grant in settings.secrets:
            value = grant.value()
            if value is not None:
                if len(value) < MIN_SECRET_CHARS:
                    raise InvalidArguments(
                        f"The secret {grant.name} is shorter than {MIN_SECRET_CHARS} characters and cannot be masked.",
                        next=f"Set {grant.variable or grant.name} to a longer value, or take it out of secrets.",
                    )
                self._learn(grant.name, value)

    @property
    def names(self) -> frozenset[str]:
        """The names that expressions may use as `secrets.<name>`."""
        return frozenset(self._grants)

    def value(self, name: str) -> str:
        """The secret's value now. Raises AttemptError (invalid) where it is not granted, not set, or too short."""
        grant = self._grants.get(name)
        if grant is None:
            known = ", ".join(sorted(self._grants)) or "none"
            raise AttemptError(f"No secret {name} is named in the settings (known: {known}).", kind="invalid")
        value = grant.value()
        if value is None or len(value) < MIN_SECRET_CHARS:
            state = "has no value" if value is None else f"is shorter than {MIN_SECRET_CHARS} characters"
            variable = grant.variable or grant.name
            raise AttemptError(
                f"The secret {name} {state}: set {variable} in the server's environment.", kind="invalid"
            )
        self._learn(name, value)
        return value

    def allowed(self, name: str, *, tool: str, host: str | None = None) -> bool:
        """Whether `tool` may receive the secret; with `host` (`name` or `name:port`), whether it may send it there."""
        grant = self._grants.get(name)
        if grant is None:
            return False
        if not grant.hosts and not grant.tools:
            return True
        if tool in grant.tools:
            return True
        return bool(grant.hosts) and tool == _HTTP_CLIENT and (host is None or self._grants_host(name, host))

    def hand_over(self, agent: Agent, names: Collection[str]) -> None:
        """Raise AttemptError (invalid) where an agent may not receive one of those secrets in a task's parameters.

        One that guards them itself, or receives references in their place, may be handed all."""
        rule = traits_of(agent).secrets
        if rule == "named":
            self._require_named(names, receiver=agent.name)
        elif rule == "granted":
            self.require(names, tools=agent.tools, receiver=f"agent {agent.name}")

    def require(self, names: Iterable[str], *, tools: Collection[str], receiver: str) -> None:
        """Raise AttemptError (invalid) unless every tool of `tools` may receive each secret; without tools, unless a
        secret is granted to all. `receiver` is who would get them, for the message."""
        for name in sorted(names):
            for tool in tools or ("",):
                if not self.allowed(name, tool=tool):
                    raise AttemptError(
                        f"The secret {name} may not be handed to {receiver}: the settings do not grant it.",
                        kind="invalid",
                    )

    def _require_named(self, names: Iterable[str], *, receiver: str) -> None:
        """Raise AttemptError (invalid) unless the grant of each secret names the receiver (`NAME@tool:RECEIVER`): a
        model says to others what it is told, so a grant to all tools is none to it."""
        for name in sorted(names):
            grant = self._grants.get(name)
            if grant is None or receiver not in grant.tools:
                raise AttemptError(
                    f"The secret {name} may not be handed to the model of {receiver}: the settings do not grant it by "
                    f"name ({name}@tool:{receiver}). Have a tool's task use it, and the model its output.",
                    kind="invalid",
                )

    def granted_to_host(self, name: str, host: str) -> bool:
        """Whether the settings name that host (`name` or `name:port`), or all of http_client, for the secret."""
        grant = self._grants.get(name)
        return grant is not None and (_HTTP_CLIENT in grant.tools or self._grants_host(name, host))

    def _grants_host(self, name: str, host: str) -> bool:
        hosts = {granted.lower() for granted in self._grants[name].hosts}
        host = host.lower()
        bare = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        return host in hosts or bare in hosts or bare.strip("[]") in hosts

    def found_in(self, text: str, names: Iterable[str] | None = None) -> frozenset[str]:
        """The secrets whose value occurs in `text`, plain or encoded, in any case; of `names`, or of all."""
        if self._pattern is None:
            return frozenset()
        folded = text.casefold()
        if self._pattern.search(folded) is None:
            return frozenset()
        wanted = self.names if names is None else frozenset(names)
        return frozenset(name for form, name in self._forms.items() if name in wanted and form in folded)

    def mask(self, value: T) -> T:
        """The value with each secret in it, plain, JSON-escaped, URL-encoded, as a host's name or in base64, as
        `[secret:NAME]`; upper and lower case count as the same, as hosts and some servers change them.

        Takes text or JSON data; data without a secret is returned as the same object."""
        if self._pattern is None:
            return value
        masked: T = self._mask(value, self._pattern)
        return masked

    def _mask(self, value: Json, pattern: re.Pattern[str]) -> Json:
        if isinstance(value, str):
            return self._mask_text(value, pattern)
        if isinstance(value, dict):
            fields = {self._mask(key, pattern): self._mask(item, pattern) for key, item in value.items()}
            unchanged = all(a is b for a, b in zip(fields.values(), value.values(), strict=False))
            return value if unchanged and fields.keys() == value.keys() else fields
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = json.dumps(value)
            masked = self._mask_text(text, pattern)
            return value if masked is text else masked
        if isinstance(value, list):
            items = [self._mask(item, pattern) for item in value]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else items
        return value

    def _mask_text(self, text: str, pattern: re.Pattern[str]) -> str:
        folded = text.casefold()
        if pattern.search(folded) is None:
            return text
        # Folding makes some characters longer: where in the text each folded character comes from.
        origins: Sequence[int] = range(len(text))
        if len(folded) != len(text):
            origins = array("L", (at for at, character in enumerate(text) for _ in character.casefold()))
        parts, end = [], 0
        for match in pattern.finditer(folded):
            parts += [text[end : origins[match.start()]], f"[secret:{self._forms[match.group()]}]"]
            end = origins[match.end() - 1] + 1
        return "".join([*parts, text[end:]])

    def _learn(self, name: str, value: str) -> None:
        seen = self._seen.setdefault(name, set())
        if value in seen:
            return
        seen.add(value)
        for form in _forms_of(value):
            self._forms.setdefault(form.casefold(), name)
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in longest_first))


def _forms_of(value: str) -> set[str]:
    forms: set[str] = set()
    for written in {value, value.lower(), value.upper(), value.casefold()}:
        forms |= {written, json.dumps(written)[1:-1], json.dumps(written, ensure_ascii=False)[1:-1]}
        forms |= {_as_host(written)}
        content = _bytes_of(written)
        forms |= {quote(content, safe=""), quote(content), quote_plus(content)}
    return forms | _base64_forms(_bytes_of(value))


def _bytes_of(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")  # as the environment gives what is not UTF-8


def _as_host(value: str) -> str:
    """The value as a host's name is sent: labels that are not ASCII in Punycode."""
    labels = value.split(".")
    return ".".join(label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels)


def _base64_forms(value: bytes) -> set[str]:
    """The value in base64, whole, and as what stays the same wherever it stands in longer content."""
    forms: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(value).decode()
        forms |= {whole, whole.rstrip("=")}
        for offset in range(3):
            shifted = encode(b"\0" * offset + value).decode()
            core = shifted[-(-offset * 8 // 6) : (offset + len(value)) * 8 // 6]
            if len(core) >= _MIN_BASE64_CHARS:
                forms.add(core)
    return forms
