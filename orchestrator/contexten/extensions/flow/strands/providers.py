"""How the model of each provider is made with Strands.

A client is told to try nothing again by itself: retries are the orchestrator's, which keeps them in the journal.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..models.access import Access

CONNECT_TIMEOUT_S = 10.0
ANTHROPIC_MAX_TOKENS = 8192
"""Of one answer. Its API wants a number, and current models of Anthropic can all do this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A model as a task wants it."""

    name: str
    library: Any
    """The provider's client library."""
    temperature: float | None = None
    base_url: str | None = None
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0

    def options(self) -> dict[str, Any]:
        """Those that most of Strands' models take by themselves."""
        return {"model_id": self.name, **self.heat()}

    def heat(self) -> dict[str, float]:
        """The temperature, where one is wanted."""
        return {} if self.temperature is None else {"temperature": self.temperature}

    def client(self, **names: str) -> dict[str, Any]:
        """Arguments of a client, those that are set, under its names for `key` and `base_url`."""
        values = {names.get("key", "api_key"): self.key, names.get("base_url", "base_url"): self.base_url}
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A model of Strands, and how to let go of what it holds."""

    model: Any
    close: Callable[[], Awaitable[None]] | None = None


def make(access: Access, temperature: float | None, *, timeout_s: float) -> Made:
    """Make a model. Slow, and not for the event loop. Raises ImportError, or whatever a provider's library raises."""
    maker = MAKERS[access.model.partition("/")[0]]
    wanted = Wanted(
        name=access.name,
        library=_library(access.provider.package),
        temperature=temperature,
        base_url=access.base_url,
        key=access.key,
        timeout_s=timeout_s,
    )
    return maker(wanted)


def _library(package: str) -> Any:
    if package == "litellm":  # its import fetches a list of prices otherwise
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return importlib.import_module(package)


def _openai(wanted: Wanted) -> Made:
    from .openai_model import WholeAnswers

    timeout = wanted.library.Timeout(wanted.timeout_s, connect=min(CONNECT_TIMEOUT_S, wanted.timeout_s))
    client = wanted.library.AsyncOpenAI(
        base_url=wanted.base_url, api_key=wanted.key or "none", max_retries=0, timeout=timeout
    )  # one for all calls: Strands would make one, with its certificates, for each
    return Made(model=WholeAnswers(client=client, model_id=wanted.name, params=wanted.heat()), close=client.close)


def _openai_responses(wanted: Wanted) -> Made:
    from strands.models.openai_responses import OpenAIResponsesModel

    client = {**wanted.client(), "max_retries": 0, "timeout": wanted.timeout_s}
    return Made(model=OpenAIResponsesModel(client_args=client, model_id=wanted.name, params=wanted.heat()))


def _anthropic(wanted: Wanted) -> Made:
    from strands.models.anthropic import AnthropicModel

    client = {**wanted.client(), "max_retries": 0, "timeout": wanted.timeout_s}
    model = AnthropicModel(
        client_args=client, model_id=wanted.name, max_tokens=ANTHROPIC_MAX_TOKENS, params=wanted.heat()
    )
    return Made(model=model, close=model.client.close)


def _bedrock(wanted: Wanted) -> Made:
    from strands.models.bedrock import BedrockModel

    config = wanted.library.Config(
        read_timeout=wanted.timeout_s, connect_timeout=CONNECT_TIMEOUT_S, retries={"total_max_attempts": 1}
    )
    options: dict[str, Any] = {"boto_client_config": config, **wanted.client(base_url="endpoint_url")}
    return Made(model=BedrockModel(**options, **wanted.options()))


def _gemini(wanted: Wanted) -> Made:
    from strands.models.gemini import GeminiModel

    http: dict[str, Any] = {"timeout": round(wanted.timeout_s * 1000)}
    if wanted.base_url:
        http["base_url"] = wanted.base_url
    client = {"api_key": wanted.key, "http_options": http}
    return Made(model=GeminiModel(client_args=client, model_id=wanted.name, params=wanted.heat()))


def _litellm(wanted: Wanted) -> Made:
    from strands.models.litellm import LiteLLMModel

    wanted.library.suppress_debug_info = True  # it prints advice to standard output
    client = {**wanted.client(base_url="api_base"), "num_retries": 0, "timeout": wanted.timeout_s}
    return Made(model=LiteLLMModel(client_args=client, model_id=wanted.name, params=wanted.heat()))


def _llamaapi(wanted: Wanted) -> Made:
    from strands.models.llamaapi import LlamaAPIModel

    client = {**wanted.client(), "max_retries": 0, "timeout": wanted.timeout_s}
    options: dict[str, Any] = wanted.options()
    return Made(model=LlamaAPIModel(client_args=client, **options))


def _llamacpp(wanted: Wanted) -> Made:
    from strands.models.llamacpp import LlamaCppModel

    place: dict[str, Any] = {"base_url": wanted.base_url} if wanted.base_url else {}
    model = LlamaCppModel(**place, timeout=wanted.timeout_s, model_id=wanted.name, params=wanted.heat())
    return Made(model=model, close=model.client.aclose)


def _mistral(wanted: Wanted) -> Made:
    from strands.models.mistral import MistralModel

    client: dict[str, Any] = {"timeout_ms": round(wanted.timeout_s * 1000)}
    if wanted.base_url:
        client["server_url"] = wanted.base_url
    options: dict[str, Any] = wanted.options()
    return Made(model=MistralModel(api_key=wanted.key, client_args=client, **options))


def _ollama(wanted: Wanted) -> Made:
    from strands.models.ollama import OllamaModel

    options: dict[str, Any] = wanted.options()
    return Made(model=OllamaModel(wanted.base_url, ollama_client_args={"timeout": wanted.timeout_s}, **options))


def _writer(wanted: Wanted) -> Made:
    from strands.models.writer import WriterModel

    client = {**wanted.client(), "max_retries": 0, "timeout": wanted.timeout_s}
    options: dict[str, Any] = wanted.options()
    model = WriterModel(client_args=client, **options)
    return Made(model=model, close=model.client.close)


MAKERS: Mapping[str, Callable[[Wanted], Made]] = MappingProxyType(
    {
        "openai": _openai,
        "openai-responses": _openai_responses,
        "anthropic": _anthropic,
        "bedrock": _bedrock,
        "gemini": _gemini,
        "litellm": _litellm,
        "llamaapi": _llamaapi,
        "llamacpp": _llamacpp,
        "mistral": _mistral,
        "ollama": _ollama,
        "writer": _writer,
    }
)
"""One for each of `models.providers.PROVIDERS`."""
