"""The files that settings come from.

`contexten-flow.toml` in the user's configuration folder is read first, then the one in the working directory, or the
file that `CONTEXTEN_FLOW_CONFIG` names instead.

The working directory may be a folder of somebody else's, such as a cloned repository. So its file, unless
`CONTEXTEN_FLOW_CONFIG` names it, may not say what flows may reach, nor who may call.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import FlowError, Issue

CONFIG_FILE = "contexten-flow.toml"
CONFIG_VARIABLE = "CONTEXTEN_FLOW_CONFIG"

_TRUSTED_ONLY = frozenset({"engines", "mcp_servers", "public_url", "secrets", "tokens", "worker_engine"})
_TRUSTED_PREFIXES = ("allow_", "model", "oauth_", "prefect_")
"""With every name that begins so: what the working directory's file may not set."""


class SettingsFileError(FlowError):
    """A settings file is missing, cannot be read, or says what it may not."""

    code = "settings_file"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFile:
    """A file that was read, and what it sets, by setting."""

    path: Path
    values: dict[str, Any]


def user_settings_file() -> Path:
    """The settings file of the user's configuration folder, whether it is there or not."""
    return Path(platformdirs.user_config_dir("contexten-flow")) / CONFIG_FILE


def settings_files() -> list[SettingsFile]:
    """The files that are read now; later ones win. Raises SettingsFileError."""
    own = _read_settings(user_settings_file())
    found = [own] if own else []
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        file = _read_settings(Path(named).expanduser())
        if file is None:
            raise SettingsFileError(
                f"{CONFIG_VARIABLE} names {named}, and there is no such file.",
                next="Correct the variable, or unset it.",
            )
        return [*found, file]
    file = _read_settings(Path(CONFIG_FILE))
    if file is None or (own is not None and file.path.samefile(own.path)):
        return found
    _refuse_what_needs_trust(file)
    return [*found, file]


def _read_settings(path: Path) -> SettingsFile | None:
    """What the file sets; None where there is none. Raises SettingsFileError."""
    import tomllib

    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsFileError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsFileError(f"{path} is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsFileError(f"{path} is not TOML: {error}.") from None
    except RecursionError:
        raise SettingsFileError(f"{path} is nested too deeply.") from None
    return SettingsFile(path=path.absolute(), values={name.lower(): value for name, value in values.items()})


def _refuse_what_needs_trust(file: SettingsFile) -> None:
    names = [name for name in file.values if name in _TRUSTED_ONLY or name.startswith(_TRUSTED_PREFIXES)]
    if names:
        raise SettingsFileError(
            f"{CONFIG_FILE} in the working directory sets {', '.join(names)}. That is not taken from there unasked: "
            "the folder may be somebody else's.",
            next=f"If you know what it says, set {CONFIG_VARIABLE}=./{CONFIG_FILE} to acknowledge it. Else set these "
            f"in {user_settings_file()} or in the environment.",
            issues=[
                Issue(path=f"/{name}", code="needs_trust", message=f"{name} is not taken from the working directory")
                for name in names
            ],
        )
