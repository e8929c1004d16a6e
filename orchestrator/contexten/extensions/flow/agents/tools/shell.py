"""shell: an allowed command, by argv, never through a shell."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio.to_thread
from pydantic import Field, StringConstraints, field_validator
from typing_extensions import override

from ...errors import AttemptError
from ...outside.command import MAX_OUTPUT_BYTES, CommandResult, run_command
from ...outside.folders import Folders
from ...outside.json_text import dump_json
from ...recovery.kinds import classify
from ...settings import FlowSettings
from ..protocol import AttemptContext, Json
from .formats import decode_text
from .tool import Absent, Tool, ToolEnvironment, ToolParameters, body_of

ENABLE_COMMANDS = "name the commands in allow_commands in the settings (CONTEXTEN_FLOW_ALLOW_COMMANDS=git,jq)"
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")
_TAIL_CHARS = 2000  # of each stream in a failure's details
_Argument = Annotated[str, StringConstraints(max_length=128 * 1024, pattern=r"^[^\x00]*$")]


class ShellParameters(ToolParameters):
    """What shell takes."""

    argv: list[_Argument] = Field(
        min_length=1,
        max_length=1000,
        description="the command, which the settings must allow, and its arguments; nothing in them is expanded",
        examples=[["git", "status", "--short"]],
    )
    cwd: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="the folder it runs in, below the allowed folders; absent: an empty one that is removed afterwards",
    )
    env: dict[str, _Argument] = Field(
        default_factory=dict,
        max_length=200,
        description="environment variables besides PATH, HOME, LANG and TZ; nothing else of the server's is passed on",
    )
    stdin: Json = Field(
        None,
        description="its standard input; what is not a string is given as JSON. In a pipeline it defaults to the "
        "output before (of http_client, its body)",
    )
    timeout_s: float = Field(300.0, gt=0, le=86_400, description="when to end it, in seconds")
    accept_exit_codes: list[int] = Field(
        default=[0], min_length=1, max_length=256, description="exit codes that do not fail the attempt"
    )

    @field_validator("env")
    @classmethod
    def _check_env(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"{name!r} is not the name of an environment variable")
            if name == "PATH" or name.startswith(("LD_", "DYLD_")):
                raise ValueError(f"{name} decides which programs and libraries are loaded and cannot be given")
        return env


class Shell(Tool[ShellParameters]):
    """Runs commands; a second run after a crash runs the command again."""

    name = "shell"
    description = (
        "Runs a command that the settings allow, by its argv, without a shell. Output: {exit_code, stdout, stderr}, "
        "each stream up to 1 MiB. An exit code that accept_exit_codes does not list (other than 0) fails the attempt."
    )
    piped = frozenset({"stdin"})
    parameters = ShellParameters

    def __init__(self, settings: FlowSettings) -> None:
        self._commands = frozenset(settings.allow_commands)
        self._folders = Folders(settings.allow_paths)

    @override
    async def run(
        self,
        parameters: ShellParameters,
        previous: Json | Absent,
        context: AttemptContext,
        environment: ToolEnvironment,
    ) -> Json:
        program = self._program(parameters.argv[0])
        env = {name: os.environ[name] for name in _INHERITED if name in os.environ} | parameters.env
        stdin = _stdin(parameters, previous)
        async with self._folder(parameters.cwd) as cwd:
            try:
                result = await run_command(
                    [program, *parameters.argv[1:]], cwd=cwd, env=env, stdin=stdin, timeout_s=parameters.timeout_s
                )
            except TimeoutError:
                raise AttemptError(
                    f"{parameters.argv[0]} took longer than {parameters.timeout_s:g} s and was ended.", kind="timeout"
                ) from None
            except (OSError, ValueError) as error:
                reason = (error.strerror if isinstance(error, OSError) else None) or "its arguments are not valid"
                kind = "resource" if classify(error) == "resource" else "invalid"
                raise AttemptError(f"{parameters.argv[0]} cannot be started: {reason}.", kind=kind) from None
        return _output(parameters, result)

    def _program(self, command: str) -> str:
        if command not in self._commands:
            allowed = ", ".join(sorted(self._commands)) or "none"
            raise AttemptError(
                f"parameters/argv/0: the command {command!r} is not allowed (allowed: {allowed}); {ENABLE_COMMANDS}.",
                kind="invalid",
            )
        program = shutil.which(command)
        if program is None:
            raise AttemptError(
                f"parameters/argv/0: the command {command!r} is allowed but not installed on this server.",
                kind="invalid",
            )
        return program

    @asynccontextmanager
    async def _folder(self, cwd: str | None) -> AsyncIterator[Path]:
        if cwd is not None:
            place = self._folders.locate(cwd)
            if not place.path.is_dir():
                raise AttemptError(f"parameters/cwd: {cwd!r} is not a folder.", kind="invalid")
            yield place.path
            return
        folder = await anyio.to_thread.run_sync(partial(tempfile.mkdtemp, prefix="flow-shell-"))
        try:
            yield Path(folder)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def _stdin(parameters: ShellParameters, previous: Json | Absent) -> bytes:
    if "stdin" in parameters.model_fields_set:
        value = parameters.stdin
    elif isinstance(previous, Absent):
        return b""
    else:
        value = body_of(previous)
    if value is None:
        return b""
    return (value if isinstance(value, str) else dump_json(value)).encode()


def _output(parameters: ShellParameters, result: CommandResult) -> dict[str, Json]:
    stdout, stderr = _text(result.stdout, result.stdout_dropped), _text(result.stderr, result.stderr_dropped)
    if result.exit_code not in parameters.accept_exit_codes:
        last = stderr.strip().rpartition("\n")[2][:200]
        raise AttemptError(
            f"{parameters.argv[0]} ended with exit code {result.exit_code}{f': {last}' if last else '.'}",
            kind="agent_failure",
            details={
                "exit_code": result.exit_code,
                "stdout": stdout[-_TAIL_CHARS:],
                "stderr": stderr[-_TAIL_CHARS:],
            },
        )
    return {"exit_code": result.exit_code, "stdout": stdout, "stderr": stderr}


def _text(kept: bytes, dropped: int) -> str:
    text = decode_text(kept)
    return f"{text}\n[truncated: {dropped} bytes more than {MAX_OUTPUT_BYTES}]" if dropped else text
