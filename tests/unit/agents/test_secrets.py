from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from contexten.extensions.flow import FlowService
from contexten.extensions.flow.actor import PYTHON
from contexten.extensions.flow.agents import AttemptContext, SecretVault, TaskCall
from contexten.extensions.flow.agents.protocol import Json, Traits
from contexten.extensions.flow.agents.secrets import MIN_SECRET_CHARS
from contexten.extensions.flow.errors import AttemptError, InvalidArguments
from contexten.extensions.flow.settings import FlowSettings
from contexten.extensions.flow.store.writer import Transaction
from contexten.extensions.flow.triggers.model import HookRequest

Run = Callable[..., Awaitable[Any]]
VALUE = 'p@ss "w\u00f6rd"/+1'


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> SecretVault:
    monkeypatch.setenv("API_KEY", VALUE)
    monkeypatch.setenv("OTHER", "another-value")
    return SecretVault(FlowSettings(secrets=["API_KEY@api.example.com+tool:shell", "OTHER", "UNSET"]))


def test_names_and_values_are_those_of_the_settings(vault: SecretVault) -> None:
    assert vault.names == {"API_KEY", "OTHER", "UNSET"}
    assert vault.value("API_KEY") == VALUE


@pytest.mark.parametrize(("name", "words"), [("UNSET", "set UNSET"), ("NOPE", "API_KEY, OTHER, UNSET")])
def test_a_secret_without_a_value_is_invalid_and_says_what_to_do(vault: SecretVault, name: str, words: str) -> None:
    with pytest.raises(AttemptError, match=words) as caught:
        vault.value(name)
    assert caught.value.kind == "invalid"


def test_a_value_too_short_to_mask_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIN", "1" * (MIN_SECRET_CHARS - 1))
    with pytest.raises(InvalidArguments, match="PIN") as caught:
        SecretVault(FlowSettings(secrets=["PIN"]))
    assert "111" not in str(caught.value.as_dict())


def test_a_secret_named_twice_is_refused() -> None:
    with pytest.raises(InvalidArguments):
        SecretVault(FlowSettings(secrets=["A", "A@x.example"]))


def test_a_rotated_value_counts_and_the_old_one_stays_masked(
    vault: SecretVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "rotated-value")
    assert vault.value("OTHER") == "rotated-value"
    assert vault.mask("rotated-value another-value") == "[secret:OTHER] [secret:OTHER]"


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        json.dumps(VALUE)[1:-1],
        json.dumps(VALUE, ensure_ascii=False)[1:-1],
        quote(VALUE),
        quote(VALUE, safe=""),
        quote(VALUE, safe="").lower().replace("w%c3", "w%c3"),
        VALUE.replace(" ", "%20")
        .replace('"', "%22")
        .replace("\u00f6", "%C3%B6")
        .replace("@", "%40")
        .replace("+", "%2B"),
        base64.b64encode(VALUE.encode()).decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode().rstrip("="),
    ],
)
def test_every_form_of_a_value_is_masked(vault: SecretVault, form: str) -> None:
    assert vault.mask(f"before {form} after") == "before [secret:API_KEY] after"
    assert vault.found_in(f"x{form}y") == {"API_KEY"}


@pytest.mark.parametrize("change", [str.lower, str.upper, str.casefold, str.swapcase, str.title])
@pytest.mark.parametrize("encode", [str, quote, lambda text: json.dumps(text)[1:-1]])
def test_a_value_is_masked_in_any_case(vault: SecretVault, change: Any, encode: Any) -> None:
    form = encode(change(VALUE))
    assert vault.mask(f"before {form} after") == "before [secret:API_KEY] after"
    assert vault.found_in(f"x{form}y") == {"API_KEY"}


def test_a_value_is_masked_beside_characters_that_folding_makes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET", "Stra\u00dfe-1")
    vault = SecretVault(FlowSettings(secrets=["STREET"]))
    for form in ("Stra\u00dfe-1", "STRASSE-1", "strasse-1"):
        assert vault.mask(f"\u00df\u0130 {form} \ufb03 {form}") == "\u00df\u0130 [secret:STREET] \ufb03 [secret:STREET]"


