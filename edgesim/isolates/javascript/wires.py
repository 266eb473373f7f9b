"""The connections of one workerd process: events go in by one socket, calls come out by another."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from edgesim.foreign import stops_the_world
from edgesim.isolates.host.budget import budget_here
from edgesim.isolates.javascript.http import HttpMessage, LostError, Unread
from edgesim.isolates.javascript.http_client import ClientConnection
from edgesim.isolates.javascript.http_server import Serve, ServerConnection
from edgesim.isolates.javascript.turns import Turns

ID, CONTROL, KIND = "x-edgesim-id", "x-edgesim-control", "x-edgesim-kind"
NUMBER, IDLE = "x-edgesim-number", "x-edgesim-idle"
CONNECTIONS_MAX = 2048
"""Connections of one process to the platform; further ones are refused."""
BACKLOG = 4096
IDLE_SECONDS = 2.0
"""Seconds after which an idle connection is not used again; workerd closes it after 5."""
_LAST = 1 << 60

log = structlog.get_logger()


class Wires:
    """Both sockets of one process, in the folder of ``path``.  Made by ``open_wires``."""

    def __init__(
        self,
        path: Path,
        worker: str,
        serve: Serve,
        tasks: asyncio.TaskGroup,
        evict: Callable[[], None],
    ) -> None:
        """``evict`` ends the process, which occupies too much of the platform's memory."""
        self.incoming, self.outgoing = path.with_suffix(".in"), path.with_suffix(".out")
        self._worker = worker
        self._serve = serve
        self._tasks = tasks
        self._unread = Unread(budget_here().holder(worker, evict))
        self._idle: list[tuple[float, ClientConnection]] = []
        """Connections that can be used again, with the time since when."""
        self._serving: set[ServerConnection] = set()
        self._server: Any = None

    async def listen(self) -> None:
        """Accept connections of workerd."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            self._accept, str(self.outgoing), backlog=BACKLOG
        )

    async def exchange(self, invocation: str, request: HttpMessage) -> HttpMessage:
        """Send a request to workerd and return its response; LostError if it ends first.

        ``invocation`` is its id; empty for a request that is none.
        """
        connection = self._take_idle()
        if connection is None:
            loop = asyncio.get_running_loop()
            try:
                connected = await loop.create_unix_connection(self._client, str(self.incoming))
            except OSError as error:
                raise LostError(str(error)) from error
            connection = connected[1]
        return await connection.exchange(request, self._keep)

    def forget(self, invocation: str) -> None:
        """Forget an invocation that has ended."""

    def close(self) -> None:
        """Close all connections."""
        self._unread.holder.close()
        if self._server is not None:
            self._server.close()
        for _, idle in self._idle:
            idle.close()
        for serving in self._serving:
            serving.close()
        for path in (self.incoming, self.outgoing):
            path.unlink(missing_ok=True)

    def _take_idle(self) -> ClientConnection | None:
        oldest = time.monotonic() - IDLE_SECONDS
        while self._idle:
            since, connection = self._idle.pop()
            if since > oldest and not connection.closed:
                return connection
            connection.close()
        return None

    def _keep(self, connection: ClientConnection) -> None:
        self._idle.append((time.monotonic(), connection))

    def _client(self) -> ClientConnection:
        return ClientConnection(self._tasks, self._unread)

    def _accept(self) -> ServerConnection:
        """The protocol of a connection that workerd has opened."""
        connection = ServerConnection(self._serve, self._tasks, self._unread)
        self._serving = {each for each in self._serving if not each.closed}
        if len(self._serving) >= CONNECTIONS_MAX:
            log.warning("too many connections of a Worker", worker=self._worker)
            connection.refuse()
        self._serving.add(connection)
        return connection


class _Progress:
    """Progress of one invocation in virtual time.

    It waits once each of its calls has arrived here and it has read every reply: ``idle`` is the
    isolate's count of its calls and of those that are over.  It has ended once it has responded and
    reported.
    """

    def __init__(self) -> None:
        self.begun = self.responded = self.reported = False
        self.heard: set[int] = set()
        """Numbers of the calls that have arrived; they may overtake each other."""
        self.over: set[int] = set()
        """Numbers of the calls that are replied to, or given up by the isolate."""
        self.idle = (0, -1)

    def begin(self) -> None:
        """Record that its event is written."""
        self.begun = True

    def note(self, text: str) -> None:
        """Take the isolate's note: its counts, and the numbers of the calls that it gave up."""
        calls, over, *failed = map(int, text.split(","))
        self.idle = max(self.idle, (calls, over))  # notes may overtake each other, too
        self.heard.update(failed)
        self.over.update(failed)

    @property
    def is_quiet(self) -> bool:
        if self.reported:
            return self.responded and len(self.heard) == max(self.heard, default=0)
        return not self.begun or self.idle == (len(self.heard), len(self.over))


