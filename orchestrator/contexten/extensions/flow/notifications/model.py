"""What outgoing messages are made of: who gets them, and of what."""

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
