"""JetStream requests of the drivers of queues and KV.

The client library's own JetStream calls were rejected: it has none for atomic batches or for
reading many messages at once, and its empty fetch takes the whole timeout.  The server's API is
JSON over request and reply, so it is called directly:
https://docs.nats.io/reference/reference-protocols/nats_api_reference

Every request may be repeated; message ids make publishing idempotent.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import structlog

from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.jetstream.connection import (
    ANSWER_SECONDS,
    Msg,
    NatsConnection,
    SilenceError,
    UnansweredError,
    connect,
)

FETCH_SECONDS = 1.0
OVERHEAD_BYTES = 512
"""Overhead that the store counts for every message in addition to its body.

Each message is padded to it, so the total size of all bodies follows from the totals, the only
sizes that a server reports.
"""
_PAD = "Edgesim-Pad"
_DELIVERY = re.compile(
    r"\$JS\.ACK\.(?:[\w-]+\.[\w-]+\.)?(?P<stream>[\w-]+)\.[\w-]+"
    r"\.(?P<count>\d+)\.(?P<seq>\d+)\.\d+\.\d+\.\d+(?:\.\w+)?",
    re.ASCII,
)
"""Newer servers add a domain and an account before these tokens, and a token after them."""
_PAGE = 256
SUBJECTS_MAX = 256
"""Maximum subjects of ``last_of_each``; the server's limit is 1,024."""
_DUPLICATE_IN_BATCH = 10201
_NOT_FOUND = {10014, 10037, 10059}  # consumer, message, stream
_GONE = _NOT_FOUND | {10043}  # sequence
_DELETE_FAILED = 10057
_TRANSIENT = {10008, 10009, 10076, 10077}
"""A leader election, a server that starts or stops; 10077: the store is busy, or full."""
_CURES = {
    10023: "the server has no room left: give it more, or raise its max_file_store",
    10047: "the server has no room left: give it more, or raise its max_file_store",
    10074: "replicas=N in the URL needs a cluster of as many servers",
    10077: "the stream or its disk is full: make room, or raise the stream's max_bytes",
}

log = structlog.get_logger()


class ApiError(msgspec.Struct):
    """The server's error; ``err_code`` is JetStream's own."""

    code: int
    err_code: int = 0
    description: str = ""


