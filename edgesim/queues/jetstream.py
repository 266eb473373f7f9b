"""What the NATS driver asks of a JetStream server: the one place that knows the client library.

The library's own JetStream calls were the other road; it has none for atomic batches and for
reading many messages at once, and an empty fetch of its costs the whole timeout.  The server's API
is JSON over request and reply, so it is asked directly:
https://docs.nats.io/reference/reference-protocols/nats_api_reference

Every request is repeated until the server answers or REQUEST_SECONDS are over: a restart or the
election of a leader takes a few seconds.  All of them may be repeated, publishing because of its
message ids.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import anyio
import msgspec
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from edgesim.clock import Clock
from edgesim.errors import RunError

REQUEST_SECONDS = 15.0
"""How long a request is repeated: longer than a three-node cluster takes to elect a leader."""
FETCH_SECONDS = 1.0
ANSWER_SECONDS = 3.0
"""How long one answer is waited for."""
CONNECT_SECONDS = 3.0
OVERHEAD_BYTES = 512
"""What the store counts for every message beside its body: each is padded to it.

So the bytes of all bodies follow from the totals, which are all that a server tells.
"""
_PAD = "Edgesim-Pad"
_DELIVERY = re.compile(
    r"\$JS\.ACK\.(?:[\w-]+\.[\w-]+\.)?(?P<stream>[\w-]+)\.[\w-]+"
    r"\.(?P<count>\d+)\.(?P<seq>\d+)\.\d+\.\d+\.\d+(?:\.\w+)?",
    re.ASCII,
)
"""The domain and account before, and the token behind, come with newer servers."""
_PAUSE_SECONDS = 0.1
_RECONNECT_SECONDS = 1
_PAGE = 256
_DUPLICATE_IN_BATCH = 10201
_NOT_FOUND = {10014, 10037, 10059}  # consumer, message, stream
_TRANSIENT = {10008, 10009, 10074, 10076, 10077}
"""No leader, not current, no quorum: a cluster that is electing.  10077: the store is busy."""

log = structlog.get_logger()
_Result = TypeVar("_Result")


class Failed(msgspec.Struct):
    """The server's reason; ``err_code`` is JetStream's own."""

    code: int
    err_code: int = 0
    description: str = ""


class StreamState(msgspec.Struct):
    """What a stream holds."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0
    subjects: dict[str, int] = {}


class StreamConfig(msgspec.Struct, omit_defaults=True):
    """The settings of a stream that matter here."""

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


class Delivered(msgspec.Struct):
    """How far a consumer has come."""

    stream_seq: int = 0


class Cluster(msgspec.Struct):
    """Who serves a stream; no leader, no answers."""

    leader: str | None = None


class Read(msgspec.Struct):
    """A message as the API gives it: bytes are base64."""

    subject: str
    hdrs: bytes = b""
    data: bytes = b""


class Answer(msgspec.Struct):
    """Any answer of the API, as far as it is needed here."""

    error: Failed | None = None
    config: msgspec.Raw = msgspec.Raw(b"null")
    state: StreamState = msgspec.field(default_factory=StreamState)
    delivered: Delivered = msgspec.field(default_factory=Delivered)
    num_pending: int = 0
    num_ack_pending: int = 0
    cluster: Cluster = msgspec.field(default_factory=Cluster)
    message: Read | None = None
    purged: int = 0
    duplicate: bool = False
    streams: list[Answer] = []
    total: int = 0


class Stored(msgspec.Struct):
    """A message as a stream holds it; ``reply`` where a consumer was given it."""

    subject: str
    body: bytes
    headers: Mapping[str, str]
    seq: int = 0
    reply: str = ""


class Outgoing(msgspec.Struct):
    """A message to be kept; what the server has under the same ``message_id`` it keeps once."""

    subject: str
    body: bytes
    headers: dict[str, str]
    message_id: str


class KnownError(RunError):
    """The server has got a message of that id before."""


