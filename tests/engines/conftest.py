"""What tests of engines share: a scripted language model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import prefect_servers
from .model_server import ModelServer, serving
from .prefect_servers import PrefectServer


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """A scripted OpenAI-compatible server; set its `script`."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A real Prefect server on SQLite, one for all tests."""
    with prefect_servers.serving(tmp_path_factory.mktemp("prefect")) as server:
        yield server
