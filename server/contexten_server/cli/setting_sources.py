"""Where settings came from, and what is wrong with them, as a person is told it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from contexten.extensions.flow.errors import Issue

if TYPE_CHECKING:
    from pydantic import ValidationError

    from contexten.extensions.flow.settings import SettingsFile


def files_text(files: Iterable[SettingsFile]) -> str:
    """The files that were read, or that there was none."""
    return " and ".join(str(file.path) for file in files) or "no file"


def variable_warnings() -> list[str]:
    """One sentence for each CONTEXTEN_FLOW_* variable that sets nothing."""
    from contexten.extensions.flow.settings import unknown_variables

    return [
        f"{variable} in the environment is no setting" + (f"; did you mean {near}?" if near else "")
        for variable, near in unknown_variables().items()
    ]


def setting_issues(error: ValidationError, given: dict[str, Any]) -> list[Issue]:
    """Each wrong setting with the place that it came from: the command line, a variable, or a file's key."""
    return [_issue(detail, given) for detail in error.errors(include_input=False)]


def _issue(detail: Any, given: dict[str, Any]) -> Issue:
    from contexten.extensions.flow.nearest import nearest_name
    from contexten.extensions.flow.settings import FlowSettings

    place: tuple[int | str, ...] = detail["loc"]
    name = str(place[0]).lower() if place else ""
    message = str(detail["msg"]).removeprefix("Value error, ")
    suggestion = None
    if detail["type"] == "extra_forbidden" and len(place) == 1:
        message = "there is no such setting"
        suggestion = nearest_name(name, FlowSettings.model_fields)
    source = _source(name, given)
    return Issue(
        path="/" + "/".join(str(part) for part in place),
        code="invalid_setting",
        message=f"{message} ({source})" if source else message,
        suggestion=suggestion,
    )


def _source(name: str, given: dict[str, Any]) -> str:
    """What set the setting that has this value: of several sources the last one wins."""
    from contexten.extensions.flow.settings import ENV_PREFIX, settings_files

    if name in given:
        return "given on the command line"
    for variable in os.environ:
        if variable.upper() == ENV_PREFIX + name.upper():
            return f"{variable} in the environment"
    for file in reversed(settings_files()):
        if name in file.values:
            return f"{name} in {file.path}"
    return ""
