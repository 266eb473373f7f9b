"""Requests to the project that runs on a state, or direct access if none runs."""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec

from edgesim.check.findings import Finding, relative
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.dev.presence import Owner, find_owner, own
from edgesim.errors import RunError, UsageError
from edgesim.urls import same_place

if TYPE_CHECKING:
    from edgesim.simulator import Simulator

PREFIX = "/cdn-cgi/edgesim"
PIECE_BYTES = 1 << 18


class _Health(msgspec.Struct):
    """The reply of ``health``."""

    failing_sinks: dict[str, str] = {}


def serving(project: Project) -> Owner | None:
    """The process that serves this state, or None.

    UsageError if a flag or variable names a backend other than the one that process uses: the
    command would change the wrong store.
    """
    owner = find_owner(project.state)
    if owner is None or owner.url is None:
        return None
    for name, source in project.overridden.items():
        wanted = same_place(getattr(project.backends, name))
        if name in owner.backends and owner.backends[name] != wanted:
            raise UsageError(
                f"{source} is {wanted}, but the project that runs at {owner.url} "
                f"(process {owner.pid}) has {owner.backends[name]}; "
                f"leave {source} out, or stop that project"
            )
    return owner


@contextmanager
def ask(
    owner: Owner, path: str, body: bytes | Iterator[bytes] | None = None, method: str = "POST"
) -> Iterator[http.client.HTTPResponse | urllib.error.HTTPError]:
    """Reply of an admin endpoint, with any status; RunError if the server does not reply."""
    token = owner.token or Environment.read().admin_token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(  # noqa: S310 (edgesim's own server)
        f"{owner.url}{PREFIX}{path}",
        body,
        headers,
        method=method,
    )
    try:
        answer = urllib.request.urlopen(request)  # noqa: S310
    except urllib.error.HTTPError as error:
        answer = error
    except OSError as error:
        raise RunError(f"the project that runs at {owner.url} does not reply: {error}") from error
    with answer:
        yield answer


def failing_sinks(project: Project) -> list[Finding]:
    """A warning for each sink of the running project that cannot write; none if it does not run."""
    owner = find_owner(project.state)
    if owner is None or owner.url is None:
        return []
    with ask(owner, "/health", method="GET") as answer:
        found = msgspec.json.decode(answer.read(), type=_Health).failing_sinks
    return [
        Finding(
            relative(project.file, project.root),
            1,
            "warning",
            "failing-sink",
            f"sink {name} of the project that runs at {owner.url} cannot write: {problem}",
            "Its records wait in the log; it tries again",
        )
        for name, problem in found.items()
    ]


def pieces(answer: http.client.HTTPResponse | urllib.error.HTTPError) -> Iterator[bytes]:
    """Yield the body of a reply; RunError if it is truncated, as when reading an object fails."""
    try:
        while piece := answer.read(PIECE_BYTES):
            yield piece
    except (http.client.HTTPException, OSError) as error:
        raise RunError("the running project aborted its response; see its log") from error


def server_events(
    answer: http.client.HTTPResponse | urllib.error.HTTPError,
) -> Iterator[tuple[str, str]]:
    """The name and data of each Server-Sent Event; two empty strings for a comment."""
    name = ""
    for line in answer:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, value
        elif line.startswith(b":"):
            yield "", ""


@asynccontextmanager
async def opened(project: Project) -> AsyncIterator[Simulator]:
    """Open the project's state and backends without running a Worker."""
    # Imported here: it takes half of the start time of a command that only queries a running
    # project.
    from edgesim.backends import open_backends
    from edgesim.simulator import Simulator

    clock = Clock()
    with own(project.state, project.state_name):
        async with (
            open_backends(project, Environment.read(), clock) as backends,
            anyio.create_task_group() as tasks,
            asyncio.TaskGroup() as invocations,
        ):
            simulator = Simulator(project, backends, clock, tasks, invocations)
            try:
                yield simulator
            finally:
                simulator.close()
