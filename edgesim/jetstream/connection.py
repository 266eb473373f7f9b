"""One reconnecting NATS connection: the only module that uses the client library.

A request is retried until the server replies or REQUEST_SECONDS are over: a restart or a leader
election takes a few seconds.  Three problems of the library are handled here.  It closes for good
when the server rejects it, so that permissions revoked and granted again would be lost; it speaks
plain text to a server that does not require TLS, whatever the URL says; and it reports a forbidden
subject only through a callback, while the request waits for a reply that cannot come.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import anyio
import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg as Msg  # noqa: PLC0414 (re-exported for jetstream)

from edgesim.clock import Clock
from edgesim.errors import RunError

REQUEST_SECONDS = 15.0
"""Maximum retry time of a request: longer than a three-node cluster takes to elect a leader."""
ANSWER_SECONDS = 3.0
"""Timeout of one reply."""
CONNECT_SECONDS = 3.0
_PAUSE_SECONDS = 0.1
_RECONNECT_SECONDS = 1
_NO_TLS = "nats: the server does not ask for TLS"
_DENIED = re.compile(r'(?i)permissions violation for (publish|subscription) to "([^"]+)"')
_NO_RESPONDERS = "503"
_SILENT = "see its log: a nats-server whose disk was full has to be restarted"

log = structlog.get_logger()
_Result = TypeVar("_Result")


class UnansweredError(RunError):
    """No reply to this attempt; ``final`` if a retry would not help."""

    def __init__(self, problem: str, cure: str = "", *, final: bool = False) -> None:
        super().__init__(problem, cure)
        self.final = final


class SilenceError(UnansweredError):
    """No reply within the timeout."""


class NatsConnection:
    """Requests, replies and hints over one connection.  Created by ``connect``."""

    def __init__(self, client: _Client, where: str, clock: Clock) -> None:
        self.where = where
        self._client = client
        self._clock = clock
        self.trouble = ""  # the current connection problem, in the server's words
        self._denied: set[str] = set()  # forbidden subjects, in lower case like the library's

    async def ask(self, subject: str, body: bytes) -> bytes:
        """Send a request and retry it until there is a reply; returns the reply."""
        return await self.until_answered(lambda: self.request(subject, body))

    async def request(
        self, subject: str, body: bytes, headers: dict[str, str] | None = None
    ) -> bytes:
        """Send a request once; returns the reply."""
        with self._explained(subject):
            return (await self._client.request(subject, body, ANSWER_SECONDS, headers=headers)).data

    async def publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        """Publish a message without a reply."""
        with self._explained(subject):
            await self._client.publish(subject, body, headers=headers)

    async def answers(
        self, subject: str, body: bytes, seconds: float = ANSWER_SECONDS
    ) -> AsyncGenerator[Msg, None]:
        """All replies to one request; the caller closes the generator when it has enough.

        SilenceError if none arrives for ``seconds``.
        """
        inbox = self._client.new_inbox()
        with self._explained(subject):
            subscription = await self._client.subscribe(inbox)
            try:
                await self._client.publish(subject, body, reply=inbox)
                while True:
                    message = await subscription.next_msg(seconds)
                    if (message.headers or {}).get("Status") == _NO_RESPONDERS:
                        raise nats.errors.NoRespondersError
                    yield message
            finally:
                await subscription.unsubscribe()

    async def hint(self, subject: str, body: bytes) -> None:
        """Notify other nodes, without any guarantee of delivery."""
        try:
            await self._client.publish(subject, body)
        except nats.errors.Error as error:
            log.debug("wake-up message not published", subject=subject, error=str(error))

    async def listen(self, subject: str, on_hint: Callable[[str, bytes], None]) -> None:
        """Call ``on_hint`` with subject and body of every hint from other nodes."""

        async def receive(message: Msg) -> None:
            on_hint(message.subject, message.data)

        await self._client.subscribe(subject, cb=receive)

    async def until_answered(self, ask: Callable[[], Awaitable[_Result]]) -> _Result:
        """Retry until there is a reply; UnansweredError after REQUEST_SECONDS."""
        patience = self.patience()
        while True:
            try:
                return await ask()
            except UnansweredError as error:
                await patience.wait(error)

    def patience(self) -> Patience:
        """A retry deadline for one request."""
        return Patience(self._clock)

    def deny(self, said: str) -> bool:
        """True for a permission error, whose subject is recorded: requests to it get no reply."""
        if (found := _DENIED.search(said)) is None:
            return False
        self._denied.add(found[2].lower())
        return True

    @contextmanager
    def _explained(self, subject: str) -> Iterator[None]:
        try:
            yield
        except (nats.errors.Error, TimeoutError) as error:
            raise self._unanswered(error, subject) from error

    def _unanswered(self, error: Exception, subject: str) -> UnansweredError:
        deaf = any(each.startswith("_inbox") for each in self._denied)
        if deaf or subject.lower() in self._denied:
            what = "subscribe to _INBOX.>" if deaf else f"publish to {subject}"
            cure = "give the user that right, or use another"
            return UnansweredError(f"{self.where}: this user may not {what}", cure, final=True)
        match error:
            case nats.errors.NoRespondersError() if self._client.is_without_jetstream():
                cure = 'put jetstream { store_dir: "/somewhere" } into its configuration'
                return UnansweredError(f"{self.where}: JetStream is not enabled", cure, final=True)
            case nats.errors.NoRespondersError():
                cure = "is it enabled, and has its cluster a leader?"
                return UnansweredError(f"{self.where}: JetStream does not answer", cure)
            case nats.errors.MaxPayloadError():
                cure = "edgesim needs a max_payload of 256KB; NATS's own is 1MB"
                return UnansweredError(f"{self.where}: a message is too large", cure, final=True)
            case nats.errors.ConnectionClosedError():
                return UnansweredError(f"{self.where}: {error}", final=True)
            case TimeoutError():
                said = f"no answer ({self.trouble})" if self.trouble else "no answer"
                cure = _cure(self.trouble) if self.trouble else _SILENT
                return SilenceError(f"{self.where}: {said}", cure)
        return UnansweredError(f"{self.where}: {error}")


class Patience:
    """Retry deadline of one request; ``wait`` raises the problem once it has passed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = clock.elapsed() + REQUEST_SECONDS

    async def wait(self, problem: RunError) -> None:
        """Pause before the next retry; raises ``problem`` if it is final or time is up."""
        final = isinstance(problem, UnansweredError) and problem.final
        if final or self._clock.elapsed() >= self._until:
            raise problem
        await anyio.sleep(_PAUSE_SECONDS)


