"""A program whose flows are started by GitHub, Linear, Slack and the clock.

    export GITHUB_WEBHOOK_SECRET=... LINEAR_WEBHOOK_SECRET=... SLACK_SIGNING_SECRET=...
    export CONTEXTEN_FLOW_SECRETS=$(printf '%s@tool:hooks,' \\
        GITHUB_WEBHOOK_SECRET LINEAR_WEBHOOK_SECRET SLACK_SIGNING_SECRET)
    python examples/contexten_app/app.py

Point the senders at /hooks/github, /hooks/linear and /hooks/slack; the dashboard is at /. The target `tool:hooks` keeps
the secrets from the tools of flows: there is no tool of that name. `send_event.py` here sends a signed event.

`app` is an ASGI application too: `uvicorn --timeout-graceful-shutdown 3 --app-dir examples/contexten_app app:app`. The
timeout is for open dashboards, whose streams uvicorn would wait for.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from contexten import ContextenApp, StartFlow
from contexten.extensions.flow.triggers.model import TriggerEvent

app = ContextenApp(name="workflow-app")

NOTE: dict[str, Any] = {
    "name": "Note",
    "inputs": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    "stages": [
        {
            "name": "only",
            "tasks": [
                {
                    "name": "note",
                    "required_tools": ["data_processor"],
                    "parameters": {"data": "{{ inputs.text }}", "query": "@"},
                }
            ],
        }
    ],
}


@app.github.event("pull_request:opened")
async def review(event: TriggerEvent) -> StartFlow | None:
    """A function decides; what it answers starts. None starts nothing."""
    pull_request = event.payload["pull_request"]
    if pull_request["draft"]:
        return None
    return StartFlow(workflow_def=NOTE, inputs={"text": f"review #{event.payload['number']}: {pull_request['title']}"})


@app.linear.event("Issue:create")
async def triage(event: TriggerEvent) -> dict[str, Any]:
    """A dictionary does as well."""
    return {"workflow_def": NOTE, "inputs": {"text": event.payload["data"]["title"]}, "priority": "high"}


@app.slack.event("app_mention")
async def answer(event: TriggerEvent) -> StartFlow:
    """What somebody said is data: it is no template, and no command."""
    return StartFlow(workflow_def=NOTE, inputs={"text": event.payload["event"]["text"]})


@app.slack.command("/deploy")
async def deploy(event: TriggerEvent) -> StartFlow:
    """Slack is answered at once; the flow goes on."""
    return StartFlow(workflow_def=NOTE, inputs={"text": f"deploy {event.payload['text']}"})


@app.cron("0 9 * * 1-5", timezone="Europe/Berlin")
async def morning(event: TriggerEvent) -> StartFlow:
    """On working days at nine, over the changes of summer time too."""
    return StartFlow(workflow_def=NOTE, inputs={"text": f"good morning, {event.payload['planned_at']}"})


if __name__ == "__main__":
    sys.exit(app.serve(port=int(os.environ.get("PORT", "8377"))))
