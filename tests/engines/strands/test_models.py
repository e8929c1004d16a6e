"""Which model a task talks to, with which key, and what is said where that cannot be."""

from __future__ import annotations

import asyncio
import importlib.util
from importlib.metadata import version
from pathlib import Path

import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import AttemptError
from contexten.extensions.flow.models.access import NO_MODEL, Access, ModelAccess
from contexten.extensions.flow.models.providers import PROVIDERS
from contexten.extensions.flow.strands import models as models_module
from contexten.extensions.flow.strands import providers as providers_module
from contexten.extensions.flow.strands.models import Models
from contexten.extensions.flow.strands.providers import MAKERS, Made, Wanted

from ..model_server import Fault, ModelServer, Text
from .conftest import Play

pytestmark = pytest.mark.anyio

KEY = "sk-test-0123456789"


def access(**settings: object) -> ModelAccess:
    return ModelAccess(FlowSettings.model_validate(settings))


def models(**settings: object) -> Models:
    whole = FlowSettings.model_validate(settings)
    return Models(whole, ModelAccess(whole))


def test_without_a_model_it_is_told_how_to_set_one() -> None:
    problem = access().problem()
    assert problem == NO_MODEL
    assert "set CONTEXTEN_FLOW_MODEL, such as openai/NAME" in problem


def test_an_unknown_provider_is_told_with_the_nearest() -> None:
    own = access(model="openai/x")
    assert "did you mean anthropic/...?" in (own.problem("antropic/claude") or "")
    assert "providers are openai" in (own.problem("zzz/claude") or "")


def test_a_package_that_is_missing_is_told_with_its_command() -> None:
    missing = [
        name for name, one in PROVIDERS.items() if "." not in one.package and not importlib.util.find_spec(one.package)
    ]
    assert missing, "every client library is installed here"
    for name in missing:
        problem = access(model=f"{name}/x").problem() or ""
        assert f"pip install 'strands-agents[{PROVIDERS[name].extra}]'" in problem


def test_a_key_is_needed_but_for_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set OPENAI_API_KEY" in (access(model="openai/x").problem() or "")
    assert access(model="openai/x", model_base_url="http://127.0.0.1:1/v1").problem() is None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert access(model="openai/x").problem() is None
    assert "set OTHER" in (access(model="openai/x", model_api_key_variable="OTHER").problem() or "")


def test_a_flow_may_name_models_of_the_same_provider_and_those_with_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    own = access(model="openai/x", model_prices="anthropic/claude=1/2")
    assert own.problem("openai/y") is None
    assert own.problem("anthropic/claude") is None
    assert "CONTEXTEN_FLOW_MODEL_PRICES" in (own.problem("anthropic/other") or "")


