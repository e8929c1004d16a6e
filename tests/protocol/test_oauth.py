"""The server as an OAuth 2.0 protected resource: which access tokens it takes, what it tells those without, and how a
client finds its way by itself."""

import base64
import hmac
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import httpx
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from mcp.client import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp.shared.exceptions import MCPError

from contexten.extensions.flow.settings import FlowSettings
from contexten_server.http import http_app
from contexten_server.signing_keys import AGAIN_S, KEPT_S, IssuerUnavailable, SigningKeys

from .conftest import reserved_port

pytestmark = pytest.mark.anyio

RESOURCE = "https://flows.example.com/mcp"
METADATA_URL = "https://flows.example.com/.well-known/oauth-protected-resource/mcp"
SECRET = "a-clients-secret"
VALUE = {
    "stages": [
        {
            "name": "main",
            "tasks": [{"name": "value", "required_tools": ["data_processor"], "parameters": {"data": 1, "query": "@"}}],
        }
    ]
}


@dataclass
class AuthorizationServer:
    """An authorization server on loopback with key pairs of its own."""

    issuer: str
    keys: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Those that it publishes, by id, each with its algorithm."""
    pages: dict[str, Any] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    issued: list[str] = field(default_factory=list)
    grants: tuple[str, ...] | None = None
    """The scopes that it gives, whatever a client asks for."""
    is_down: bool = False

    def rotate(self, key_id: str) -> None:
        """Publish only a new key of that name."""
        self.keys = {key_id: (ec.generate_private_key(ec.SECP256R1()), "ES256")}

    def key_set(self) -> dict[str, Any]:
        found = []
        for key_id, (key, algorithm) in self.keys.items():
            family = jwt.get_algorithm_by_name(algorithm)
            found.append({**json.loads(family.to_jwk(key.public_key())), "kid": key_id, "use": "sig"})
        return {"keys": found}

    def token(self, key_id: str | None = None, *, key: Any = None, algorithm: str | None = None, **claims: Any) -> str:
        """A token that is good for the resource, but for the claims given; None leaves a claim out."""
        key_id = key_id or next(iter(self.keys))
        own_key, own_algorithm = self.keys.get(key_id) or next(iter(self.keys.values()))
        body = {
            "iss": self.issuer,
            "aud": RESOURCE,
            "sub": "alice",
            "client_id": "an app",
            "scope": "flows:run flows:read",
            "exp": int(time.time()) + 600,
            **claims,
        }
        body = {name: value for name, value in body.items() if value is not None}
        algorithm = algorithm or own_algorithm
        return jwt.encode(body, key if key is not None else own_key, algorithm=algorithm, headers={"kid": key_id})

    def issue(self, form: dict[str, list[str]], authorization: str) -> dict[str, Any]:
        """The answer of the token endpoint to a client's own credentials (RFC 6749, section 4.4)."""
        credentials = base64.b64encode(f"a-machine:{SECRET}".encode()).decode()
        assert authorization == f"Basic {credentials}"
        assert form["grant_type"] == ["client_credentials"]
        scope = " ".join(self.grants) if self.grants is not None else form.get("scope", [""])[0]
        token = self.token(aud=form["resource"][0], sub="a-machine", client_id="a-machine", scope=scope)
        self.issued.append(token)
        return {"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": scope}


def _pages(server: AuthorizationServer) -> type[BaseHTTPRequestHandler]:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked[self.path] += 1
            page = server.key_set() if self.path == "/jwks" else server.pages.get(self.path)
            self.answer(page)

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            self.answer(server.issue(form, self.headers["authorization"]) if self.path == "/token" else None)

        def answer(self, page: Any) -> None:
            body = json.dumps(page).encode()
            self.send_response(503 if server.is_down else 404 if page is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Pages


@pytest.fixture
def issuer() -> Iterator[AuthorizationServer]:
    server = AuthorizationServer("")
    with ThreadingHTTPServer(("127.0.0.1", 0), _pages(server)) as listening:
        server.issuer = f"http://127.0.0.1:{listening.server_port}"
        server.rotate("first")
        server.pages["/.well-known/oauth-authorization-server"] = {
            "issuer": server.issuer,
            "authorization_endpoint": f"{server.issuer}/authorize",
            "token_endpoint": f"{server.issuer}/token",
            "jwks_uri": f"{server.issuer}/jwks",
        }
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        listening.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path, issuer: AuthorizationServer) -> FlowSettings:
    return FlowSettings(
        database=tmp_path / "flow.sqlite3",
        durability="process",
        stop_grace_s=0.5,
        tokens=("an-operators-token",),
        oauth_issuer=issuer.issuer,
        oauth_resource=RESOURCE,
        oauth_scopes=("flows:run",),
    )


