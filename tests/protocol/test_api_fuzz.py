"""The HTTP API against its own document: requests that fit it and requests that do not, to every operation.

`make fuzz` draws many more.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi import checks

from contexten.extensions.flow.views import RunView
from contexten_server.http import http_app

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FULL = os.environ.get("CONTEXTEN_FUZZ") == "full"
EXAMPLES = 300 if FULL else 6  # of an operation, in either mode
ENDLESS = "follow_changes"  # its stream ends with its client
BASE = "http://127.0.0.1"


@pytest.fixture
async def web(live: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(http_app(live.server, live.app, host="127.0.0.1"))
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


@pytest.fixture
async def known(live: Any, web: httpx.AsyncClient) -> dict[str, str]:
    """Ids of what there is, by the names that paths have for them."""
    definition = live.flow(live.value_task())
    await live.service.create_flow(workflow_def=definition, flow_id="known")
    run: RunView = await live.service.execute_flow(flow_id="known")
    with anyio.fail_after(10):
        await live.service.wait(run.run_id)
    trigger = (await web.post("/api/triggers", json={"kind": "webhook", "flow_id": "known"})).json()
    tried = (await web.post(f"/api/triggers/{trigger['trigger_id']}/test", json={"start": True})).json()
    return {
        "flow_id": "known",
        "run_id": run.run_id,
        "task": "value",
        "trigger_id": trigger["trigger_id"],
        "delivery_id": tried["delivery"]["delivery_id"],
    }


def _sent(web: httpx.AsyncClient, case: Any) -> httpx.Response:
    """Send a case on the event loop of the service; called on a thread beside it."""
    prepared: Any = requests.Request(**case.as_transport_kwargs(base_url=f"{BASE}/api")).prepare()
    headers = {
        name: value for name, value in prepared.headers.items() if name.lower() not in ("host", "content-length")
    }
    if case.method != "GET":
        headers["Content-Type"] = "application/json"

    async def send() -> httpx.Response:
        with anyio.fail_after(20):
            return await web.request(
                str(prepared.method), str(prepared.url), headers=headers, content=prepared.body or b""
            )

    return anyio.from_thread.run(send)


def _fuzz(web: httpx.AsyncClient, operation: Any, mode: GenerationMode, known: dict[str, str]) -> None:
    wanted = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        *([checks.negative_data_rejection] if mode is GenerationMode.NEGATIVE else []),
    ]

    @hypothesis.settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=not FULL,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), is_known=st.booleans())
    def hold(case: Any, is_known: bool) -> None:
        if is_known and mode is GenerationMode.POSITIVE:
            parameters = case.path_parameters or {}
            case.path_parameters = {name: known.get(name, value) for name, value in parameters.items()}
        response = _sent(web, case)
        assert response.status_code != 500, response.text
        try:
            case.validate_response(response, checks=wanted)
        except BaseExceptionGroup as failures:  # one that anyio's runner of fixtures would not survive
            raise AssertionError(str(failures)) from None

    hold()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "not fitting"])
async def test_every_operation_answers_as_its_document_says(
    web: httpx.AsyncClient, known: dict[str, str], mode: GenerationMode
) -> None:
    load_all_checks()
    document = (await web.get("/api/openapi.json")).json()
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # the document is valid, so that none is an Err
        told = operation.definition.raw
        takes_anything = "requestBody" not in told and all(part["in"] == "path" for part in told.get("parameters", ()))
        if told["operationId"] != ENDLESS and not (takes_anything and mode is GenerationMode.NEGATIVE):
            await anyio.to_thread.run_sync(_fuzz, web, operation, mode, known)
    assert (await web.get("/api/overview")).status_code == 200
