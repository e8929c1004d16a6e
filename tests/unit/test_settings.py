"""Settings: where they come from, which source wins, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import platformdirs
import pydantic
import pytest

from contexten.extensions.flow.settings import (
    FlowSettings,
    SecretGrant,
    SettingsFileError,
    settings_files,
    unknown_variables,
    user_settings_file,
)


@pytest.fixture(autouse=True)
def _clean(settings: FlowSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, an empty configuration folder, and no settings in the environment."""
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda name: str(tmp_path / "config" / name))


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_the_defaults_are_the_safe_ones() -> None:
    settings = FlowSettings()
    opened = ("allow_commands", "allow_functions", "allow_paths", "allow_hosts", "secrets", "tokens")
    assert [getattr(settings, name) for name in opened] == [()] * 6
    assert settings.durability == "power"
    assert settings.database.name == "flow.sqlite3"


def test_arguments_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "contexten-flow.toml").write_text('strategy = "priority"\nmax_retries = 1\nmax_concurrent_flows = 1\n')
    monkeypatch.setenv("CONTEXTEN_FLOW_MAX_RETRIES", "2")
    monkeypatch.setenv("CONTEXTEN_FLOW_MAX_CONCURRENT_FLOWS", "2")
    settings = FlowSettings(max_concurrent_flows=3)
    assert (settings.strategy, settings.max_retries, settings.max_concurrent_flows) == ("priority", 2, 3)


def test_the_environment_may_name_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        'allow_hosts = ["10.0.0.1:80"]\n[secrets.API_KEY]\nhosts = ["api.example.com"]\nvariable = "REAL_KEY"\n'
    )
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFIG", str(other))
    settings = FlowSettings()
    assert settings.allow_hosts == ("10.0.0.1:80",)
    assert settings.secrets == (SecretGrant(name="API_KEY", hosts=("api.example.com",), variable="REAL_KEY"),)


def test_lists_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_ALLOW_COMMANDS", "ls, git ,,")
    monkeypatch.setenv("CONTEXTEN_FLOW_ALLOW_PATHS", "/a,/b c")
    monkeypatch.setenv("CONTEXTEN_FLOW_SECRETS", "ONE,TWO@api.example.com+tool:shell,THREE@tool:python")
    monkeypatch.setenv("CONTEXTEN_FLOW_TOKENS", "")
    settings = FlowSettings()
    assert settings.allow_commands == ("ls", "git")
    assert settings.allow_paths == (Path("/a"), Path("/b c"))
    assert settings.tokens == ()
    assert settings.secrets == (
        SecretGrant(name="ONE"),
        SecretGrant(name="TWO", hosts=("api.example.com",), tools=("shell",)),
        SecretGrant(name="THREE", tools=("python",)),
    )


def test_words_are_taken_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_LOG_LEVEL", "debug")
    monkeypatch.setenv("CONTEXTEN_FLOW_STRATEGY", "PRIORITY")
    settings = FlowSettings()
    assert (settings.log_level, settings.strategy) == ("DEBUG", "priority")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_CONCURRENT_FLOWS", "0"),
        ("MAX_RETRIES", "-1"),
        ("DURABILITY", "none"),
        ("LOG_LEVEL", "loud"),
        ("SECRETS", "not a name"),
        ("CANCEL_GRACE_S", "-1"),
        ("STRATEGY", "lifo"),
        ("FLOW_LIMITS", "a=1.5"),
        ("TAG_LIMITS", "a=0.5"),
        ("ALLOW_HOSTS", "http://10.0.0.1"),
        ("ALLOW_HOSTS", "10.0.0.1:99999"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CONTEXTEN_FLOW_{name}", value)
    with pytest.raises(pydantic.ValidationError, match=name.lower()):
        FlowSettings()


@pytest.mark.parametrize("grant", ["SH@", "SH@+", "SH@ ", "SH@a.example.com+", "SH@tool:", "SH@https://a.example.com"])
def test_a_secret_with_an_empty_or_impossible_target_is_refused_and_never_open_to_all(grant: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"target|host:port"):
        FlowSettings(secrets=grant)


def test_a_secret_in_the_file_with_an_empty_list_of_targets_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="empty target"):
        FlowSettings(secrets=({"name": "SH", "hosts": []},))
    settings = FlowSettings(secrets="SH")
    assert settings.secrets == (SecretGrant(name="SH"),)
    assert FlowSettings(**settings.model_dump()) == settings


@pytest.mark.parametrize("host", ["10.0.0.1", "intranet:8080", "::1", "[::1]:8080", "my_host.local."])
def test_a_host_that_may_be_reached_is_written_with_a_port_or_without(host: str) -> None:
    assert FlowSettings(allow_hosts=host).allow_hosts == (host,)