class JetStream:
    """One connection.  Made by ``connect``."""

    def __init__(self, client: Client, where: str, clock: Clock) -> None:
        self.where = where
        self._client = client
        self._clock = clock

    # --- asking ---

    async def api(self, path: str, /, **body: Any) -> Answer:
        """One call of the API; RunError where the server refuses it."""
        answer = await self._api(path, body)
        if answer.error is not None:
            raise self._refused(answer.error, path)
        return answer

    async def find(self, path: str, /, **body: Any) -> Answer | None:
        """As ``api``, but None for a stream or consumer that is not there."""
        answer = await self._api(path, body)
        if answer.error is None:
            return answer
        if answer.error.err_code in _NOT_FOUND:
            return None
        raise self._refused(answer.error, path)

    async def confirm(self, reply: str, kind: bytes) -> None:
        """Acknowledge in one of JetStream's ways; returns when the server has it."""
        await self._ask(reply, kind)

    async def hint(self, subject: str, body: bytes) -> None:
        """Tell whoever listens, without any guarantee."""
        try:
            await self._client.publish(subject, body)
        except nats.errors.Error as error:
            log.debug("hint not sent", subject=subject, error=str(error))

    async def listen(self, subject: str, heard: Callable[[str, bytes], None]) -> None:
        """Call ``heard`` with subject and body of every hint of others."""

        async def receive(message: Msg) -> None:
            heard(message.subject, message.data)

        await self._client.subscribe(subject, cb=receive)

    # --- messages ---

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Keep all of the messages, or none: KnownError if a message id of theirs is known."""
        patience, unsure = self._patience(), False
        while True:
            try:
                reply = await self._publish_once(messages)
            except (nats.errors.Error, TimeoutError) as error:
                unsure = True
                await patience.wait(error)
                continue
            answer = msgspec.json.decode(reply, type=Answer)
            failure = answer.error
            if answer.duplicate or (failure and failure.err_code == _DUPLICATE_IN_BATCH):
                if unsure:
                    return  # the answer of an earlier attempt was lost, its messages were not
                raise KnownError(f"{self.where}: a message of the batch is known already")
            if failure is None:
                return
            if failure.err_code not in _TRANSIENT:
                raise self._refused(failure, messages[0].subject)
            await patience.wait(failure.description)

    async def _publish_once(self, messages: Sequence[Outgoing]) -> bytes:
        batch, *_, last = self._clock.hex_id()[:16], *messages
        for number, message in enumerate(messages, 1):
            headers = {**message.headers, "Nats-Msg-Id": message.message_id}
            if len(messages) > 1:
                # Not for a single message: an atomic batch costs the server twenty times as much.
                headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
                headers |= {"Nats-Batch-Commit": "1"} if message is last else {}
            overhead = _overhead(message.subject, headers | {_PAD: ""})
            headers[_PAD] = "-" * (OVERHEAD_BYTES - overhead)
            if message is not last:
                await self._client.publish(message.subject, message.body, headers=headers)
        return (
            await self._client.request(last.subject, last.body, ANSWER_SECONDS, headers=headers)
        ).data

    async def fetch(self, stream: str, consumer: str, limit: int) -> list[Stored]:
        """Up to ``limit`` messages that the consumer may be given now; their replies lease them."""
        body = msgspec.json.encode({"batch": limit, "no_wait": True})
        found: list[Stored] = []
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
            await self._collect(subject, body, found, limit, FETCH_SECONDS)
        except nats.errors.TimeoutError:
            # A consumer that reaches its limit meanwhile does not say so.  What was on its way when
            # we gave up is given again in time.
            log.debug("fetch not ended", stream=stream, found=len(found), limit=limit)
        except nats.errors.Error as error:
            raise self._unanswered(error) from error
        return found

    async def read(
        self, stream: str, subject: str, after: int, limit: int
    ) -> tuple[list[Stored], bool]:
        """Some of the messages with a sequence above ``after``, in order; whether more follow."""
        body = msgspec.json.encode(
            {"batch": min(limit, _PAGE), "seq": after + 1, "next_by_subj": subject}
        )
        page: list[Stored] = []

        async def once() -> Mapping[str, str]:
            page.clear()
            return await self._collect(f"$JS.API.DIRECT.GET.{stream}", body, page)

        end = await self._until_answered(once)
        return page, bool(page) and end.get("Nats-Num-Pending", "0") != "0"

    async def pages(self, stream: str, limit: int) -> AsyncIterator[list[Stored]]:
        """The first ``limit`` messages of a stream, page by page."""
        after, more = 0, limit > 0
        while more:
            page, more = await self.read(stream, ">", after, limit)
            if page:
                after, limit = page[-1].seq, limit - len(page)
                more = more and limit > 0
                yield page

    async def first(self, stream: str, subject: str, after: int) -> Stored | None:
        """The first message above that sequence."""
        page, _ = await self.read(stream, subject, after, 1)
        return page[0] if page else None

    async def at(self, stream: str, seq: int) -> Stored | None:
        """The message of that sequence, as the leader has it: a replica may not have it yet."""
        found = (await self.find(f"STREAM.MSG.GET.{stream}", seq=seq) or Answer()).message
        if found is None:
            return None
        lines = found.hdrs.decode().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines if line)
        return Stored(found.subject, found.data, headers, seq)

    # --- how it is done ---

    async def _collect(
        self,
        subject: str,
        body: bytes,
        found: list[Stored],
        enough: int | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Mapping[str, str]:
        """Put the messages that answer a request into ``found``; the headers of the status after.

        TimeoutError where neither comes for so many seconds.
        """
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            await self._client.publish(subject, body, reply=inbox)
            while len(found) != enough:
                message = await subscription.next_msg(seconds)
                headers = message.headers or {}
                if "Status" in headers and not message.reply and "Nats-Sequence" not in headers:
                    if headers["Status"] == "503":
                        raise nats.errors.NoRespondersError
                    return headers
                found.append(_stored(message, headers))
        finally:
            await subscription.unsubscribe()
        return {}

    async def _api(self, path: str, body: dict[str, Any]) -> Answer:
        payload, patience = msgspec.json.encode(body), self._patience()
        while True:
            reply = await self._ask(f"$JS.API.{path}", payload)
            answer = msgspec.json.decode(reply, type=Answer)
            if answer.error is None or answer.error.err_code not in _TRANSIENT:
                return answer
            await patience.wait(answer.error.description)

    async def _ask(self, subject: str, body: bytes) -> bytes:
        request = partial(self._client.request, subject, body, ANSWER_SECONDS)
        return (await self._until_answered(request)).data

    async def _until_answered(self, ask: Callable[[], Awaitable[_Result]]) -> _Result:
        patience = self._patience()
        while True:
            try:
                return await ask()
            except (nats.errors.Error, TimeoutError) as error:
                await patience.wait(error)

    def _patience(self) -> _Patience:
        return _Patience(self._clock, self._unanswered)

    def _refused(self, failure: Failed, subject: str) -> RunError:
        return RunError(
            f"{self.where}: {failure.description} (JetStream {failure.err_code}, {subject})"
        )

    def _unanswered(self, problem: object) -> RunError:
        if isinstance(problem, nats.errors.NoRespondersError):
            problem = "JetStream does not answer (is it enabled, and has its cluster a leader?)"
        return RunError(f"{self.where}: {problem or type(problem).__name__}")


class _Patience:
    """How long a request is repeated; ``wait`` raises when that is over."""

    def __init__(self, clock: Clock, gave_up: Callable[[object], RunError]) -> None:
        self._clock = clock
        self._until = clock.elapsed() + REQUEST_SECONDS
        self._gave_up = gave_up

    async def wait(self, problem: object) -> None:
        if self._clock.elapsed() >= self._until or isinstance(
            problem, nats.errors.ConnectionClosedError
        ):
            raise self._gave_up(problem)
        await anyio.sleep(_PAUSE_SECONDS)


def _overhead(subject: str, headers: Mapping[str, str]) -> int:
    """The bytes that a file store counts for a message beside its body."""
    lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    return 22 + len(subject) + 4 + len("NATS/1.0\r\n") + lines + len("\r\n") + 8


def _stored(message: Msg, headers: Mapping[str, str]) -> Stored:
    """A message of a direct get names its place in headers, one of a consumer in its reply."""
    if (delivery := delivery_of(message.reply)) is not None:
        return Stored(message.subject, message.data, headers, delivery.seq, message.reply)
    return Stored(headers["Nats-Subject"], message.data, headers, int(headers["Nats-Sequence"]))


class Delivery(msgspec.Struct, frozen=True):
    """Which message a consumer was given, and for the how manieth time."""

    stream: str
    count: int
    seq: int


def delivery_of(reply: str) -> Delivery | None:
    """What the reply subject of a delivery says; None for any other text."""
    match = _DELIVERY.fullmatch(reply)
    return match and Delivery(match["stream"], int(match["count"]), int(match["seq"]))


@asynccontextmanager
async def connect(
    servers: Sequence[str], where: str, clock: Clock, **credentials: Any
) -> AsyncIterator[JetStream]:
    """A connection to one of the servers, renewed by itself; RunError where none answers now."""
    problem = "no server answers"
    opened = False

    async def failed(error: Exception) -> None:
        nonlocal problem
        problem = str(error) or type(error).__name__
        log.debug("nats", server=where, error=problem)
        if not opened and _is_denied(problem):
            client.options["allow_reconnect"] = False  # asking again would change nothing

    async def disconnected() -> None:
        if not client.is_closed:
            log.warning("nats server lost, reconnecting", server=where)

    async def reconnected() -> None:
        log.info("nats server reached again", server=where)

    client = Client()
    try:
        with anyio.move_on_after(CONNECT_SECONDS):
            try:
                await client.connect(
                    servers=list(servers),
                    error_cb=failed,
                    disconnected_cb=disconnected,
                    reconnected_cb=reconnected,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_RECONNECT_SECONDS,
                    connect_timeout=2,
                    no_echo=True,
                    **credentials,
                )
            except (nats.errors.Error, OSError) as error:
                problem = str(error) or problem
        opened = client.is_connected
        if not opened:
            raise RunError(f"{where}: {problem}; {_cure(problem)}")
        server = JetStream(client, where, clock)
        await server.find("STREAM.INFO.any")  # whether there is JetStream at all
        yield server
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()


def _cure(problem: str) -> str:
    if _is_denied(problem):
        return "set EDGESIM_NATS_USER and EDGESIM_NATS_PASSWORD, or EDGESIM_NATS_TOKEN"
    return "is nats-server running there?"


def _is_denied(problem: str) -> bool:
    return "authorization" in problem.lower()
