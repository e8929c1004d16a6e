"""Slow, dead and hostile receivers, servers that die and servers side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from contexten.extensions.flow import FlowService, FlowSettings
from contexten.extensions.flow.errors import IllegalMove
from contexten.extensions.flow.notifications import post, sender
from contexten.extensions.flow.notifications.post import Post
from contexten.extensions.flow.notifications.sender import CLAIM_S, POLICY, Sender
from contexten.extensions.flow.settings import SecretGrant
from contexten.extensions.flow.store.retention import prune

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[str]]


class Hours:
    """Time that passes at once. A clock that everybody sleeps by takes long for hours: the wall clock moves on, and the
    sender looks at it."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock

    async def __call__(self, seconds: float) -> None:
        with anyio.fail_after(20):
            while not any(abs(left_s - sender.LOOK_AGAIN_S) < 1e-6 for left_s in self.clock.deadlines):
                await anyio.lowlevel.checkpoint()  # the sender is about to sleep
        self.clock.wall += seconds
        await self.clock.advance(sender.LOOK_AGAIN_S)


@pytest.fixture
def pass_time(clock: Any, monkeypatch: pytest.MonkeyPatch) -> Hours:
    monkeypatch.setattr(sender, "LOOK_AGAIN_S", 1.0)
    return Hours(clock)


async def told_of(flows: FlowService, url: str, **fields: Any) -> str:
    made = await flows.notifications.create(kind="webhook", url=url, events=["run.completed"], **fields)
    return made.notification_id


async def test_a_slow_receiver_holds_up_its_own_messages_only_and_gets_one_at_a_time(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    receiver.held["/slow"] = anyio.Event()
    async with FlowService(settings) as flows:
        heard = entries(flows)
        slow = await told_of(flows, f"{receiver.url}/slow")
        quick = await told_of(flows, f"{receiver.url}/quick")
        for _ in range(3):
            await run(flows)
        await receiver.has(3, "/quick")
        await heard.have(3, "notification.sent")
        assert len(await receiver.has(1, "/slow")) == 1
        assert {view.state for view in (await flows.notifications.dispatches(quick)).dispatches} == {"sent"}
        assert (await flows.notifications.get(slow)).pending == 3
        receiver.most_at_once = 0
        receiver.held["/slow"].set()
        await heard.have(6, "notification.sent")
    assert len({message.headers["webhook-id"] for message in receiver.messages}) == 6
    assert receiver.most_at_once == 1


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "TIMEOUT_S", 0.05)
    receiver.held["/slow"] = anyio.Event()
    async with FlowService(settings) as flows:
        heard = entries(flows)
        await told_of(flows, f"{receiver.url}/slow")
        await run(flows)
        await heard.have(1, "notification.retrying")
        [dispatch] = (await flows.notifications.dispatches()).dispatches
    assert (dispatch.state, dispatch.error) == ("pending", "no answer within 0.05 s")


async def test_a_dead_receiver_gets_a_message_under_one_id_until_it_is_given_up_and_a_retry_revives_it(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, pass_time: Hours
) -> None:
    receiver.statuses["/hook"] = 500
    delays = []
    async with FlowService(settings, clock=pass_time.clock) as flows:
        heard = entries(flows)
        made = await told_of(flows, f"{receiver.url}/hook")
        await run(flows)
        for number in range(1, POLICY.max_attempts):
            await heard.have(number, "notification.retrying")
            [waiting] = (await flows.notifications.dispatches(state="pending")).dispatches
            assert (waiting.attempts, waiting.status, waiting.error) == (number, 500, "answered 500: well")
            delay_s = POLICY.decide("network", number, pass_time.clock.random).delay_s
            delays.append(delay_s)
            await pass_time(delay_s)
        await heard.have(1, "notification.dead")
        [dead] = (await flows.notifications.dispatches(state="dead")).dispatches
        assert (dead.attempts, dead.notification_id) == (POLICY.max_attempts, made)
        assert (await flows.notifications.get(made)).dead == 1
        receiver.statuses["/hook"] = 204
        revived = await flows.notifications.retry(dead.dispatch_id)
        assert revived.state == "pending"
        await heard.have(1, "notification.sent")
        with pytest.raises(IllegalMove, match="was sent"):
            await flows.notifications.retry(dead.dispatch_id)
    assert sum(delays) == pytest.approx(84_150)  # about a day
    assert len(receiver.messages) == POLICY.max_attempts + 1
    assert {(one.headers["webhook-id"], one.body) for one in receiver.messages} == {
        (dead.dispatch_id, receiver.messages[0].body)
    }


async def test_a_receiver_that_is_not_there_is_tried_again(
    settings: FlowSettings, run: Run, entries: Any, unused_tcp_port_url: str
) -> None:
    async with FlowService(settings) as flows:
        heard = entries(flows)
        await told_of(flows, unused_tcp_port_url)
        await run(flows)
        await heard.have(1, "notification.retrying")
        [dispatch] = (await flows.notifications.dispatches()).dispatches
    assert dispatch.error is not None
    assert dispatch.error.startswith("not reached: ")