class StreamState(msgspec.Struct):
    """Contents of a stream."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    subjects: dict[str, int] = {}


class StreamConfig(msgspec.Struct, omit_defaults=True):
    """The settings of a stream that edgesim uses."""

    name: str
    subjects: list[str]
    retention: str = ""
    storage: str = ""
    num_replicas: int = 0
    discard: str = ""
    duplicate_window: int = 0
    max_age: int = 0
    allow_direct: bool = False
    allow_atomic: bool = False
    allow_msg_ttl: bool = False
    allow_rollup_hdrs: bool = False
    max_msgs_per_subject: int = 0


class Delivered(msgspec.Struct):
    """Progress of a consumer: the last delivered stream sequence."""

    stream_seq: int = 0


class Cluster(msgspec.Struct):
    """The cluster that serves a stream; without a leader it does not reply."""

    leader: str | None = None


class Read(msgspec.Struct):
    """A message as the API returns it: bytes are base64."""

    subject: str
    seq: int = 0
    hdrs: bytes = b""
    data: bytes = b""


class ApiReply(msgspec.Struct):
    """Any reply of the API; only the fields used here."""

    error: ApiError | None = None
    config: msgspec.Raw = msgspec.Raw(b"null")
    state: StreamState = msgspec.field(default_factory=StreamState)
    delivered: Delivered = msgspec.field(default_factory=Delivered)
    num_ack_pending: int = 0
    cluster: Cluster = msgspec.field(default_factory=Cluster)
    message: Read | None = None
    purged: int = 0
    seq: int = 0
    duplicate: bool = False
    streams: list[ApiReply] = []
    total: int = 0


class StreamMessage(msgspec.Struct):
    """A message as a stream holds it; ``reply`` is set if it was delivered by a consumer."""

    subject: str
    body: bytes
    headers: Mapping[str, str]
    seq: int = 0
    reply: str = ""


class Publication(msgspec.Struct):
    """A message to publish; the server deduplicates by ``message_id``.

    ``optional`` names a header that is left out if it does not fit.
    """

    subject: str
    body: bytes
    headers: dict[str, str]
    message_id: str
    optional: str = ""


class KnownError(RunError):
    """The server already has a message of that id."""


class JetStream:
    """JetStream over one connection.  Created by ``open_jetstream``."""

    def __init__(self, connection: NatsConnection, clock: Clock) -> None:
        self.where = connection.where
        self.hint = connection.hint
        self.listen = connection.listen
        self.patience = connection.patience
        self._connection = connection
        self._clock = clock

    # --- API requests ---

    async def api(self, path: str, /, **body: Any) -> ApiReply:
        """Call the API; RunError if the server refuses the request."""
        answer = await self._api(path, body)
        if answer.error is not None:
            raise self._refused(answer.error, path)
        return answer

    async def find(self, path: str, /, **body: Any) -> ApiReply | None:
        """Like ``api``, but None for a stream or consumer that does not exist."""
        answer = await self._api(path, body)
        if answer.error is None:
            return answer
        if answer.error.err_code in _NOT_FOUND:
            return None
        raise self._refused(answer.error, path)

    async def delete(self, stream: str, seq: int) -> None:
        """Delete a message; one that is gone already counts as deleted.

        A request is sent again when its reply is late, and the server then refuses it.
        """
        path = f"STREAM.MSG.DELETE.{stream}"
        answer = await self._api(path, {"seq": seq, "no_erase": True})
        if answer.error is None or answer.error.err_code in _GONE:
            return
        # For the first and the last message of a stream a file store says only that it has failed.
        if (
            answer.error.err_code != _DELETE_FAILED
            or await self.find(f"STREAM.MSG.GET.{stream}", seq=seq) is not None
        ):
            raise self._refused(answer.error, path)

    async def confirm(self, reply: str, kind: bytes) -> None:
        """Send a JetStream acknowledgement of that kind; returns once the server has it."""
        await self._connection.ask(reply, kind)

    # --- messages ---

    async def publish(self, messages: Sequence[Publication]) -> int:
        """Store all of the messages, or none; returns the sequence of the last one.

        KnownError if one of their message ids is known.  0 if the reply to an attempt that
        succeeded was lost.
        """
        patience, unsure = self._connection.patience(), False
        while True:
            try:
                reply = await self._publish_once(messages)
            except UnansweredError as error:
                unsure = True
                await patience.wait(error)
                continue
            answer = msgspec.json.decode(reply, type=ApiReply)
            failure = answer.error
            if answer.duplicate or (failure and failure.err_code == _DUPLICATE_IN_BATCH):
                if unsure:
                    return answer.seq  # an earlier attempt succeeded, but its reply was lost
                raise KnownError(f"{self.where}: a message of the batch is known already")
            if failure is None:
                return answer.seq
            refused = self._refused(failure, messages[0].subject)
            if failure.err_code not in _TRANSIENT:
                raise refused
            await patience.wait(refused)

    async def _publish_once(self, messages: Sequence[Publication]) -> bytes:
        batch, *_, last = self._clock.hex_id()[:16], *messages
        for number, message in enumerate(messages, 1):
            headers = {**message.headers, "Nats-Msg-Id": message.message_id}
            if len(messages) > 1:
                # Not for a single message: an atomic batch costs the server twenty times as much.
                headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                headers |= {"Nats-Batch-Commit": "1"} if message is last else {}
            overhead = _overhead(message.subject, headers | {_PAD: ""})
            if overhead > OVERHEAD_BYTES and headers.pop(message.optional, None) is not None:
                overhead = _overhead(message.subject, headers | {_PAD: ""})
            headers[_PAD] = "-" * (OVERHEAD_BYTES - overhead)
            if message is not last:
                await self._connection.publish(message.subject, message.body, headers)
        return await self._connection.request(last.subject, last.body, headers)

    async def fetch(self, stream: str, consumer: str, limit: int) -> list[StreamMessage]:
        """Fetch up to ``limit`` messages of the consumer; each has a reply subject as its lease."""
        body = msgspec.json.encode({"batch": limit, "no_wait": True})
        found: list[StreamMessage] = []
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
            await self._collect(subject, body, found, limit, FETCH_SECONDS)
        except SilenceError:
            # A consumer that reaches its limit meanwhile sends no status.  Messages in transit at
            # the timeout are delivered again later.
            log.debug("pull request without a status", stream=stream, found=len(found), limit=limit)
        return found

    async def read(
        self, stream: str, subject: str, after: int, limit: int
    ) -> tuple[list[StreamMessage], bool]:
        """One page of the messages with a sequence above ``after``; True if more follow."""
        body = msgspec.json.encode(
            {"batch": min(limit, _PAGE), "seq": after + 1, "next_by_subj": subject}
        )
        page: list[StreamMessage] = []

        async def once() -> Mapping[str, str]:
            page.clear()
            return await self._collect(f"$JS.API.DIRECT.GET.{stream}", body, page)

        end = await self._connection.until_answered(once)
        return page, bool(page) and end.get("Nats-Num-Pending", "0") != "0"

    async def pages(self, stream: str, limit: int) -> AsyncIterator[list[StreamMessage]]:
        """The first ``limit`` messages of a stream, page by page."""
        after, more = 0, limit > 0
        while more:
            page, more = await self.read(stream, ">", after, limit)
            if page:
                after, limit = page[-1].seq, limit - len(page)
                more = more and limit > 0
                yield page

    async def first(self, stream: str, subject: str, after: int) -> StreamMessage | None:
        """The first message with a sequence above ``after``; None if there is none."""
        page, _ = await self.read(stream, subject, after, 1)
        return page[0] if page else None

    async def at(self, stream: str, seq: int) -> StreamMessage | None:
        """The message of that sequence, or None, from the leader: a replica may lag behind."""
        return await self._get(stream, seq=seq)

    async def last(self, stream: str, subject: str) -> StreamMessage | None:
        """The last message on a subject, or None, from the leader: a replica may lag behind."""
        return await self._get(stream, last_by_subj=subject)

    async def last_of_each(self, stream: str, subjects: Sequence[str]) -> list[StreamMessage]:
        """The last message on each of up to SUBJECTS_MAX subjects; a replica may lag behind."""
        body = msgspec.json.encode({"multi_last": subjects, "batch": len(subjects)})
        found: list[StreamMessage] = []

        async def once() -> None:
            found.clear()
            await self._collect(f"$JS.API.DIRECT.GET.{stream}", body, found)

        await self._connection.until_answered(once)
        return found

    async def subjects(self, stream: str, subject: str) -> list[str]:
        """All subjects with messages that match ``subject``, which may have wildcards."""
        path, found = f"STREAM.INFO.{stream}", list[str]()
        while True:
            page = await self.api(path, subjects_filter=subject, offset=len(found))
            found += page.state.subjects
            if not page.state.subjects or len(found) >= page.total:
                return found

    async def _get(self, stream: str, **which: Any) -> StreamMessage | None:
        found = (await self.find(f"STREAM.MSG.GET.{stream}", **which) or ApiReply()).message
        if found is None:
            return None
        lines = found.hdrs.decode().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines if line)
        return StreamMessage(found.subject, found.data, headers, found.seq)

    # --- implementation ---

    async def _collect(
        self,
        subject: str,
        body: bytes,
        found: list[StreamMessage],
        enough: int | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Mapping[str, str]:
        """Append the replies to ``found``; returns the headers of the final status message.

        SilenceError if neither arrives for ``seconds``.
        """
        async with aclosing(self._connection.answers(subject, body, seconds)) as answers:
            async for message in answers:
                headers = message.headers or {}
                if "Status" in headers and not message.reply and "Nats-Sequence" not in headers:
                    return headers
                found.append(_stored(message, headers))
                if len(found) == enough:
                    break
        return {}

    async def _api(self, path: str, body: dict[str, Any]) -> ApiReply:
        payload, patience = msgspec.json.encode(body), self._connection.patience()
        while True:
            reply = await self._connection.ask(f"$JS.API.{path}", payload)
            answer = msgspec.json.decode(reply, type=ApiReply)
            if answer.error is None or answer.error.err_code not in _TRANSIENT:
                return answer
            await patience.wait(self._refused(answer.error, path))

    def _refused(self, failure: ApiError, subject: str) -> RunError:
        return RunError(
            f"{self.where}: {failure.description} (JetStream {failure.err_code}, {subject})",
            _CURES.get(failure.err_code, ""),
        )


def _overhead(subject: str, headers: Mapping[str, str]) -> int:
    """The bytes that a file store counts for a message in addition to its body."""
    lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    return 22 + len(subject) + 4 + len("NATS/1.0\r\n") + lines + len("\r\n") + 8


def _stored(message: Msg, headers: Mapping[str, str]) -> StreamMessage:
    """Convert a message: a direct get has its sequence in headers, a delivery in its reply."""
    if (delivery := delivery_of(message.reply)) is not None:
        return StreamMessage(message.subject, message.data, headers, delivery.seq, message.reply)
    return StreamMessage(
        headers["Nats-Subject"], message.data, headers, int(headers["Nats-Sequence"])
    )


class Delivery(msgspec.Struct, frozen=True):
    """A delivered message: its stream sequence and its delivery count."""

    stream: str
    count: int
    seq: int


def delivery_of(reply: str) -> Delivery | None:
    """Parse the reply subject of a delivery; None for any other text."""
    match = _DELIVERY.fullmatch(reply)
    return match and Delivery(match["stream"], int(match["count"]), int(match["seq"]))


@asynccontextmanager
async def open_jetstream(
    servers: Sequence[str], where: str, clock: Clock, **credentials: Any
) -> AsyncIterator[JetStream]:
    """Connect to JetStream on those servers; RunError if it is not available."""
    async with connect(servers, where, clock, **credentials) as connection:
        server = JetStream(connection, clock)
        await server.find("STREAM.INFO.any")  # fails if JetStream is not enabled
        yield server
