"""Operations that really happened in a replay, recorded next to the stores.

Checkers and latencies use them. Counts are always kept. Identities of records, objects and inserts
are kept only with ``detail``, as digests, and messages until their outcome is known, since a
fixture may be larger than memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from edgesim.clock import Clock
from edgesim.queues.driver import QueueDriver
from edgesim.replay.digests import Digests, digest_of
from edgesim.replay.latencies import Latencies

_ALL = 1_000_000
_CROCKFORD = {char: value for value, char in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}


class Flow(msgspec.Struct):
    """Counts of one stage; the stage determines which of them apply."""

    entered: int = 0
    left: int = 0
    lost: int = 0
    retried: int = 0
    dead: int = 0
    latencies: Latencies = msgspec.field(default_factory=Latencies)


class Sent(msgspec.Struct):
    """A message that is not acknowledged; ``due`` is its next possible delivery (Unix seconds)."""

    queue: str
    due: float


class _Doubt(msgspec.Struct):
    """An in-doubt queue call, interrupted by a kill: it may or may not have happened."""

    messages: dict[str, str]
    """Message id -> its queue if the call has happened; "" if it is then in no queue."""
    happened: Callable[[str], None]
    """Called with each message id for which the call has happened."""


class Inserted(msgspec.Struct):
    """Inserts into a table with different deduplication tokens."""

    tokens: set[int] = msgspec.field(default_factory=set)
    """Digests of the tokens."""
    rows: int = 0


class History:
    """Record of a replay, written by the observers, read by checkers and the report."""

    def __init__(self, clock: Clock, *, detail: bool) -> None:
        self.detail = detail
        self.pipelines: dict[str, Flow] = {}
        self.buckets: dict[str, Flow] = {}
        self.queues: dict[str, Flow] = {}
        self.tails: dict[str, Flow] = {}
        self.clickhouse = Flow()
        self.whole_chain: dict[str, Latencies] = {}
        """By Pipeline: latency from a record's acceptance to the ack of its object's message."""
        self.invocations: dict[str, Counter[str]] = {}
        self.attempted: dict[str, Digests] = defaultdict(Digests)
        self.accepted: dict[str, Digests] = defaultdict(Digests)
        """Records by Pipeline: ``attempted`` were sent to it, ``accepted`` were accepted by it."""
        self.messages: dict[str, Sent] = {}
        self.stored: dict[str, Digests] = defaultdict(Digests)
        self.notified: dict[str, Digests] = defaultdict(Digests)
        """Keys of objects by bucket: possibly stored ones, and those named in a notification."""
        self.inserts: dict[str, Inserted] = defaultdict(Inserted)
        """Inserts by table."""
        self.untokened: set[str] = set()
        """Tables that also had inserts without a deduplication token."""
        self.traces_lost_by_kills = 0
        self.ahead: Callable[[], float] = lambda: 0.0
        """Seconds by which the platform's clock is ahead of the replay's."""
        self.lied = False
        """True if a lying flush has lost a whole store."""
        self.damaged: Counter[str] = Counter()
        """Records that flipped bits and lying flushes may have lost, by Pipeline."""
        self.blobs_damaged = 0
        """Number of damaged blob files; at most that many objects may be unreadable."""
        self.rows_in: dict[tuple[str, str], int] = {}
        """Records of each object that a Pipeline wrote, or began to write, by bucket and key."""
        self.unreadable: list[tuple[str, str]] = []
        """Unreadable objects of Pipelines, set by the records checker."""
        self.missing: Counter[str] = Counter()
        """Accepted records in no object (readable or not) by Pipeline; set by records checker."""
        self.deaths: Counter[tuple[str, int]] = Counter()
        """Messages that were moved to a dead-letter queue, by queue and number of deliveries."""
        self.taken: set[str] = set()
        """Messages acknowledged by a handler but not yet by their queue."""
        self.untaken: Counter[str] = Counter()
        """Number of messages acknowledged by a queue but not by a handler, by queue."""
        self.rewritten: list[str] = []
        """Objects that a Pipeline wrote although they existed."""
        self._doubts: list[_Doubt] = []
        self._clock = clock
        self._waiting: dict[str, list[tuple[float, int]]] = {}
        self._in_object: dict[tuple[str, str], tuple[str, list[tuple[float, int]]]] = {}
        self._sent_at: dict[str, tuple[float, tuple[str, str] | None]] = {}

    # --- Pipelines ---

    def sending(self, pipeline: str, records: Any) -> None:
        """Record that a Worker sends records to a Pipeline."""
        if self.detail and isinstance(records, list):
            self.attempted[pipeline].add(records)

    def accepted_by(self, pipeline: str, records: list[Any]) -> None:
        """Record the acceptance of records; none of them may be lost from now on."""
        flow = self.pipelines.setdefault(pipeline, Flow())
        flow.entered += len(records)
        _add(self._waiting.setdefault(pipeline, []), self._clock.now(), len(records))
        if self.detail:
            self.accepted[pipeline].add(records)

    def pipeline_object(self, pipeline: str, bucket: str, key: str, rows: int) -> None:
        """Record a stored Pipeline object with the ``rows`` oldest of its window's records.

        Records from before the window, whose start is in the key, are in an object whose write was
        not observed because of a kill.
        """
        opened_ms = _ulid_ms(key)
        flow = self.pipelines.setdefault(pipeline, Flow())
        waiting = self._waiting.get(pipeline, [])
        earlier = sum(count for at, count in waiting if int(at * 1000) < opened_ms)
        inside, self._waiting[pipeline] = _split(waiting, earlier + rows)
        now = self._clock.now()
        for at, count in inside:
            flow.left += count
            flow.latencies.add(now - at, count)
        self._in_object[bucket, key] = (pipeline, inside)

    # --- R2 ---

    def putting(self, bucket: str, key: str) -> None:
        """Record that an object is about to be stored; after a kill it may be stored or not."""
        if self.detail:
            self.stored[bucket].add([key])

    def put(self, bucket: str) -> None:
        """Record a stored object."""
        self.buckets.setdefault(bucket, Flow()).entered += 1

    # --- Queues ---

    def sent(self, queue: str, message_id: str, body: bytes, due: float) -> None:
        """Record a sent message; ``due`` is by the replay's clock, not the platform's."""
        self.queues.setdefault(queue, Flow()).entered += 1
        now = self._clock.now()
        subject = notified(body)
        if subject is not None:
            bucket, key = subject
            self.buckets.setdefault(bucket, Flow()).left += 1
            if self.detail:
                self.notified[bucket].add([key])
        self._sent_at[message_id] = (now, subject)
        if self.detail:
            self.messages[message_id] = Sent(queue, due)

    def acked(self, queue: str, message_id: str) -> None:
        """Record an acknowledged message; a repeated ack has no effect."""
        if message_id not in self._sent_at:
            return
        flow = self.queues.setdefault(queue, Flow())
        flow.left += 1
        at, subject = self._sent_at.pop(message_id)
        flow.latencies.add(self._clock.now() - at)
        if subject in self._in_object:
            self._arrived(subject)
        self.messages.pop(message_id, None)
        if message_id in self.taken:
            self.taken.remove(message_id)
        else:
            self.untaken[queue] += 1

    def _arrived(self, subject: tuple[str, str]) -> None:
        pipeline, inside = self._in_object.pop(subject)
        latencies = self.whole_chain.setdefault(pipeline, Latencies())
        now = self._clock.now()
        for at, count in inside:
            latencies.add(now - at, count)

    def released(self, queue: str, ids: Sequence[str], due: float) -> None:
        """Record messages that wait for redelivery; ``due`` is by the platform's clock."""
        self.queues.setdefault(queue, Flow()).retried += len(ids)
        for message_id in ids:
            if message_id in self.messages:
                self.messages[message_id].due = due - self.ahead()

    def died(self, queue: str, message_id: str, attempts: int, to: str) -> None:
        """Record a message that a consumer gave up after ``attempts`` deliveries."""
        self.deaths[queue, attempts] += 1
        self.moved(queue, message_id, to)

    def moved(self, queue: str, message_id: str, to: str) -> None:
        """Record a message's move to another queue; a repeated move has no effect."""
        sent = self.messages.get(message_id)
        if sent is not None and sent.queue != queue:
            return
        self.queues.setdefault(queue, Flow()).dead += 1
        self.queues.setdefault(to, Flow()).entered += 1
        if sent is not None:
            sent.queue, sent.due = to, self._clock.now()

    def due(self, queues: Collection[str], until: float) -> int:
        """Number of messages in the queues that are due before ``until``, leased or not.

        ``until`` is a time of the replay's clock: a platform that starts with its clock set back
        must still deliver all of them.

        A lease whose reply was lost has no holder, which the store cannot detect: its message is
        redelivered when the lease expires.
        """
        return sum(sent.queue in queues and sent.due < until for sent in self.messages.values())

    def dropped(self, queue: str, count: int) -> None:
        """Record messages that were purged, or exceeded their retention."""
        if count:
            self.queues.setdefault(queue, Flow()).lost += count

    def doubt(self, messages: dict[str, str], happened: Callable[[str], None]) -> None:
        """Record a change of messages as in doubt: a kill interrupted it; see ``resolve``."""
        self._doubts.append(_Doubt(messages, happened))

    async def resolve(self, queues: QueueDriver) -> None:
        """Resolve in-doubt calls by the queues' content, before anything else changes it."""
        doubts, self._doubts = self._doubts, []
        if not doubts:
            return
        there = {
            message.id: queue
            for queue in await queues.names()
            for message in await queues.peek(queue, _ALL)
        }
        for doubt in doubts:
            for message_id, place in doubt.messages.items():
                if there.get(message_id, "") == place:
                    doubt.happened(message_id)

    # --- invocations, traces, inserts ---

    def invoked(self, worker: str, outcome: str) -> None:
        """Record an ended invocation."""
        self.invocations.setdefault(worker, Counter())[outcome] += 1

    def traced(self, worker: str, ages: Sequence[float], *, delivered: bool) -> None:
        """Record traces passed to a Tail Worker; ``ages`` are seconds since their events began."""
        flow = self.tails.setdefault(worker, Flow())
        flow.entered += len(ages)
        if delivered:
            flow.left += len(ages)
        else:
            flow.lost += len(ages)
        for age in ages:
            flow.latencies.add(age)

    def inserted(self, table: str, token: str | None, rows: int) -> None:
        """Record a successful INSERT."""
        if token is None:
            self.untokened.add(table)
            return
        inserted, digest = self.inserts[table], digest_of(token)
        if digest not in inserted.tokens:
            inserted.tokens.add(digest)
            inserted.rows += rows


