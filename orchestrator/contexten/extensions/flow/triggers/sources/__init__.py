"""Where hooks come from: each source vouches for its sender's requests and reads an event out of them.

A source starts nothing, reads no clock and keeps no state: whether an event was seen before is the business of
whoever records it. Vendors' libraries are imported at the first request that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..model import TriggerKind
from .github import GithubSource
from .linear import LinearSource
from .slack import SlackSource
from .source import HookRefused, Source
from .webhook import WebhookSource

SOURCES: Mapping[TriggerKind, Source[Any]] = MappingProxyType(
    {
        TriggerKind.GITHUB: GithubSource(),
        TriggerKind.LINEAR: LinearSource(),
        TriggerKind.SLACK: SlackSource(),
        TriggerKind.WEBHOOK: WebhookSource(),
    }
)

__all__ = ["SOURCES", "HookRefused", "Source"]
