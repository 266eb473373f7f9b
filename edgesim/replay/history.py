"""What really happened in a replay, seen from closest to the stores: for checkers and latencies.

Counts are always kept.  Which records, objects and inserts they were is kept in ``detail`` only, as
digests, and messages as long as they have no fate, since a fixture may be larger than memory.
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
    """What went through one stage.  Which of the counts mean something depends on the stage."""

    entered: int = 0
    left: int = 0
    lost: int = 0
    retried: int = 0
    dead: int = 0
    latencies: Latencies = msgspec.field(default_factory=Latencies)


class Sent(msgspec.Struct):
    """A message that is not acknowledged; ``due`` is when it may be delivered (Unix seconds)."""

    queue: str
    due: float


class _Doubt(msgspec.Struct):
    """A call to a queue during which the platform was killed: it has happened, or it has not."""

    messages: dict[str, str]
    """The queue in which each message is if it has happened, empty for none."""
    happened: Callable[[str], None]
    """Called for each message for which it has."""


class Inserted(msgspec.Struct):
    """What different deduplication tokens put into a table."""

    tokens: set[int] = msgspec.field(default_factory=set)
    """Their digests."""
    rows: int = 0


class History:
    """Written by the observers, read by checkers and the report."""

    def __init__(self, clock: Clock, *, detail: bool) -> None:
        self.detail = detail
        self.pipelines: dict[str, Flow] = {}
        self.buckets: dict[str, Flow] = {}
        self.queues: dict[str, Flow] = {}
        self.tails: dict[str, Flow] = {}
        self.clickhouse = Flow()
        self.whole_chain: dict[str, Latencies] = {}
        """By Pipeline: from a record's acceptance to its object's message acknowledged."""
        self.invocations: dict[str, Counter[str]] = {}
        self.attempted: dict[str, Digests] = defaultdict(Digests)
        self.accepted: dict[str, Digests] = defaultdict(Digests)
        """Records by Pipeline: handed to it, and taken by it."""
        self.messages: dict[str, Sent] = {}
        self.stored: dict[str, Digests] = defaultdict(Digests)
        self.told: dict[str, Digests] = defaultdict(Digests)
        """Keys of objects by bucket: those that may be there, and those that a message tells of."""
        self.inserts: dict[str, Inserted] = defaultdict(Inserted)
        """By table."""
        self.untokened: set[str] = set()
        """Tables that also had inserts without a token."""
        self.traces_lost_by_kills = 0
        self.ahead: Callable[[], float] = lambda: 0.0
        """Seconds by which the platform's clock is ahead of ours."""
        self.lied = False
        """Whether a lying flush has cost a whole store."""
        self.damaged: Counter[str] = Counter()
        """Records that flipped bits and lying flushes may have cost, by Pipeline."""
        self.blobs_damaged = 0
        """Files of objects' bytes that they hit: so many objects may be unreadable."""
        self.rows_in: dict[tuple[str, str], int] = {}
        """Records of each object that a Pipeline wrote, or began to, by bucket and key."""
        self.unreadable: list[tuple[str, str]] = []
        """Objects of Pipelines that cannot be read: known once records are checked."""
        self.missing: Counter[str] = Counter()
        """Accepted records that no object has, readable or not, by Pipeline: known likewise."""
        self.deaths: Counter[tuple[str, int]] = Counter()
        """Messages that were moved on, by queue and number of deliveries."""
        self.taken: set[str] = set()
        """Messages that a handler has acknowledged and their queue has not."""
        self.untaken: Counter[str] = Counter()
        """Messages that a queue has acknowledged and no handler has, by queue."""
        self.rewritten: list[str] = []
        """Objects that a Pipeline wrote although they were there."""
        self._doubts: list[_Doubt] = []
        self._clock = clock
        self._waiting: dict[str, list[tuple[float, int]]] = {}
        self._in_object: dict[tuple[str, str], tuple[str, list[tuple[float, int]]]] = {}
        self._sent_at: dict[str, tuple[float, tuple[str, str] | None]] = {}

    # --- Pipelines ---

    def sending(self, pipeline: str, records: Any) -> None:
        """A Worker hands records to a Pipeline."""
        if self.detail and isinstance(records, list):
            self.attempted[pipeline].add(records)

    def accepted_by(self, pipeline: str, records: list[Any]) -> None:
        """The Pipeline has them: from here on none may be lost."""
        flow = self.pipelines.setdefault(pipeline, Flow())
        flow.entered += len(records)
        _add(self._waiting.setdefault(pipeline, []), self._clock.now(), len(records))
        if self.detail:
            self.accepted[pipeline].add(records)

    def pipeline_object(self, pipeline: str, bucket: str, key: str, rows: int) -> None:
        """A Pipeline's object is stored, with the ``rows`` oldest of its window's records.

        Records from before the window, whose start the key holds, are in an object whose storing
        was not seen: a kill came between.
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
        """An object is about to be stored; a kill may leave it stored or not."""
        if self.detail:
            self.stored[bucket].add([key])

    def put(self, bucket: str) -> None:
        """An object is stored."""
        self.buckets.setdefault(bucket, Flow()).entered += 1

    # --- Queues ---

    def sent(self, queue: str, message_id: str, body: bytes, due: float) -> None:
        """A message is in its queue; ``due`` is by our clock, not the platform's."""
        self.queues.setdefault(queue, Flow()).entered += 1
        now = self._clock.now()
        subject = notified(body)
        if subject is not None:
            bucket, key = subject
            self.buckets.setdefault(bucket, Flow()).left += 1
            if self.detail:
                self.told[bucket].add([key])
        self._sent_at[message_id] = (now, subject)
        if self.detail:
            self.messages[message_id] = Sent(queue, due)

    def acked(self, queue: str, message_id: str) -> None:
        """A message is gone for good; an ack that is repeated finds nothing."""
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
        """Messages wait for another delivery."""
        self.queues.setdefault(queue, Flow()).retried += len(ids)
        for message_id in ids:
            if message_id in self.messages:
                self.messages[message_id].due = due - self.ahead()

    def died(self, queue: str, message_id: str, attempts: int, to: str) -> None:
        """A consumer has given a message up after so many deliveries."""
        self.deaths[queue, attempts] += 1
        self.moved(queue, message_id, to)

    def moved(self, queue: str, message_id: str, to: str) -> None:
        """A message is in another queue; a move that is repeated finds nothing."""
        sent = self.messages.get(message_id)
        if sent is not None and sent.queue != queue:
            return
        self.queues.setdefault(queue, Flow()).dead += 1
        self.queues.setdefault(to, Flow()).entered += 1
        if sent is not None:
            sent.queue, sent.due = to, self._clock.now()

    def due(self, queues: Collection[str], until: float) -> int:
        """Messages of those queues that are to be delivered before then, leased or not.

        By our clock: a platform that starts with its clock set back must deliver them all the same.

        A lease whose answer was lost is nobody's, and the store alone cannot tell: its message
        comes back when the lease is over.
        """
        return sum(sent.queue in queues and sent.due < until for sent in self.messages.values())

    def dropped(self, queue: str, count: int) -> None:
        """Messages were purged, or outlived their retention."""
        if count:
            self.queues.setdefault(queue, Flow()).lost += count

    def doubt(self, messages: dict[str, str], happened: Callable[[str], None]) -> None:
        """The platform was killed while it changed messages; see ``resolve``."""
        self._doubts.append(_Doubt(messages, happened))

    async def resolve(self, queues: QueueDriver) -> None:
        """Look up what has become of the calls in doubt, before anybody else changes anything."""
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

    # --- the rest ---

    def invoked(self, worker: str, outcome: str) -> None:
        """An invocation has ended."""
        self.invocations.setdefault(worker, Counter())[outcome] += 1

    def traced(self, worker: str, ages: Sequence[float], *, delivered: bool) -> None:
        """A Tail Worker has been given traces; ``ages`` are seconds since their events began."""
        flow = self.tails.setdefault(worker, Flow())
        flow.entered += len(ages)
        if delivered:
            flow.left += len(ages)
        else:
            flow.lost += len(ages)
        for age in ages:
            flow.latencies.add(age)

    def inserted(self, table: str, token: str | None, rows: int) -> None:
        """An INSERT happened."""
        if token is None:
            self.untokened.add(table)
            return
        inserted, digest = self.inserts[table], digest_of(token)
        if digest not in inserted.tokens:
            inserted.tokens.add(digest)
            inserted.rows += rows


def _add(times: list[tuple[float, int]], now: float, count: int) -> None:
    """So many at that time: one entry for all that come at once."""
    if times and times[-1][0] == now:
        count += times.pop()[1]
    times.append((now, count))


def _split(
    batches: list[tuple[float, int]], records: int
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """The first ``records`` of the batches (time, count), and the rest."""
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
    """The time in the ULID that a Pipeline's key ends in, Unix milliseconds."""
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
    """Bucket and key that a message tells of; None for one that is no notification."""
    try:
        told = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return told.bucket, told.object.key
