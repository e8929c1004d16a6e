"""The models of a process, made once and lent to attempts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import AttemptError
from ..models.access import Access, ModelAccess
from ..settings import FlowSettings
from .providers import Made, make

logger = logging.getLogger(__name__)

MODELS_KEPT = 64

_Key = tuple[str, float | None, str | None]


class _Kept:
    """A model, and how many attempts are at it."""

    __slots__ = ("_is_closed", "made", "users")

    def __init__(self, made: Made) -> None:
        self.made = made
        self.users = 0
        self._is_closed = False

    async def aclose(self) -> None:
        """Close its connections, once."""
        if self._is_closed or self.made.close is None:
            return
        self._is_closed = True
        try:
            await self.made.close()
        except Exception as error:  # noqa: BLE001 - a library's code; its text may hold the key
            logger.warning("a model failed to close: %s", type(error).__name__, extra={"action": "close_model"})


class Models:
    """Used on the event loop only."""

    def __init__(self, settings: FlowSettings, access: ModelAccess) -> None:
        self._settings = settings
        self._access = access
        self._kept: dict[_Key, _Kept] = {}
        self._making = asyncio.Lock()
        self._farewells: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def lent(self, model: str | None, temperature: float | None = None) -> AsyncIterator[Made]:
        """The model, made where there is none, which stays open as long as the block lasts. Raises AttemptError
        (invalid) where it cannot be used."""
        access = self._access.grant(model)
        key: _Key = (access.model, temperature, access.key)
        async with self._making:
            kept = self._kept.get(key)
            if kept is None:
                kept = _Kept(await asyncio.to_thread(self._make, access, temperature))
                while len(self._kept) >= MODELS_KEPT:
                    self._let_go(self._kept.pop(next(iter(self._kept))))
                self._kept[key] = kept
            kept.users += 1
        try:
            yield kept.made
        finally:
            kept.users -= 1
            if self._kept.get(key) is not kept:
                self._let_go(kept)

    def _let_go(self, kept: _Kept) -> None:
        """Close one that is kept no more, unless attempts are at it: the last of them does then."""
        if not kept.users:
            farewell = asyncio.create_task(kept.aclose(), name="close model")
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)

    def _make(self, access: Access, temperature: float | None) -> Made:
        try:
            return make(access, temperature, timeout_s=self._settings.model_timeout_s)
        except ImportError as error:
            raise AttemptError(
                f"The client library of {access.model} cannot be used ({error.name or type(error).__name__}): "
                f"{access.provider.install}.",
                kind="invalid",
            ) from None
        except Exception as error:  # noqa: BLE001 - whatever a provider's library raises
            text = self._access.mask(f"The model {access.model} cannot be set up: {type(error).__name__}: {error}")
            raise AttemptError(text[:1000], kind="invalid") from None

    async def aclose(self) -> None:
        """Close the connections of all models; each is made anew when it is wanted again."""
        kept, self._kept = list(self._kept.values()), {}
        for one in kept:
            await one.aclose()
        if self._farewells:
            await asyncio.wait(self._farewells)
