"""What the engine keeps out of its log."""

from __future__ import annotations

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.controlflow.engine import ControlFlowEngine
from contexten.extensions.flow.engines import EngineParts
from contexten.extensions.flow.prefect.configuration import ApiAddress

pytestmark = pytest.mark.anyio


async def test_keys_of_prefect_stay_masked_without_looking_them_up_for_each_line(settings: FlowSettings) -> None:
    addresses = [
        ApiAddress(url="https://one.example/api", api_key="pnu_first"),
        ApiAddress(url="https://two.example/api", auth_string="user:second"),
    ]
    asked = 0

    def recording_api() -> ApiAddress:
        nonlocal asked
        asked += 1
        return addresses[asked - 1]

    async with FlowService(settings.model_copy(update={"engines": ("prefect",)})) as service:
        parts: EngineParts = service.engines._parts
        engine = ControlFlowEngine(parts, recording_api)
        for _ in addresses:
            await engine.view()
        masked = [engine._mask(f"refused: {key}") for key in ("pnu_first", "user:second")]
        await engine.aclose()
    assert masked == ["refused: [Prefect's key]"] * 2
    assert asked == len(addresses)


async def test_prefect_sees_the_work_of_controlflow_once_it_is_enabled(settings: FlowSettings) -> None:
    with_model = settings.model_copy(update={"model": "openai/any", "model_base_url": "http://127.0.0.1:9/v1"})
    async with FlowService(with_model) as service:
        engine = ControlFlowEngine(service.engines._parts, lambda: ApiAddress(url="https://one.example/api"))
        before = await engine.view()
        service.enable_engine("prefect")
        after = await engine.view()
        await engine.aclose()
    assert "recorded" not in (before.note or "")
    assert "its work is recorded by the Prefect API at https://one.example/api" in (after.note or "")