def test_an_unknown_setting_in_the_file_or_as_an_argument_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pydantic.ValidationError, match="durabilty"):
        FlowSettings(durabilty="power")  # type: ignore[call-arg]  # the mistake that is tested
    (tmp_path / "contexten-flow.toml").write_text("max_retriez = 1\n")
    with pytest.raises(pydantic.ValidationError, match="max_retriez"):
        FlowSettings()


def test_settings_never_change_and_tokens_are_not_shown() -> None:
    settings = FlowSettings(tokens="abcdef")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.max_retries = 5  # type: ignore[misc]  # the mistake that is tested
    assert "abcdef" not in repr(settings)


def test_a_secrets_value_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    grant = SecretGrant(name="KEY", variable="THE_KEY")
    monkeypatch.delenv("THE_KEY", raising=False)
    assert grant.value() is None
    monkeypatch.setenv("THE_KEY", "first")
    assert grant.value() == "first"
    monkeypatch.setenv("THE_KEY", "")
    assert grant.value() is None


GRANTS = {
    "allow_hosts": 'allow_hosts = ["10.0.0.1"]',
    "allow_paths": 'allow_paths = ["/"]',
    "allow_commands": 'allow_commands = ["sh"]',
    "allow_functions": 'allow_functions = ["os:system"]',
    "tokens": 'tokens = ["abc"]',
    "secrets": "[secrets.KEY]",
    "engines": 'engines = ["prefect"]',
    "worker_engine": 'worker_engine = "controlflow"',
}


@pytest.mark.parametrize("name", GRANTS)
def test_the_working_directory_grants_nothing_unless_it_is_acknowledged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "contexten-flow.toml", GRANTS[name])
    with pytest.raises(SettingsFileError) as refused:
        FlowSettings()
    assert name in refused.value.message
    assert [issue.path for issue in refused.value.issues] == [f"/{name}"]
    assert "CONTEXTEN_FLOW_CONFIG=./contexten-flow.toml" in (refused.value.next or "")
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFIG", "./contexten-flow.toml")
    assert getattr(FlowSettings(), name) != getattr(FlowSettings.model_construct(), name)


def test_a_grant_is_recognised_however_it_is_written_and_whatever_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "contexten-flow.toml", '"Allow_Commands" = ["sh"]')
    monkeypatch.setenv("CONTEXTEN_FLOW_ALLOW_COMMANDS", "git")
    with pytest.raises(SettingsFileError, match="allow_commands"):
        FlowSettings()


ISSUER, RESOURCE = "https://auth.example.com/realms/one", "https://flows.example.com/mcp"


def test_an_authorization_server_is_named_with_this_servers_own_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_OAUTH_ISSUER", ISSUER)
    monkeypatch.setenv("CONTEXTEN_FLOW_OAUTH_RESOURCE", RESOURCE)
    monkeypatch.setenv("CONTEXTEN_FLOW_OAUTH_SCOPES", "flows:run, flows:read")
    monkeypatch.setenv("CONTEXTEN_FLOW_OAUTH_JWKS_URL", "")
    settings = FlowSettings()
    assert (settings.oauth_issuer, settings.oauth_resource) == (ISSUER, RESOURCE)
    assert settings.oauth_scopes == ("flows:run", "flows:read")
    assert settings.oauth_jwks_url is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"oauth_issuer": ISSUER}, "oauth_resource"),
        ({"oauth_resource": RESOURCE}, "oauth_issuer"),
        ({"oauth_scopes": ("a",)}, "oauth_issuer"),
        ({"oauth_jwks_url": ISSUER}, "oauth_issuer"),
        ({"oauth_issuer": "http://auth.example.com", "oauth_resource": RESOURCE}, "https is needed"),
        ({"oauth_issuer": "http://127.0.0.1.example.com", "oauth_resource": RESOURCE}, "https is needed"),
        (
            {"oauth_issuer": ISSUER, "oauth_resource": RESOURCE, "oauth_jwks_url": "http://10.0.0.1/k"},
            "https is needed",
        ),
        ({"oauth_issuer": "auth.example.com", "oauth_resource": RESOURCE}, "whole URL"),
        ({"oauth_issuer": "https://auth.example.com:port", "oauth_resource": RESOURCE}, "whole URL"),
        ({"oauth_issuer": "file:///etc/keys", "oauth_resource": RESOURCE}, "whole URL"),
        ({"oauth_issuer": ISSUER, "oauth_resource": 'https://a.example/"x'}, "whole URL"),
        ({"oauth_issuer": ISSUER, "oauth_resource": RESOURCE + "#a"}, "without user"),
        ({"oauth_issuer": ISSUER + "?a=b", "oauth_resource": RESOURCE}, "without user"),
        ({"oauth_issuer": "https://me@auth.example.com", "oauth_resource": RESOURCE}, "without user"),
        ({"oauth_issuer": ISSUER, "oauth_resource": RESOURCE, "oauth_scopes": ("a b",)}, "a scope is"),
    ],
)
def test_half_an_authorization_server_and_one_that_others_could_imitate_are_refused(
    given: dict[str, Any], told: str
) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        FlowSettings(**given)


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost:9000", "[::1]:9000"])
def test_on_loopback_an_authorization_server_needs_no_https(host: str) -> None:
    settings = FlowSettings(oauth_issuer=f"http://{host}", oauth_resource=RESOURCE)
    assert settings.oauth_issuer == f"http://{host}"