async def test_a_model_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = models(model="openai/x", model_base_url="http://127.0.0.1:1/v1")
    async with own.lent(None) as first, own.lent("openai/x") as again, own.lent("openai/x", 0.5) as warmer:
        assert again is first
        assert warmer is not first
        assert warmer.model.get_config()["params"] == {"temperature": 0.5}
        monkeypatch.setenv("OPENAI_API_KEY", KEY)  # a rotated key counts
        async with own.lent(None) as rotated:
            assert rotated is not first
    await own.aclose()


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were closed, where one is kept."""
    names: list[str] = []

    def make(access: Access, temperature: float | None, *, timeout_s: float) -> Made:
        async def close() -> None:
            names.append(access.name)

        return Made(model=access.name, close=close)

    monkeypatch.setattr(models_module, "MODELS_KEPT", 1)
    monkeypatch.setattr(models_module, "make", make)
    return names


async def test_a_model_that_is_kept_no_more_closes_when_its_last_attempt_ends(closed: list[str]) -> None:
    own = models(model="openai/x", model_base_url="http://127.0.0.1:1/v1")
    async with own.lent("openai/x"):
        async with own.lent("openai/x"):
            async with own.lent("openai/y"):
                pass
            await asyncio.sleep(0)
            assert closed == []
        await asyncio.sleep(0)
        assert closed == [], "an attempt is at it"
    await asyncio.sleep(0)
    assert closed == ["x"]
    await own.aclose()
    assert closed == ["x", "y"]


async def test_a_model_that_nobody_is_at_closes_when_another_takes_its_place(closed: list[str]) -> None:
    own = models(model="openai/x", model_base_url="http://127.0.0.1:1/v1")
    async with own.lent("openai/x"):
        pass
    async with own.lent("openai/y"):
        await asyncio.sleep(0)
        assert closed == ["x"]
        await own.aclose()
        assert closed == ["x", "y"]
    await own.aclose()
    assert closed == ["x", "y"], "each is closed once"


async def test_a_model_that_cannot_be_used_fails_as_invalid() -> None:
    with pytest.raises(AttemptError, match="No language model is configured") as failed:
        async with models().lent(None):
            pass
    assert failed.value.kind == "invalid"


def test_every_provider_has_a_maker() -> None:
    assert list(MAKERS) == list(PROVIDERS)


async def test_litellm_fetches_no_list_of_prices_when_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "")
    monkeypatch.delenv("LITELLM_LOCAL_MODEL_COST_MAP")
    (tmp_path / "litellm.py").write_text("import os\nraise ValueError(os.environ.get('LITELLM_LOCAL_MODEL_COST_MAP'))")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(AttemptError, match="ValueError: True"):
        async with models(model="litellm/openai/x").lent(None):
            pass


async def test_a_key_that_was_handed_out_stays_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    own = access(model="openai/x", model_api_key_variable="MY_KEY", model_prices="anthropic/claude=1/2")
    keys = [f"{KEY}-{number}" for number in range(3)]
    for key in keys:
        monkeypatch.setenv("MY_KEY", key)
        assert own.grant("openai/x").key == key
    monkeypatch.delenv("MY_KEY")
    assert own.mask(" ".join(keys)) == " ".join(["[the model's key]"] * 3)


async def test_the_key_of_a_model_that_cannot_be_made_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(wanted: Wanted) -> Made:
        raise ValueError(f"{wanted.key} is no key")

    monkeypatch.setattr(providers_module, "MAKERS", {"openai-responses": fail})
    monkeypatch.setenv("OPENAI_API_KEY", "sk-the-one-of-the-settings")
    own = models(model="openai/x", model_prices="openai-responses/y=1/2", model_api_key_variable="MY_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(AttemptError) as failed:
        async with own.lent("openai-responses/y"):
            pass
    assert failed.value.message.endswith("ValueError: [the model's key] is no key")


async def test_a_model_of_bedrock_is_made_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = {"model": "bedrock/some.model", "model_base_url": "http://127.0.0.1:1"}
    assert access(**settings).problem() is None
    async with models(**settings).lent(None, 0.1) as made:
        config = made.model.get_config()
    assert (config["model_id"], config["temperature"]) == ("some.model", 0.1)


async def test_missing_credentials_of_bedrock_are_told(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    ended = await play([Text("never")], model="bedrock/some.model", model_base_url="http://127.0.0.1:1")
    assert ended.error[0] == "invalid"
    assert "redentials" in ended.error[1]


async def test_the_key_goes_to_the_provider_and_nowhere_else(
    play: Play, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    model_server.key = KEY
    ended = await play([Fault(400, f"cannot use {KEY} for this")], model_api_key_variable="MY_KEY")
    assert model_server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert ended.error[0] == "invalid"
    assert "[the model's key]" in ended.error[1]
    assert KEY not in str(ended.run) + str(ended.events)


async def test_the_engine_tells_its_version_and_its_problem(settings: FlowSettings) -> None:
    async with FlowService(settings.model_copy(update={"model": None})) as flows:
        without = {engine.name: engine for engine in (await flows.agents()).engines}["strands"]
    assert (without.available, without.version) == (False, version("strands-agents"))
    assert "CONTEXTEN_FLOW_MODEL" in (without.note or "")
    async with FlowService(settings) as flows:
        with_one = {engine.name: engine for engine in (await flows.agents()).engines}["strands"]
    assert (with_one.available, with_one.note) == (True, "tasks for models go to openai/scripted")
