"""The SQLite store compared with a model: a list of messages."""

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgesim.model import Message
from edgesim.queues.driver import Depth, NewMessage
from edgesim.queues.sqlite.driver import open_store

queues = st.sampled_from(["q", "dlq"])
picks = st.lists(st.integers(0, 30), max_size=5)


class Row(msgspec.Struct):
    """One message of the model."""

    queue: str
    new: NewMessage
    visible_at: float
    attempts: int = 0
    leased_until: float | None = None

    def message(self, *, leased=False):
        """The expected message of the driver, with a lease id if ``leased``."""
        new, lease_id = self.new, f"{self.attempts}:{self.new.id}" if leased else ""
        return Message(
            new.id, new.body, new.content_type, new.timestamp_ms, self.attempts, lease_id
        )


def done(coroutine):
    """Return the result of a call that never waits, as in a deterministic driver."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the driver waited for something")


class StoreAndModel(RuleBasedStateMachine):
    """Run the same operations on store and model; all results must be equal."""

    def __init__(self):
        super().__init__()
        self.opened = open_store(":memory:")
        self.store = self.opened.__enter__()
        self.rows = []
        self.now = 0
        self.count = 0

    def teardown(self):
        self.opened.__exit__(None, None, None)

    def of(self, queue):
        return [row for row in self.rows if row.queue == queue]

    def picked(self, queue, picks):
        """Leases of any queue, outdated and unknown ones; and the rows whose leases are valid."""
        rows = [self.rows[pick] for pick in picks if pick < len(self.rows)]
        leases = [row.message(leased=True).lease_id for row in rows]
        earlier = [f"{row.attempts - 1}:{row.new.id}" for row in self.rows]
        found = {row.new.id: row for row in rows if row.queue == queue}
        return [*leases, *earlier, "1:nobody", "nonsense"], list(found.values())

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds):
        self.now += seconds

    @rule(queue=queues, delays=st.lists(st.sampled_from([0, 0, 10]), max_size=4))
    def send(self, queue, delays):
        batch = []
        for delay in delays:
            self.count += 1
            id_, body = str(self.count), b"x" * (self.count % 7)
            batch.append(NewMessage(id_, body, "bytes", self.now * 1000, self.now + delay))
        done(self.store.send(queue, batch))
        self.rows += [Row(queue, new, new.visible_at) for new in batch]

    @rule(
        queue=queues,
        limit=st.integers(1, 5),
        seconds=st.integers(1, 30),
        most=st.sampled_from([None, 3, 9]),
    )
    def lease(self, queue, limit, seconds, most):
        for row in self.of(queue):
            if row.leased_until is not None and row.leased_until <= self.now:
                row.leased_until = None
        free = [r for r in self.of(queue) if r.leased_until is None and r.visible_at <= self.now]
        leased = sum(row.leased_until is not None for row in self.of(queue))
        room = limit if most is None else max(0, min(limit, most - leased))
        expected = sorted(free, key=lambda row: row.visible_at)[:room]
        for row in expected:
            row.leased_until = self.now + seconds
            row.attempts += 1
        leased = done(self.store.lease(queue, limit, self.now, self.now + seconds, most))
        assert leased == [row.message(leased=True) for row in expected]

    @rule(queue=queues, picks=picks)
    def ack(self, queue, picks):
        leases, rows = self.picked(queue, picks)
        assert done(self.store.ack(queue, leases)) == len(rows)
        self.rows = [row for row in self.rows if row not in rows]

    @rule(queue=queues, picks=picks, delay=st.integers(0, 20))
    def release(self, queue, picks, delay):
        leases, rows = self.picked(queue, picks)
        assert done(self.store.release(queue, leases, self.now + delay)) == len(rows)
        for row in rows:
            row.leased_until, row.visible_at = None, self.now + delay

    @rule(queue=queues, to=queues, picks=picks)
    def move(self, queue, to, picks):
        leases, rows = self.picked(queue, picks)
        assert done(self.store.move(queue, leases, to, self.now)) == len(rows)
        self.start_anew(rows, to)

    @rule(queue=queues, to=queues, limit=st.integers(0, 5))
    def redrive(self, queue, to, limit):
        rows = sorted(self.of(queue), key=lambda row: row.new.timestamp_ms)[:limit]
        assert done(self.store.redrive(queue, to, limit, self.now)) == len(rows)
        self.start_anew(rows, to)

    def start_anew(self, rows, to):
        for row in rows:
            row.queue, row.attempts, row.leased_until, row.visible_at = to, 0, None, self.now

    @rule(queue=queues, age=st.integers(1, 60))
    def expire(self, queue, age):
        before_ms = (self.now - age) * 1000
        old = [
            row
            for row in self.of(queue)
            if row.leased_until is None and row.new.timestamp_ms < before_ms
        ]
        assert done(self.store.expire(queue, before_ms)) == len(old)
        self.rows = [row for row in self.rows if row not in old]

    @rule(queue=queues)
    def purge(self, queue):
        assert done(self.store.purge(queue)) == len(self.of(queue))
        self.rows = [row for row in self.rows if row.queue != queue]

    @rule()
    def purged_messages_are_removed(self):
        self.store._remove_some()

    @invariant()
    def tell_the_same(self):
        for queue in ("q", "dlq", "empty"):
            rows = self.of(queue)
            free = [row.visible_at for row in rows if row.leased_until is None]
            assert done(self.store.depth(queue)) == Depth(
                len(rows),
                sum(len(row.new.body) for row in rows),
                min((row.new.timestamp_ms for row in rows), default=None),
                min(free, default=None),
            )
            oldest = sorted(rows, key=lambda row: row.new.timestamp_ms)
            assert done(self.store.peek(queue, 7)) == [row.message() for row in oldest[:7]]
        assert done(self.store.names()) == sorted({row.queue for row in self.rows})


TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
