"""What docs/triggers.md shows is true: its triggers can be made, and do what it says with the events it is about."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.triggers.configs import CONFIGS, WebhookConfig
from contexten.extensions.flow.triggers.model import HookRequest, TriggerEvent, TriggerKind
from contexten.extensions.flow.triggers.sources import SOURCES

pytestmark = pytest.mark.anyio

DOCUMENT = (Path(__file__).parents[3] / "docs" / "triggers.md").read_text(encoding="utf-8")
TRIGGERS = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)]

EVENTS: dict[str, tuple[Any, Any]] = {
    "review": (
        {
            "number": 7,
            "pull_request": {"title": "Mend {{ it }}", "draft": False, "base": {"ref": "main"}},
            "sender": {"login": "octocat"},
        },
        {"number": 7, "title": "Review of Mend {{ it }}", "author": "octocat"},
    ),
    "triage": (
        {
            "issue": {"number": 1347, "title": "Found a bug"},
            "data": {"priority": 1, "title": "Found a bug"},
            "url": "https://linear.app/issue/LIN-1",
        },
        {"title": "Found a bug"},
    ),
    "deploy": (
        {"text": "production", "user_name": "roadrunner", "channel_name": "operations"},
        {"target": "production", "who": "roadrunner"},
    ),
    "invoices": ({"type": "invoice.paid", "data": {"id": "in_1"}}, {"invoice": {"id": "in_1"}}),
    "import": ({"path": "inbox/a.csv"}, {"path": "inbox/a.csv"}),
    "clean-up": ({"run_id": "run_1", "state": "failed"}, {"run_id": "run_1", "why": "failed"}),
}
FLOW = {
    "stages": [{"name": "main", "tasks": [{"name": "wait", "type": "wait", "parameters": {"seconds": 0}}]}],
}


@pytest.fixture
async def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FlowService]:
    (secrets,) = re.findall(r"^    CONTEXTEN_FLOW_SECRETS=(\S+)$", DOCUMENT, re.MULTILINE)
    for name in ("LINEAR_WEBHOOK", "SLACK_SIGNING"):
        monkeypatch.setenv(name, "a secret of the vendor's")
    settings = FlowSettings(
        database=tmp_path / "flow.sqlite3", durability="process", secrets=secrets, allow_paths=[tmp_path]
    )
    async with FlowService(settings) as opened:
        for flow_id in {trigger["flow_id"] for trigger in TRIGGERS} | {"nightly-report"}:
            await opened.create_flow(workflow_def=FLOW, flow_id=flow_id)
        yield opened


async def test_every_trigger_of_the_document_can_be_made_and_does_what_it_says(service: FlowService) -> None:
    assert {trigger["kind"] for trigger in TRIGGERS} >= set(CONFIGS) - {"once"}
    for trigger in TRIGGERS:
        made = await service.triggers.create(**trigger, actor=PYTHON)
        assert (made.url is not None) is TriggerKind(trigger["kind"]).is_hook
        assert (made.next_at is not None) is TriggerKind(trigger["kind"]).is_schedule
        if trigger["flow_id"] in EVENTS:
            payload, inputs = EVENTS[trigger["flow_id"]]
            tried = await service.triggers.test(made.trigger_id, payload=payload, actor=PYTHON)
            assert tried.starts, tried
            assert tried.inputs is not None
            assert inputs.items() <= tried.inputs.items()


async def test_a_rule_that_names_an_absent_field_starts_nothing_and_says_so(service: FlowService) -> None:
    review = next(trigger for trigger in TRIGGERS if trigger["flow_id"] == "review")
    made = await service.triggers.create(**review, actor=PYTHON)
    tried = await service.triggers.test(made.trigger_id, payload={"number": 7}, actor=PYTHON)
    assert not tried.starts
    assert tried.error is not None
    assert "pull_request" in tried.error.message


def test_all_that_can_be_configured_is_told() -> None:
    for kind, model in CONFIGS.items():
        assert f"| `{kind}` |" in DOCUMENT
        for field in model.model_fields:
            assert f"`{field}`" in DOCUMENT, (kind, field)


def test_the_senders_code_signs_what_a_webhook_trigger_takes() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    sent: dict[str, Any] = {}
    exec(code, sent)  # the document's own
    request = HookRequest(headers=sent["headers"], body=sent["body"].encode())
    event = SOURCES[TriggerKind.WEBHOOK].receive(
        request, WebhookConfig(types=("invoice.paid",)), sent["secret"], datetime.now(UTC)
    )
    assert isinstance(event, TriggerEvent)
    assert event.id == "msg_1"
