"""Limits of statements in the embedded engine, which all Workers share.

Facts (chdb 26): a statement cannot have a query id, and settings cannot be constrained.  So each
statement carries a tag in ``log_comment``, by which KILL QUERY finds it, and a statement whose own
SETTINGS raise a limit is refused before it runs (``chdb_checks``).
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec

from edgesim.clickhouse import statements
from edgesim.errors import ClickHouseError

POLL_MS = 200
MUTATION_POLL_SECONDS = 1.0
GRACE_SECONDS = 2.0
"""Seconds from a statement's time limit, which the engine checks itself, until it is killed."""
STUBBORN_SECONDS = 10.0
"""Seconds from the first KILL QUERY until the engine is restarted; some statements ignore it."""
THREADS = 64
"""Maximum concurrent statements; the gateway limits each Worker to a share of them."""
_MUTATION = ("database", "table", "mutation_id")
_MUTATIONS = (
    "SELECT toString(now() - create_time), database, table, mutation_id FROM system.mutations"
    " WHERE NOT is_done"
)
_PARTS = (
    "SELECT toString(elapsed), database, table, result_part_name FROM system.merges"
    " WHERE is_mutation"
)
_NUMBER = re.compile(r"\d+(\.\d+)?")


class StatementLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Upper bounds of one statement: seconds, bytes of memory, bytes of its result, its size.

    Nothing can end the parsing of a statement, so the bounds of the parser are the engine's own.
    A request may set lower ones.  They are options of the URL:
    ``chdb:PATH?max_execution_time=600``.
    """

    max_execution_time: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    max_memory_usage: Annotated[int, msgspec.Meta(gt=0)] = 4 << 30
    max_result_bytes: Annotated[int, msgspec.Meta(gt=0)] = 1 << 30
    max_parser_depth: Annotated[int, msgspec.Meta(gt=0)] = 1000
    max_parser_backtracks: Annotated[int, msgspec.Meta(gt=0)] = 1_000_000
    max_ast_depth: Annotated[int, msgspec.Meta(gt=0)] = 1000
    max_ast_elements: Annotated[int, msgspec.Meta(gt=0)] = 50_000
    max_expanded_ast_elements: Annotated[int, msgspec.Meta(gt=0)] = 500_000

    def settings(self, wanted: dict[str, str]) -> dict[str, str]:
        """Return the settings of a request with each limit applied."""
        return wanted | {
            name: str(lower(name, wanted.get(name), limit))
            for name, limit in msgspec.structs.asdict(self).items()
        }


def lower(name: str, wanted: str | None, limit: float, *, strict: bool = False) -> float | str:
    """Return the lower of a wanted limit and ``limit``; 0 or an invalid value means no limit.

    ``strict``: ClickHouseError if the wanted limit is higher.
    """
    if wanted is None:
        return limit
    number = float(wanted) if _NUMBER.fullmatch(wanted) else 0.0
    if 0 < number <= limit:
        return wanted
    if strict:
        problem = f"{name} = {wanted} is over the limit of {limit:g}; the chdb: URL can raise it"
        raise ClickHouseError(statements.BAD_ARGUMENTS, problem)
    return limit


class _Running:
    """A running statement, and the connection of its client."""

    def __init__(self, channel: socket.socket, seconds: float) -> None:
        self.tag = os.urandom(8).hex()
        self.channel = channel
        self.deadline = time.monotonic() + seconds + GRACE_SECONDS
        self.killed_at: float | None = None


class Watchdog:
    """Kills statements whose client has disconnected or whose time limit has passed.

    So also mutations (ALTER TABLE ... UPDATE and others), which go on in the background when their
    statement has ended.
    """

    def __init__(self, session: Any, limits: StatementLimits) -> None:
        self.limits = limits
        self._session = session
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        self._mutating = True
        """False while there can be no mutation; an earlier run may have left one."""
        self._next_look = 0.0
        self._killed: dict[str, float] = {}
        """When the mutation of each table was killed that still runs, in monotonic seconds."""
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def watching(self, channel: socket.socket) -> Iterator[str]:
        """Watch a statement while it runs; yields the tag that its ``log_comment`` must contain."""
        running = _Running(channel, self.limits.max_execution_time)
        with self._lock:
            self._running[channel.fileno()] = running
        try:
            yield running.tag
        finally:
            with self._lock:
                del self._running[channel.fileno()]

    def _watch(self) -> None:
        while True:
            time.sleep(POLL_MS / 1000)
            with self._lock:
                running = dict(self._running)
            try:
                self._look_at(running)
                if self._mutating and time.monotonic() > self._next_look:
                    self._next_look = time.monotonic() + MUTATION_POLL_SECONDS
                    self._look_at_mutations()
            except Exception:  # noqa: BLE001 (a refused KILL QUERY must not end the watch)
                traceback.print_exc()

    def _look_at(self, running: dict[int, _Running]) -> None:
        poll = select.poll()
        for number in running:
            poll.register(number, getattr(select, "POLLRDHUP", select.POLLHUP))
        gone = {number for number, _ in poll.poll(0)}
        now = time.monotonic()
        for number, each in running.items():
            if number in gone or now > each.deadline:
                self._kill(each, now)

    def expect_mutations(self) -> None:
        """Look for mutations: a statement that may have begun one has ended."""
        self._mutating = True

    def _look_at_mutations(self) -> None:
        """Kill what exceeds the time of a statement; restart the engine if that does not help."""
        limit = self.limits.max_execution_time + GRACE_SECONDS
        self._mutating = False  # before the look, since a statement may begin one meanwhile
        unfinished = self._rows(_MUTATIONS)
        working = self._rows(_PARTS)
        self._mutating = self._mutating or bool(unfinished or working)
        for age, *names in unfinished:
            if float(age) <= limit:
                continue
            database, table, mutation = names
            sys.stderr.write(
                f"mutation {mutation} of {database}.{table} killed: it took longer than "
                f"max_execution_time ({self.limits.max_execution_time:g} s)\n"
            )
            where = " AND ".join(
                f"{name} = {statements.quoted(value)}"
                for name, value in zip(_MUTATION, names, strict=True)
            )
            self._session.query(f"KILL MUTATION WHERE {where} ASYNC")
        # A killed mutation is no longer listed; the part that it is working on is.
        now = time.monotonic()
        parts = {".".join(names) for age, *names in working if float(age) > limit}
        self._killed = {part: self._killed.get(part, now) for part in parts}
        if any(now > since + STUBBORN_SECONDS for since in self._killed.values()):
            sys.stderr.write("a mutation could not be killed; the ClickHouse engine restarts\n")
            os._exit(1)

    def _rows(self, sql: str) -> list[list[str]]:
        answer = self._session.query(sql, "JSONCompactEachRow").bytes()
        return [msgspec.json.decode(line, type=list[str]) for line in answer.splitlines()]

    def _kill(self, running: _Running, now: float) -> None:
        if running.killed_at is None:
            running.killed_at = now
        elif now > running.killed_at + STUBBORN_SECONDS:
            sys.stderr.write("a statement could not be killed; the ClickHouse engine restarts\n")
            os._exit(1)
        condition = f"position(Settings['log_comment'], '{running.tag}') > 0"
        self._session.query(f"KILL QUERY WHERE {condition} ASYNC")
