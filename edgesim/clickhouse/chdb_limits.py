"""Limits of statements in the embedded engine, which all Workers share.

Facts (chdb 26): a statement cannot be given a query id, and settings cannot be constrained.  So
each statement carries a tag in ``log_comment``, KILL QUERY finds it by the tag, and a limit that a
statement's own SETTINGS would raise is refused before it runs.
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

ACCESS_DENIED = 497
POLL_MS = 200
GRACE_SECONDS = 2.0
"""From the end of a statement's time, which the engine looks at itself, until it is killed."""
STUBBORN_SECONDS = 10.0
"""From the first KILL QUERY until the engine is replaced; some statements never look."""
THREADS = 64
"""Statements that run at a time; the gateway gives each Worker a share."""
_HARMLESS_SYSTEM = {"FLUSH", "SYNC", "RELOAD", "WAIT"}
_SYSTEM = "SYSTEM {} is refused: it would stop or change the engine that all Workers share"
_FUNCTION = "the embedded engine writes no files of others: insert into a table"
_FILE_FUNCTIONS = {"FILE", "FILECLUSTER", "SQLITE", "EXECUTABLE"}
_PATH = "the embedded engine gives tables their own files: leave out the path of ENGINE = {}"
_FILE_ENGINES = {"FILE", "LOG", "TINYLOG", "STRIPELOG", "SQLITE", "EMBEDDEDROCKSDB", "FILELOG"}
_NUMBER = re.compile(r"\d+(\.\d+)?")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Upper bounds of one statement: seconds, and bytes of memory and of its result.

    A request may ask for less.  They are options of the URL: ``chdb:PATH?max_execution_time=600``.
    """

    max_execution_time: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    max_memory_usage: Annotated[int, msgspec.Meta(gt=0)] = 4 << 30
    max_result_bytes: Annotated[int, msgspec.Meta(gt=0)] = 1 << 30

    def settings(self, wanted: dict[str, str]) -> dict[str, str]:
        """Settings of a statement, given those that its request asks for."""
        return wanted | {
            name: str(_lower(name, wanted.get(name), limit))
            for name, limit in msgspec.structs.asdict(self).items()
        }


def check(sql: str, limits: Limits) -> None:
    """Raise ClickHouseError for a statement that would harm the engine or lift its limits."""
    words = list(statements.tokens(sql.partition("\nFORMAT ")[0]))
    texts = [each.text for each in words]
    match texts:
        case ["SYSTEM", what, *_] if what not in _HARMLESS_SYSTEM:
            raise ClickHouseError(ACCESS_DENIED, _SYSTEM.format(what))
        case ["INSERT", *_] if _target_function(texts) in _FILE_FUNCTIONS:
            raise ClickHouseError(ACCESS_DENIED, _FUNCTION)
    _check_engine(texts)
    _check_settings(sql, words, limits)


def _target_function(texts: list[str]) -> str:
    """The table function that an INSERT writes to; "" for a table."""
    rest = [each for each in texts[1:5] if each not in {"INTO", "TABLE"}]
    return rest[1].strip('`"').upper() if rest[:1] == ["FUNCTION"] and len(rest) > 1 else ""


def _check_engine(texts: list[str]) -> None:
    if not texts or texts[0] not in {"CREATE", "ATTACH", "REPLACE"}:
        return
    for at, text in enumerate(texts):
        if text != "ENGINE":
            continue
        rest = [each for each in texts[at + 1 : at + 8] if each != "="]
        if rest[:1] and rest[0] in _FILE_ENGINES and rest[1:2] == ["("] and "," in rest:
            raise ClickHouseError(ACCESS_DENIED, _PATH.format(rest[0]))


def _check_settings(sql: str, words: list[statements.Token], limits: Limits) -> None:
    """A SETTINGS clause may lower a limit; it may not hide the statement."""
    bounds: dict[str, float] = msgspec.structs.asdict(limits)
    inside = False
    for name, sign, value in zip(words, words[1:], words[2:], strict=False):
        inside = inside or name.text == "SETTINGS"
        if not inside or sign.text != "=" or name.kind not in {"word", "quoted"}:
            continue
        setting = statements.unquoted(sql[name.start : name.end]).lower()
        if setting == "log_comment":
            problem = "log_comment is a parameter of the request here, not of the statement"
            raise ClickHouseError(statements.BAD_ARGUMENTS, problem)
        if setting in bounds:
            _lower(setting, value.text.strip("'"), bounds[setting], strict=True)


def _lower(name: str, wanted: str | None, limit: float, *, strict: bool = False) -> float | str:
    """The lower of both; 0 means without limit.  ``strict``: a higher one is an error."""
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
    """A statement that runs, and the connection of the client that waits for it."""

    def __init__(self, channel: socket.socket, seconds: float) -> None:
        self.tag = os.urandom(8).hex()
        self.channel = channel
        self.deadline = time.monotonic() + seconds + GRACE_SECONDS
        self.killed_at: float | None = None


class Watchdog:
    """Kills statements whose client has left and those that outlive their time."""

    def __init__(self, session: Any, limits: Limits) -> None:
        self.limits = limits
        self._session = session
        self._running: dict[int, _Running] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def watching(self, channel: socket.socket) -> Iterator[str]:
        """Around a statement; the tag that its ``log_comment`` must contain."""
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

    def _kill(self, running: _Running, now: float) -> None:
        if running.killed_at is None:
            running.killed_at = now
        elif now > running.killed_at + STUBBORN_SECONDS:
            sys.stderr.write("a statement could not be killed; the ClickHouse engine restarts\n")
            os._exit(1)
        condition = f"position(Settings['log_comment'], '{running.tag}') > 0"
        self._session.query(f"KILL QUERY WHERE {condition} ASYNC")
