"""Bringing a message to its receiver over HTTP: only where http_client may go too, and never by a redirect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ..agents.secrets import SecretVault
from ..clock import Clock
from ..errors import AttemptError
from ..outside.addresses import HostAllowance
from ..outside.retry_after import retry_after
from ..settings import FlowSettings

if TYPE_CHECKING:
    import httpx

    from ..outside.guarded_transport import GuardedTransport, Resolver

TIMEOUT_S = 10.0  # for the whole exchange; Standard Webhooks recommends 15 to 30 s at most
_ANSWER_BYTES = 2048  # of a refusal: enough to see what was wrong
_ANSWER_CHARS = 300
_HEADERS = {"user-agent": "contexten-flow", "accept": "*/*", "accept-encoding": "identity"}
GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of one try."""

    status: int | None = None
    """Of the receiver's answer, where there was one."""
    error: str | None = None
    """Why the receiver does not have the message; None: it has."""
    kind: str = "network"
    """Of the error, as tries are decided by; `invalid` is never tried again."""
    retry_after_s: float | None = None
    """For how long the receiver wants to be left alone."""


class Post:
    """One pool of connections for all receivers, made at the first message. Used on the event loop only.

    There is no httpx client above it: that would log each URL, and a URL may be a secret.
    """

    def __init__(
        self, settings: FlowSettings, vault: SecretVault, clock: Clock, *, resolver: Resolver | None = None
    ) -> None:
        self._allowance = HostAllowance(settings.allow_hosts)
        self._vault = vault
        self._clock = clock
        self._resolver = resolver
        self._transport: GuardedTransport | None = None

    async def send(self, url: str, body: str, headers: Mapping[str, str]) -> Answer:
        """POST JSON text. Never raises but for its cancellation: the receiver may have the message then."""
        transport = self._transport or await self._open()
        import httpx

        try:
            request = httpx.Request(
                "POST", url, headers={**_HEADERS, **headers}, content=body.encode("utf-8", "replace")
            )
            with anyio.fail_after(TIMEOUT_S):
                response = await transport.handle_async_request(request)
                try:
                    return await self._answer(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException):
            return Answer(error=f"no answer within {TIMEOUT_S:g} s", kind="timeout")
        except AttemptError as refusal:  # the address is not public
            return Answer(error=refusal.message, kind=refusal.kind)
        except (httpx.InvalidURL, UnicodeError):
            return Answer(error="its URL is not valid", kind="invalid")
        except (httpx.HTTPError, OSError) as error:
            return Answer(error=f"not reached: {self._vault.mask(str(error) or type(error).__name__)}")

    async def _answer(self, response: httpx.Response) -> Answer:
        status = response.status_code
        if response.is_success:
            return Answer(status=status)
        if response.has_redirect_location:
            why = f"answered {status}: redirects are not followed; give the final URL"
            return Answer(status=status, error=why, kind="invalid")
        said = b""
        async for part in response.aiter_raw():
            said += part
            if len(said) >= _ANSWER_BYTES:
                break
        text = self._vault.mask(said[:_ANSWER_BYTES].decode("utf-8", "replace").strip())[:_ANSWER_CHARS]
        wait_s = retry_after(response.headers.get("retry-after"), self._clock)
        return Answer(status=status, error=f"answered {status}" + (f": {text}" if text else ""), retry_after_s=wait_s)

    async def _open(self) -> GuardedTransport:
        made = await anyio.to_thread.run_sync(self._make)  # the certificates take a good part of a second
        if self._transport is None:  # another message may have been faster
            self._transport = made
        return self._transport

    def _make(self) -> GuardedTransport:
        from ..outside.guarded_transport import GuardedTransport, SystemResolver

        return GuardedTransport(self._allowance, self._resolver or SystemResolver())

    async def aclose(self) -> None:
        """Close the connections."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()
