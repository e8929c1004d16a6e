from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest

from contexten.extensions.flow.agents.tools import http_exchange
from contexten.extensions.flow.agents.tools.http_client import HttpClient
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.settings import FlowSettings

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Any]]
JSON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.fixture
def fetch(run_tools: Run, web: Any) -> Run:
    async def fetch(url: str, *, settings: dict[str, Any] | None = None, **parameters: Any) -> Any:
        allowed = {"allow_hosts": (web.host,), **(settings or {})}
        return await run_tools("http_client", settings=allowed, url=url, **parameters)

    return fetch


async def failure(call: Awaitable[Any]) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await call
    return caught.value


async def test_a_json_answer_is_parsed_with_status_and_headers(fetch: Run, web: Any) -> None:
    url = web.on("/data", body=b'{"rows": [1, 2.5, null]}', headers={**JSON, "X-Note": "gr\u00fc\u00df"})
    answer = await fetch(url)
    assert answer["status"] == 200
    assert answer["body"] == {"rows": [1, 2.5, None]}
    assert answer["headers"]["content-type"] == JSON["Content-Type"]
    assert answer["headers"]["x-note"] == "gr\u00fc\u00df"
    assert answer.keys() == {"status", "headers", "body"}


async def test_a_problem_json_type_counts_as_json(fetch: Run, web: Any) -> None:
    url = web.on("/p", body=b'{"a":1}', headers={"Content-Type": "application/problem+json"})
    assert (await fetch(url))["body"] == {"a": 1}


async def test_other_content_is_text_unless_a_format_says_otherwise(fetch: Run, web: Any) -> None:
    url = web.on("/t", body=b'["a"]\n', headers={"Content-Type": "text/plain"})
    assert (await fetch(url))["body"] == '["a"]\n'
    assert (await fetch(url, format="json"))["body"] == ["a"]
    assert (await fetch(url, format="lines"))["body"] == ['["a"]']
    assert (await fetch(url, format="bytes"))["body"] == base64.b64encode(b'["a"]\n').decode()


async def test_text_is_decoded_in_the_announced_character_set(fetch: Run, web: Any) -> None:
    url = web.on("/l", body="caf\u00e9".encode("latin-1"), headers={"Content-Type": "text/plain; charset=iso-8859-1"})
    assert (await fetch(url))["body"] == "caf\u00e9"


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "idna", "hex", "rot13", "no-such-charset", "utf-16"])
async def test_odd_character_sets_never_yield_text_that_is_not_unicode(fetch: Run, web: Any, charset: str) -> None:
    body = b"+2AA- \\ud800 \x00\xd8 abc"
    url = web.on("/odd", body=body, headers={"Content-Type": f"text/plain; charset={charset}"})
    (await fetch(url))["body"].encode()


async def test_lone_surrogates_and_huge_numbers_of_a_json_answer_become_storable(fetch: Run, web: Any) -> None:
    url = web.on("/s", body=b'{"a": "\\ud800x", "n": 123456789012345678901234567890}', headers=JSON)
    assert (await fetch(url))["body"] == {"a": "\ufffdx", "n": "123456789012345678901234567890"}


@pytest.mark.parametrize("body", [b"{", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 100_000, b"\xff"])
async def test_a_json_answer_that_is_not_json_fails_as_invalid(fetch: Run, web: Any, body: bytes) -> None:
    error = await failure(fetch(web.on("/bad", body=body, headers=JSON)))
    assert error.kind == "invalid"
    assert "format text" in error.message


async def test_an_empty_answer_has_an_empty_body(fetch: Run, web: Any) -> None:
    assert (await fetch(web.on("/none", 204)))["body"] == ""
    assert (await fetch(web.on("/null", headers=JSON)))["body"] is None
    assert (await fetch(web.on("/head", body=b"[1]", headers=JSON), method="head"))["body"] is None


