"""What tasks log reaches the clients that asked for logs."""

from typing import Any

import anyio
import mcp_types as types
import pytest

pytestmark = [
    pytest.mark.anyio,
    # It is what clients of 2025-11-25 have.
    pytest.mark.filterwarnings("ignore:The logging capability"),
]


async def _logs(live: Any, era: str, level: types.LoggingLevel | None) -> list[types.LoggingMessageNotificationParams]:
    heard: list[types.LoggingMessageNotificationParams] = []

    async def hear(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params)

    modern = {"log_level": level} if era != "legacy" and level is not None else {}
    live.gate.saying = "waiting at the gate"
    live.gate.opened.set()
    async with live.client(era, logging_callback=hear, **modern) as client:
        if era == "legacy" and level is not None:
            await client.set_logging_level(level)
        with anyio.fail_after(20):
            run = await client.call_tool("execute_flow", {"workflow_def": live.flow(live.gate_task()), "wait_s": 20})
            assert run.structured_content["state"] == "completed"
    return heard


async def test_a_client_that_asked_is_told_what_a_task_logged(live: Any, era: str) -> None:
    heard = await _logs(live, era, "info")
    assert [(params.level, params.data["task"], params.data["message"]) for params in heard] == [
        ("warning", "held", "waiting at the gate")
    ]


async def test_a_client_that_asked_for_errors_is_not_told_of_warnings(live: Any, era: str) -> None:
    assert await _logs(live, era, "error") == []


async def test_a_client_that_did_not_ask_is_told_nothing(live: Any, era: str) -> None:
    assert await _logs(live, era, None) == []