class _Client(Client):
    """The library's client, which keeps reconnecting and refuses plain text if TLS is required."""

    def __init__(self, *, tls: bool) -> None:
        super().__init__()
        self._tls = tls
        self._info: dict[str, Any] = {}

    def is_without_jetstream(self) -> bool:
        """True if there certainly is none: in a cluster another server may have it."""
        return not self._info.get("jetstream") and "cluster" not in self._info

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self._info = info
        if initial_connection and self._tls and not info.get("tls_required"):
            raise nats.errors.Error(_NO_TLS)  # before any data is sent
        await super()._process_info(info, initial_connection)

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except BaseException:
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]  # else it stays open
            raise

    async def _process_err(self, err_msg: str) -> None:
        if _DENIED.search(err_msg):
            await super()._process_err(err_msg)
        else:
            await self._process_op_err(nats.errors.Error(f"nats: {err_msg}"))


@asynccontextmanager
async def connect(
    servers: Sequence[str], where: str, clock: Clock, **credentials: Any
) -> AsyncIterator[NatsConnection]:
    """Connect to one of the servers, with reconnection; RunError if none replies now."""
    problem = "no server answers"
    opened = False
    logged: set[str] = set()
    client = _Client(tls=any(server.startswith("tls:") for server in servers))
    connection = NatsConnection(client, where, clock)

    async def failed(error: Exception) -> None:
        nonlocal problem
        said = str(error) or type(error).__name__
        if connection.deny(said):
            log.debug("nats permission denied", server=where, error=said)
            return
        if opened:
            connection.trouble = said
            if said not in logged:
                log.warning("nats server not reached", server=where, error=said)
                logged.add(said)
        if not opened and _cannot_pass(said):
            client.options["allow_reconnect"] = False  # a retry would not help
        problem = said

    async def disconnected() -> None:
        if not client.is_closed:
            log.warning("nats server lost, reconnecting", server=where)

    async def reconnected() -> None:
        connection.trouble = ""
        logged.clear()
        log.info("nats server reached again", server=where)

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
            raise RunError(f"{where}: {problem}", _cure(problem))
        yield connection
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()


def _cannot_pass(problem: str) -> bool:
    return "authorization" in problem.lower() or problem == _NO_TLS


def _cure(problem: str) -> str:
    if problem == _NO_TLS:
        return "take tls=true out of the URL, or let the server require TLS"
    if _cannot_pass(problem):
        return "set EDGESIM_NATS_USER and EDGESIM_NATS_PASSWORD, or EDGESIM_NATS_TOKEN"
    return "is nats-server running there?"
