"""Who may use the HTTP API, and what keeps other sites from using it through somebody's browser."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
import pytest

from contexten_server.api.routing import MAX_BODY_BYTES
from contexten_server.http import http_app

pytestmark = pytest.mark.anyio

Web = Callable[..., Any]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def web(live: Any) -> Web:
    @asynccontextmanager
    async def opened(*, read_only: bool = False, **changed: Any) -> AsyncIterator[Any]:
        app = replace(live.app, settings=live.app.settings.model_copy(update=changed), read_only=read_only)
        transport = httpx.ASGITransport(http_app(live.server, app, host="127.0.0.1"))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client

    return opened


async def test_a_request_that_another_sites_page_can_send_changes_nothing(web: Web, live: Any) -> None:
    body = '{"workflow_def": {"stages": [{"name": "a", "tasks": [{"name": "b", "type": "wait", "parameters": {}}]}]}}'
    async with web() as http:
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/plain; json",
            "application/json; charset=utf-16",
            "application/json; charset=latin-1",
        ):
            refused = await http.post("/api/runs", content=body, headers={"Content-Type": kind})
            assert (refused.status_code, refused.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert (await http.post("/api/runs", content=body)).status_code == 415
        for site in ("cross-site", "same-site", "anything"):
            headers = {**JSON, "Sec-Fetch-Site": site}
            for method, path in (("POST", "/api/runs"), ("DELETE", "/api/triggers/x"), ("PUT", "/api/flows/x")):
                refused = await http.request(method, path, content=body, headers=headers)
                assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site")
            refused = await http.get("/api/runs", headers={"Sec-Fetch-Site": site})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "cross_site")
        for origin in ("http://evil.example", "http://127.0.0.1:9999", "http://localhost:3000", "null"):
            refused = await http.post("/api/runs", content=body, headers={**JSON, "Origin": origin})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_origin")
            for path in ("/", "/assets/app.js"):
                assert (await http.get(path, headers={"Origin": origin})).status_code == 403
        refused = await http.get("/api/runs", headers={"Host": "evil.example"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (421, "wrong_host")
    assert (await live.service.list_runs()).runs == []


async def test_a_link_on_another_site_leads_to_the_dashboard(web: Web) -> None:
    async with web() as http:
        assert (await http.get("/", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8377", "https://127.0.0.1:8377"])
async def test_the_host_that_is_asked_is_the_pages_own_also_where_tls_ended_before(web: Web, origin: str) -> None:
    headers = {"Host": "127.0.0.1:8377", "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    async with web() as http:
        assert (await http.post("/api/check", json={"workflow_def": {}}, headers=headers)).status_code == 200


@pytest.mark.parametrize("site", ["same-origin", "none", None])
async def test_a_page_of_ours_and_a_program_may_change_things(web: Web, live: Any, site: str | None) -> None:
    headers = {"Content-Type": "application/json; charset=utf-8", **({"Sec-Fetch-Site": site} if site else {})}
    async with web() as http:
        saved = await http.post("/api/check", json={"workflow_def": live.flow(live.value_task())}, headers=headers)
        assert saved.json()["ok"] is True


async def test_other_sites_may_not_read_answers(web: Web) -> None:
    async with web() as http:
        answer = await http.get("/api/flows", headers={"Origin": "http://localhost:3000"})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        asked = await http.options(
            "/api/runs", headers={"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
        )
        assert asked.status_code == 403
        assert "access-control-allow-origin" not in asked.headers


async def test_every_answer_has_the_headers_that_protect_browsers(web: Web) -> None:
    async with web() as http:
        for path in ("/", "/api/flows", "/api/nothing", "/api/openapi.json", "/healthz", "/nothing"):
            headers = (await http.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
        assert (await http.get("/api/flows")).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["%00.js", f"{'a' * 300}.js", "ui", "../pages.py", "pages.py", "", "/app.js"])
async def test_a_file_that_is_not_the_pages_is_not_found(live: Any, name: str) -> None:
    raw = f"/assets/{name}"
    assert (await _answer(http_app(live.server, live.app, host="127.0.0.1"), raw))[0] == 404


async def test_a_file_that_a_browser_has_is_not_sent_again(web: Web) -> None:
    async with web() as http:
        first = await http.get("/assets/app.js")
        assert (first.status_code, first.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
        again = await http.get("/assets/app.js", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_with_tokens_the_page_is_open_and_the_api_is_not(web: Web) -> None:
    async with web(tokens=("a-token",)) as http:
        for path in ("/", "/assets/nothing.js", "/healthz", "/readyz"):
            assert (await http.get(path)).status_code in (200, 404)
        for path in ("/api/flows", "/api/openapi.json", "/api/events", "/api/nothing", "/assets", "/nothing"):
            refused = await http.get(path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
        posted = await http.post("/api/check", json={"workflow_def": {}})
        assert posted.status_code == 401
        wrong = await http.get("/api/flows", headers={"Authorization": "Bearer other"})
        assert wrong.status_code == 401
        own = {"Authorization": "Bearer a-token"}
        assert (await http.get("/api/flows", headers=own)).status_code == 200
        assert (await http.get("/api/openapi.json", headers=own)).json()["security"] == [{"bearer": []}]


async def test_a_read_only_server_answers_questions_only(web: Web, live: Any) -> None:
    definition = live.flow(live.value_task())
    writers: tuple[tuple[str, str, Any], ...] = (
        ("POST", "/api/flows", {"workflow_def": definition}),
        ("PUT", "/api/flows/x", {"workflow_def": definition}),
        ("POST", "/api/runs", {"workflow_def": definition}),
        ("POST", "/api/runs/x/actions", {"action": "cancel"}),
        ("POST", "/api/strategy", {"strategy": "fifo"}),
        ("POST", "/api/triggers", {"kind": "once", "flow_id": "x"}),
        ("DELETE", "/api/triggers/x", None),
        ("POST", "/api/notifications", {"kind": "webhook"}),
        ("POST", "/api/dispatches/x/retry", {}),
    )
    async with web(read_only=True) as http:
        for method, path, body in writers:
            refused = await http.request(method, path, json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "read_only")
        assert (await http.post("/api/check", json={"workflow_def": definition})).json()["ok"] is True
        assert (await http.get("/api/overview")).json()["read_only"] is True
    assert (await live.service.list_flows()).flows == []


async def test_every_operation_that_changes_something_is_refused_by_a_read_only_server(web: Web) -> None:
    async with web(read_only=True) as http:
        document = (await http.get("/api/openapi.json")).json()
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if method == "get" or operation["operationId"] == "check_definition":
                    continue
                refused = await http.request(method, f"/api{path}".replace("{", "").replace("}", ""), json={})
                assert refused.status_code == 403, operation["operationId"]


async def test_a_body_past_the_limit_is_refused_before_it_is_read(web: Web) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 20
            yield b" " * (1 << 20)

    async with web() as http:
        refused = await http.post("/api/runs", content=endless(), headers=JSON)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
    assert read <= MAX_BODY_BYTES + (2 << 20)


@pytest.mark.parametrize(
    "raw",
    [
        "/assets/../api/flows",
        "/assets/%2e%2e/api/flows",
        "/hooks/../api/flows",
        "/hooks/..%2fapi/flows",
        "/healthz/../api/flows",
        "//api/flows",
        "/./api/flows",
    ],
)
async def test_a_path_cannot_leave_the_open_ones(live: Any, raw: str) -> None:
    app = replace(live.app, settings=live.app.settings.model_copy(update={"tokens": ("a-token",)}))
    status, body = await _answer(http_app(live.server, app, host="127.0.0.1"), raw)
    assert status in (401, 404, 405)
    assert b'"flows"' not in body


async def _answer(application: Any, raw: str) -> tuple[int, bytes]:
    """The answer to a GET of a path that no client has changed before: those of libraries resolve `..` themselves."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 5000),
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    with anyio.fail_after(10):
        await application(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
