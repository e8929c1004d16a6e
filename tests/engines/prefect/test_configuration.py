"""Where Prefect's API is, as Prefect's own configuration says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contexten.extensions.flow.prefect.configuration import ApiAddress, api_url, configured_api


def test_nothing_is_configured_by_default() -> None:
    assert configured_api() is None
    assert api_url() is None


def test_the_environment_names_the_api_and_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example:4200/api/")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:sesame")
    address = configured_api()
    assert address == ApiAddress(url="http://prefect.example:4200/api", auth_string="admin:sesame")
    assert "sesame" not in repr(address)
    assert address.environment() == {
        "PREFECT_API_URL": "http://prefect.example:4200/api",
        "PREFECT_API_AUTH_STRING": "admin:sesame",
    }


def test_the_active_profile_counts_and_the_environment_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "profiles.toml").write_text(
        'active = "work"\n[profiles.work]\nPREFECT_API_URL = "https://api.prefect.cloud/api/accounts/a/workspaces/w"\n'
        'PREFECT_API_KEY = "pnu_1"\n[profiles.other]\nPREFECT_API_URL = "http://other/api"\n'
    )
    address = configured_api()
    assert address is not None
    assert (address.api_key, address.pages) == ("pnu_1", "https://app.prefect.cloud/account/a/workspace/w")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_2")
    assert configured_api() == ApiAddress(url=address.url, api_key="pnu_2")
    monkeypatch.setenv("PREFECT_PROFILE", "other")
    assert api_url() == "http://other/api"


def test_a_profile_that_cannot_be_read_configures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (tmp_path / "profiles.toml").write_text("active = [")
    assert configured_api() is None


def test_a_profile_is_read_again_only_when_its_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    path = tmp_path / "profiles.toml"
    text = 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://{}/api"\n'
    path.write_text(text.format("one"))
    os.utime(path, ns=(1, 1))
    assert api_url() == "http://one/api"
    path.write_text(text.format("two"))
    os.utime(path, ns=(1, 1))  # as if nobody had written to it
    assert api_url() == "http://one/api"
    os.utime(path, ns=(2, 2))
    assert api_url() == "http://two/api"


def test_credentials_in_a_url_are_not_shown() -> None:
    address = ApiAddress(url="https://admin:sesame@prefect.example/api")
    assert address.shown == "https://prefect.example/api"
    assert address.flow_run_page("1") == "https://prefect.example/runs/flow-run/1"


def test_the_service_does_not_import_what_only_engines_need() -> None:
    program = "import sys, contexten.extensions.flow.service; print({'httpx', 'prefect'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_prefect_is_not_imported_before_a_run_asks_for_it(tmp_path: Path) -> None:
    program = f"""
import anyio, sys
from contexten.extensions.flow import FlowService, FlowSettings
async def main():
    async with FlowService(FlowSettings(database={str(tmp_path / "flow.sqlite3")!r})) as flows:
        tasks = [{{"name": "one", "required_tools": ["json_parser"], "parameters": {{"text": "1"}}}}]
        run = await flows.run_flow(workflow_def={{"name": "n", "stages": [{{"name": "s", "tasks": tasks}}]}})
        assert run.state == "completed"
anyio.run(main)
print("prefect" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