async def test_method_headers_params_and_json_reach_the_server(fetch: Run, web: Any) -> None:
    url = web.on("/in?a=1", 200) and web.on("/in")
    await fetch(
        url + "?a=1",
        method="post",
        headers={"X-Key": "v\u00e4l"},
        params={"b": [1, True], "c": "x y&"},
        json={"t": "\u00e9"},
    )
    asked = web.requests[-1]
    assert asked["method"] == "POST"
    assert asked["path"] == "/in?a=1&b=1&b=true&c=x+y%26"
    assert asked["headers"]["x-key"].encode("latin-1").decode() == "v\u00e4l"
    assert asked["headers"]["content-type"] == "application/json"
    assert json.loads(asked["body"]) == {"t": "\u00e9"}


async def test_a_null_json_body_is_sent_and_a_missing_one_is_not(fetch: Run, web: Any) -> None:
    url = web.on("/n")
    await fetch(url, method="POST", json=None)
    assert web.requests[-1]["body"] == b"null"
    await fetch(url, method="POST")
    assert web.requests[-1]["body"] == b""


async def test_a_text_body_is_sent_as_it_is(fetch: Run, web: Any) -> None:
    await fetch(web.on("/b"), method="PUT", body="a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert web.requests[-1]["body"] == b"a=1"
    assert web.requests[-1]["headers"]["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid"),
        (401, "invalid"),
        (404, "invalid"),
        (408, "timeout"),
        (429, "rate_limit"),
        (500, "network"),
        (503, "network"),
        (504, "timeout"),
    ],
)
async def test_a_status_of_400_or_more_fails_with_its_kind(fetch: Run, web: Any, status: int, kind: str) -> None:
    error = await failure(fetch(web.on("/e", status, b"why it failed")))
    assert error.kind == kind
    assert error.details == {"status": status, "body": "why it failed"}
    assert str(status) in error.message
    assert "why it failed" in error.message


async def test_a_status_in_accept_status_does_not_fail(fetch: Run, web: Any) -> None:
    answer = await fetch(web.on("/e", 404, b"no"), accept_status=[404])
    assert (answer["status"], answer["body"]) == (404, "no")


async def test_retry_after_in_seconds_and_as_a_date_is_told(fetch: Run, web: Any) -> None:
    error = await failure(fetch(web.on("/r", 429, headers={"Retry-After": "7"})))
    assert error.details == {"status": 429, "retry_after_s": 7.0}
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    error = await failure(fetch(web.on("/d", 503, headers={"Retry-After": date})))
    assert error.details is not None
    assert 3000 < error.details["retry_after_s"] <= 3600


@pytest.mark.parametrize("value", ["soon", "-1", "9" * 400, "1e999", "", "Thu, 99 Foo 2000"])
async def test_a_senseless_retry_after_is_left_out(fetch: Run, web: Any, value: str) -> None:
    error = await failure(fetch(web.on("/r", 503, headers={"Retry-After": value})))
    assert error.details == {"status": 503}


async def test_redirects_are_followed_and_relative_ones_resolved(fetch: Run, web: Any) -> None:
    web.on("/end", body=b"here")
    web.on("/b", 307, headers={"Location": "end#part"})
    assert (await fetch(web.on("/a", 302, headers={"Location": "/b"})))["body"] == "here"
    assert [asked["path"] for asked in web.requests] == ["/a", "/b", "/end"]


async def test_a_303_turns_a_post_into_a_get_and_a_307_does_not(fetch: Run, web: Any) -> None:
    web.on("/end")
    await fetch(web.on("/a", 303, headers={"Location": "/end"}), method="POST", json={"a": 1})
    assert (web.requests[-1]["method"], web.requests[-1]["body"]) == ("GET", b"")
    assert "content-type" not in web.requests[-1]["headers"]
    await fetch(web.on("/c", 307, headers={"Location": "/end"}), method="POST", json={"a": 1})
    assert (web.requests[-1]["method"], web.requests[-1]["body"]) == ("POST", b'{"a":1}')


