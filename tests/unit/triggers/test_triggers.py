"""Triggers are checked where they enter, shown without their secrets, and tried without starting anything."""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from contexten.extensions.flow import FlowManager, FlowService, FlowSettings
from contexten.extensions.flow.actor import PYTHON, Actor
from contexten.extensions.flow.errors import (
    DeliveryNotFound,
    FlowNotFound,
    InvalidArguments,
    InvalidInputs,
    TriggerNotFound,
)
from contexten.extensions.flow.triggers.model import HookAnswer, HookRequest

if TYPE_CHECKING:
    from tests.unit.conftest import FakeClock

pytestmark = pytest.mark.anyio

FLOW: dict[str, Any] = {"stages": [{"name": "only", "tasks": [{"name": "note", "type": "note"}]}]}
BODY = {"type": "order.paid", "data": {"n": 1}}


def signed(secret: str, clock: FakeClock, body: object = BODY, message_id: str = "msg_1") -> HookRequest:
    """A webhook's request by Standard Webhooks: HMAC-SHA256 over id, time and body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent_at = int(clock.timestamp())
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{message_id}.{sent_at}.".encode() + content, "sha256")
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(sent_at),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
    return HookRequest(headers=headers, body=content)


async def flow_of(flows: FlowService, flow_id: str = "target", **fields: Any) -> str:
    return (await flows.create_flow(workflow_def={**FLOW, **fields}, flow_id=flow_id)).flow_id


async def test_a_webhook_has_an_address_and_a_secret_that_is_shown_once(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        created = await flows.triggers.create(flow_id="target", kind="webhook", actor=PYTHON)
        assert created.secret is not None
        assert created.secret.startswith("whsec_")
        assert len(base64.b64decode(created.secret.removeprefix("whsec_"))) == 32
        assert created.url == f"/hooks/{created.trigger_id}"
        everything = [
            (await flows.triggers.get(created.trigger_id)).data(),
            (await flows.triggers.list()).data(),
            [event.data() for event in await flows.events()],
        ]
        assert created.secret not in json.dumps(everything)


@pytest.mark.parametrize(("kind", "taken_by"), [("linear", "webhookCreate"), ("slack", "senders of your own")])
async def test_a_secret_is_made_too_for_who_signs_with_one_of_its_own_and_the_answer_says_so(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, kind: str, taken_by: str
) -> None:
    monkeypatch.setenv("THEIRS", "a secret of theirs")
    settings = FlowSettings(**{**settings.model_dump(), "secrets": "THEIRS"})
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        made = await flows.triggers.create(flow_id="target", kind=kind, actor=PYTHON)
        assert len(bytes.fromhex(made.secret or "")) == 32
        [warning] = made.warnings or []
        assert (warning.code, warning.path) == ("vendors_own_secret", "/config/secret")
        assert taken_by in warning.message
        assert "setting secrets (CONTEXTEN_FLOW_SECRETS)" in warning.message
        named = await flows.triggers.create(flow_id="target", kind=kind, config={"secret": "THEIRS"}, actor=PYTHON)
        assert (named.secret, named.warnings) == (None, None)
        with pytest.raises(InvalidArguments, match="no secret but the one"):
            await flows.triggers.update(named.trigger_id, config={}, actor=PYTHON)
        assert (
            await flows.triggers.update(made.trigger_id, config={"secret": "THEIRS"}, actor=PYTHON)
        ).warnings is None


async def test_who_signs_with_a_secret_that_was_made_for_slack_is_heard(
    settings: FlowSettings, clock: FakeClock
) -> None:
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await flow_of(flows)
        made = await flows.triggers.create(flow_id="target", kind="slack", trigger_id="slack", actor=PYTHON)
        now, body = str(int(clock.timestamp())), b"command=%2Fgreet&trigger_id=1.2.a"
        signature = hmac.new((made.secret or "").encode(), f"v0:{now}:".encode() + body, "sha256").hexdigest()
        headers = {
            "x-slack-signature": f"v0={signature}",
            "x-slack-request-timestamp": now,
            "content-type": "application/x-www-form-urlencoded",
        }
        assert (await flows.triggers.receive("slack", HookRequest(headers=headers, body=body))).status == 200
        assert [one.type for one in (await flows.triggers.deliveries()).deliveries] == ["/greet"]


async def test_what_is_wrong_with_a_trigger_is_told_all_at_once_and_where(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        with pytest.raises(InvalidArguments) as wrong:
            await flows.triggers.create(
                flow_id="target",
                kind="webhook",
                inputs={"a": "{{ event.payloud.x }}", "b": "{{ inputs.x }}", "c": "{{ payload.x }}"},
                filter="event.action == 'opened'",
                actor=PYTHON,
            )
        issues = {issue.path: issue for issue in wrong.value.issues}
        assert set(issues) == {"/inputs/a", "/inputs/b", "/inputs/c", "/filter"}
        assert issues["/inputs/a"].suggestion == "event.payload"
        assert issues["/inputs/c"].suggestion == "event.payload"
        assert issues["/filter"].suggestion == "event.payload.action"
        with pytest.raises(InvalidArguments, match="Did you mean 'webhook'"):
            await flows.triggers.create(flow_id="target", kind="webhok", actor=PYTHON)
        with pytest.raises(FlowNotFound, match="target"):
            await flows.triggers.create(flow_id="targt", kind="webhook", actor=PYTHON)
        with pytest.raises(InvalidArguments, match="name no secret"):
            await flows.triggers.create(flow_id="target", kind="linear", config={"secret": "LINEAR"}, actor=PYTHON)
        with pytest.raises(InvalidArguments, match="never fires"):
            await flows.triggers.create(
                flow_id="target", kind="once", config={"at": "2001-01-01T00:00:00Z"}, actor=PYTHON
            )
        with pytest.raises(InvalidArguments, match="flow_id says which"):
            await flows.triggers.create(kind="webhook", actor=PYTHON)
        with pytest.raises(InvalidArguments, match="trigger_id must have"):
            await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="../x", actor=PYTHON)
        with pytest.raises(TriggerNotFound):
            await flows.triggers.get("trg_none")
        with pytest.raises(DeliveryNotFound):
            await flows.triggers.redeliver("dlv_none", actor=PYTHON)
        assert (await flows.triggers.list()).triggers == []


async def test_flows_that_would_start_each_other_for_ever_are_refused_with_the_circle(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        for flow_id in "abc":
            await flow_of(flows, flow_id)
        create = flows.triggers.create
        await create(flow_id="b", kind="flow", config={"flow_ids": ["a"]}, trigger_id="ab", actor=PYTHON)
        bc = await create(flow_id="c", kind="flow", config={"flow_ids": ["b"]}, trigger_id="bc", actor=PYTHON)
        with pytest.raises(InvalidArguments, match=r"c -> a -> \(ab\) b -> \(bc\) c"):
            await create(flow_id="a", kind="flow", config={"flow_ids": ["c"]}, actor=PYTHON)
        with pytest.raises(InvalidArguments, match="a -> a"):
            await create(flow_id="a", kind="flow", config={"flow_ids": ["a"]}, actor=PYTHON)
        with pytest.raises(InvalidArguments, match="c -> c"):
            await flows.triggers.update("bc", config={"flow_ids": ["c"]}, actor=PYTHON)
        await flows.triggers.delete(bc.trigger_id, actor=PYTHON)
        await create(flow_id="a", kind="flow", config={"flow_ids": ["c"]}, actor=PYTHON)


async def test_the_same_trigger_again_is_the_one_that_is_there(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        first = await flows.triggers.create(flow_id="target", kind="github", trigger_id="mine", actor=PYTHON)
        again = await flows.triggers.create(flow_id="target", kind="github", trigger_id="mine", actor=PYTHON)
        assert (first.existing, again.existing, again.secret) == (False, True, None)
        with pytest.raises(InvalidArguments, match="exists with another filter"):
            await flows.triggers.create(
                flow_id="target", kind="github", trigger_id="mine", filter="false", actor=PYTHON
            )


async def test_triggers_are_listed_in_pages_by_flow_and_kind(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        await flow_of(flows, "other")
        for number in range(3):
            await flows.triggers.create(flow_id="target", kind="webhook", trigger_id=f"w{number}", actor=PYTHON)
        await flows.triggers.create(
            flow_id="other", kind="interval", config={"every_s": 60}, trigger_id="i", actor=PYTHON
        )
        page = await flows.triggers.list(flow_id="target", limit=2)
        assert [view.trigger_id for view in page.triggers] == ["w2", "w1"]
        rest = await flows.triggers.list(flow_id="target", limit=2, page=page.next_page)
        assert ([view.trigger_id for view in rest.triggers], rest.next_page) == (["w0"], None)
        assert [view.trigger_id for view in (await flows.triggers.list(kind="interval")).triggers] == ["i"]
        with pytest.raises(InvalidArguments, match="not of this list"):
            await flows.triggers.list(flow_id="other", page=page.next_page)


async def test_a_trigger_is_tried_without_starting_anything(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        await flow_of(flows, "whole", inputs={"type": "object", "properties": {"event": {"type": "object"}}})
        created = await flows.triggers.create(
            flow_id="target",
            kind="webhook",
            inputs={"who": "{{ event.payload.who }}", "text": "{{ event.type }}!"},
            filter="event.payload.who != 'bob'",
            actor=PYTHON,
        )
        try_it = flows.triggers.test
        tried = await try_it(created.trigger_id, payload={"who": "{{ secrets.X }}"}, type="hi", actor=PYTHON)
        assert (tried.starts, tried.inputs) == (True, {"who": "{{ secrets.X }}", "text": "hi!"})
        assert not (await try_it(created.trigger_id, payload={"who": "bob"}, actor=PYTHON)).starts
        failing = await try_it(created.trigger_id, payload={}, actor=PYTHON)
        assert failing.error is not None
        assert "who" in failing.error.message
        assert (await flows.triggers.deliveries()).deliveries == []
        started = await try_it(created.trigger_id, payload={"who": "eve"}, start=True, actor=PYTHON)
        assert started.delivery is not None
        assert (await try_it(created.trigger_id, actor=PYTHON)).inputs == {"who": "eve", "text": "test!"}
        whole = await flows.triggers.create(flow_id="whole", kind="interval", config={"every_s": 60}, actor=PYTHON)
        inputs = (await try_it(whole.trigger_id, actor=PYTHON)).inputs
        assert inputs is not None
        assert inputs["event"]["type"] == "tick"


async def test_a_start_that_the_flow_would_refuse_is_foretold_with_its_error(settings: FlowSettings) -> None:
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows, inputs=schema)
        create, try_it = flows.triggers.create, flows.triggers.test
        await create(
            flow_id="target", kind="webhook", inputs={"n": "{{ event.payload }}"}, trigger_id="given", actor=PYTHON
        )
        await create(flow_id="target", kind="webhook", trigger_id="bare", actor=PYTHON)
        assert (await try_it("given", payload=1, actor=PYTHON)).starts
        for told, inputs in (
            (await try_it("given", payload="one", actor=PYTHON), {"n": "one"}),
            (await try_it("bare", payload=1, actor=PYTHON), {}),
        ):
            assert (told.starts, told.inputs) == (False, inputs)
            assert told.error is not None
            with pytest.raises(InvalidInputs) as refused:
                await flows.execute_flow(flow_id="target", inputs=inputs)
            assert told.error.model_dump(exclude_none=True).items() <= refused.value.as_dict().items()


async def test_a_filter_that_is_never_true_or_false_is_refused(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="hook", actor=PYTHON)
        texts = ("event", "event.type", "(event.type)", "event['type']", "(event)['type']", "{{ event.id }}")
        for never in ("1", "'x'", "null", "[true]", "size(event.payload) + 1", *texts):
            with pytest.raises(InvalidArguments) as wrong:
                await flows.triggers.update("hook", filter=never, actor=PYTHON)
            [issue] = wrong.value.issues
            assert (issue.path, issue.code, "true or false" in issue.message) == ("/filter", "invalid_expression", True)
        payloads = ("event.payload", "(event.payload)", "event['payload']", "event.payload.draft")
        for possible in ("true", "has(event.type)", "event.type == 'x'", *payloads):
            assert (await flows.triggers.update("hook", filter=possible, actor=PYTHON)).filter == possible


@pytest.mark.parametrize("condition", ["event.type", "1", "event.nothing", "no CEL"])
async def test_a_trigger_whose_rules_would_be_refused_today_can_be_changed_and_its_trial_says_why_it_starts_nothing(
    settings: FlowSettings, condition: str
) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="hook", actor=PYTHON)
        await flows._store.write(lambda tx: tx.rows("UPDATE triggers SET filter = ?", (condition,)))
        told = await flows.triggers.test("hook", payload=1, actor=PYTHON)
        assert not told.starts
        assert told.error is not None
        assert told.error.code in {"expression_failed", "invalid_expression"}
        renamed = await flows.triggers.update("hook", name="old", enabled=False, actor=PYTHON)
        assert (renamed.name, renamed.enabled, renamed.filter) == ("old", False, condition)
        with pytest.raises(InvalidArguments):
            await flows.triggers.update("hook", filter=condition, actor=PYTHON)
        await flows.triggers.update("hook", filter="", enabled=True, actor=PYTHON)
        assert (await flows.triggers.test("hook", payload=1, actor=PYTHON)).starts


async def test_a_trigger_whose_secret_the_settings_name_no_more_can_be_disabled(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIRS", "a secret of theirs")
    granting = FlowSettings(**{**settings.model_dump(), "secrets": "THEIRS"})
    config = {"secret": "THEIRS"}
    async with FlowService(granting, drive=False) as flows:
        await flow_of(flows)
        await flows.triggers.create(flow_id="target", kind="github", trigger_id="hook", config=config, actor=PYTHON)
    async with FlowService(settings, drive=False) as flows:
        assert not (await flows.triggers.update("hook", enabled=False, actor=PYTHON)).enabled
        with pytest.raises(InvalidArguments, match="name no secret"):
            await flows.triggers.update("hook", config=config, actor=PYTHON)


async def test_a_hook_answers_who_may_and_refuses_who_may_not(settings: FlowSettings, clock: FakeClock) -> None:
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await flow_of(flows)
        created = await flows.triggers.create(flow_id="target", kind="webhook", actor=PYTHON)
        assert created.secret is not None
        request = signed(created.secret, clock)

        async def answer(asked: HookRequest, trigger_id: str = created.trigger_id) -> HookAnswer:
            return await flows.triggers.receive(trigger_id, asked)

        first = await answer(request)
        assert first.status == 202
        (delivery,) = (await flows.triggers.deliveries()).deliveries
        assert first.body["delivery_id"] == delivery.delivery_id
        assert (await flows.triggers.delivery(delivery.delivery_id)).payload == BODY
        assert (await answer(request)).status == 200  # the same id: nothing is recorded
        forged = replace(request, headers={**request.headers, "webhook-signature": "v1,AAAA"})
        assert (await answer(forged)).status == 401
        assert (await answer(request, "nobody")).status == 404
        timer = await flows.triggers.create(flow_id="target", kind="interval", config={"every_s": 9}, actor=PYTHON)
        assert (await answer(request, timer.trigger_id)).status == 404
        deep: Any = 1
        for _ in range(80):
            deep = [deep]
        assert (await answer(signed(created.secret, clock, deep, "deep"))).status == 400
        assert (await answer(signed(created.secret, clock, {"n": "\ud800"}, "odd"))).status == 400
        huge = {"text": "x" * (3 << 20)}
        assert (await answer(signed(created.secret, clock, huge, "huge"))).status == 413
        await clock.advance(timedelta(minutes=10).total_seconds())
        assert (await answer(replace(request))).status in (400, 401)  # a replay, recorded long ago
        await flows.triggers.update(created.trigger_id, enabled=False, actor=PYTHON)
        assert (await answer(signed(created.secret, clock, BODY, "later"))).status == 409
        assert len((await flows.triggers.deliveries()).deliveries) == 1


async def test_a_hook_that_has_too_much_waiting_tells_its_sender_to_come_back(
    settings: FlowSettings, clock: FakeClock
) -> None:
    async with FlowService(settings, clock=clock, drive=False) as flows:
        await flow_of(flows)
        created = await flows.triggers.create(flow_id="target", kind="webhook", config={"max_pending": 2}, actor=PYTHON)
        assert created.secret is not None
        statuses = [
            (await flows.triggers.receive(created.trigger_id, signed(created.secret, clock, BODY, f"m{number}"))).status
            for number in (1, 2, 3, 2)
        ]
        assert statuses == [202, 202, 429, 200]
        assert (await flows.triggers.get(created.trigger_id)).waiting == 2


async def test_a_trigger_that_is_deleted_takes_its_deliveries_with_it(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        created = await flows.triggers.create(flow_id="target", kind="webhook", actor=PYTHON)
        await flows.triggers.test(created.trigger_id, start=True, actor=PYTHON)
        deleted = await flows.triggers.delete(created.trigger_id, actor=PYTHON)
        assert (deleted.trigger_id, deleted.waiting) == (created.trigger_id, 1)
        assert (await flows.triggers.deliveries()).deliveries == []
        with pytest.raises(TriggerNotFound):
            await flows.triggers.delete(created.trigger_id, actor=PYTHON)
        types = [event.type for event in await flows.events() if event.type.startswith("trigger.")]
        assert types == ["trigger.created", "trigger.delivered", "trigger.deleted"]


async def test_a_program_manages_triggers_by_its_flow_manager(settings: FlowSettings) -> None:
    async with FlowManager(settings=settings) as manager:
        await manager.create_flow("target", FLOW, flow_id="target")
        created = await manager.create_trigger("target", "cron", {"expression": "0 9 * * MON-FRI"}, name="mornings")
        assert created["next_at"]
        assert [trigger["name"] for trigger in await manager.list_triggers(flow_id="target")] == ["mornings"]
        assert (await manager.test_trigger(created["trigger_id"]))["starts"]
        assert (await manager.delete_trigger(created["trigger_id"]))["trigger_id"] == created["trigger_id"]
        assert await manager.list_triggers() == []


async def test_two_changes_at_once_both_hold(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="hook", actor=PYTHON)
        async with anyio.create_task_group() as group:
            group.start_soon(partial(flows.triggers.update, "hook", name="new", actor=PYTHON))
            group.start_soon(partial(flows.triggers.update, "hook", filter="event.type == 'x'", actor=PYTHON))
        view = await flows.triggers.get("hook")
        assert (view.name, view.filter) == ("new", "event.type == 'x'")


async def test_two_triggers_made_at_once_close_no_circle(settings: FlowSettings) -> None:
    refused: list[str] = []
    async with FlowService(settings, drive=False) as flows:
        for flow_id in ("one", "two"):
            await flow_of(flows, flow_id)

        async def make(before: str, after: str) -> None:
            try:
                await flows.triggers.create(flow_id=after, kind="flow", config={"flow_ids": [before]}, actor=PYTHON)
            except InvalidArguments as error:
                refused.append(error.issues[0].code)

        async with anyio.create_task_group() as group:
            group.start_soon(make, "one", "two")
            group.start_soon(make, "two", "one")
        assert refused == ["cycle"]
        assert len((await flows.triggers.list()).triggers) == 1


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("once", {"at": "9999-12-31T23:59:59-12:00"}),
        ("once", {"at": "9001-01-01T00:00:00Z"}),
        ("interval", {"every_s": 60, "start_at": "0001-01-01T00:00:00+12:00"}),
        ("webhook", {"max_pending": 100_001}),
    ],
)
async def test_what_cannot_be_reckoned_with_is_refused(
    settings: FlowSettings, kind: str, config: dict[str, Any]
) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        with pytest.raises(InvalidArguments) as refused:
            await flows.triggers.create(flow_id="target", kind=kind, config=config, actor=PYTHON)
        assert [issue.path for issue in refused.value.issues] == [f"/config/{list(config)[-1]}"]


async def test_a_disabled_trigger_is_told_to_start_nothing_and_is_delivered_nothing(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="hook", actor=PYTHON)
        await flows.triggers.update("hook", enabled=False, actor=PYTHON)
        for start in (False, True):
            told = await flows.triggers.test("hook", payload={}, start=start, actor=PYTHON)
            assert (told.starts, told.inputs, told.delivery) == (False, None, None)
            assert "it is disabled" in str(told.reason)
        assert (await flows.triggers.deliveries()).deliveries == []
        await flows.triggers.update("hook", enabled=True, actor=PYTHON)
        assert (await flows.triggers.test("hook", payload={}, start=True, actor=PYTHON)).delivery is not None


async def test_a_trial_says_that_a_function_alone_decides(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flows.triggers.create(
            kind="webhook", handler="app.decide", filter="event.payload.n == 1", trigger_id="hook", actor=PYTHON
        )
        told = await flows.triggers.test("hook", payload={"n": 1}, actor=PYTHON)
        assert (told.starts, told.inputs) == (True, None)
        assert told.reason is not None
        assert "only the function app.decide decides" in told.reason
        assert not (await flows.triggers.test("hook", payload={"n": 2}, actor=PYTHON)).starts


async def test_the_journal_says_who_had_a_trigger_start_a_run(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        await flows.triggers.create(flow_id="target", kind="webhook", trigger_id="hook", actor=PYTHON)
        ann = Actor(client="ann", tool="test_trigger")
        await flows.triggers.test("hook", payload={}, start=True, actor=ann)
        [delivered] = [event for event in await flows.events() if event.type == "trigger.delivered"]
        assert delivered.actor == str(ann)


async def test_deliveries_are_listed_by_their_state(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        await flow_of(flows)
        for trigger_id in ("one", "two"):
            await flows.triggers.create(flow_id="target", kind="webhook", trigger_id=trigger_id, actor=PYTHON)
            for _ in range(3):
                await flows.triggers.test(trigger_id, payload={}, start=True, actor=PYTHON)
        failed = 'UPDATE deliveries SET state = \'failed\', error = \'{"code": "c", "message": "m"}\', ended_at = 1'
        await flows._store.write(lambda tx: tx.execute(f"{failed} WHERE seq IN (1, 2, 4)").rowcount)

        async def listed(trigger_id: str | None, state: str | None) -> list[int]:
            """Their places, in pages of two."""
            found: list[str] = []
            page = None
            while True:
                answer = await flows.triggers.deliveries(trigger_id, state=state, limit=2, page=page)
                found += [view.delivery_id for view in answer.deliveries]
                page = answer.next_page
                if page is None:
                    places = {
                        row[0]: row[1] for row in await flows._store.rows("SELECT delivery_id, seq FROM deliveries")
                    }
                    return [places[delivery_id] for delivery_id in found]

        assert await listed(None, None) == [6, 5, 4, 3, 2, 1]
        assert await listed(None, "failed") == [4, 2, 1]
        assert await listed("one", "failed") == [2, 1]
        assert await listed("two", "failed") == [4]
        assert await listed("two", "accepted") == [6, 5]
        with pytest.raises(InvalidArguments, match="Did you mean 'failed'"):
            await flows.triggers.deliveries(state="faild")
        with pytest.raises(TriggerNotFound):
            await flows.triggers.deliveries("none", state="failed")
