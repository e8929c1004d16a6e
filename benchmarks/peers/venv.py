"""The virtual environment of the peers, `.venv-bench`: made on first use, never mixed with our own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-bench"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def peers_python() -> Path:
    """The interpreter that has the peers installed; installs them where they are missing or of other versions.

    Raises subprocess.CalledProcessError where pip cannot install them.
    """
    python = FOLDER / "bin" / "python"
    stamp = FOLDER / "requirements.sha256"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    venv.create(FOLDER, with_pip=True, clear=True, symlinks=os.name != "nt")
    (FOLDER / ".gitignore").write_text("*\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
    subprocess.run(install, check=True)
    stamp.write_text(wanted)
    return python