async def test_a_receiver_says_when_it_wants_the_next_try(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, clock: Any
) -> None:
    receiver.statuses["/hook"] = 429
    receiver.headers["/hook"] = {"retry-after": "600"}
    async with FlowService(settings, clock=clock) as flows:
        heard = entries(flows)
        await told_of(flows, f"{receiver.url}/hook")
        await run(flows)
        await heard.have(1, "notification.retrying")
        [dispatch] = (await flows.notifications.dispatches()).dispatches
    assert dispatch.next_attempt_at == "2030-01-01T00:10:00.000+00:00"


async def test_a_receiver_that_is_gone_is_disabled_until_somebody_retries_a_message(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    receiver.statuses["/hook"] = 410
    async with FlowService(settings) as flows:
        heard = entries(flows)
        made = await told_of(flows, f"{receiver.url}/hook")
        await run(flows)
        await heard.have(1, "notification.disabled")
        await run(flows)  # nothing is kept for it
        [dead] = (await flows.notifications.dispatches(made)).dispatches
        view = await flows.notifications.get(made)
        assert (dead.state, dead.status, dead.error) == ("dead", 410, "answered 410: well")
        assert (view.disabled, view.dead) == ("the receiver answered 410 Gone", 1)
        receiver.statuses["/hook"] = 200
        await flows.notifications.retry(dead.dispatch_id)
        await heard.have(1, "notification.sent")
        assert (await flows.notifications.get(made)).disabled is None
        await run(flows)
        await heard.have(2, "notification.sent")
    assert len(receiver.messages) == 3


async def test_a_receiver_that_was_gone_hears_of_what_happens_after_it_is_enabled(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    receiver.statuses["/hook"] = 410
    async with FlowService(settings) as flows:
        heard = entries(flows)
        made = await told_of(flows, f"{receiver.url}/hook")
        await run(flows)
        await heard.have(1, "notification.disabled")
        await run(flows)  # nothing is kept for it
        receiver.statuses["/hook"] = 200
        view = await flows.notifications.update(made, enabled=True)
        assert (view.enabled, view.disabled, view.dead) == (True, None, 1)
        later = await run(flows)
        await heard.have(1, "notification.sent")
    assert [message.data["data"]["run_id"] for message in receiver.messages[1:]] == [later]


async def test_what_waits_for_a_receiver_that_is_switched_off_goes_on_when_it_is_enabled(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, clock: Any
) -> None:
    receiver.statuses["/hook"] = 500
    async with FlowService(settings, clock=clock) as flows:
        heard = entries(flows)
        made = await told_of(flows, f"{receiver.url}/hook")
        await run(flows)
        await heard.have(1, "notification.retrying")
        off = await flows.notifications.update(made, enabled=False)
        assert (off.enabled, off.disabled, off.pending, off.dead) == (False, "on request", 1, 0)
        clock.wall += POLICY.max_delay_s  # it is due
        other = await told_of(flows, f"{receiver.url}/other")
        await run(flows)  # of which it is never told
        await receiver.has(1, "/other")
        await heard.have(1, "notification.sent")
        assert len(await receiver.has(1, "/hook")) == 1
        receiver.statuses["/hook"] = 200
        assert (await flows.notifications.update(made, enabled=True)).enabled
        await heard.have(2, "notification.sent")
        [sent] = (await flows.notifications.dispatches(made)).dispatches
        assert (sent.state, sent.attempts) == ("sent", 2)
        assert len((await flows.notifications.dispatches(other)).dispatches) == 1


async def test_a_redirect_is_not_followed_and_not_tried_again(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    receiver.statuses["/hook"] = 302
    receiver.headers["/hook"] = {"location": f"{receiver.url}/inside"}
    async with FlowService(settings) as flows:
        heard = entries(flows)
        await told_of(flows, f"{receiver.url}/hook")
        await run(flows)
        await heard.have(1, "notification.dead")
        [dispatch] = (await flows.notifications.dispatches()).dispatches
    assert (dispatch.state, dispatch.attempts) == ("dead", 1)
    assert dispatch.error == "answered 302: redirects are not followed; give the final URL"
    assert [message.path for message in receiver.messages] == ["/hook"]


async def test_a_name_that_leads_to_a_private_address_is_refused_for_good(
    settings: FlowSettings, run: Run, entries: Any
) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["169.254.169.254"]

    async with FlowService(settings) as flows:
        flows.notifications._post._resolver = resolve
        heard = entries(flows)
        await told_of(flows, "http://metadata.example.com/")
        await run(flows)
        await heard.have(1, "notification.dead")
        [dispatch] = (await flows.notifications.dispatches(state="dead")).dispatches
    assert dispatch.attempts == 1
    assert "not public" in (dispatch.error or "")
    assert "allow_hosts" not in (dispatch.error or "")  # clouds hand out credentials there


async def test_a_message_whose_sending_nobody_recorded_is_sent_again_under_the_same_id(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, pass_time: Hours
) -> None:
    receiver.held["/hook"] = anyio.Event()
    async with FlowService(settings, clock=pass_time.clock) as flows:
        await told_of(flows, f"{receiver.url}/hook")
        await run(flows)
        await receiver.has(1)
    receiver.held["/hook"].set()
    async with FlowService(settings, clock=pass_time.clock) as flows:
        heard = entries(flows)
        [dispatch] = (await flows.notifications.dispatches()).dispatches
        assert dispatch.state == "sending"
        await anyio.wait_all_tasks_blocked()
        assert len(receiver.messages) == 1  # the claim has not ended
        await pass_time(CLAIM_S)
        await heard.have(1, "notification.sent")
    first, second = receiver.messages
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == dispatch.dispatch_id


async def test_of_two_servers_one_sends_each_message(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    async with FlowService(settings) as one, FlowService(settings) as other:
        heard = entries(one)
        for path in ("a", "b", "c"):
            await told_of(one, f"{receiver.url}/{path}")
        for number in range(6):
            await run(one if number % 2 else other)
        await heard.have(18, "notification.sent")
        states = [view.state for view in (await one.notifications.dispatches(limit=100)).dispatches]
    assert states == ["sent"] * 18
    assert len(receiver.messages) == len({one.headers["webhook-id"] for one in receiver.messages}) == 18


async def test_a_receiver_that_is_deleted_hears_nothing_more(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any
) -> None:
    receiver.held["/hook"] = anyio.Event()
    async with FlowService(settings) as flows:
        heard = entries(flows)
        made = await told_of(flows, f"{receiver.url}/hook")
        for _ in range(2):
            await run(flows)
        await heard.have(2, "notification.queued")
        await receiver.has(1)
        await flows.notifications.delete(made)
        assert (await flows.notifications.dispatches()).dispatches == []
        await told_of(flows, f"{receiver.url}/other")
        receiver.held["/hook"].set()
        await run(flows)
        await heard.have(1, "notification.sent")
    assert [message.path for message in receiver.messages] == ["/hook", "/other"]


async def test_a_secret_that_is_not_set_today_is_waited_for_even_longer_than_the_run_is_kept(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, pass_time: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    signing = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    monkeypatch.setenv("HOOK", signing)
    settings = settings.model_copy(update={"secrets": (SecretGrant(name="HOOK"),)})
    async with FlowService(settings, clock=pass_time.clock) as flows:
        heard = entries(flows)
        await told_of(flows, receiver.url, secret="HOOK")
        monkeypatch.delenv("HOOK")
        run_id = await run(flows, id="flow")
        await heard.have(1, "notification.retrying")
        [dispatch] = (await flows.notifications.dispatches()).dispatches
        assert "HOOK has no value" in (dispatch.error or "")
        late = flows.clock.timestamp() + 1
        assert await flows._store.write(lambda tx: prune(tx, ended_before=late, up_to=0)) == 1
        monkeypatch.setenv("HOOK", signing)
        await pass_time(POLICY.delay_s)
        await heard.have(1, "notification.sent")
    assert receiver.messages[0].data["data"] == {"run_id": run_id, "flow_id": "flow"}


async def test_a_message_that_cannot_be_made_is_given_up_in_the_end_and_holds_nobody_up(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Post.send

    async def fail_once(self: Post, url: str, *rest: Any) -> Any:
        if url.endswith("/broken"):
            raise RuntimeError("a defect")
        return await send(self, url, *rest)

    monkeypatch.setattr(Post, "send", fail_once)
    async with FlowService(settings) as flows:
        heard = entries(flows)
        broken = await told_of(flows, f"{receiver.url}/broken")
        await told_of(flows, f"{receiver.url}/fine")
        await run(flows)
        await heard.have(1, "notification.retrying")
        await heard.have(1, "notification.sent")
        [dispatch] = (await flows.notifications.dispatches(broken)).dispatches
    assert dispatch.error == "it could not be made; the server's log says why"


async def test_a_defect_at_one_message_ends_no_other(
    settings: FlowSettings, receiver: Any, run: Run, entries: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    record = Sender._record

    async def broken(self: Sender, dispatch: Any, answer: Any, body: Any) -> None:
        if dispatch.notification_id == bad:
            raise ZeroDivisionError
        await record(self, dispatch, answer, body)

    monkeypatch.setattr(Sender, "_record", broken)
    async with FlowService(settings) as flows:
        heard = entries(flows)
        bad = await told_of(flows, f"{receiver.url}/bad")
        await told_of(flows, f"{receiver.url}/good")
        await run(flows)
        await receiver.has(1, "/bad")
        await heard.have(1, "notification.sent")
        await run(flows)
        await heard.have(2, "notification.sent")
        [stuck] = (await flows.notifications.dispatches(bad, state="sending")).dispatches
    assert f"message {stuck.dispatch_id} will be sent again" in caplog.text
