"""Who is told of runs, of which, and what."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from standardwebhooks import Webhook

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.actor import Actor
from contexten.extensions.flow.errors import DispatchNotFound, FlowNotFound, InvalidArguments, NotificationNotFound
from contexten.extensions.flow.settings import SecretGrant
from contexten.extensions.flow.store import notifications as changes
from contexten.extensions.flow.store.notifications import CONSUMER, prune_dispatches
from contexten.extensions.flow.store.sql import SQL
from contexten.extensions.flow.store.writer import Transaction

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[str]]
SIGNING = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def test_a_webhook_is_signed_and_says_what_the_run_is(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    async with FlowService(settings) as flows:
        heard = entries(flows)
        made = await flows.notifications.create(kind="webhook", url=f"{receiver.url}/in", events=["run.completed"])
        run_id = await run(flows)
        [message] = await receiver.has(1)
        await heard.have(1, "notification.sent")
        [dispatch] = (await flows.notifications.dispatches(made.notification_id)).dispatches
        run_data = (await flows.get_run(run_id)).data()
    assert made.secret is not None
    told = Webhook(made.secret).verify(message.body, message.headers)
    assert told == {"type": "run.completed", "timestamp": dispatch.happened_at, "data": run_data}
    assert (dispatch.state, dispatch.status, dispatch.attempts) == ("sent", 200, 1)
    assert message.headers["webhook-id"] == dispatch.dispatch_id
    assert message.headers["content-type"] == "application/json"


async def test_a_receiver_hears_only_of_the_events_the_flow_and_the_tag_that_it_asked_for(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    async with FlowService(settings) as flows:
        heard = entries(flows)
        await run(flows, id="a", tags=["nightly"])  # before anybody asked
        asked: dict[str, dict[str, Any]] = {
            "failed": {},
            "of-b": {"flow_id": "b", "events": ["run.completed", "run.failed"]},
            "nightly": {"tag": "nightly", "events": ["run.completed"]},
        }
        for path, wanted in asked.items():
            if "flow_id" in wanted:
                await run(flows, id="b")
            await flows.notifications.create(kind="webhook", url=f"{receiver.url}/{path}", **wanted)
        await run(flows, id="a", tags=["nightly"])
        await run(flows, id="b")
        await run(flows, id="c", fails=True)
        await heard.have(3, "notification.sent")
    assert sorted((message.path, message.data["data"]["flow_id"]) for message in receiver.messages) == [
        ("/failed", "c"),
        ("/nightly", "a"),
        ("/of-b", "b"),
    ]


async def test_the_runs_of_sub_flows_are_not_told_of(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    async with FlowService(settings) as flows:
        heard = entries(flows)
        await run(flows, id="part")
        await flows.notifications.create(kind="webhook", url=receiver.url, events=["run.completed"])
        whole = await flows.run_flow(
            workflow_def={
                "stages": [{"name": "s", "tasks": [{"name": "sub", "type": "flow", "parameters": {"flow_id": "part"}}]}]
            }
        )
        await heard.have(1, "notification.sent")
        await run(flows)
        await heard.have(2, "notification.sent")
    assert receiver.messages[0].data["data"]["run_id"] == whole.run_id
    assert len(receiver.messages) == 2


async def test_a_test_is_sent_at_once_and_tells_what_the_receiver_answered(
    settings: FlowSettings, receiver: Any
) -> None:
    receiver.statuses["/bad"] = 503
    async with FlowService(settings, drive=False) as flows:
        good = await flows.notifications.create(kind="webhook", url=f"{receiver.url}/good")
        bad = await flows.notifications.create(kind="webhook", url=f"{receiver.url}/bad")
        told = await flows.notifications.test(good.notification_id)
        refused = await flows.notifications.test(bad.notification_id)
        assert (await flows.notifications.dispatches()).dispatches == []
    assert (told.ok, told.status, told.error) == (True, 200, None)
    assert (refused.ok, refused.status, refused.error) == (False, 503, "answered 503: well")
    assert receiver.messages[0].data["type"] == "test"


async def test_a_named_secret_signs_and_is_not_shown(
    settings: FlowSettings, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", SIGNING)
    settings = settings.model_copy(update={"secrets": (SecretGrant(name="HOOK"),)})
    async with FlowService(settings, drive=False) as flows:
        made = await flows.notifications.create(kind="webhook", url=receiver.url, secret="HOOK")
        await flows.notifications.test(made.notification_id)
    assert (made.secret, made.secret_name) == (None, "HOOK")
    [message] = receiver.messages
    assert Webhook(SIGNING).verify(message.body, message.headers)["type"] == "test"


@pytest.mark.parametrize("beyond", ["?token=hidden", "#hidden", "?token=hidden#hidden", "#hidden?token=hidden"])
async def test_no_secret_is_in_any_answer_entry_or_log(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, caplog: pytest.LogCaptureFixture, beyond: str
) -> None:
    for name in ("contexten", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    receiver.statuses["/hook"] = 410
    async with FlowService(settings) as flows:
        heard = entries(flows)
        url = f"{receiver.url}/hook{beyond}"
        made = await flows.notifications.create(kind="webhook", url=url, events=["run.completed"])
        await run(flows)
        await heard.have(1, "notification.disabled")
        shown = [
            (await flows.notifications.list()).data(),
            (await flows.notifications.get(made.notification_id)).data(),
            (await flows.notifications.dispatches()).data(),
            (await flows.notifications.test(made.notification_id)).data(),
            [event.data() for event in await flows.events(limit=1000)],
            (await flows.notifications.delete(made.notification_id)).data(),
        ]
    assert made.secret is not None
    text = json.dumps(shown) + caplog.text
    assert made.notification_id in text
    assert made.secret not in text
    assert made.secret.removeprefix("whsec_") not in text
    assert "hidden" not in text
    assert made.url == f"{receiver.url}/hook?…"


async def test_the_journal_says_who_made_changed_tested_and_deleted_a_receiver(
    settings: FlowSettings, receiver: Any
) -> None:
    actor = Actor(client="somebody", transport="cli", tool="notify")
    async with FlowService(settings, drive=False) as flows:
        made = await flows.notifications.create(kind="webhook", url=receiver.url, actor=actor)
        for enabled in (False, False, True, True):  # what changes nothing is no entry
            await flows.notifications.update(made.notification_id, enabled=enabled, actor=actor)
        await flows.notifications.test(made.notification_id, actor=actor)
        await flows.notifications.delete(made.notification_id, actor=actor)
        with pytest.raises(NotificationNotFound):
            await flows.notifications.get(made.notification_id)
        told = [(event.type, event.actor) for event in await flows.events() if event.type.startswith("notification.")]
    changes = ("created", "disabled", "enabled", "tested", "deleted")
    assert told == [(f"notification.{change}", str(actor)) for change in changes]


async def test_who_nobody_tells_anything_costs_the_journal_nothing(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    async with FlowService(settings) as flows:
        made = await flows.notifications.create(kind="webhook", url=receiver.url, events=["run.completed"])
        await flows.notifications.delete(made.notification_id)
        heard = entries(flows)
        await run(flows)
        await heard.have(1, "run.completed")
        again = await flows.notifications.create(kind="webhook", url=receiver.url, events=["run.completed"])
        await run(flows)
        await heard.have(1, "notification.sent")
        assert len((await flows.notifications.dispatches(again.notification_id)).dispatches) == 1
    assert len(receiver.messages) == 1


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        ({"kind": "smoke"}, {"/kind"}),
        ({"kind": "webhook"}, {"/url"}),
        ({"kind": "webhook", "url": "ftp://example.com"}, {"/url"}),
        ({"kind": "webhook", "url": "https://user:pass@example.com"}, {"/url"}),
        ({"kind": "webhook", "url": "http://[::1"}, {"/url"}),
        ({"kind": "webhook", "url": "http://10.0.0.7/x"}, {"/url"}),
        ({"kind": "webhook", "url": "http://localhost:9"}, {"/url"}),
        ({"kind": "webhook", "url": "https://example.com", "secret": "NONE"}, {"/secret"}),
        ({"kind": "webhook", "url": "https://example.com", "secret": "PLAIN"}, {"/secret"}),
        ({"kind": "webhook", "url": "https://example.com", "secret": "OTHERS"}, {"/secret"}),
        ({"kind": "slack", "secret": "PLAIN"}, {"/secret"}),
        ({"kind": "slack", "url": "https://hooks.slack.com/services/x"}, {"/secret", "/url"}),
        ({"kind": "smoke", "events": ["run.faild"], "name": ""}, {"/kind", "/events/0", "/name"}),
        ({"kind": "webhook", "url": "https://example.com", "events": []}, {"/events"}),
    ],
)
async def test_what_is_wrong_is_told_at_its_place_and_without_the_secret(
    settings: FlowSettings, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], places: set[str]
) -> None:
    monkeypatch.setenv("PLAIN", "not-a-signing-secret")
    monkeypatch.setenv("OTHERS", SIGNING)
    grants = (SecretGrant(name="PLAIN"), SecretGrant(name="OTHERS", tools=("shell",)))
    async with FlowService(settings.model_copy(update={"secrets": grants}), drive=False) as flows:
        with pytest.raises(InvalidArguments) as refused:
            await flows.notifications.create(**arguments)
        assert (await flows.notifications.list()).notifications == []
    text = json.dumps(refused.value.as_dict())
    assert {issue.path for issue in refused.value.issues} == places
    assert "not-a-signing-secret" not in text
    assert "user:pass" not in text


async def test_a_wrong_event_is_told_with_the_nearest_right_one(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        with pytest.raises(InvalidArguments) as refused:
            await flows.notifications.create(kind="webhook", url="https://example.com", events=["run.faild"])
    assert refused.value.issues[0].suggestion == "run.failed"


async def test_what_is_not_there_is_said_with_what_is_near(settings: FlowSettings, receiver: Any) -> None:
    async with FlowService(settings, drive=False) as flows:
        made = await flows.notifications.create(kind="webhook", url=receiver.url)
        with pytest.raises(NotificationNotFound, match=made.notification_id):
            await flows.notifications.get(made.notification_id[:-1])
        with pytest.raises(NotificationNotFound):
            await flows.notifications.dispatches("ntf_none")
        with pytest.raises(DispatchNotFound):
            await flows.notifications.retry("dsp_none")
        with pytest.raises(FlowNotFound):
            await flows.notifications.create(kind="webhook", url=receiver.url, flow_id="none")
        with pytest.raises(InvalidArguments, match="lost"):
            await flows.notifications.dispatches(state="lost")


async def test_receivers_and_messages_come_in_pages(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    async with FlowService(settings) as flows:
        heard = entries(flows)
        made = [
            await flows.notifications.create(kind="webhook", url=receiver.url, events=["run.completed"], name=str(n))
            for n in range(3)
        ]
        await run(flows)
        await heard.have(3, "notification.sent")
        first = await flows.notifications.list(limit=2)
        rest = await flows.notifications.list(limit=2, page=first.next_page)
        sent = await flows.notifications.dispatches(state="sent", limit=2)
        more = await flows.notifications.dispatches(state="sent", limit=2, page=sent.next_page)
        with pytest.raises(InvalidArguments, match="page"):
            await flows.notifications.dispatches(state="dead", page=sent.next_page)
    assert [view.name for view in [*first.notifications, *rest.notifications]] == ["2", "1", "0"]
    assert rest.next_page is None
    found = {view.notification_id for view in [*sent.dispatches, *more.dispatches]}
    assert found == {view.notification_id for view in made}


async def test_messages_that_are_done_with_are_pruned_with_time(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    receiver.held["/slow"] = anyio.Event()
    async with FlowService(settings) as flows:
        heard = entries(flows)
        for path in ("/quick", "/slow"):
            await flows.notifications.create(kind="webhook", url=receiver.url + path, events=["run.completed"])
        await run(flows)
        await heard.have(1, "notification.sent")
        await receiver.has(1, "/slow")
        late = flows.clock.timestamp() + 1
        gone = await flows._store.write(lambda tx: prune_dispatches(tx, ended_before=late, up_to=0))
        left = (await flows.notifications.dispatches()).dispatches
    assert gone == 1
    assert [view.state for view in left] == ["sending"]


@dataclass
class Written:
    """What a transaction of a service did."""

    rows: int
    places: tuple[Any, ...]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Callable[[FlowService], list[Written]]:
    """Keep what each further transaction of a service does."""

    def keep(flows: FlowService) -> list[Written]:
        found: list[Written] = []
        write = flows._store.write

        async def counted(change: Callable[[Transaction], Any]) -> Any:
            def change_and_count(tx: Transaction) -> Any:
                before = tx.cursor.connection.total_changes
                answer = change(tx)
                places = tuple(tx.row("SELECT place FROM consumers WHERE name = ?", (CONSUMER,)) or ())
                found.append(Written(tx.cursor.connection.total_changes - before, places))
                return answer

            return await write(change_and_count)

        monkeypatch.setattr(flows._store, "write", counted)
        return found

    return keep


MESSAGE = (
    "INSERT INTO dispatches (dispatch_id, notification_id, type, run_id, flow_id, at, state, due_at, error, ended_at) "
    "VALUES (?, ?, 'run.failed', 'run_1', 'f', 1.0, ?, ?, ?, ?)"
)


def add_messages(notification_id: str, number: int, state: str = "dead") -> Callable[[Transaction], None]:
    """Record that many messages, the first the oldest."""

    def add(tx: Transaction) -> None:
        for at in range(number):
            ended = ("why", float(at)) if state == "dead" else (None, None)
            tx.execute(MESSAGE, (f"dsp_{state}_{at}", notification_id, state, 4e9, *ended))

    return add


async def test_a_receiver_is_deleted_in_batches(
    settings: FlowSettings, written: Callable[[FlowService], list[Written]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "BATCH", 3)
    async with FlowService(settings, drive=False) as flows:
        made = await flows.notifications.create(kind="webhook", url="https://example.com")
        await flows._store.write(add_messages(made.notification_id, 10))
        did = written(flows)
        await flows.notifications.delete(made.notification_id)
        assert (await flows.notifications.dispatches()).dispatches == []
        assert (await flows.notifications.list()).notifications == []
    assert [each.rows for each in did[:-1]] == [3, 3, 3, 1]
    assert did[-1].rows <= 3  # the receiver, and the consumer that nobody needs


async def test_messages_beyond_the_number_that_is_kept_are_pruned_oldest_first(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        made = await flows.notifications.create(kind="webhook", url="https://example.com")
        await flows._store.write(add_messages(made.notification_id, 5))
        await flows._store.write(add_messages(made.notification_id, 2, "pending"))
        line = await flows._store.row(SQL["keep_line_of_dispatches"], (3,))
        assert line is not None
        assert await flows._store.write(lambda tx: prune_dispatches(tx, ended_before=0.0, up_to=line[0])) == 2
        assert await flows._store.write(lambda tx: prune_dispatches(tx, ended_before=0.0, up_to=line[0])) == 0
        left = [view.dispatch_id for view in (await flows.notifications.dispatches()).dispatches]
    assert left == ["dsp_pending_1", "dsp_pending_0", "dsp_dead_4", "dsp_dead_3", "dsp_dead_2"]


async def test_messages_are_listed_by_their_receiver_and_their_state(settings: FlowSettings) -> None:
    async with FlowService(settings, drive=False) as flows:
        one, other = [
            (await flows.notifications.create(kind="webhook", url="https://example.com")).notification_id
            for _ in range(2)
        ]
        await flows._store.write(add_messages(one, 2))
        await flows._store.write(add_messages(other, 1, "pending"))

        async def found(notification_id: str | None, state: str | None) -> list[str]:
            page = await flows.notifications.dispatches(notification_id, state=state)
            return [view.dispatch_id for view in page.dispatches]

        assert await found(one, None) == await found(one, "dead") == await found(None, "dead")
        assert await found(one, "dead") == ["dsp_dead_1", "dsp_dead_0"]
        assert await found(other, None) == await found(None, "pending") == ["dsp_pending_0"]
        assert await found(other, "dead") == await found(None, "sent") == await found(one, "sent") == []


async def test_messages_are_found_by_an_index(settings: FlowSettings) -> None:
    """However many were sent, or wait for others."""
    named = {"before": 9, "notification_id": "ntf_1", "state": "dead", "limit": 9}
    async with FlowService(settings, drive=False) as flows:
        for query, parameters, index in (
            ("list_dispatches", named, "INTEGER PRIMARY KEY (rowid<?)"),
            ("list_dispatches_of", named, "dispatches_notification (notification_id=? AND seq<?)"),
            ("list_unsent_dispatches", named, "dispatches_unsent (state=?)"),
            ("list_unsent_dispatches_of", named, "dispatches_unsent (state=? AND notification_id=? AND seq<?)"),
            ("count_dispatches", ("[]",), "dispatches_unsent (state=? AND notification_id=?)"),
            ("give_up_dispatches", ("why", 1.0, "ntf_1"), "dispatches_unsent (state=? AND notification_id=?)"),
            ("delete_dispatches_of", ("ntf_1", 9), "dispatches_notification (notification_id=?)"),
            ("entries_to_tell", (1, 9, "[]", 9), "events USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
            ("entries_to_tell", (1, 9, "[]", 9), "triggers_slack"),
            ("needs_notifications", (), "triggers_slack"),
        ):
            rows = await flows._store.rows(f"EXPLAIN QUERY PLAN {SQL[query]}", parameters)
            steps = [str(row[3]) for row in rows]
            assert any(index in step for step in steps), (query, steps)
            assert not any(step.startswith("SCAN dispatches") for step in steps), (query, steps)


async def test_entries_that_no_receiver_asks_for_cost_no_commit(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, written: Callable[[FlowService], list[Written]]
) -> None:
    async with FlowService(settings) as flows:
        heard = entries(flows)
        await flows.notifications.create(kind="webhook", url=receiver.url, events=["run.completed"])
        await run(flows)
        await heard.have(1, "notification.sent")
        before = await flows._store.row(SQL["consumer_place"], (CONSUMER,))
        did = written(flows)
        await run(flows, fails=True)  # it is running, then it has failed
        await anyio.wait_all_tasks_blocked()
        assert await flows._store.row(SQL["consumer_place"], (CONSUMER,)) == before
        await run(flows)
        await heard.have(2, "notification.sent")
        after = await flows._store.row(SQL["consumer_place"], (CONSUMER,))
        places = {each.places for each in did}
    assert before is not None
    assert after is not None
    assert places == {tuple(before), tuple(after)}


async def test_what_was_passed_over_while_a_receiver_was_disabled_is_not_told_when_it_is_enabled(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    receiver.statuses["/hook"] = 410
    url = f"{receiver.url}/hook"
    async with FlowService(settings) as flows:
        heard = entries(flows)
        made = await flows.notifications.create(kind="webhook", url=url, events=["run.completed"])
        await run(flows)
        await heard.have(1, "notification.disabled")
        [dead] = (await flows.notifications.dispatches()).dispatches
        await run(flows)  # nobody takes it: its place is not moved past
    receiver.statuses["/hook"] = 200
    async with FlowService(settings) as flows:  # which looks from there again
        heard = entries(flows)
        await flows.notifications.retry(dead.dispatch_id)
        await heard.have(1, "notification.sent")
        await run(flows)
        await heard.have(2, "notification.sent")
        assert len((await flows.notifications.dispatches(made.notification_id)).dispatches) == 2
