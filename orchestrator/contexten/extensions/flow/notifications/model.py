"""What outgoing messages are made of: who gets them, of what, and where each stands."""

from __future__ import annotations

from enum import StrEnum

RUN_EVENTS = (
    "run.running",
    "run.paused",
    "run.completed",
    "run.failed",
    "run.cancelled",
    "run.deadline_missed",
)
"""The journal's entries that a receiver may ask for, of runs that are no sub-flow's."""

DEFAULT_EVENTS = ("run.failed",)


class NotificationKind(StrEnum):
    """How a receiver is told."""

    WEBHOOK = "webhook"
    """JSON, signed as the specification Standard Webhooks says (github.com/standard-webhooks/standard-webhooks)."""
    SLACK = "slack"
    """A message by an incoming webhook of Slack."""


class DispatchState(StrEnum):
    """Where a message stands."""

    PENDING = "pending"
    """It waits for its first or its next try. Any server takes it when it is due."""
    SENDING = "sending"
    """A server is trying. Where that one dies, another tries again when its claim has ended."""
    SENT = "sent"
    """The receiver answered that it has it. Terminal."""
    DEAD = "dead"
    """Given up after the last try; the error says why. Terminal, but for a retry that somebody asks for."""
