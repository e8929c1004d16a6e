"""The providers of models: what their client libraries are called, and where their keys are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ..nearest import nearest_name


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider."""

    package: str
    """What its client library is imported as."""
    extra: str
    """The extra of strands-agents that installs it; empty where that always does."""
    key: str | None
    """The variable with its key; None: it needs none, or its library finds credentials by itself."""

    @property
    def install(self) -> str:
        """The command that gets its client library."""
        return f"pip install 'strands-agents[{self.extra}]'" if self.extra else "pip install strands-agents"


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "openai": Provider("openai", "openai", "OPENAI_API_KEY"),
        "openai-responses": Provider("openai", "openai", "OPENAI_API_KEY"),
        "anthropic": Provider("anthropic", "anthropic", "ANTHROPIC_API_KEY"),
        "bedrock": Provider("botocore.config", "", None),
        "gemini": Provider("google.genai", "gemini", "GEMINI_API_KEY"),
        "litellm": Provider("litellm", "litellm", None),
        "llamaapi": Provider("llama_api_client", "llamaapi", "LLAMA_API_KEY"),
        "llamacpp": Provider("httpx", "", None),
        "mistral": Provider("mistralai", "mistral", "MISTRAL_API_KEY"),
        "ollama": Provider("ollama", "ollama", None),
        "writer": Provider("writerai", "writer", "WRITER_API_KEY"),
    }
)
"""By the name that stands before the slash in `provider/NAME`."""


def provider_of(model: str) -> Provider | None:
    """The provider of `provider/NAME`; None where that names none."""
    name, slash, rest = model.partition("/")
    return PROVIDERS.get(name) if slash and rest else None


def provider_problem(model: str) -> str | None:
    """Why `provider/NAME` names no provider, with the nearest; None where it names one."""
    if provider_of(model) is not None:
        return None
    near = nearest_name(model.partition("/")[0], PROVIDERS)
    hint = f"did you mean {near}/...?" if near else f"providers are {', '.join(PROVIDERS)}"
    return f"{model[:200]!r} names no provider of models ({hint})"
