"""What commands say of settings: which file was read, what is mistyped, and where a wrong value stands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
import pytest


def _own_file() -> Path:
    folder = Path(platformdirs.user_config_dir("contexten-flow"))
    folder.mkdir(parents=True)
    return folder / "contexten-flow.toml"


def _serve(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "contexten_server", "serve", *flags]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("command", [("list",), ("run", "-"), ("doctor",), ("serve",)])
def test_a_folder_that_grants_itself_something_is_refused_and_told_how_to_agree(
    cli: Callable[..., Any], desk: Path, command: tuple[str, ...]
) -> None:
    (desk / "contexten-flow.toml").write_text('allow_commands = ["sh"]', encoding="utf-8")
    done = cli(*command, stdin='{"name": "x", "stages": []}')
    assert done.code == (1 if command == ("doctor",) else 2)
    told = " ".join((done.out + done.err).split())
    assert "allow_commands" in told
    assert "CONTEXTEN_FLOW_CONFIG=./contexten-flow.toml" in told


def test_doctor_and_serve_name_the_files_that_were_read(cli: Callable[..., Any], desk: Path) -> None:
    assert "from no file" in cli("doctor", "--json").out
    assert "settings from no file" in _serve().stderr
    own, here = _own_file(), desk / "contexten-flow.toml"
    own.write_text("max_retries = 1", encoding="utf-8")
    here.write_text("retry_delay_s = 2", encoding="utf-8")
    (finding,) = [check for check in cli("doctor", "--json").data["checks"] if check["check"] == "settings"]
    assert str(own) in finding["found"]
    assert str(here) in finding["found"]
    served = _serve()
    assert (served.returncode, served.stdout) == (0, "")
    assert f"settings from {own} and {here}" in served.stderr


def test_a_mistyped_variable_is_told_with_the_nearest_name(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_MAX_RETRYS", "1")
    done = cli("list", "--json")
    assert (done.code, done.data) == (0, {"flows": []})
    assert "CONTEXTEN_FLOW_MAX_RETRYS" in done.err
    assert "did you mean CONTEXTEN_FLOW_MAX_RETRIES?" in done.err
    examined = cli("doctor", "--json")
    notes = [check["found"] for check in examined.data["checks"] if check["level"] == "note"]
    assert any("did you mean CONTEXTEN_FLOW_MAX_RETRIES?" in note for note in notes)
    assert examined.err == ""


def test_a_missing_file_of_settings_is_refused(cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFIG", "nowhere.toml")
    done = cli("list")
    assert done.code == 2
    assert "nowhere.toml" in done.err


def test_a_wrong_value_is_found_where_it_stands(
    cli: Callable[..., Any], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk / "contexten-flow.toml"
    file.write_text("max_retries = -1", encoding="utf-8")
    told = cli("list").err
    assert f"(max_retries in {file})" in told
    assert "in the environment" not in told
    monkeypatch.setenv("CONTEXTEN_FLOW_MAX_RETRIES", "-2")
    assert "(CONTEXTEN_FLOW_MAX_RETRIES in the environment)" in cli("list").err


def test_a_mistyped_key_is_told_with_its_file_and_the_nearest_name(cli: Callable[..., Any], desk: Path) -> None:
    (desk / "contexten-flow.toml").write_text("max_retriez = 1", encoding="utf-8")
    done = cli("list", "--json")
    assert done.code == 2
    (issue,) = done.data["error"]["issues"]
    assert issue["suggestion"] == "max_retries"
    assert "contexten-flow.toml" in issue["message"]


def test_half_an_authorization_server_is_told_by_the_setting_that_is_missing(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_OAUTH_ISSUER", "https://auth.example.com")
    done = cli("list", "--json")
    assert done.code == 2
    (issue,) = done.data["error"]["issues"]
    assert issue["path"] == "/oauth_resource"
    found = [check["found"] for check in cli("doctor", "--json").data["checks"] if check["level"] == "problem"]
    assert any(text.startswith("oauth_resource: ") for text in found)


def test_a_denied_tool_that_is_none_is_told_with_the_nearest(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_MODEL_DENY_TOOLS", "data_procesor,http_client,shell")
    notes = [check for check in cli("doctor", "--json").data["checks"] if "model_deny_tools" in check["found"]]
    assert [(note["level"], note["advice"]) for note in notes] == [("note", "did you mean data_processor?")]


def test_a_key_in_place_of_its_variables_name_is_told_nowhere(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_MODEL", "openai/x")
    monkeypatch.setenv("CONTEXTEN_FLOW_MODEL_API_KEY_VARIABLE", "sk-0123456789")
    for done in (cli("doctor"), cli("list")):
        told = " ".join((done.out + done.err).split())
        assert "never the key itself" in told
        assert "0123456789" not in told