def test_a_value_is_masked_as_a_host_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAME", "T\u00d6ken-Value")
    vault = SecretVault(FlowSettings(secrets=["NAME"]))
    sent = httpx.URL("https://T\u00d6ken-Value.example.com").raw_host.decode()
    assert sent.startswith("xn--")
    assert vault.mask(f"no address for {sent}") == "no address for [secret:NAME].example.com"


@pytest.mark.parametrize("user", ["", "u", "us", "use", "user"])
def test_a_value_inside_longer_base64_is_masked(vault: SecretVault, user: str) -> None:
    header = base64.b64encode(f"{user}:{VALUE}:more".encode()).decode()
    masked = vault.mask({"authorization": f"Basic {header}"})
    assert "[secret:API_KEY]" in masked["authorization"]
    assert len(masked["authorization"].replace("[secret:API_KEY]", "")) <= len(header) - len(VALUE) + 6


def test_data_is_masked_in_keys_and_values_and_is_otherwise_the_same(vault: SecretVault) -> None:
    data = {"a": [1, None, {VALUE: f"x{VALUE}"}], "b": True}
    assert vault.mask(data) == {"a": [1, None, {"[secret:API_KEY]": "x[secret:API_KEY]"}], "b": True}
    plain = {"a": [1, "x", {"b": "c"}]}
    assert vault.mask(plain) is plain


