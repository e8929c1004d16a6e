"""What receivers are told: a run's event as JSON, or as a message of Slack."""

from __future__ import annotations

import html
import json
from typing import Any

from ..views import RunView

_ERROR_CHARS = 500
_OUTPUT_CHARS = 1500  # Slack takes 3,000 in a section, and escaping makes text longer
_WORDS = {
    "run.running": ("▶", "has started"),
    "run.paused": ("‖", "was paused"),
    "run.completed": ("✓", "completed"),
    "run.failed": ("✗", "failed"),
    "run.cancelled": ("■", "was cancelled"),
    "run.deadline_missed": ("◷", "missed its deadline"),
}


def webhook_body(type: str, at: str, data: dict[str, Any]) -> str:
    """The body of a webhook, as Standard Webhooks recommends it."""
    return json.dumps({"type": type, "timestamp": at, "data": data}, ensure_ascii=False, separators=(",", ":"))


def slack_body(type: str, run: RunView, output: str | None = None) -> dict[str, Any]:
    """A message of Slack: `text` for where blocks are not shown, and blocks. `output` is JSON text."""
    mark, verb = _WORDS[type]
    title = f"{mark} *{escaped(run.name)}* {verb}"
    details = []
    if run.error is not None and type == "run.failed":
        place = f" in task {run.error.task}" if run.error.task else ""
        details.append(f"{escaped(run.error.kind)}{escaped(place)}: {escaped(_cut(run.error.message, _ERROR_CHARS))}")
    if run.reason and type in ("run.cancelled", "run.paused"):
        details.append(escaped(_cut(run.reason, _ERROR_CHARS)))
    if output is not None:
        details.append("```\n" + escaped(_cut(output, _OUTPUT_CHARS)).replace("```", "'''") + "\n```")
    facts = [f"flow `{escaped(run.flow_id)}`", f"run `{escaped(run.run_id)}`"]
    if run.duration_s is not None:
        facts.append(f"{run.duration_s:g} s")
    return {
        "text": title,
        "blocks": [
            _section("\n".join([title, *details])),
            {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(facts)}]},
        ],
    }


def slack_text(text: str) -> dict[str, Any]:
    """A message of Slack that says one thing."""
    return {"text": escaped(text), "blocks": [_section(escaped(text))]}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def escaped(text: str) -> str:
    """Text as Slack shows it literally: it makes no link, and calls nobody."""
    return html.escape(text, quote=False)


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"