async def test_endless_redirects_end_as_invalid(fetch: Run, web: Any) -> None:
    error = await failure(fetch(web.on("/loop", 302, headers={"Location": "/loop"})))
    assert error.kind == "invalid"
    assert len(web.requests) == http_exchange.MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "location", ["ftp://example.com/", "file:///etc/passwd", "http://u:p@127.0.0.1/", "http://127.0.0.1:0/"]
)
async def test_a_redirect_to_what_may_not_be_fetched_is_refused(fetch: Run, web: Any, location: str) -> None:
    assert (await failure(fetch(web.on("/a", 302, headers={"Location": location})))).kind == "invalid"
    assert len(web.requests) == 1


async def test_a_redirect_to_what_is_no_url_fails(fetch: Run, web: Any) -> None:
    assert (await failure(fetch(web.on("/a", 302, headers={"Location": "http://[::"})))).kind == "network"


async def test_cookies_of_one_call_never_reach_another(fetch: Run, web: Any) -> None:
    await fetch(web.on("/set", headers={"Set-Cookie": "session=1; Path=/"}))
    await fetch(web.on("/get"))
    assert "cookie" not in web.requests[-1]["headers"]


async def test_proxies_of_the_environment_are_ignored(fetch: Run, web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await fetch(web.on("/x", body=b"direct")))["body"] == "direct"


async def test_an_answer_over_the_cap_fails_and_is_not_read_to_its_end(fetch: Run, web: Any) -> None:
    settings = {"max_response_bytes": 4096}
    assert len((await fetch(web.on("/fits", body=b"x" * 4096), settings=settings))["body"]) == 4096
    error = await failure(fetch(web.on("/flood", body=[b"x" * 65536] * 1000), settings=settings))
    assert error.kind == "invalid"
    assert "4096" in error.message


async def test_a_packed_answer_is_unpacked_within_the_cap(fetch: Run, web: Any) -> None:
    packed = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    two_members = gzip.compress(b"one ") + gzip.compress(b"two")
    assert (await fetch(web.on("/g", body=two_members, headers=packed)))["body"] == "one two"
    bomb = gzip.compress(b"\0" * (64 << 20))
    error = await failure(fetch(web.on("/bomb", body=bomb, headers=packed), settings={"max_response_bytes": 4096}))
    assert "4096" in error.message


async def test_damaged_or_unknown_packing_fails_as_network(fetch: Run, web: Any) -> None:
    assert (await failure(fetch(web.on("/d", body=b"no", headers={"Content-Encoding": "gzip"})))).kind == "network"
    assert (await failure(fetch(web.on("/u", body=b"no", headers={"Content-Encoding": "br"})))).kind == "network"


async def test_a_server_that_hangs_is_a_timeout_and_leaves_the_client_usable(fetch: Run, web: Any) -> None:
    url = web.on("/hang", body=b"late", hang=threading.Event())
    assert (await failure(fetch(url, timeout_s=0.2))).kind == "timeout"
    assert (await fetch(web.on("/ok", body=b"fine")))["body"] == "fine"


async def test_a_cancelled_call_leaves_the_client_usable(fetch: Run, web: Any) -> None:
    url = web.on("/hang", body=b"late", hang=threading.Event())
    with anyio.move_on_after(0.2) as scope:
        await fetch(url)
    assert scope.cancelled_caught
    assert (await fetch(web.on("/ok", body=b"fine")))["body"] == "fine"


async def test_a_refused_connection_is_network(fetch: Run, web: Any, start_web: Any) -> None:
    gone = start_web()
    gone.close()
    error = await failure(fetch(gone.url, settings={"allow_hosts": ("127.0.0.1",)}))
    assert error.kind == "network"