def test_without_secrets_masking_does_nothing() -> None:
    vault = SecretVault(FlowSettings())
    data = {"a": "x"}
    assert vault.mask(data) is data
    assert vault.found_in("x") == frozenset()


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=4, max_size=20), st.text())
def test_no_value_survives_masking_in_json_text(value: str, around: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S_ECRET", value)
        vault = SecretVault(FlowSettings(secrets=["S_ECRET"]))
        for text in (f"{around}{value}{around}", json.dumps([value]), json.dumps({value: value}, ensure_ascii=False)):
            assert "[secret:S_ECRET]" in vault.mask(text)
            assert vault.found_in(text) == {"S_ECRET"}
        if value not in "[secret:S_ECRET]":
            assert value not in vault.mask(f"({value})")


def test_a_secret_goes_only_where_the_settings_say(vault: SecretVault) -> None:
    assert vault.allowed("API_KEY", tool="http_client", host="api.example.com")
    assert vault.allowed("API_KEY", tool="http_client", host="API.example.com:443")
    assert vault.allowed("API_KEY", tool="shell")
    assert not vault.allowed("API_KEY", tool="http_client", host="evil.example.com")
    assert not vault.allowed("API_KEY", tool="http_client", host="api.example.com.evil.com")
    assert not vault.allowed("API_KEY", tool="file_writer")
    assert not vault.allowed("NOPE", tool="shell")
    assert vault.allowed("OTHER", tool="file_writer")
    assert vault.allowed("OTHER", tool="http_client", host="anywhere.example")


def test_a_secret_granted_to_http_client_goes_to_any_host() -> None:
    vault = SecretVault(FlowSettings(secrets=["A@tool:http_client"]))
    assert vault.allowed("A", tool="http_client", host="x.example")
    assert not vault.allowed("A", tool="shell")


def test_every_tool_of_a_receiver_must_be_granted(vault: SecretVault) -> None:
    vault.require({"API_KEY", "OTHER"}, tools=("shell",), receiver="an agent")
    vault.require({"OTHER"}, tools=(), receiver="an agent")
    vault.require((), tools=("x",), receiver="an agent")
    for tools in (("shell", "x"), ()):
        with pytest.raises(AttemptError, match="API_KEY may not be handed to an agent"):
            vault.require({"API_KEY", "OTHER"}, tools=tools, receiver="an agent")


def test_a_grant_with_a_port_is_for_that_port() -> None:
    vault = SecretVault(FlowSettings(secrets=["A@x.example:8443"]))
    assert vault.allowed("A", tool="http_client", host="x.example:8443")
    assert not vault.allowed("A", tool="http_client", host="x.example:443")


async def refusal(call: Awaitable[Any]) -> str:
    with pytest.raises(AttemptError) as caught:
        await call
    assert caught.value.kind == "invalid"
    assert "t0ken-value" not in caught.value.message
    assert "t0ken-value" not in json.dumps(caught.value.details)
    return caught.value.message


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TOKEN", "t0ken-value")
    return "t0ken-value"


@pytest.mark.anyio
async def test_a_tool_that_is_not_granted_a_secret_does_not_get_it(run_tools: Run, token: str, tmp_path: Any) -> None:
    settings = {"secrets": ["TOKEN@tool:shell"], "allow_paths": (tmp_path,)}
    call = run_tools(
        "file_writer", settings=settings, secret_names=frozenset({"TOKEN"}), path="x", content=f"key={token}"
    )
    assert "file_writer" in await refusal(call)
    assert not (tmp_path / "x").exists()


@pytest.mark.anyio
async def test_a_tool_whose_parameter_names_a_secret_needs_the_grant_whatever_became_of_the_value(
    run_tools: Run, web: Any, token: str, tmp_path: Any
) -> None:
    """Where another tool of the pipeline gets it plain, too."""
    names = frozenset({"TOKEN"})
    settings = {"secrets": [f"TOKEN@{web.host}"], "allow_hosts": (web.host,), "allow_paths": (tmp_path,)}
    call = run_tools(
        "http_client",
        "file_writer",
        settings=settings,
        secrets={"headers": names, "content": names},
        url=web.on("/"),
        headers={"X-Secret": token},
        path="x",
        content=token[::-1],
    )
    assert "file_writer" in await refusal(call)
    assert web.requests == []
    assert not (tmp_path / "x").exists()


@pytest.mark.anyio
async def test_a_secret_that_comes_back_goes_to_no_further_tool(run_tools: Run, web: Any, token: str) -> None:
    web.on("/", body=json.dumps({"echo": token}).encode(), headers={"Content-Type": "application/json"})
    output = await run_tools(
        "http_client",
        "data_processor",
        settings={"secrets": [f"TOKEN@{web.host}"], "allow_hosts": (web.host,)},
        secret_names=frozenset({"TOKEN"}),
        url=web.url,
        headers={"X-Secret": token},
        query="reverse(echo)",
    )
    assert output == "[secret:TOKEN]"[::-1]


def test_a_secret_of_digits_is_masked_in_numbers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIN", "12345678")
    vault = SecretVault(FlowSettings(secrets=["PIN"]))
    assert vault.mask({"pin": 12345678, "n": 1, "yes": True, "x": [1.5]}) == {
        "pin": "[secret:PIN]",
        "n": 1,
        "yes": True,
        "x": [1.5],
    }


@pytest.mark.anyio
async def test_only_the_tool_of_a_pipeline_that_is_handed_the_secret_needs_the_grant(
    run_tools: Run, web: Any, token: str
) -> None:
    web.on("/", body=b"[1]")
    answer = await run_tools(
        "http_client",
        "json_parser",
        settings={"secrets": [f"TOKEN@{web.host}"], "allow_hosts": (web.host,)},
        secret_names=frozenset({"TOKEN"}),
        url=web.url + "/",
        headers={"Authorization": f"Bearer {token}"},
        pointer="/0",
    )
    assert answer == 1
    assert web.requests[0]["headers"]["authorization"] == f"Bearer {token}"


@pytest.mark.anyio
async def test_a_secret_is_not_sent_to_a_host_that_is_not_granted(run_tools: Run, web: Any, token: str) -> None:
    settings = {"secrets": ["TOKEN@api.example.com"], "allow_hosts": (web.host,)}
    call = run_tools(
        "http_client", settings=settings, secret_names=frozenset({"TOKEN"}), url=web.url, params={"key": token}
    )
    assert web.host in await refusal(call)
    assert web.requests == []


@pytest.mark.anyio
@pytest.mark.parametrize("grant", ["TOKEN", "TOKEN@{first}", "TOKEN@{first}+tool:shell"])
async def test_a_redirect_takes_no_secret_to_another_host(
    run_tools: Run, web: Any, start_web: Any, token: str, grant: str
) -> None:
    other = start_web()
    other.on("/end")
    settings = {"secrets": [grant.format(first=web.host)], "allow_hosts": (web.host, other.host)}
    url = web.on("/go", 307, headers={"Location": f"{other.url}/end"})
    names = frozenset({"TOKEN"})
    await run_tools(
        "http_client", settings=settings, secret_names=names, url=url, headers={"X-Secret": token, "X-B": "b"}
    )
    assert "x-secret" not in other.requests[0]["headers"]
    assert other.requests[0]["headers"]["x-b"] == "b"
    for body in ({"json": {"key": token}}, {"body": token[::-1]}):
        secrets = dict.fromkeys(body, names)
        call = run_tools("http_client", settings=settings, secrets=secrets, url=url, method="POST", **body)
        assert "another host" in await refusal(call)
    echo = web.on("/echo", 302, headers={"Location": f"{other.url}/end?key={token}"})
    call = run_tools("http_client", settings=settings, secret_names=names, url=echo, headers={"X-Secret": token})
    assert "another host" in await refusal(call)
    assert len(other.requests) == 1


@pytest.mark.anyio
async def test_a_redirect_may_take_a_body_with_a_secret_to_a_host_that_is_named_for_it(
    run_tools: Run, web: Any, start_web: Any, token: str
) -> None:
    other = start_web()
    other.on("/end")
    settings = {"secrets": [f"TOKEN@{web.host}+{other.host}"], "allow_hosts": (web.host, other.host)}
    url = web.on("/go", 307, headers={"Location": f"{other.url}/end"})
    await run_tools(
        "http_client", settings=settings, secret_names=frozenset({"TOKEN"}), url=url, method="POST", body=token
    )
    assert other.requests[0]["body"] == token.encode()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "value", ["T0ken-Value", "T0ken/Value", "T0ken?Value", "T0ken:Value", "T0ken#Value", "T\u00d6ken"]
)
@pytest.mark.parametrize("url", ["http://{}.example.com/x", "http://x{}/", "http://a.{}.b:8080/?q=1"])
async def test_a_secret_in_the_host_is_refused_and_the_host_is_not_shown(
    run_tools: Run, monkeypatch: pytest.MonkeyPatch, value: str, url: str
) -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return []

    monkeypatch.setenv("TOKEN", value)
    call = run_tools(
        "http_client",
        settings={"secrets": ["TOKEN"]},
        resolver=resolve,
        secret_names=frozenset({"TOKEN"}),
        url=url.format(value),
    )
    message = (await refusal(call)).casefold()
    assert "parameters/url" in message
    for part in re.split(r"\W", value.casefold()):
        assert part not in message.replace("a value", "")
    assert asked == []