@pytest.fixture
async def web(live: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The pages of a server in this process."""
    transport = httpx.ASGITransport(http_app(live.server, live.app, host="127.0.0.1"))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_token_of_the_issuer_for_this_server_is_taken(
    web: httpx.AsyncClient, issuer: AuthorizationServer
) -> None:
    assert issuer.asked == {}
    for changed in ({}, {"aud": ["https://other.example", RESOURCE]}, {"scope": None, "scp": ["flows:run"]}):
        assert (await web.get("/api/scheduler", headers=_bearer(issuer.token(**changed)))).status_code == 200
    assert issuer.asked == {"/.well-known/oauth-authorization-server": 1, "/jwks": 1}


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES384", "EdDSA"])
async def test_signatures_by_key_pairs_of_every_family_are_taken(
    algorithm: str, web: httpx.AsyncClient, issuer: AuthorizationServer
) -> None:
    key: Any
    if algorithm == "EdDSA":
        key = ed25519.Ed25519PrivateKey.generate()
    elif algorithm == "ES384":
        key = ec.generate_private_key(ec.SECP384R1())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer.keys = {"another": (key, algorithm)}
    assert (await web.get("/api/scheduler", headers=_bearer(issuer.token()))).status_code == 200


def _unsigned(issuer: AuthorizationServer) -> str:
    return issuer.token(key="", algorithm="none")


def _signed_with_what_is_public(issuer: AuthorizationServer) -> str:
    """The confusion of algorithms: the public key taken for a shared secret (RFC 8725, section 2.1)."""
    secret = issuer.keys["first"][0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"first"}').rstrip(b"=").decode()
    signed = f"{head}.{issuer.token().split('.')[1]}"
    signature = hmac.digest(secret, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _forged(issuer: AuthorizationServer) -> str:
    return issuer.token(key=ec.generate_private_key(ec.SECP256R1()))


def _altered(issuer: AuthorizationServer) -> str:
    head, _, signature = issuer.token().split(".")
    body = issuer.token(sub="the operator").split(".")[1]
    return f"{head}.{body}.{signature}"


def _without_key_id(issuer: AuthorizationServer) -> str:
    key, algorithm = issuer.keys["first"]
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    return jwt.encode(claims, key, algorithm=algorithm)


REFUSED: dict[str, tuple[Callable[[AuthorizationServer], str], str]] = {
    "expired": (lambda issuer: issuer.token(exp=int(time.time()) - 3600), "expired"),
    "without an end": (lambda issuer: issuer.token(exp=None), "claims"),
    "not yet valid": (lambda issuer: issuer.token(nbf=int(time.time()) + 3600), "not valid yet"),
    "for another server": (lambda issuer: issuer.token(aud="https://other.example/mcp"), "audience"),
    "for a longer address": (lambda issuer: issuer.token(aud=RESOURCE + "/more"), "audience"),
    "for nobody": (lambda issuer: issuer.token(aud=None), "claims"),
    "of another issuer": (lambda issuer: issuer.token(iss="https://other.example"), "another issuer"),
    "of this issuer with a slash": (lambda issuer: issuer.token(iss=issuer.issuer + "/"), "another issuer"),
    "of no issuer": (lambda issuer: issuer.token(iss=None), "claims"),
    "of nobody": (lambda issuer: issuer.token(sub=None, client_id=None), "who it speaks for"),
    "unsigned": (_unsigned, "not taken"),
    "signed with what is public": (_signed_with_what_is_public, "not taken"),
    "of a kind that is not the key's": (
        lambda issuer: issuer.token(key=rsa.generate_private_key(65537, 2048), algorithm="RS256"),
        "form or signature",
    ),
    "forged": (_forged, "form or signature"),
    "altered": (_altered, "form or signature"),
    "of an unknown key": (lambda issuer: issuer.token("nobodys"), "not known"),
    "without the key's name": (_without_key_id, "name its key"),
    "no token": (lambda issuer: "abc", "form or signature"),
    "an endless header": (
        lambda issuer: base64.urlsafe_b64encode(b'{"a":' + b"[" * 30_000).decode() + ".e30.e30",
        "form or signature",
    ),
    "nothing": (lambda issuer: "", "form or signature"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_any_other_token_is_refused_with_the_reason_and_the_way_to_a_good_one(
    name: str, web: httpx.AsyncClient, issuer: AuthorizationServer
) -> None:
    make, reason = REFUSED[name]
    headers = _bearer(make(issuer))
    for answer in (
        await web.get("/sse", headers=headers),
        await web.post("/mcp", headers=headers, json={}),
        await web.post("/messages/?session_id=x", headers=headers, json={}),
    ):
        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer ")
        assert 'error="invalid_token"' in challenge
        assert f'resource_metadata="{METADATA_URL}"' in challenge
        error = answer.json()["error"]
        assert reason in error["message"]
        assert METADATA_URL in error["next"]


async def test_without_a_token_the_way_to_one_is_told_and_no_error(web: httpx.AsyncClient) -> None:
    answer = await web.post("/mcp", json={})
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert "error" not in challenge
    assert f'resource_metadata="{METADATA_URL}"' in challenge
    assert 'scope="flows:run"' in challenge


async def test_a_token_without_the_scopes_is_forbidden_and_told_which(
    web: httpx.AsyncClient, issuer: AuthorizationServer
) -> None:
    for scope in ("flows:read", "flows:runs", None):
        answer = await web.post("/mcp", headers=_bearer(issuer.token(scope=scope)), json={})
        assert answer.status_code == 403
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="flows:run"' in challenge
        assert f'resource_metadata="{METADATA_URL}"' in challenge
        assert answer.json()["error"]["code"] == "insufficient_scope"


async def test_anybody_may_read_where_tokens_come_from_and_other_pages_stay_as_they_are(
    web: httpx.AsyncClient, issuer: AuthorizationServer
) -> None:
    told = await web.get("/.well-known/oauth-protected-resource/mcp")
    assert told.status_code == 200
    assert told.json() == {
        "resource": RESOURCE,
        "authorization_servers": [issuer.issuer],
        "scopes_supported": ["flows:run"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Contexten Flow",
    }
    foreign = await web.get("/.well-known/oauth-protected-resource/mcp", headers={"Host": "evil.example"})
    assert foreign.status_code == 421
    assert (await web.get("/healthz")).status_code == 200
    assert (await web.get("/readyz")).status_code == 200
    assert (await web.get("/api/scheduler")).status_code == 401


async def test_clients_may_come_by_the_servers_public_name(web: httpx.AsyncClient, issuer: AuthorizationServer) -> None:
    public = {"Host": "flows.example.com", "Origin": "https://flows.example.com"}
    assert (await web.get("/api/scheduler", headers={**public, **_bearer(issuer.token())})).status_code == 200


async def test_an_operators_token_is_taken_beside_access_tokens(
    web: httpx.AsyncClient, issuer: AuthorizationServer
) -> None:
    assert (await web.get("/api/scheduler", headers=_bearer("an-operators-token"))).status_code == 200
    assert issuer.asked == {}
    assert (await web.get("/api/scheduler", headers=_bearer(issuer.token()))).status_code == 200


async def test_while_the_issuer_is_down_a_token_is_neither_taken_nor_called_wrong(
    web: httpx.AsyncClient, issuer: AuthorizationServer
) -> None:
    issuer.is_down = True
    for _ in range(3):
        answer = await web.get("/api/scheduler", headers=_bearer(issuer.token()))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == f"{AGAIN_S:.0f}"
        assert answer.json()["error"]["retryable"] is True
    assert issuer.asked.total() == 1
    assert (await web.get("/api/scheduler", headers=_bearer("an-operators-token"))).status_code == 200


@dataclass
class Seconds:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_an_unknown_key_is_asked_for_once_in_a_while_however_many_tokens_name_it(
    issuer: AuthorizationServer,
) -> None:
    clock = Seconds()
    keys = SigningKeys(issuer.issuer, monotonic=clock)
    assert await keys.find("first") is not None
    issuer.rotate("second")
    assert await keys.find("second") is not None
    assert await keys.find("first") is None  # withdrawn
    assert issuer.asked["/jwks"] == 2
    issuer.rotate("third")
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(keys.find, f"nobodys-{number}")
    assert await keys.find("third") is None
    assert issuer.asked["/jwks"] == 2
    clock.now += AGAIN_S
    assert await keys.find("third") is not None
    assert issuer.asked["/jwks"] == 3


async def test_many_first_tokens_at_once_make_one_fetch(issuer: AuthorizationServer) -> None:
    keys = SigningKeys(issuer.issuer)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(keys.find, "first")
    assert issuer.asked == {"/.well-known/oauth-authorization-server": 1, "/jwks": 1}


async def test_keys_are_fetched_anew_when_they_are_old_and_kept_for_a_while_when_the_issuer_is_down(
    issuer: AuthorizationServer,
) -> None:
    clock = Seconds()
    keys = SigningKeys(issuer.issuer, f"{issuer.issuer}/jwks", monotonic=clock)
    await keys.find("first")
    clock.now += KEPT_S - 1
    await keys.find("first")
    assert issuer.asked == {"/jwks": 1}
    clock.now += 1
    issuer.is_down = True
    assert await keys.find("first") is not None
    assert await keys.find("first") is not None
    assert issuer.asked["/jwks"] == 2
    clock.now += 6 * KEPT_S
    with pytest.raises(IssuerUnavailable):
        await keys.find("first")
    issuer.is_down = False
    with pytest.raises(IssuerUnavailable):
        await keys.find("first")
    clock.now += AGAIN_S
    assert await keys.find("first") is not None


async def test_the_metadata_of_openid_connect_serves_too(issuer: AuthorizationServer) -> None:
    page = issuer.pages.pop("/.well-known/oauth-authorization-server")
    issuer.pages["/.well-known/openid-configuration"] = page
    assert await SigningKeys(issuer.issuer).find("first") is not None
    own = f"{issuer.issuer}/realms/one"
    issuer.pages["/realms/one/.well-known/openid-configuration"] = {**page, "issuer": own}
    assert await SigningKeys(own).find("first") is not None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"issuer": "https://other.example"}, "another issuer"),
        ({"jwks_uri": "http://keys.example.com/jwks"}, "https is needed"),
        ({"jwks_uri": "file:///etc/passwd"}, "whole URL"),
        ({"jwks_uri": None}, "did not answer with what is expected"),
    ],
)
async def test_metadata_that_may_not_be_trusted_is_not_used(
    changed: dict[str, Any], told: str, issuer: AuthorizationServer
) -> None:
    issuer.pages["/.well-known/oauth-authorization-server"].update(changed)
    with pytest.raises(IssuerUnavailable, match=told):
        await SigningKeys(issuer.issuer).fetch()
    assert issuer.asked["/jwks"] == 0


class Memory:
    """What a client remembers of its tokens."""

    tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        pass


@dataclass
class Resource:
    """A server process that takes the issuer's tokens."""

    served: Any
    base: str

    answers: list[int] = field(default_factory=list)
    """The statuses with which clients were answered."""

    @asynccontextmanager
    async def client(
        self, era: str, transport: str, auth: httpx2.Auth | None, token: str = ""
    ) -> AsyncIterator[Client]:
        """A client that authenticates itself so, or that has this token."""

        async def note(response: httpx2.Response) -> None:
            if str(response.url).startswith(self.base):
                self.answers.append(response.status_code)

        def connect(
            headers: dict[str, str] | None = None,
            timeout: httpx2.Timeout | None = None,
            auth: httpx2.Auth | None = None,
        ) -> httpx2.AsyncClient:
            return httpx2.AsyncClient(headers=headers, timeout=timeout, auth=auth, event_hooks={"response": [note]})

        headers = _bearer(token) if token else {}
        async with connect(headers, httpx2.Timeout(30), auth) as http:
            channel: Any = (
                sse_client(f"{self.base}/sse", headers=headers, timeout=30, auth=auth, httpx_client_factory=connect)
                if transport == "sse"
                else streamable_http_client(f"{self.base}/mcp", http_client=http)
            )
            async with Client(channel, mode="legacy" if era == "legacy" else "auto") as client:
                yield client

    def own_way(self, transport: str) -> httpx2.Auth:
        """The authentication of a client that knows nothing but the server's URL and its own secret."""
        path = "/sse" if transport == "sse" else "/mcp"
        return ClientCredentialsOAuthProvider(f"{self.base}{path}", Memory(), "a-machine", SECRET)


@pytest.fixture
def resource(serve: Callable[..., Any], issuer: AuthorizationServer) -> Iterator[Resource]:
    with reserved_port() as port:
        base = f"http://127.0.0.1:{port}"
        served = serve(
            "--port",
            str(port),
            OAUTH_ISSUER=issuer.issuer,
            OAUTH_RESOURCE=base,
            OAUTH_SCOPES="flows:run",
            LOG_LEVEL="DEBUG",
        )
        yield Resource(served, base)


async def _actors(client: Client) -> set[str]:
    run = await client.call_tool("execute_flow", {"workflow_def": VALUE, "wait_s": 20})
    assert run.structured_content is not None
    assert run.structured_content["output"] == {"value": 1}
    events = await client.call_tool("get_flow_status", {"run_id": run.structured_content["run_id"], "detail": "events"})
    assert events.structured_content is not None
    return {event["actor"] for event in events.structured_content["events"] if "actor" in event}


async def test_a_client_finds_the_authorization_server_by_itself_and_is_recorded(
    resource: Resource, issuer: AuthorizationServer, era: str
) -> None:
    with anyio.fail_after(40):
        for transport in ("http", "sse"):
            async with resource.client(era, transport, resource.own_way(transport)) as client:
                assert await _actors(client) == {f"a-machine/mcp/{transport}/execute_flow"}
    assert len(issuer.issued) == 2
    assert issuer.asked["/jwks"] == 1
    resource.served.process.terminate()
    log = resource.served.process.stderr.read()
    for token in issuer.issued:
        for part in token.split("."):
            assert part not in log


async def test_the_subject_is_recorded_and_a_client_cannot_take_its_place(
    resource: Resource, issuer: AuthorizationServer
) -> None:
    with anyio.fail_after(30):
        for transport in ("http", "sse"):
            token = issuer.token(aud=resource.base + "/", sub="alice/root\n")
            async with resource.client("2026-07-28", transport, None, token) as client:
                assert await _actors(client) == {f"alice_root/mcp/{transport}/execute_flow"}


async def test_a_client_follows_a_rotation_of_keys_without_a_restart(
    resource: Resource, issuer: AuthorizationServer
) -> None:
    with anyio.fail_after(30):
        for transport in ("http", "sse"):
            async with resource.client("2026-07-28", transport, resource.own_way(transport)) as client:
                await client.list_tools()
        old = issuer.token(aud=resource.base)
        issuer.rotate("second")
        rotated = time.monotonic()
        for transport in ("http", "sse"):
            async with resource.client("2026-07-28", transport, resource.own_way(transport)) as client:
                await client.list_tools()
        async with httpx.AsyncClient(base_url=resource.base, timeout=30) as http:
            assert (await http.get("/api/scheduler", headers=_bearer(old))).status_code == 401
            for _ in range(5):
                unknown = issuer.token("nobodys", aud=resource.base)
                assert (await http.get("/api/scheduler", headers=_bearer(unknown))).status_code == 401
    assert 2 <= issuer.asked["/jwks"] <= 2 + (time.monotonic() - rotated) // AGAIN_S  # not once for each token


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_client_that_gets_no_good_token_does_not_get_in(
    resource: Resource, issuer: AuthorizationServer, transport: str
) -> None:
    issuer.grants = ("flows:read",)
    for auth, token, status in (
        (resource.own_way(transport), "", 403),
        (None, issuer.token(aud=resource.base, exp=int(time.time()) - 3600), 401),
        (None, issuer.token(aud="https://other.example"), 401),
    ):
        with anyio.fail_after(20), pytest.raises((MCPError, httpx2.HTTPStatusError, ExceptionGroup)):
            async with resource.client("legacy", transport, auth, token) as client:
                await client.list_tools()
        assert resource.answers[-1] == status
        assert 202 not in resource.answers


def test_doctor_tells_whether_the_issuers_keys_can_be_had(
    environment: Callable[..., dict[str, str]], issuer: AuthorizationServer
) -> None:
    def examine() -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "contexten_server", "doctor", "--json"],
            env=environment(OAUTH_ISSUER=issuer.issuer, OAUTH_RESOURCE=RESOURCE, TOKENS="an-operators-token"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "an-operators-token" not in done.stdout + done.stderr
        checks = [check for check in json.loads(done.stdout)["checks"] if check["check"] == "authentication"]
        assert checks[0] == {"check": "authentication", "level": "ok", "found": "1 bearer token"}
        found: dict[str, Any] = checks[1]
        return found

    found = examine()
    assert found["level"] == "ok"
    assert issuer.issuer in found["found"]
    assert RESOURCE in found["found"]
    issuer.is_down = True
    found = examine()
    assert found["level"] == "problem"
    assert "503" in found["found"]
