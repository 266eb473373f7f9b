"""Without the kernel's jail, Python's audit hook refuses as much as it can."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.isolation.world import ATTACKER, World, no_change_found, open_world

pytestmark = pytest.mark.anyio
DENIED = "PermissionError"


@pytest.fixture(scope="module", params=["process", "warm"])
async def audited(request: pytest.FixtureRequest, anyio_backend: str) -> AsyncIterator[World]:
    async with open_world(request.param, guard="audit") as world:
        yield world


def _refusal_beside(path: Path) -> str:
    """The error for a file beside ``path``: a Worker's /tmp is its own, and has no such file."""
    return "FileNotFoundError" if path.is_relative_to("/tmp") else DENIED


async def test_it_says_so(audited):
    """The only guard reported is the audit hook."""
    assert audited.isolates.guards == ["audit hook"]


async def test_warm_stays_warm(audited):
    """Honest invocations do not change a process at `warm`, without seccomp either."""
    with no_change_found():
        for _ in range(3):
            await audited.fetch("pid")


@pytest.mark.parametrize(
    "name",
    [
        "read-passwords",
        "read-the-project",
        "environment-of-the-platform",
        "memory-of-another",
        "write-its-own-source",
        "remove-its-own-source",
        "write-anywhere",
        "another-file-system",
        "symbolic-link",
        "change-folder",
        "tcp-socket",
        "unix-socket",
        "dns",
        "run-a-program",
        "become-a-program",
        "fork-bomb",
        "kill-itself",
        "kill-parent",
        "kill-everyone",
        "segfault",
        "ptrace-a-sibling",
        "raised-limits",
        "type-on-the-terminal",
    ],
)
async def test_it_refuses(audited, name):
    """Files, sockets, programs, forks, signals to others, ctypes raise PermissionError."""
    before = await audited.honest()
    answer = await audited.attack(name)
    assert answer.outcome == "exception", answer.done
    assert (_refusal_beside(ATTACKER) if name == "read-the-project" else DENIED) in answer.failure
    assert await audited.honest() == before


@pytest.mark.parametrize("name", ["busy-loop", "busy-in-c", "memory-in-many", "os-exit", "environ"])
async def test_limits_need_no_jail(audited, name):
    """Limits of CPU and memory, and the exit of the process, work without the jail."""
    before = await audited.honest()
    assert (await audited.attack(name)).outcome in {
        "exceededCpu",
        "exceededMemory",
        "internalError",
        "ok",
    }
    assert await audited.honest() == before


THREADS_ARE_HEARD = sys.version_info >= (3, 12)
"""True if the interpreter asks its audit hooks about threads."""


@pytest.mark.parametrize(
    "name", ["thread", "signal-handlers", "timer-disarmed", "program-from-memory"]
)
async def test_what_it_cannot_refuse_ends_with_the_process(audited, name):
    """An action without an audit event succeeds; the next invocation finds no effect of it."""
    before = await audited.honest()
    pid = (await audited.fetch("pid")).body
    answer = await audited.attack(name)
    if name == "thread" and THREADS_ARE_HEARD:
        assert "PermissionError" in answer.failure
    else:
        assert answer.outcome == "ok", answer.done
        if name != "program-from-memory":  # a descriptor, private to the process
            assert (await audited.fetch("pid")).body != pid
    assert await audited.honest() == before


@pytest.mark.parametrize("name", ["busy-timer-disarmed", "signals-masked"])
async def test_a_timer_taken_off_leaves_the_kernels_limit(audited, name):
    """RLIMIT_CPU ends the invocation instead: whole seconds, and two more."""
    answer = await audited.attack(name)
    assert answer.outcome == "exceededCpu", answer.done
    assert answer.done.cpu_ms <= 3_300
    await audited.honest()
