"""The exit codes of every command, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum

from contexten.extensions.flow.errors import FlowError, InvalidArguments, StoreError


class Exit(IntEnum):
    """What a command's end means."""

    OK = 0
    """Done, and nothing is wrong."""
    FAILED = 1
    """The run failed, the definition is invalid, nothing has that id, or a problem was found."""
    USAGE = 2
    """The command line, the settings or a file given are wrong."""
    DATABASE = 3
    """The database cannot be used: locked by another process, read-only, damaged, too new, or needed and not there."""
    INTERRUPTED = 130
    """Ctrl-C."""


class UsageProblem(FlowError):
    """What was typed or set cannot be used."""

    code = "usage"


class NoDatabase(StoreError):
    """There is nothing to ask yet."""

    code = "no_database"


def exit_of(error: FlowError) -> Exit:
    """The exit code that tells of this error."""
    if isinstance(error, StoreError):
        return Exit.DATABASE
    if isinstance(error, UsageProblem | InvalidArguments):
        return Exit.USAGE
    return Exit.FAILED
