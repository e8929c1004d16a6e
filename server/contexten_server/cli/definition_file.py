"""Reading a definition and a run's inputs from files, standard input and arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from contexten_server.cli.exits import UsageProblem


def read_text(file: str) -> str:
    """The text of a file, or of standard input for `-`. Raises UsageProblem."""
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageProblem(f"there is no file {file}") from None
    except IsADirectoryError:
        raise UsageProblem(f"{file} is a folder; a file is needed") from None
    except UnicodeDecodeError:
        raise UsageProblem(f"{file} is not UTF-8 text") from None
    except OSError as error:
        raise UsageProblem(f"{file} cannot be read: {error.strerror}") from None


def parse_json(text: str, *, what: str) -> Any:
    """JSON data out of text. Raises UsageProblem with the place, also of a key that is there twice."""
    from contexten.extensions.flow.definition import DuplicateKeys, load_json

    try:
        return load_json(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise UsageProblem(f"{what} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
    except DuplicateKeys as error:
        raise UsageProblem(f"{what}: {error}") from None
    except RecursionError:
        raise UsageProblem(f"{what} is nested too deeply") from None


def read_definition(file: str) -> Any:
    """The JSON data of a definition file. Raises UsageProblem."""
    return parse_json(read_text(file), what="standard input" if file == "-" else file)


def read_value(argument: str, *, option: str) -> Any:
    """JSON data that an option takes, or `@FILE` for a file of it. Raises UsageProblem."""
    if argument.startswith("@"):
        return parse_json(read_text(argument[1:]), what=argument[1:])
    return parse_json(argument, what=option)


def read_inputs(argument: str | None, *, option: str = "--inputs") -> dict[str, Any]:
    """The inputs of a run, or what another option takes: a JSON object, or `@FILE` for a file of it. Raises
    UsageProblem."""
    if argument is None:
        return {}
    inputs = read_value(argument, option=option)
    if not isinstance(inputs, dict):
        raise UsageProblem(f'{option} takes a JSON object, such as \'{{"city": "Oslo"}}\'')
    return inputs