async def test_a_name_that_does_not_resolve_is_network(run_tools: Run) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    error = await failure(run_tools("http_client", url="http://nowhere.example/", resolver=resolver))
    assert error.kind == "network"
    assert "nowhere.example" in error.message


async def test_many_calls_at_once_share_one_client(fetch: Run, web: Any) -> None:
    url = web.on("/many", body=b"ok")
    bodies: list[str] = []

    async def one() -> None:
        bodies.append((await fetch(url))["body"])

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(one)
    assert bodies == ["ok"] * 50


async def test_closing_lets_a_call_in_flight_finish(web: Any, context: Any) -> None:
    from contexten.extensions.flow.agents import BuiltinToolAgent, TaskCall
    from contexten.extensions.flow.clock import SystemClock

    settings = FlowSettings(allow_hosts=(web.host,))
    agent = BuiltinToolAgent(settings, SystemClock())
    release = threading.Event()
    url = web.on("/slow", body=b"done", hang=release)
    call = TaskCall(
        name="t", type="tool", description=None, required_tools=("http_client",), parameters={"url": url},
        complexity=1, preferred_agent_type=None,
    )  # fmt: skip
    outputs: list[Any] = []

    async def fetch() -> None:
        outputs.append(await agent.run(call, context))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(fetch)
            while not web.requests:
                await anyio.lowlevel.checkpoint()
            await agent.aclose()
            release.set()
    assert outputs[0]["body"] == "done"
    await agent.aclose()


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({}, "parameters/url"),
        ({"url": "http://x.example", "method": "BREW"}, "parameters/method"),
        ({"url": "http://x.example", "headers": {"a b": "c"}}, "parameters/headers"),
        ({"url": "http://x.example", "headers": {"a": "b\r\nc: d"}}, "parameters/headers"),
        ({"url": "http://x.example", "headers": {"Host": "y"}}, "parameters/headers"),
        ({"url": "http://x.example", "timeout_s": 301}, "parameters/timeout_s"),
        ({"url": "http://x.example", "timeout_s": 0}, "parameters/timeout_s"),
        ({"url": "http://x.example", "json": 1, "body": "x"}, "json or body"),
        ({"url": "http://x.example", "accept_status": [200]}, "parameters/accept_status/0"),
        ({"url": "http://x.example", "verify": False}, "parameters/verify"),
        ({"url": "/relative"}, "parameters/url"),
        ({"url": "gopher://x.example/"}, "parameters/url"),
        ({"url": "http://user:pass@x.example/"}, "parameters/url"),
        ({"url": "http://[::1"}, "parameters/url"),
        ({"url": "http://x.example:99999/"}, "parameters/url"),
        ({"url": "http://a\x00b/"}, "parameters/url"),
    ],
)
async def test_wrong_parameters_are_invalid_and_name_their_place(
    run_tools: Run, parameters: dict[str, Any], place: str
) -> None:
    error = await failure(run_tools("http_client", **parameters))
    assert error.kind == "invalid"
    assert place in error.message


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8080/x",
        "https://10.1.2.3/{{ inputs.path }}",
        "http://[::1]:80/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://api.localhost/",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_creation_warns_of_a_literal_private_url(url: str) -> None:
    (issue,) = HttpClient(FlowSettings()).warnings({"url": url})
    assert (issue.path, issue.code) == ("/url", "private_address")


@pytest.mark.parametrize(
    "parameters",
    [
        {"url": "https://example.com/"},
        {"url": "{{ inputs.url }}"},
        {"url": "http://{{ inputs.host }}/"},
        {"url": "http://10.{{ inputs.rest }}/"},
        {"url": "http://127.0.0.1:8080/x"},
        {"url": "http://[::1"},
        {"url": 5},
        {},
    ],
)
def test_creation_does_not_warn_of_other_urls(parameters: dict[str, Any]) -> None:
    assert not HttpClient(FlowSettings(allow_hosts=("127.0.0.1:8080",))).warnings(parameters)
