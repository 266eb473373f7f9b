"""Notifications by rule, and the relay that delivers them to queues."""

import json
from itertools import pairwise

import anyio
import anyio.lowlevel
import pytest
from structlog.testing import capture_logs

from edgesim.config.notifications import ACTIONS, NotificationRule
from edgesim.errors import RunError
from edgesim.model import R2Object
from edgesim.r2.notifications import Notifications
from tests.r2_world import StillClock, Store

pytestmark = pytest.mark.anyio


def notifications(*rules: NotificationRule) -> Notifications:
    """The rules, all for one bucket."""
    return Notifications({"events": rules}, StillClock(), "account-1")


def fired(rules: Notifications, action, key: str) -> list[str]:
    """The queues that get a notification of the action."""
    thing = R2Object(key=key, version="v", size=1, etag="e", uploaded=0)
    return [entry.queue for entry in rules.messages_for("events", action, thing)]


# --- rules ----------------------------------------------------------------------------------------


def test_prefix_and_suffix_are_literal_and_both_must_match():
    """Prefix and suffix are literal, not patterns, and both must match."""
    rules = notifications(NotificationRule("q", prefix="a.*", suffix="*b"))
    assert fired(rules, "PutObject", "a.*b") == ["q"]
    assert fired(rules, "PutObject", "a.x*b") == []
    assert fired(rules, "PutObject", "a.*x") == []


def test_a_rule_fires_for_its_events_only():
    """A rule is for object-create by default, or for the event that it names."""
    rules = notifications(
        NotificationRule("puts", prefix="1"),
        NotificationRule("deletes", "object-delete", "1"),
        NotificationRule("both", prefix="2"),
        NotificationRule("both", "object-delete", "2"),
    )
    assert fired(rules, "PutObject", "1") == ["puts"]
    assert fired(rules, "DeleteObject", "1") == ["deletes"]
    assert fired(rules, "PutObject", "2") == fired(rules, "DeleteObject", "2") == ["both"]


def test_a_rule_may_pick_single_actions():
    """Actions of a rule replace all those of its event and may belong to several events."""
    rules = notifications(
        NotificationRule("parts", actions=("CompleteMultipartUpload", "LifecycleDeletion")),
        NotificationRule("puts", actions=("PutObject",)),
    )
    assert fired(rules, "CompleteMultipartUpload", "1") == ["parts"]
    assert fired(rules, "LifecycleDeletion", "1") == ["parts"]
    assert fired(rules, "PutObject", "1") == ["puts"]
    assert fired(rules, "CopyObject", "1") == fired(rules, "DeleteObject", "1") == []


@pytest.mark.parametrize(
    ("event", "actions"),
    [
        ("object-create", ["PutObject", "CopyObject", "CompleteMultipartUpload"]),
        ("object-delete", ["DeleteObject", "LifecycleDeletion"]),
    ],
)
def test_an_event_is_a_set_of_actions(event, actions):
    """An event covers exactly the actions that the platform lists."""
    rules = notifications(NotificationRule("q", event))
    every = [action for of_event in ACTIONS.values() for action in of_event]
    assert {action for action in every if fired(rules, action, "1")} == set(actions)


@pytest.mark.parametrize(
    ("etag", "action"), [("e", "PutObject"), ("e-2", "CompleteMultipartUpload")]
)
def test_an_object_is_told_of_again_as_it_was_written(etag, action):
    """A repeated notification has the action by which the object was written."""
    rules = notifications(NotificationRule("q", actions=(action,)))
    thing = R2Object(key="a", version="v", size=1, etag=etag, uploaded=0)
    (entry,) = rules.messages_again("events", thing)
    assert json.loads(entry.body)["action"] == action


# --- the relay ------------------------------------------------------------------------------------


class Queues:
    """Queues that fail at the given attempts and accept all other messages."""

    def __init__(self, *failing: int) -> None:
        self.failing = failing
        self.arrived: list[str] = []
        self.times: list[float] = []

    async def send(self, queue: str, body: bytes) -> None:
        """Accept a message, or fail."""
        self.times.append(anyio.current_time())
        if len(self.times) in self.failing:
            raise RunError("the queue store is away")
        self.arrived.append(json.loads(body)["object"]["key"])


async def settled(world) -> None:
    """Wait until no notification is pending."""
    with anyio.fail_after(60):
        while await world.notifications.pending(world.driver):
            await anyio.lowlevel.checkpoint()


async def test_a_crash_between_put_and_relay_loses_nothing(tmp_path):
    """Notifications of puts before a crash are sent after the restart."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("in/1.gz", b"")
    queues = Queues()
    async with Store.file(tmp_path).open() as world, anyio.create_task_group() as group:
        group.start_soon(world.notifications.relay, world.driver, queues.send)
        await settled(world)
        group.cancel_scope.cancel()
    assert queues.arrived == ["in/1.gz"]


async def test_the_relay_tries_again_until_the_queue_takes_it():
    """A failed send is logged in one line and retried with backoff, in order and once."""
    queues = Queues(1, 2, 3)
    async with Store.memory().open() as world, anyio.create_task_group() as group:
        for number in range(3):
            await world.bucket.put(f"in/{number}.gz", b"")
        with capture_logs() as logs:
            group.start_soon(world.notifications.relay, world.driver, queues.send)
            await settled(world)
        group.cancel_scope.cancel()
    assert queues.arrived == ["in/0.gz", "in/1.gz", "in/2.gz"]
    assert [one["event"] for one in logs] == ["r2 notifications are delayed"] * 3
    assert {one["log_level"] for one in logs} == {"error"}
    assert {(one["error"], one["exc_info"]) for one in logs} == {("the queue store is away", False)}
    pauses = [later - earlier for earlier, later in pairwise(queues.times[:4])]
    assert pauses[0] < pauses[2]


async def test_what_was_sent_before_a_failure_is_not_sent_again():
    """Messages sent before a failed one are not sent again."""
    queues = Queues(3)
    async with Store.memory().open() as world, anyio.create_task_group() as group:
        for number in range(4):
            await world.bucket.put(f"in/{number}.gz", b"")
        with capture_logs():
            group.start_soon(world.notifications.relay, world.driver, queues.send)
            await settled(world)
        group.cancel_scope.cancel()
    assert queues.arrived == ["in/0.gz", "in/1.gz", "in/2.gz", "in/3.gz"]


async def test_the_relay_moves_more_than_one_batch():
    """The relay delivers a backlog of more than one batch."""
    queues = Queues()
    async with Store.memory().open() as world, anyio.create_task_group() as group:
        keys = [f"in/{number:03}.gz" for number in range(250)]
        for key in keys:
            await world.bucket.put(key, b"")
        group.start_soon(world.notifications.relay, world.driver, queues.send)
        await settled(world)
        group.cancel_scope.cancel()
    assert queues.arrived == keys


async def test_a_relay_that_dies_between_send_and_settle_sends_again(tmp_path):
    """A notification that was sent but not settled before a crash stays pending (at least once)."""
    sent = anyio.Event()

    async def send_and_hang(_queue: str, _body: bytes) -> None:
        sent.set()
        await anyio.sleep_forever()

    async with Store.file(tmp_path).open() as world, anyio.create_task_group() as group:
        await world.bucket.put("in/1.gz", b"")
        group.start_soon(world.notifications.relay, world.driver, send_and_hang)
        with anyio.fail_after(60):
            await sent.wait()
        group.cancel_scope.cancel()
    async with Store.file(tmp_path).open() as world:
        assert await world.notifications.pending(world.driver)
