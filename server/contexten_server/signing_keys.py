"""The keys with which an authorization server signs its tokens: found when they are first needed, kept, and fetched
anew when a token names one that is not known."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import httpx
from mcp.client.auth.utils import build_oauth_authorization_server_metadata_discovery_urls
from pydantic import BaseModel, ValidationError

from contexten.extensions.flow.clock import monotonic
from contexten.extensions.flow.outside.urls import private_url

logger = logging.getLogger(__name__)

AGAIN_S = 10.0
"""Between two fetches after one that failed or that was made for an unknown key, however many tokens ask for it."""
KEPT_S = 600.0  # a key that the issuer withdraws is accepted no longer than this
_STALE_S = 3600.0  # unless the issuer does not answer: then so long

_TIMEOUT_S = 5.0  # for all requests of a fetch together
_MAX_BYTES = 1 << 20


class IssuerUnavailable(Exception):
    """The keys cannot be had now. The message says why, for the operator."""


_Document = TypeVar("_Document", bound=BaseModel)


class _Metadata(BaseModel):
    issuer: str
    jwks_uri: str


class _KeySet(BaseModel):
    keys: list[dict[str, Any]]


class SigningKeys:
    """The signing keys of one issuer, as JSON Web Keys (RFC 7517) by their ids.

    Without the URL of its key set the issuer's metadata tells it (RFC 8414, OpenID Connect Discovery 1.0). Neither is
    asked for before the first token comes.
    """

    def __init__(self, issuer: str, jwks_url: str | None = None, *, monotonic: Callable[[], float] = monotonic) -> None:
        """`monotonic` tells seconds, for how long keys are kept and for the pause between fetches."""
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._monotonic = monotonic
        self._lock = anyio.Lock()  # one fetch at a time; who waits for it finds what it brought
        self._keys: dict[str, dict[str, Any]] = {}
        self._fetched_at: float | None = None
        self._again_at = -1.0

    async def find(self, key_id: str) -> dict[str, Any] | None:
        """The key with that id; None where the issuer has none, as far as it may be asked now.

        Raises IssuerUnavailable where no keys are known and the issuer does not answer.
        """
        if self._age() >= KEPT_S or key_id not in self._keys:
            async with self._lock:
                is_old = self._age() >= KEPT_S
                if (is_old or key_id not in self._keys) and self._monotonic() >= self._again_at:
                    await self._renew(is_due=is_old)
        if self._age() >= _STALE_S:
            raise IssuerUnavailable(f"the keys of {self._issuer} could not be fetched")
        return self._keys.get(key_id)

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._monotonic() - self._fetched_at

    async def _renew(self, *, is_due: bool) -> None:
        try:
            await self.fetch()
        except IssuerUnavailable as error:
            logger.warning("The authorization server's keys were not fetched: %s", error)
            is_due = False
        if not is_due:
            self._again_at = self._monotonic() + AGAIN_S

    async def fetch(self) -> int:
        """Fetch the keys now, and answer how many there are. Raises IssuerUnavailable; the keys then stay as they
        were."""
        try:
            with anyio.fail_after(_TIMEOUT_S):
                async with httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as http:
                    url = self._jwks_url or await self._discover(http)
                    found = await _read(http, url, _KeySet)
        except TimeoutError:
            raise IssuerUnavailable(f"{self._issuer} did not answer in {_TIMEOUT_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise IssuerUnavailable(f"{self._issuer} cannot be asked: {str(error) or type(error).__name__}") from None
        if found is None:
            raise IssuerUnavailable(f"there is no key set at {url}")
        self._keys = {
            key["kid"]: key for key in found.keys if isinstance(key.get("kid"), str) and key.get("use", "sig") == "sig"
        }
        self._fetched_at = self._monotonic()
        return len(self._keys)

    async def _discover(self, http: httpx.AsyncClient) -> str:
        """The URL of the key set, by the issuer's metadata."""
        for url in build_oauth_authorization_server_metadata_discovery_urls(self._issuer, self._issuer):
            metadata = await _read(http, url, _Metadata)
            if metadata is None:
                continue
            if metadata.issuer != self._issuer:  # RFC 8414, section 3.3: then it must not be used
                raise IssuerUnavailable(f"the metadata at {url} is of another issuer, {metadata.issuer}")
            try:
                return private_url(metadata.jwks_uri)
            except ValueError as error:
                raise IssuerUnavailable(f"jwks_uri in the metadata at {url}: {error}") from None
        raise IssuerUnavailable(f"{self._issuer} publishes no metadata; set oauth_jwks_url")


async def _read(http: httpx.AsyncClient, url: str, kind: type[_Document]) -> _Document | None:
    """What is at the URL; None where nothing is. Raises IssuerUnavailable and httpx's errors."""
    body = bytearray()
    async with http.stream("GET", url, headers={"Accept": "application/json"}) as response:
        if response.is_client_error:
            return None
        if response.status_code != httpx.codes.OK:
            raise IssuerUnavailable(f"{url} answered with status {response.status_code}")
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MAX_BYTES:
                raise IssuerUnavailable(f"{url} answered with more than {_MAX_BYTES} bytes")
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError:
        raise IssuerUnavailable(f"{url} did not answer with what is expected there") from None
