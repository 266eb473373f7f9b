"""Fixes that the log names beside an exception of worker code."""

import socket
import threading
import traceback
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesim.runtime.cures import cure_for

MAIN = Path("/project/src/entry.py")


def text_of(call: Callable[[], Any]) -> str:
    """Return the traceback of the call's exception."""
    with pytest.raises(Exception) as raised:
        call()
    return "".join(traceback.format_exception(raised.value))


def refused(*arguments: Any) -> Callable[[], Any]:
    def fail() -> None:
        raise PermissionError(*arguments)

    return fail


def no_thread() -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (refused(1, "Operation not permitted", "/data/a.db"), "io.BytesIO"),
        (refused(13, "Permission denied", "/tmp/tmpab12"), "io.BytesIO"),
        (refused(1, "Operation not permitted"), "`fetch`"),
        (lambda: socket.getaddrinfo("no.such.host.invalid", 80), "`fetch`"),
        (lambda: zoneinfo.ZoneInfo("Nowhere/City"), "'tzdata'"),
        (no_thread, "asyncio.to_thread"),
        (lambda: __import__("yaml_of_nobody.loader"), "'yaml_of_nobody'"),
    ],
)
def test_a_limit_of_isolates_has_a_cure(call, named):
    """Files, sockets, time zones, threads and packages each have their own."""
    cure = cure_for(text_of(call), MAIN)
    assert cure is not None
    assert named in cure


@pytest.mark.parametrize(
    "call",
    [
        lambda: "abc".index("x"),
        lambda: Path("/no/such/file").stat(),
        lambda: threading.Lock().release(),
        lambda: (_ for _ in ()).throw(ValueError("RuntimeError: can't start new thread, they say")),
    ],
)
def test_other_exceptions_have_none(call):
    """A text that only mentions such an error is not taken for it."""
    assert cure_for(text_of(call), MAIN) is None
