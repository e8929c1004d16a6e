"""Which models may be asked, where they are served, with what key: `provider/NAME` as settings and flows write it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import AttemptError
from ..settings import FlowSettings
from .keys import Keys
from .providers import Provider, provider_of, provider_problem

NO_MODEL = (
    "No language model is configured: set CONTEXTEN_FLOW_MODEL, such as openai/NAME "
    "(with CONTEXTEN_FLOW_MODEL_BASE_URL for an OpenAI-compatible server)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What it takes to ask a model."""

    model: str
    """As settings and flows write it."""
    provider: Provider
    base_url: str | None
    """None: its provider's own place."""
    key: str | None = field(repr=False)

    @property
    def name(self) -> str:
        """As its provider knows it."""
        return self.model.partition("/")[2]


class ModelAccess:
    """The base URL and the variable of the key in the settings belong to the provider of the setting `model`. A flow
    may name other models of that provider, and those that `model_prices` names: what else is there is not for it to
    spend. Keys are read anew at each use, so that a rotated one counts; every key ever handed out stays masked.
    """

    def __init__(self, settings: FlowSettings) -> None:
        self._settings = settings
        self._keys = Keys()
        self._keys.note_environment()

    def problem(self, model: str | None = None) -> str | None:
        """Why that model (None: the one of the settings) cannot be used, with what mends it. Imports nothing."""
        configured = self._settings.model
        if configured is None:
            return NO_MODEL
        name = model or configured
        provider = provider_of(name)
        if provider is None:
            return provider_problem(name)
        if not self._is_of_settings(name) and name not in self._settings.model_prices:
            return (
                f"the model {name[:200]!r} is not of the provider that is configured here: name one of "
                f"{configured.partition('/')[0]}, or have it put into CONTEXTEN_FLOW_MODEL_PRICES"
            )
        if not _is_installed(provider.package):
            return f"the client library of {name.partition('/')[0]} is not installed: {provider.install}"
        variable = self.key_variable(name)
        if variable is not None and self._key(name) is None and self.base_url(name) is None:
            return f"the model {name} needs a key: set {variable} in the server's environment"
        return None

    def grant(self, model: str | None) -> Access:
        """What it takes to ask that model (None: the one of the settings). Raises AttemptError (invalid) where it
        cannot be used."""
        name = model or self._settings.model
        problem = self.problem(model)
        provider = provider_of(name) if name is not None else None
        if problem is not None or name is None or provider is None:
            raise AttemptError(f"{problem or NO_MODEL}.", kind="invalid")
        key = self._key(name)
        self._keys.note(key)
        return Access(model=name, provider=provider, base_url=self.base_url(name), key=key)

    def key_variable(self, model: str) -> str | None:
        """The variable that holds the key for a model; None where it needs none."""
        provider = provider_of(model)
        own = self._settings.model_api_key_variable if self._is_of_settings(model) else ""
        return own or (provider.key if provider is not None else None)

    def mask(self, text: str) -> str:
        """The text without the keys of models: providers put them into what they complain of."""
        return self._keys.mask(text)

    def _is_of_settings(self, model: str) -> bool:
        configured = self._settings.model or ""
        return model.partition("/")[0] == configured.partition("/")[0]

    def base_url(self, model: str) -> str | None:
        """Where the model is served; None: its provider's own place."""
        return self._settings.model_base_url if self._is_of_settings(model) else None

    def _key(self, model: str) -> str | None:
        variable = self.key_variable(model)
        return (os.environ.get(variable) or None) if variable else None


def _is_installed(package: str, find: Callable[[str], object] = importlib.util.find_spec) -> bool:
    try:
        return package in sys.modules or find(package) is not None
    except ImportError:
        return False