class SteppedWires(Wires):
    """Wires where time is virtual; see ``turns``."""

    def __init__(
        self,
        path: Path,
        worker: str,
        serve: Serve,
        tasks: asyncio.TaskGroup,
        look: Callable[[], bool],
        kill: Callable[[], None],
        evict: Callable[[], None],
    ) -> None:
        """``look`` checks the process and returns False once it has ended; ``kill`` ends it."""
        super().__init__(path, worker, serve, tasks, evict)
        self._progress: dict[str, _Progress] = {}
        self._look = look
        self._kill = kill
        self._turns = Turns(self._is_quiet, self._give_up)

    async def listen(self) -> None:
        self._server: socket.socket = self._turns.listen(str(self.outgoing), self._accept, BACKLOG)

    async def exchange(self, invocation: str, request: HttpMessage) -> HttpMessage:
        connection = self._take_idle()
        if connection is None:
            try:
                connection = self._turns.connect(str(self.incoming), self._client)
            except OSError as error:
                raise LostError(str(error)) from error
        progress = self._progress[invocation] = _Progress()

        def deliver(response: HttpMessage | None, settle: Callable[[], None]) -> None:
            progress.responded = True
            progress.reported |= response is None or response.header(KIND) != "response"
            self._turns.hand_on((invocation, _LAST), settle)

        return await connection.exchange(
            request, self._keep, deliver, lambda: self._turns.say(progress.begin)
        )

    def close(self) -> None:
        super().close()
        self._turns.close()

    def forget(self, invocation: str) -> None:
        self._progress.pop(invocation, None)

    def _accept(self) -> ServerConnection:
        connection = super()._accept()
        connection.in_turns(self._hear)
        return connection

    def _hear(self, connection: ServerConnection, request: HttpMessage) -> None:
        """Take a request of an isolate that has arrived completely."""
        invocation = request.header(ID) or ""
        progress = self._progress.get(invocation) or _Progress()
        idle = request.header(IDLE)
        if idle is not None:
            progress.note(idle)
            connection.reply(HttpMessage([], status=204))
            return
        number = int(request.header(NUMBER) or 0)
        progress.heard.add(number)
        progress.over.discard(number)  # a redirect is one call of several requests
        progress.reported |= request.header(CONTROL) == "done"

        def deliver() -> None:
            connection.begin(request, lambda: self._turns.say(lambda: progress.over.add(number)))

        self._turns.hand_on((invocation, number), deliver)

    def _give_up(self) -> None:
        log.error("turn of a Worker without an end", worker=self._worker)
        self._kill()

    def _is_quiet(self) -> bool:
        return not self._look() or all(each.is_quiet for each in self._progress.values())


def open_wires(
    path: Path,
    worker: str,
    serve: Serve,
    tasks: asyncio.TaskGroup,
    look: Callable[[], bool],
    kill: Callable[[], None],
    evict: Callable[[], None],
) -> Wires:
    """The wires of a process, for the running event loop."""
    if stops_the_world():
        return SteppedWires(path, worker, serve, tasks, look, kill, evict)
    return Wires(path, worker, serve, tasks, evict)