@pytest.mark.anyio
async def test_a_redirect_to_a_host_with_a_secret_is_refused(run_tools: Run, web: Any, token: str) -> None:
    url = web.on("/go", 302, headers={"Location": f"http://{token.upper()}.example.com/"})
    call = run_tools(
        "http_client",
        settings={"secrets": ["TOKEN"], "allow_hosts": (web.host,)},
        secret_names=frozenset({"TOKEN"}),
        url=url,
        headers={"X-Secret": token},
    )
    message = await refusal(call)
    assert "in its host" in message
    assert "example.com" not in message


@pytest.mark.anyio
async def test_a_host_that_holds_a_secret_of_others_by_chance_is_reached(
    run_tools: Run, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEAK", "127.0")
    settings = {"secrets": ["WEAK"], "allow_hosts": (web.host,)}
    assert (await run_tools("http_client", settings=settings, url=web.on("/x")))["status"] == 200


@pytest.mark.anyio
async def test_errors_do_not_show_the_path_of_a_url_that_is_a_secret(
    run_tools: Run, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.on("/hook/..", 404)
    secret = f"HTTP://{web.host}/a/../hook/Pr1vate?x=1"
    monkeypatch.setenv("HOOK", secret)
    with pytest.raises(AttemptError) as caught:
        await run_tools(
            "http_client",
            settings={"secrets": ["HOOK"], "allow_hosts": (web.host,)},
            secret_names=frozenset({"HOOK"}),
            url=secret,
        )
    assert web.requests[0]["path"] == "/hook/Pr1vate?x=1"
    assert "404" in caught.value.message
    assert web.host in caught.value.message
    assert "Pr1vate" not in caught.value.message


@pytest.mark.anyio
async def test_errors_about_parameters_do_not_show_a_secret(run_tools: Run, token: str) -> None:
    call = run_tools(
        "http_client",
        settings={"secrets": ["TOKEN"]},
        secret_names=frozenset({"TOKEN"}),
        url="http://x.example/",
        headers={f"{token} ": "x"},
        **{token: 1},
    )
    assert "[secret:TOKEN]" in await refusal(call)


class Receiver:
    """An agent that offers shell."""

    name = "reader"
    agent_type = "python"
    tools: Sequence[str] = ("shell",)
    capacity = 1

    def __init__(self, traits: Traits) -> None:
        self.traits = traits

    async def run(self, task: TaskCall, context: AttemptContext) -> Json:
        return None


@pytest.mark.parametrize(
    ("secrets", "refused"),
    [
        ("granted", {"FILES"}),
        ("named", {"ALL", "SHELL", "FILES"}),
        ("own", set()),
        (str.lower, set()),
    ],
)
def test_what_is_handed_over_goes_by_the_agents_traits(
    monkeypatch: pytest.MonkeyPatch, secrets: Any, refused: set[str]
) -> None:
    settings = FlowSettings(
        secrets=["ALL", "SHELL@tool:shell", "FILES@tool:file_reader", "READER@tool:reader+tool:shell"]
    )
    for name in ("ALL", "SHELL", "FILES", "READER"):
        monkeypatch.setenv(name, f"value-of-{name}")
    vault = SecretVault(settings)
    for name in vault.names:
        if name in refused:
            with pytest.raises(AttemptError, match=f"The secret {name} may not be handed to .*reader"):
                vault.hand_over(Receiver(Traits(secrets=secrets)), {name})
        else:
            vault.hand_over(Receiver(Traits(secrets=secrets)), {name})


@pytest.mark.anyio
async def test_the_secrets_of_a_thousand_hooks_are_shown_nowhere_and_nothing_looks_for_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No task is handed them and no view has them, so that masking need not know them: it would take ever longer."""
    caplog.set_level(logging.DEBUG, logger="contexten")
    settings = FlowSettings(database=tmp_path / "flow.sqlite3")
    async with FlowService(settings, drive=False) as flows:
        await flows.create_flow(workflow_def={"stages": [{"name": "s", "tasks": [{"name": "t"}]}]}, flow_id="f")
        hook = await flows.triggers.create(flow_id="f", kind="webhook", trigger_id="hook", actor=PYTHON)
        await flows._store.write(copy_hook)
    assert hook.secret is not None
    async with FlowService(settings, drive=False) as flows:
        assert flows.vault._forms == {}
        now = flows.clock.now()
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp()))}
        headers["webhook-signature"] = Webhook(hook.secret).sign("msg_1", now, "{}")
        taken = await flows.triggers.receive("hook", HookRequest(headers=headers, body=b"{}"))
        refused = await flows.triggers.receive("hook", HookRequest(headers=headers, body=b"[]"))
        assert flows.vault._forms == {}
        shown = [
            taken.body,
            refused.body,
            (await flows.triggers.list(limit=100)).data(),
            (await flows.triggers.update("hook", name="another", actor=PYTHON)).data(),
            (await flows.triggers.test("hook", actor=PYTHON)).data(),
            (await flows.triggers.deliveries()).data(),
            [event.data() for event in await flows.events(limit=1000)],
            (await flows.triggers.delete("hook", actor=PYTHON)).data(),
        ]
    assert (taken.status, refused.status) == (202, 401)
    text = json.dumps(shown) + caplog.text
    assert "msg_1" in text
    assert hook.secret.removeprefix("whsec_") not in text


def copy_hook(tx: Transaction) -> None:
    """Make a thousand hooks of one, each with a secret of its own."""
    tx.execute("CREATE TEMP TABLE copies AS SELECT * FROM triggers WHERE trigger_id = 'hook'")
    for number in range(999):
        secret = "whsec_" + base64.b64encode(number.to_bytes(32)).decode()
        tx.execute("UPDATE copies SET seq = ?, trigger_id = ?, secret = ?", (100 + number, f"hook-{number}", secret))
        tx.execute("INSERT INTO triggers SELECT * FROM copies")
    tx.execute("DROP TABLE copies")
