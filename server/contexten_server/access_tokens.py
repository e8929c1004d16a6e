"""Access tokens of an authorization server: JSON Web Tokens that it signed for this server (RFC 9068, RFC 8707)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from mcp.server.auth.provider import AccessToken

from contexten_server.signing_keys import SigningKeys

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures that are taken: by key pairs only. With `none` and the HS family anybody who knows the public key, or
nothing at all, could make tokens."""

_LEEWAY_S = 30.0  # by which the issuer's clock may differ from ours

_REASONS: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not valid yet"),
    (jwt.InvalidAudienceError, "it is for another audience"),
    (jwt.InvalidIssuerError, "it is of another issuer"),
    (jwt.MissingRequiredClaimError, "it lacks one of the claims iss, aud and exp"),
)


class TokenRefused(Exception):
    """The token is not accepted. The message says why, in words that may be told to whoever sent it."""


class AccessTokens:
    """What may be known of a token by its issuer's signature: a TokenVerifier of the SDK, with reasons."""

    def __init__(self, keys: SigningKeys, *, issuer: str, audiences: Sequence[str]) -> None:
        """A token must name the issuer exactly, and one of the audiences exactly."""
        self._keys = keys
        self._issuer = issuer
        self._audiences = list(audiences)

    async def verify_token(self, token: str) -> AccessToken:
        """Who the token speaks for, and its scopes; the token itself is not kept.

        Raises TokenRefused, and IssuerUnavailable where the issuer's keys are needed and cannot be had.
        """
        try:
            header = jwt.get_unverified_header(token)
            algorithm, key_id = header.get("alg"), header.get("kid")
            if algorithm not in ALGORITHMS:
                raise TokenRefused("its signature is of a kind that is not taken")
            if not isinstance(key_id, str):
                raise TokenRefused("it does not name its key (kid)")
            key = await self._keys.find(key_id)
            if key is None:
                raise TokenRefused("its key is not known to its issuer")
            if key.get("alg", algorithm) != algorithm:
                raise TokenRefused("its signature is not of its key's kind")
            claims: dict[str, Any] = jwt.decode(
                token,
                jwt.PyJWK(key, algorithm=algorithm),
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audiences,
                leeway=_LEEWAY_S,
                options={"require": ["iss", "aud", "exp"]},
            )
        except jwt.PyJWTError as error:
            reason = next((why for kind, why in _REASONS if isinstance(error, kind)), "its form or signature is wrong")
            raise TokenRefused(reason) from None
        except RecursionError:
            raise TokenRefused("its form or signature is wrong") from None
        client = _text(claims, "client_id") or _text(claims, "azp") or _text(claims, "sub")
        if client is None:
            raise TokenRefused("it does not say who it speaks for (sub or client_id)")
        return AccessToken(
            token="",
            client_id=client,
            subject=_text(claims, "sub") or client,
            scopes=_scopes(claims),
            expires_at=int(claims["exp"]),
            claims={"iss": self._issuer},
        )


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and value else None


def _scopes(claims: Mapping[str, Any]) -> list[str]:
    """The token's scopes: `scope` with spaces between (RFC 9068), or `scp`, as some issuers have it, or a list."""
    given = claims.get("scope", claims.get("scp", ""))
    if isinstance(given, str):
        return given.split()
    return [scope for scope in given if isinstance(scope, str)] if isinstance(given, list) else []
