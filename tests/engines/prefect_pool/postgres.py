"""A PostgreSQL server for tests, as a user that is allowed to run one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ..prefect_servers import free_port

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _program(name: str) -> str | None:
    return next((str(place / name) for place in _PLACES if (place / name).exists()), shutil.which(name))


@cache
def missing() -> str | None:
    """Why there can be no server; None where there can."""
    if _program("initdb") is None or _program("pg_ctl") is None:
        return "its server's programs are not installed"
    if os.geteuid() == 0 and (shutil.which("runuser") is None or not _has_user("postgres")):
        return "root may not run it, and there is no user postgres"
    return None


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def serving() -> Iterator[str]:
    """A server with an empty database; its URL for asyncpg."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="flow-postgres-", dir="/tmp"))  # a path that its user reaches
    if prefix:
        shutil.chown(folder, "postgres")
    data = str(folder / "data")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"

    def run(program: str, *arguments: str) -> None:
        command = [*prefix, _program(program) or program, *arguments]
        subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    try:
        run("initdb", "-D", data, "-A", "trust", "-U", "prefect", "--no-sync")
        run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
        try:
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