def test_the_working_directory_names_no_authorization_server(tmp_path: Path) -> None:
    _write(tmp_path / "contexten-flow.toml", f'oauth_issuer = "{ISSUER}"\noauth_resource = "{RESOURCE}"\n')
    with pytest.raises(SettingsFileError, match="oauth_issuer, oauth_resource"):
        FlowSettings()


def test_the_users_own_file_may_grant_and_the_working_directory_goes_before_it(tmp_path: Path) -> None:
    own = _write(user_settings_file(), 'allow_commands = ["git"]\nmax_retries = 1\nstrategy = "priority"\n')
    here = _write(tmp_path / "contexten-flow.toml", "max_retries = 2\n")
    settings = FlowSettings()
    assert (settings.allow_commands, settings.max_retries, settings.strategy) == (("git",), 2, "priority")
    assert [file.path for file in settings_files()] == [own, here]


def test_the_file_that_is_named_is_read_instead_of_the_working_directorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "contexten-flow.toml", 'allow_commands = ["sh"]')
    own = _write(user_settings_file(), "[secrets.KEY]\ntools = ['shell']\n")
    named = _write(tmp_path / "named.toml", "[secrets.KEY]\nhosts = ['api.example.com']\n")
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFIG", str(named))
    assert [file.path for file in settings_files()] == [own, named]
    assert FlowSettings().secrets == (SecretGrant(name="KEY", hosts=("api.example.com",)),)


def test_the_users_folder_may_be_the_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    own = _write(user_settings_file(), 'allow_commands = ["git"]')
    monkeypatch.chdir(own.parent)
    assert FlowSettings().allow_commands == ("git",)
    assert [file.path for file in settings_files()] == [own]


def test_a_named_file_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFIG", "nowhere.toml")
    with pytest.raises(SettingsFileError, match=r"CONTEXTEN_FLOW_CONFIG names nowhere\.toml"):
        FlowSettings()


@pytest.mark.parametrize(
    ("content", "told"), [(b"= 1", "not TOML"), (b"\xff", "not UTF-8"), (b"a=" + b"[" * 5000, "nested too deeply")]
)
def test_a_file_that_cannot_be_read_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "contexten-flow.toml").write_bytes(content)
    with pytest.raises(SettingsFileError, match=told) as refused:
        FlowSettings()
    assert "contexten-flow.toml" in refused.value.message


def test_variables_that_set_nothing_are_found_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTEXTEN_FLOW_MAX_RETRIES", "1")
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFIG", "")
    monkeypatch.setenv("CONTEXTEN_FLOW_ALLOW_HOST", "10.0.0.1")
    monkeypatch.setenv("CONTEXTEN_FLOW_CONFG", "x.toml")
    monkeypatch.setenv("CONTEXTEN_FLOW_XYZZYPLUGH", "1")
    found = unknown_variables()
    assert set(found) == {"CONTEXTEN_FLOW_ALLOW_HOST", "CONTEXTEN_FLOW_CONFG", "CONTEXTEN_FLOW_XYZZYPLUGH"}
    assert found["CONTEXTEN_FLOW_ALLOW_HOST"] == "CONTEXTEN_FLOW_ALLOW_HOSTS"
    assert found["CONTEXTEN_FLOW_CONFG"] == "CONTEXTEN_FLOW_CONFIG"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": "opnai/x"}, r"'opnai/x' names no provider of models \(did you mean openai/\.\.\.\?\)"),
        ({"model": "zzz/x"}, "providers are openai"),
        ({"model_base_url": "127.0.0.1:8080/v1"}, "a whole URL is expected"),
        ({"model_base_url": "ftp://127.0.0.1/v1"}, "a whole URL is expected"),
        ({"model_base_url": "http://127.0.0.1/v1?key=x"}, "without user, query and fragment"),
    ],
)
def test_a_model_that_nobody_could_reach_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=told):
        FlowSettings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"model_api_key_variable": "sk-proj-0123456789"},
        {"model_base_url": "https://me:sk-proj-0123456789@models.example.com/v1"},
    ],
)
def test_a_key_where_none_belongs_is_refused_and_not_repeated(given: dict[str, str]) -> None:
    with pytest.raises(pydantic.ValidationError, match=r"never the key itself|without credentials") as refused:
        FlowSettings.model_validate(given)
    assert "0123456789" not in str(refused.value)
