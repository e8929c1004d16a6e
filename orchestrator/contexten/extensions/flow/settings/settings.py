"""What an operator decides: one frozen object, defaulted, then validated at start-up.

Sources, later ones win: defaults, `contexten-flow.toml` in the user's configuration folder, then the one in the
working directory (or the file that `CONTEXTEN_FLOW_CONFIG` names instead), `CONTEXTEN_FLOW_*` in the environment,
explicit arguments. Lists are comma-separated in the environment. Defaults are the safe ones.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ..errors import InvalidArguments
from ..models.providers import provider_problem
from ..nearest import nearest_name
from ..outside.urls import absolute_url, host_and_port, private_url
from ..recovery.error_kinds import ErrorKinds
from ..scheduling.rates import RateLimit
from ..strategies import strategy_named
from .files import CONFIG_VARIABLE, settings_files
from .model_prices import ModelPrice
from .secret_grants import SecretGrant

ENV_PREFIX = "CONTEXTEN_FLOW_"

OPTIONAL_ENGINES = ("strands", "controlflow", "prefect")
"""The engines that are extras."""

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749, section 3.3
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def default_database() -> Path:
    """The database's default place: the user's data folder."""
    return Path(platformdirs.user_data_dir("contexten-flow")) / "flow.sqlite3"


def unknown_variables() -> dict[str, str | None]:
    """Variables of the environment that begin with CONTEXTEN_FLOW_ and set nothing, each with the nearest that does."""
    known = [CONFIG_VARIABLE, *(ENV_PREFIX + name.upper() for name in FlowSettings.model_fields)]
    return {
        variable: nearest_name(variable.upper(), known)
        for variable in sorted(os.environ)
        if variable.upper().startswith(ENV_PREFIX)
        and variable != CONFIG_VARIABLE
        and (variable.upper() not in known or variable.upper() == CONFIG_VARIABLE)
    }


class FlowSettings(BaseSettings):
    """Every setting of the library and the server. Names in the environment are these, in capitals, prefixed.

    Making one raises pydantic.ValidationError for a wrong value, and SettingsFileError for a file.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    database: Path = Field(default_factory=default_database, description="the SQLite file; made where missing")
    durability: Literal["power", "process"] = Field(
        "power", description="power: a commit survives loss of power; process: only the end of the process"
    )
    max_concurrent_flows: int = Field(100, ge=1, description="runs that hold a slot at once")
    strategy: str = Field("fifo", description="the strategy of a database that remembers none")
    aging_interval_s: float = Field(60.0, gt=0, description="waiting this long raises a priority one level")
    pools: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=dict, description="resource pools and their sizes, such as gpu=2,licences=5"
    )
    flow_limits: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=dict, description="runs of a flow that hold a slot at once, by flow id"
    )
    tag_limits: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=dict, description="runs of the flows with a tag that hold a slot at once, by tag"
    )
    rate_limits: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="attempts of a tool an interval, by tool, such as http_client=10/1s"
    )
    error_kinds: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="what errors are, such as exit:75=resource,http:423=resource,MyError=network"
    )
    allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="private host or host:port that http_client may reach"
    )
    allow_paths: Annotated[tuple[Path, ...], NoDecode] = Field((), description="folders that file tools may touch")
    allow_commands: Annotated[tuple[str, ...], NoDecode] = Field((), description="commands that shell may run, by name")
    allow_functions: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="functions that python may call, as module:name"
    )
    mcp_servers: Path | None = Field(None, description="file that names MCP servers whose tools flows may use")
    secrets: Annotated[tuple[SecretGrant, ...], NoDecode] = Field((), description="secrets that flows may name")
    tokens: Annotated[tuple[str, ...], NoDecode] = Field((), repr=False, description="bearer tokens accepted over HTTP")
    public_url: str | None = Field(
        None, description="URL by which clients reach this server through a proxy, such as https://flows.example.com"
    )
    oauth_issuer: str | None = Field(
        None, description="URL of the authorization server whose access tokens are accepted over HTTP"
    )
    oauth_resource: str | None = Field(
        None, description="URL by which clients know this server: the audience that access tokens must name"
    )
    oauth_scopes: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="scopes that an access token must have, all of them"
    )
    oauth_jwks_url: str | None = Field(
        None, description="where the issuer's keys are; found in its metadata where not set"
    )
    tool_capacity: int = Field(1000, ge=1, description="attempts that the built-in tool agent runs at once")
    engines: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="engines that framework=auto may choose: controlflow, prefect"
    )
    model: str | None = Field(None, description="the language model of agent tasks, such as openai/NAME")
    model_base_url: str | None = Field(None, description="where an OpenAI-compatible model is served")
    model_api_key_variable: str = Field("", description="variable with the model's key; the provider's own by default")
    model_capacity: int = Field(8, ge=1, description="agent tasks at once, for each engine")
    model_max_turns: int = Field(20, ge=1, description="model calls of an agent task")
    model_max_tokens: int | None = Field(None, ge=1, description="tokens of an agent task, all calls together")
    model_timeout_s: float = Field(120.0, gt=0, description="how long one model call may take")
    model_deny_tools: Annotated[tuple[str, ...], NoDecode] = Field((), description="tools that no model may call")
    model_prices: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="USD a million input and output tokens, such as openai/NAME=0.15/0.60"
    )
    prefect_server: bool = Field(False, description="start a Prefect server of our own where no API is configured")
    worker_engine: Literal["native", "strands", "controlflow"] = Field(
        "native", description="engine of the attempts that this machine makes for a work pool"
    )
    max_retries: int = Field(3, ge=0, description="tries after the first for tasks without retry")
    retry_delay_s: float = Field(1.0, ge=0, description="delay before the first of them")
    circuit_failures: int = Field(
        10, ge=0, le=1000, description="failures in a row after which an agent or tool is left alone; 0: never"
    )
    circuit_open_s: float = Field(30.0, gt=0, le=3600, description="for how long; doubled by each failed probe")
    max_interruptions: int = Field(5, ge=1, description="attempts cut off by crashes before a task fails")
    cancel_grace_s: float = Field(5.0, ge=0, description="how long a cancelled attempt may take to end")
    stop_grace_s: float = Field(3.0, ge=0, description="how long attempts may go on when the server stops")
    lease_ttl_s: float = Field(15.0, gt=0, description="how long a server that has fallen silent keeps its runs")
    max_definition_bytes: int = Field(1 << 20, ge=1024, description="size of a definition as JSON")
    max_tasks: int = Field(1000, ge=1, description="tasks in a definition")
    max_for_each_items: int = Field(10_000, ge=1, description="items of a for_each")
    max_output_bytes: int = Field(10 << 20, ge=1024, description="size of a task's output as JSON")
    max_response_bytes: int = Field(10 << 20, ge=1024, description="size of an HTTP response that http_client reads")
    retention_days: float = Field(30.0, gt=0, description="finished runs older than this are pruned")
    retention_runs: int = Field(100_000, ge=1, description="finished runs kept at most")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = Field("text", description="lines of a server's log: for people, or JSON")

    @field_validator(
        "allow_hosts",
        "allow_paths",
        "allow_commands",
        "allow_functions",
        "engines",
        "model_deny_tools",
        "tokens",
        "oauth_scopes",
        mode="before",
    )
    @classmethod
    def _split_lists(cls, value: Any) -> Any:
        return _split(value)

    @field_validator("pools", "flow_limits", "tag_limits", "rate_limits", "error_kinds", "model_prices", mode="before")
    @classmethod
    def _parse_pairs(cls, value: Any) -> Any:
        pairs = _split(value)
        if not isinstance(pairs, list):
            return value
        values = {}
        for pair in pairs:
            name, equals, size = str(pair).rpartition("=")
            if not equals:
                raise ValueError(f"{pair!r} is not name=size")
            values[name.strip()] = size.strip()
        return values

    @field_validator("pools", "flow_limits", "tag_limits")
    @classmethod
    def _check_sizes(cls, sizes: dict[str, float]) -> dict[str, float]:
        for name, size in sizes.items():
            if not name or not 0 <= size <= 1e9:
                raise ValueError(f"{name!r} needs a size from 0 (which takes the limit away) to 1e9")
        return sizes

    @field_validator("flow_limits", "tag_limits")
    @classmethod
    def _check_whole(cls, sizes: dict[str, float]) -> dict[str, float]:
        for name, size in sizes.items():
            if not size.is_integer():
                raise ValueError(f"{name!r} needs a whole number of runs, got {size:g}")
        return sizes

    @field_validator("allow_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(host_and_port, hosts))

    @field_validator("rate_limits")
    @classmethod
    def _check_rates(cls, limits: dict[str, str]) -> dict[str, str]:
        for tool, limit in limits.items():
            try:
                RateLimit.parse(limit)
            except ValueError as error:
                raise ValueError(f"{tool}: {error}") from None
        return limits

    @field_validator("engines")
    @classmethod
    def _check_engines(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in OPTIONAL_ENGINES:
                raise ValueError(f"{name!r} is none of {', '.join(OPTIONAL_ENGINES)}")
        return names

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str | None) -> str | None:
        if model and not all(model.partition("/")[::2]):
            raise ValueError(f"{model!r} is no model: write provider/NAME, such as openai/NAME")
        if model and (problem := provider_problem(model)) is not None:
            raise ValueError(problem)
        return model or None

    @field_validator("model_base_url")
    @classmethod
    def _check_base_url(cls, url: str | None) -> str | None:
        if url and "@" in url:
            raise ValueError("a URL without credentials is expected; model_api_key_variable names the key's variable")
        return absolute_url(url) if url else None

    @field_validator("model_api_key_variable")
    @classmethod
    def _check_key_variable(cls, variable: str) -> str:
        if variable and not _VARIABLE.fullmatch(variable):  # it may be the key itself: it is not repeated
            raise ValueError(
                "the name of an environment variable is expected (letters, digits and '_'), never the key itself"
            )
        return variable

    @field_validator("model_prices")
    @classmethod
    def _check_prices(cls, prices: dict[str, str]) -> dict[str, str]:
        for model, price in prices.items():
            try:
                ModelPrice.parse(price)
            except ValueError as error:
                raise ValueError(f"{model}: {error}") from None
        return prices

    def price_of(self, model: str) -> ModelPrice | None:
        """What the model's tokens cost, where the settings say so."""
        text = self.model_prices.get(model)
        return ModelPrice.parse(text) if text is not None else None

    @field_validator("error_kinds")
    @classmethod
    def _check_kinds(cls, kinds: dict[str, str]) -> dict[str, str]:
        ErrorKinds(kinds)
        return kinds

    @property
    def rates(self) -> dict[str, RateLimit]:
        """The rate limits of tools, read."""
        return {tool: RateLimit.parse(limit) for tool, limit in self.rate_limits.items()}

    @field_validator("secrets", mode="before")
    @classmethod
    def _parse_secrets(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return [{"name": name, **grant} for name, grant in value.items()]
        return _split(value)

    @field_validator("public_url", "oauth_resource")
    @classmethod
    def _check_own_urls(cls, url: str | None) -> str | None:
        return absolute_url(url) if url else None

    @field_validator("oauth_issuer", "oauth_jwks_url")
    @classmethod
    def _check_urls(cls, url: str | None) -> str | None:
        return private_url(url) if url else None

    @field_validator("oauth_scopes")
    @classmethod
    def _check_scopes(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        for scope in scopes:
            if not _SCOPE.fullmatch(scope):
                raise ValueError(f"a scope is a word without spaces and quotes, got {scope!r}")
        return scopes

    @field_validator("oauth_resource", "oauth_scopes", "oauth_jwks_url")  # defaults too
    @classmethod
    def _check_issuer_is_there(cls, value: Any, info: ValidationInfo) -> Any:
        issuer = info.data.get("oauth_issuer", value)  # a wrong one is told already
        if value and not issuer:
            raise ValueError("oauth_issuer is needed too: whose access tokens are accepted")
        if info.field_name == "oauth_resource" and issuer and not value:
            raise ValueError("it is needed with oauth_issuer: the URL by which clients know this server")
        return value

    @property
    def own_urls(self) -> tuple[str, ...]:
        """The URLs by which clients know this server, beside the address on which it listens; that for people first."""
        return tuple(url for url in (self.public_url, self.oauth_resource) if url)

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("strategy")
    @classmethod
    def _check_strategy(cls, name: str) -> str:
        try:
            return strategy_named(name, aging_interval_s=1.0).name
        except InvalidArguments as error:
            near = error.issues[0].suggestion
            raise ValueError(error.message + (f" Did you mean {near}?" if near else "")) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        values: dict[str, Any] = {}
        for file in settings_files():
            values |= file.values  # a whole setting at a time: two files never add up to a wider grant
        return init_settings, env_settings, InitSettingsSource(settings_cls, values)
