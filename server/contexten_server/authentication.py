"""Who calls over HTTP: whoever has one of the operator's bearer tokens, or an access token of the authorization server
that the settings name. To the latter this server is an OAuth 2.0 protected resource (RFC 6750, RFC 9728)."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from contexten.extensions.flow.settings import FlowSettings
from contexten_server.access_tokens import AccessTokens, TokenRefused
from contexten_server.signing_keys import AGAIN_S, IssuerUnavailable, SigningKeys

logger = logging.getLogger(__name__)


class NotAdmitted(Exception):
    """The request is not let in; `response` tells it so."""

    def __init__(self, response: JSONResponse) -> None:
        super().__init__(response.status_code)
        self.response = response


class ProtectedResource:
    """This server as its authorization server and its clients know it."""

    def __init__(self, issuer: str, resource: str, scopes: Sequence[str], jwks_url: str | None) -> None:
        published = AuthSettings.model_validate({"issuer_url": issuer, "resource_server_url": resource})
        if published.resource_server_url is None:  # it was given
            raise AssertionError
        url = str(published.resource_server_url)
        audiences = {resource, url}
        if urlsplit(url).path in ("", "/"):  # the same URL (RFC 3986, section 6.2.3), and clients write both
            audiences |= {url.rstrip("/"), url.rstrip("/") + "/"}
        self.scopes = tuple(scopes)
        self.tokens = AccessTokens(SigningKeys(issuer, jwks_url), issuer=issuer, audiences=sorted(audiences))
        self.metadata_url = str(build_resource_metadata_url(published.resource_server_url))
        self.routes: list[Route] = create_protected_resource_routes(
            resource_url=published.resource_server_url,
            authorization_servers=[published.issuer_url],
            scopes_supported=list(scopes) or None,
            resource_name="Contexten Flow",
        )


class Authentication:
    """The tokens that are accepted."""

    def __init__(self, tokens: Sequence[str], resource: ProtectedResource | None = None) -> None:
        self._tokens = [token.encode() for token in tokens]
        self._resource = resource
        self.routes: list[Route] = resource.routes if resource is not None else []
        """Pages that tell how to get a token."""
        self.open_paths = frozenset(route.path for route in self.routes)

    @classmethod
    def of(cls, settings: FlowSettings) -> Authentication | None:
        """The authentication that the settings ask for; None where anybody may call."""
        resource = None
        if settings.oauth_issuer and settings.oauth_resource:
            resource = ProtectedResource(
                settings.oauth_issuer, settings.oauth_resource, settings.oauth_scopes, settings.oauth_jwks_url
            )
        return cls(settings.tokens, resource) if settings.tokens or resource is not None else None

    async def admit(self, request: Request) -> AuthenticatedUser:
        """Who calls: a session belongs to the one that began it. Raises NotAdmitted."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip()
        if scheme.lower() == "bearer" and (client_id := self._operators(given)):
            return AuthenticatedUser(AccessToken(token="", client_id=client_id, scopes=[]))
        if scheme.lower() != "bearer" or self._resource is None:
            raise self._unauthorized(is_given=bool(scheme))
        try:
            token = await self._resource.tokens.verify_token(given)
        except TokenRefused as refused:
            logger.debug("An access token was refused: %s", refused)
            raise self._unauthorized(is_given=True, reason=str(refused)) from None
        except IssuerUnavailable:
            raise _unavailable() from None
        if not set(self._resource.scopes) <= set(token.scopes):
            raise self._insufficient()
        return AuthenticatedUser(token)

    def _operators(self, given: str) -> str | None:
        """A name for the operator's token that was given. All are compared, in constant time."""
        offered = given.encode()
        found: bytes | None = None
        for token in self._tokens:
            if hmac.compare_digest(token, offered):
                found = token
        return None if found is None else hashlib.sha256(found).hexdigest()[:16]

    def _unauthorized(self, *, is_given: bool, reason: str = "") -> NotAdmitted:
        challenge = {"realm": "contexten-flow"}
        if is_given:
            challenge["error"] = "invalid_token"
            message = "This bearer token is not accepted" + (f": {reason}." if reason else ".")
        else:
            message = "Send a bearer token: Authorization: Bearer TOKEN."
        if reason:
            challenge["error_description"] = reason
        return self._refusal(HTTPStatus.UNAUTHORIZED, "unauthorized", message, challenge)

    def _insufficient(self) -> NotAdmitted:
        scopes = " ".join(self._resource.scopes) if self._resource is not None else ""
        message = f"This access token does not have all the scopes that are needed: {scopes}."
        return self._refusal(HTTPStatus.FORBIDDEN, "insufficient_scope", message, {"error": "insufficient_scope"})

    def _refusal(self, status: HTTPStatus, code: str, message: str, challenge: dict[str, str]) -> NotAdmitted:
        todo = "Ask the operator for a token."
        if self._resource is not None:
            if self._resource.scopes:
                challenge["scope"] = " ".join(self._resource.scopes)
            challenge["resource_metadata"] = self._resource.metadata_url
            todo = f"Get an access token from the authorization server that {self._resource.metadata_url} names."
        fields = ", ".join(f'{name}="{value}"' for name, value in challenge.items())
        return _told(status, code, message, todo, {"WWW-Authenticate": f"Bearer {fields}"})


def _unavailable() -> NotAdmitted:
    """Not 401: the client's token may be good, and a new one would not help."""
    message = "The token cannot be checked now: the authorization server's keys could not be fetched."
    seconds = f"{AGAIN_S:.0f}"
    again = {"Retry-After": seconds}
    return _told(
        HTTPStatus.SERVICE_UNAVAILABLE, "issuer_unavailable", message, f"Try again in {seconds} seconds.", again
    )


def _told(status: HTTPStatus, code: str, message: str, todo: str, headers: dict[str, str]) -> NotAdmitted:
    retryable = status is HTTPStatus.SERVICE_UNAVAILABLE
    error = {"code": code, "message": message, "retryable": retryable, "next": todo}
    return NotAdmitted(JSONResponse({"error": error}, status_code=status, headers=headers))
