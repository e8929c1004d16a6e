"""A small language model that really runs, behind a server that has it call tools."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..model_server import ModelServer, serving
from .small_model import SmallModel

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-llm" / "bin" / "python"


@dataclass
class RealModel:
    """The model, and the address under which it is asked."""

    server: ModelServer
    mind: SmallModel


@pytest.fixture(scope="session")
def _model_url() -> Iterator[str]:
    if not PYTHON.exists():
        pytest.fail("the model is not installed: run `make test-llm`")
    program = [str(PYTHON), str(Path(__file__).with_name("serve_model.py"))]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, f"the model's server ended with exit code {process.wait()}"
            yield url
        finally:
            process.terminate()


@pytest.fixture
def real_model(_model_url: str) -> Iterator[RealModel]:
    """One for each test, so that each sees its own calls only."""
    mind = SmallModel(_model_url)
    with serving(mind) as server:
        yield RealModel(server, mind)
    mind.close()