def _add(times: list[tuple[float, int]], now: float, count: int) -> None:
    """Append (now, count); merge it with the last entry if that has the same time."""
    if times and times[-1][0] == now:
        count += times.pop()[1]
    times.append((now, count))


def _split(
    batches: list[tuple[float, int]], records: int
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """Split batches (time, count) into the first ``records`` records and the rest."""
    first: list[tuple[float, int]] = []
    for index, (at, count) in enumerate(batches):
        taken = min(count, records)
        if taken:
            first.append((at, taken))
        records -= taken
        if taken < count:
            return first, [(at, count - taken), *batches[index + 1 :]]
    return first, []


def _ulid_ms(key: str) -> int:
    """Time of the ULID at the end of a Pipeline's key, in Unix milliseconds."""
    ulid = key.rpartition("/")[2].partition(".")[0][:10]
    value = 0
    for char in ulid:
        value = value << 5 | _CROCKFORD[char]
    return value


class _Subject(msgspec.Struct):
    key: str


class _Notification(msgspec.Struct):
    bucket: str
    object: _Subject


_decode: Callable[[bytes], _Notification] = msgspec.json.Decoder(_Notification).decode


def notified(body: bytes) -> tuple[str, str] | None:
    """Bucket and key named in a notification; None for other messages."""
    try:
        notification = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return notification.bucket, notification.object.key
