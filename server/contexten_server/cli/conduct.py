"""The edge of every command: its work is run, its errors are told, its end becomes an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from contexten.extensions.flow.errors import FlowError
from contexten_server.cli.exits import Exit, NoDatabase, UsageProblem, exit_of
from contexten_server.cli.printable import in_line
from contexten_server.cli.screen import Screen
from contexten_server.logs import configure_logging, log_to_stderr

if TYPE_CHECKING:
    from contexten.extensions.flow.settings import FlowSettings

logger = logging.getLogger(__name__)


def conduct(screen: Screen, work: Callable[[], Awaitable[Exit]]) -> NoReturn:
    """Run a command's work on an event loop and end with its exit code. Raises typer.Exit, nothing else."""
    import anyio

    end(screen, lambda: anyio.run(work))


def end(screen: Screen, work: Callable[[], int]) -> NoReturn:
    """Run a command's work and end with its exit code. Raises typer.Exit, nothing else."""
    try:
        code = int(work())
        sys.stdout.flush()
    except KeyboardInterrupt:
        screen.note("interrupted")
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `| head` does; nothing is left to tell, and the interpreter must not try to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK
    except Exception as error:  # noqa: BLE001 - the outermost edge: a person sees a message, never a stack
        code = _tell(screen, _cause(error))
    raise typer.Exit(int(code))


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _tell(screen: Screen, error: BaseException) -> Exit:
    if isinstance(error, FlowError):
        screen.error(error)
        return exit_of(error)
    logger.debug("a command failed", exc_info=error)
    screen.error(
        FlowError(
            f"unexpected {type(error).__name__}: {error}",
            next="this is a bug of Contexten Flow; CONTEXTEN_FLOW_LOG_LEVEL=DEBUG shows where",
        )
    )
    return Exit.FAILED


def load_settings(db: Path | None = None, *, warn: bool = True, **given: Any) -> FlowSettings:
    """The settings with what the command line gave; mistyped variables are told on standard error.

    Raises UsageProblem naming each setting that is wrong, and where it stands.
    """
    from pydantic import ValidationError

    from contexten.extensions.flow.settings import FlowSettings, SettingsFileError
    from contexten_server.cli.setting_sources import setting_issues, variable_warnings

    if db is not None:
        given["database"] = db.expanduser()
    given = {name: value for name, value in given.items() if value is not None}
    try:
        settings = FlowSettings(**given)
    except ValidationError as error:
        raise UsageProblem(
            "the settings are wrong",
            issues=setting_issues(error, given),
            next="`contexten-flow doctor` and docs/configuration.md tell more",
        ) from None
    except SettingsFileError as error:
        raise UsageProblem(error.message, next=error.next, issues=error.issues) from None
    if warn:
        for warning in variable_warnings():
            tell_operator(warning)
    if settings.log_level == "DEBUG":
        configure_logging(settings)
    else:
        log_to_stderr(settings)  # warnings only: commands answer on standard output
    return settings


def tell_operator(message: str) -> None:
    """One line on standard error beside what a command prints: of settings, before anything is shown."""
    sys.stderr.write(f"contexten-flow: {in_line(message)}\n")
    sys.stderr.flush()


def need_database(database: Path) -> None:
    """Raise NoDatabase where there is no database to ask."""
    if not database.exists():
        raise NoDatabase(
            "there is no database yet",
            next="`contexten-flow save FILE`, `contexten-flow run FILE` or `contexten-flow serve` makes it; "
            "`contexten-flow doctor` shows where",
        )
