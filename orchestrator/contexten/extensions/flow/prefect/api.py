"""Prefect's API as this library uses it: one client for each conversation, and errors that say what to do.

Prefect is imported on a thread when it is first needed. Its client retries nothing here: whoever talks decides what a
second try would do.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx

from ..errors import FlowError
from .configuration import ApiAddress

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

HEALTH_S = 5.0  # for an API to say that it is there
REQUEST_S = 30.0  # for one answer: a server on SQLite takes seconds when it is busy
MAX_TEXT = 300  # characters of what an API says about a refusal

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
UNSERVED = (httpx.HTTPError, json.JSONDecodeError, UnicodeDecodeError)
"""What Prefect's client raises where the API does not answer, refuses, or something else answers in its place."""


class PrefectError(FlowError):
    """Prefect's API refused something, or does not answer."""

    code = "prefect_error"

    def __init__(
        self,
        message: str,
        *,
        next: str | None = None,  # noqa: A002 - the word of the error format
        status: int | None = None,
        is_lasting: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        """`is_lasting` says that the same request will be refused again."""
        super().__init__(message, next=next)
        self.status = status
        self.is_lasting = is_lasting
        self.retry_after_s = retry_after_s


class PrefectApi:
    """One Prefect API."""

    def __init__(self, address: ApiAddress) -> None:
        self.address = address

    @asynccontextmanager
    async def client(self, *, max_retries: int = 0) -> AsyncIterator[PrefectClient]:
        """A client for one task's conversation. What goes wrong with a request inside is raised as PrefectError, but
        for what Prefect gives names of its own, such as ObjectNotFound."""
        await load()
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: max_retries}):
            client = await asyncio.to_thread(self._make)
            try:
                async with client:
                    yield client
            except UNSERVED as error:
                raise self.problem(error) from error

    def _make(self) -> PrefectClient:
        from prefect.client.orchestration import PrefectClient

        address = self.address
        return PrefectClient(
            address.url,
            api_key=address.api_key,
            auth_string=address.auth_string,
            httpx_settings={"timeout": httpx.Timeout(REQUEST_S, connect=HEALTH_S)},
        )

    async def check(self, timeout_s: float = HEALTH_S) -> str:
        """The version of the API's server. Raises PrefectError where it cannot be used."""
        try:
            async with self.client() as client:
                with anyio.fail_after(timeout_s):
                    await client.request("POST", "/flows/count", json={})  # /health needs no credentials
                    return "Cloud" if client.server_type == "cloud" else await client.api_version()
        except TimeoutError:
            raise PrefectError(
                f"The Prefect API at {self.address.shown} did not answer within {timeout_s:g} s.",
                next="See whether its server runs and is not overloaded.",
            ) from None

    def problem(self, error: httpx.HTTPError | ValueError) -> PrefectError:
        """What a failed request means."""
        where = f"The Prefect API at {self.address.shown}"
        if not isinstance(error, httpx.HTTPError):  # such as the page of a proxy while the API is upgraded
            return PrefectError(
                f"{where} answers with something that is no JSON.",
                next="See whether it runs, and whether PREFECT_API_URL is right (it ends in /api).",
            )
        if not isinstance(error, httpx.HTTPStatusError):
            return PrefectError(
                f"{where} cannot be reached ({_cause(error)}).",
                next="See whether it runs, and whether PREFECT_API_URL is right (it ends in /api).",
            )
        status = error.response.status_code
        if status in (401, 403):
            return PrefectError(
                f"{where} refuses the credentials (HTTP {status}).",
                next="Set PREFECT_API_KEY (Prefect Cloud) or PREFECT_API_AUTH_STRING (a server that asks for "
                "authentication) in the environment of this server.",
                status=status,
                is_lasting=True,
            )
        if status in _BUSY:
            after = error.response.headers.get("Retry-After", "")
            return PrefectError(
                f"{where} is busy or failing (HTTP {status}).",
                next="Nothing needs to be done if it recovers; else look at its server's log.",
                status=status,
                retry_after_s=min(float(after), 60.0) if after.isdigit() else None,
            )
        return PrefectError(
            f"{where} refused a request (HTTP {status}): {error.response.text[:MAX_TEXT]}",
            next="If that is no Prefect API, correct PREFECT_API_URL (it ends in /api).",
            status=status,
            is_lasting=True,
        )


async def load() -> None:
    """Import Prefect's client on a thread. Raises PrefectError where its configuration is wrong."""
    try:
        await asyncio.to_thread(_load)
    except ValueError as error:  # pydantic's for its settings
        raise PrefectError(
            f"Prefect cannot read its own settings: {str(error)[:MAX_TEXT]}",
            next="Correct the variables that begin with PREFECT_, or its profile.",
            is_lasting=True,
        ) from error


def _load() -> None:
    os.environ.setdefault("DO_NOT_TRACK", "1")  # importing Prefect on a terminal tells its makers
    import prefect.client.orchestration  # noqa: F401 - what takes seconds


def _cause(error: BaseException) -> str:
    """The innermost reason, short."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return str(error)[:MAX_TEXT] or type(error).__name__
