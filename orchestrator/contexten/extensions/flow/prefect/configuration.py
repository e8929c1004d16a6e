"""Which Prefect API this process talks to, as Prefect's own configuration says. Imports nothing of Prefect.

Prefect reads PREFECT_API_URL and its like from the environment, then from the active profile of `profiles.toml` in
PREFECT_HOME, where `prefect cloud login` and `prefect config set` write them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_CLOUD = "https://api.prefect.cloud/api/"
_CLOUD_UI = "https://app.prefect.cloud/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAddress:
    """A Prefect API and what it asks for: a key (Prefect Cloud) or `user:password` (a server of one's own)."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    auth_string: str | None = field(default=None, repr=False)
    ui_url: str | None = None
    """Where its pages are, if that was said."""

    @property
    def shown(self) -> str:
        """The URL without credentials, for people."""
        return _without_credentials(self.url)

    @property
    def pages(self) -> str:
        """Where Prefect's pages are, without credentials and a slash at the end."""
        if self.ui_url:
            return _without_credentials(self.ui_url).rstrip("/")
        url = self.shown.rstrip("/")
        if url.startswith(_CLOUD):
            pages = url.replace(_CLOUD, _CLOUD_UI, 1)
            return pages.replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")
        return url.removesuffix("/api")

    def flow_run_page(self, flow_run_id: object) -> str:
        """The page of a flow run."""
        return f"{self.pages}/runs/flow-run/{flow_run_id}"

    def environment(self) -> dict[str, str]:
        """The variables by which a program that uses Prefect finds this API."""
        named = {
            "PREFECT_API_URL": self.url,
            "PREFECT_API_KEY": self.api_key,
            "PREFECT_API_AUTH_STRING": self.auth_string,
        }
        return {name: value for name, value in named.items() if value is not None}


def configured_api() -> ApiAddress | None:
    """The API that Prefect's configuration names; None where it names none."""
    found = {**_profile(), **{name: value for name, value in os.environ.items() if value}}
    url = found.get("PREFECT_API_URL")
    if not url:
        return None
    return ApiAddress(
        url=url.rstrip("/"),
        api_key=found.get("PREFECT_API_KEY"),
        auth_string=found.get("PREFECT_API_AUTH_STRING"),
        ui_url=found.get("PREFECT_UI_URL"),
    )


def api_url() -> str | None:
    """The URL of the API that is configured, without credentials."""
    address = configured_api()
    return address.shown if address is not None else None


def _profile() -> Mapping[str, str]:
    """What the active profile sets; nothing where it cannot be read."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        content = _content(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):
        return {}
    name = os.environ.get("PREFECT_PROFILE") or content.get("active")
    profile = content.get("profiles", {}).get(name, {})
    return {key: str(value) for key, value in profile.items()} if isinstance(profile, dict) else {}


@lru_cache(maxsize=4)
def _content(path: Path, changed_ns: int) -> Mapping[str, Any]:  # noqa: ARG001 - a file that changed is read again
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
