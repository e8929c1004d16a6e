"""What an operator decides: one frozen object, defaulted, then validated at start-up.

Sources, later ones win: defaults, the file `contexten-flow.toml` in the working directory (or the one
that `CONTEXTEN_FLOW_CONFIG` names), `CONTEXTEN_FLOW_*` in the environment, explicit arguments.
Lists are comma-separated in the environment. Defaults are the safe ones.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

CONFIG_FILE = "contexten-flow.toml"

_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class SecretGrant(BaseModel):
    """A secret that flows may name as `secrets.<name>`, and who may receive its value.

    In the environment: `NAME`, `NAME@api.example.com`, `NAME@tool:shell`, several targets joined by `+`.
    Without a target any tool of this server may receive it. The value is read from the environment
    variable `variable` (the secret's own name by default) when an attempt starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    variable: str = ""
    hosts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not _SECRET_NAME.fullmatch(name):
            raise ValueError(f"a secret's name is an identifier, got {name!r}")
        return name

    def value(self) -> str | None:
        """The secret's value, or None where its variable is unset or empty."""
        return os.environ.get(self.variable or self.name) or None

    @classmethod
    def parse(cls, text: str) -> SecretGrant:
        """Read the short form of the environment. Raises ValueError where it is not one."""
        name, _, targets = text.partition("@")
        hosts: list[str] = []
        tools: list[str] = []
        for target in filter(None, targets.split("+")):
            if target.startswith("tool:"):
                tools.append(target.removeprefix("tool:"))
            else:
                hosts.append(target)
        return cls(name=name.strip(), hosts=tuple(hosts), tools=tuple(tools))


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def default_database() -> Path:
    """The database's default place: the user's data folder."""
    return Path(platformdirs.user_data_dir("contexten-flow")) / "flow.sqlite3"


class FlowSettings(BaseSettings):
    """Every setting of the library and the server. Names in the environment are these, in capitals, prefixed."""

    model_config = SettingsConfigDict(env_prefix="CONTEXTEN_FLOW_", frozen=True, extra="forbid")

    database: Path = Field(default_factory=default_database, description="the SQLite file; made where missing")
    durability: Literal["power", "process"] = Field(
        "power", description="power: a commit survives loss of power; process: only the end of the process"
    )
    max_concurrent_flows: int = Field(100, ge=1, description="runs that hold a slot at once")
    strategy: str = Field("fifo", description="the strategy of a database that remembers none")
    aging_interval_s: float = Field(60.0, gt=0, description="waiting this long raises a priority one level")
    allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="private host or host:port that http_client may reach"
    )
    allow_paths: Annotated[tuple[Path, ...], NoDecode] = Field((), description="folders that file tools may touch")
    allow_commands: Annotated[tuple[str, ...], NoDecode] = Field((), description="commands that shell may run, by name")
    allow_functions: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="functions that python may call, as module:name"
    )
    secrets: Annotated[tuple[SecretGrant, ...], NoDecode] = Field((), description="secrets that flows may name")
    tokens: Annotated[tuple[str, ...], NoDecode] = Field((), repr=False, description="bearer tokens accepted over HTTP")
    tool_capacity: int = Field(1000, ge=1, description="attempts that the built-in tool agent runs at once")
    max_retries: int = Field(3, ge=0, description="tries after the first for tasks without retry")
    retry_delay_s: float = Field(1.0, ge=0, description="delay before the first of them")
    max_interruptions: int = Field(5, ge=1, description="attempts cut off by crashes before a task fails")
    cancel_grace_s: float = Field(5.0, ge=0, description="how long a cancelled attempt may take to end")
    stop_grace_s: float = Field(3.0, ge=0, description="how long attempts may go on when the server stops")
    lease_ttl_s: float = Field(15.0, gt=0, description="how long a silent owner keeps its runs")
    max_definition_bytes: int = Field(1 << 20, ge=1024, description="size of a definition as JSON")
    max_tasks: int = Field(1000, ge=1, description="tasks in a definition")
    max_for_each_items: int = Field(10_000, ge=1, description="items of a for_each")
    max_output_bytes: int = Field(10 << 20, ge=1024, description="size of a task's output as JSON")
    max_response_bytes: int = Field(10 << 20, ge=1024, description="size of an HTTP response that http_client reads")
    retention_days: float = Field(30.0, gt=0, description="finished runs older than this are pruned")
    retention_runs: int = Field(100_000, ge=1, description="finished runs kept at most")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("allow_hosts", "allow_paths", "allow_commands", "allow_functions", "tokens", mode="before")
    @classmethod
    def _split_lists(cls, value: Any) -> Any:
        return _split(value)

    @field_validator("secrets", mode="before")
    @classmethod
    def _parse_secrets(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return [{"name": name, **grant} for name, grant in value.items()]
        value = _split(value)
        if isinstance(value, list | tuple):
            return [SecretGrant.parse(item) if isinstance(item, str) else item for item in value]
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("strategy", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = Path(os.environ.get("CONTEXTEN_FLOW_CONFIG", CONFIG_FILE))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)
