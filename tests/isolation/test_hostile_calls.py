"""Calls that no SDK makes: each gets a reply, and the platform keeps running.

Drawn at random: any value of the wire as any argument or option of any method of every binding.
"""

import json
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import Overrides
from edgesim.errors import PlatformError
from edgesim.isolates.host.driver import answer
from edgesim.isolates.protocol.wire import Call, StreamRef, copied
from edgesim.model import HttpRequest, HttpResponse
from edgesim.runtime.lineage import Lineage
from edgesim.simulator import Simulator, open_simulator

SECONDS_MAX = 0.2
"""Time limit of a call in seconds; a longer one waits for time to pass, and is cancelled."""
WORKER = """
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(await request.bytes(), headers=dict(request.headers))
    async def echo(self, *values):
        return values[0] if values else None
    async def queue(self, batch, env=None, ctx=None):
        batch.ackAll()
"""
WRANGLER = {
    "name": "w",
    "main": "w.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
    "r2_buckets": [{"binding": "R2", "bucket_name": "bucket"}],
    "queues": {"producers": [{"binding": "QUEUE", "queue": "q"}]},
    "pipelines": [{"binding": "PIPELINE", "pipeline": "p"}],
    "services": [{"binding": "SELF", "service": "w"}],
}
METHODS = {
    "": ["fetch", "read", "sleepUntil"],
    "QUEUE": ["send", "sendBatch", "metrics"],
    "PIPELINE": ["send"],
    "SELF": ["fetch", "echo", "queue", "_private"],
    "R2": [
        *("head", "get", "put", "delete", "list", "createMultipartUpload"),
        *("uploadPart", "completeMultipartUpload", "abortMultipartUpload"),
    ],
    "NOBODY": ["anything"],
}
OPTIONS = [
    *("contentType", "delaySeconds", "body", "range", "onlyIf", "httpMetadata", "customMetadata"),
    *("md5", "sha256", "storageClass", "ssecKey", "prefix", "limit", "cursor", "delimiter"),
    *("startAfter", "include"),
]
FIELDS = [
    *("method", "url", "headers", "body", "delaySeconds", "contentType", "offset", "length"),
    *("suffix", "etagMatches", "uploadedBefore", "cacheExpiry", "partNumber", "etag", "key"),
]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        *("k", "json", "v8", "text", "GET", "\r\nA: b"),
        *("http://w.localhost/", "http://[", "http://x:99999/"),
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.integers(-2, 5)
    | st.floats()
    | texts
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(StreamRef, st.integers(-1, 9), st.none() | st.integers(0, 9))
)
keys = st.sampled_from(FIELDS) | texts | st.integers(-2, 2) | st.none() | st.binary(max_size=3)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
requests = st.fixed_dictionaries(
    {
        "method": values | st.just("POST"),
        "url": values | st.just("http://w.localhost/"),
        "headers": values | st.lists(st.lists(texts, min_size=2, max_size=2), max_size=2),
        "body": values,
    }
)
options = st.dictionaries(st.sampled_from(OPTIONS) | texts, values, max_size=4)
calls = st.sampled_from(sorted(METHODS)).flatmap(
    lambda binding: st.builds(
        Call,
        st.integers(0, 9),
        st.just(binding),
        st.sampled_from(METHODS[binding]) | texts,
        st.lists(values | requests, max_size=4),
        options,
    )
)


class Platform:
    """A project with one Worker that has a binding of each kind."""

    def __init__(self, portal: BlockingPortal, simulator: Simulator, clock: Clock) -> None:
        self.clock = clock
        self.call = portal.call
        self.simulator = simulator

    async def answer(self, call: Call) -> None:
        """Answer the call as it is decoded from the wire; the reply must be encodable too."""
        asked = copied(call)
        assert isinstance(asked, Call)
        worker = self.simulator.workers["w"]
        invocation = worker._invocation({"rpcMethod": "x"})
        try:
            with anyio.move_on_after(SECONDS_MAX):
                copied(await answer(asked, invocation, self.clock))
        finally:
            await invocation.close()
            worker.in_flight -= 1  # or shutdown waits for it

    async def is_well(self) -> None:
        response = await self.simulator.fetch(HttpRequest("POST", "http://w.localhost/", [], b"hi"))
        assert (response.status, response.body) == (200, b"hi")


async def _nowhere(request: HttpRequest, lineage: Lineage) -> HttpResponse:
    raise PlatformError("Network connection lost.", "AbortError")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "w").mkdir()
    (folder / "w" / "w.py").write_text(WORKER)
    (folder / "w" / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (folder / "edgesim.toml").write_text('workers = ["w"]\n[pipelines.p]\nbucket = "bucket"\n')
    overrides = Overrides(state=folder / "state", r2="memory:", queues="memory:", isolation={})
    project = load_project(folder, overrides)
    clock = Clock()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Simulator]:
        async with (
            open_backends(project, Environment(), clock) as backends,
            open_simulator(project, backends, clock, network=_nowhere) as simulator,
        ):
            yield simulator

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(opened()) as simulator,
    ):
        yield Platform(portal, simulator, clock)


def request(**changed: Any) -> dict[str, Any]:
    return {"method": "POST", "url": "http://w.localhost/", "headers": [], "body": b""} | changed


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(call=calls)
@example(call=Call(1, "", "read", []))
@example(call=Call(1, "", "read", [math.nan]))
@example(call=Call(1, "", "sleepUntil", ["soon"]))
@example(call=Call(1, "", "sleepUntil", [math.inf]))
@example(call=Call(1, "", "fetch", [request(url="http://[")]))
@example(call=Call(1, "", "fetch", [request(headers=[["a\r\nb", "c"]])]))
@example(call=Call(1, "SELF", "fetch", [request(headers=[["a", "b\r\nc: d"]])]))
@example(call=Call(1, "SELF", "fetch", [request(body=StreamRef(7))]))
@example(call=Call(1, "SELF", "echo", [{None: 1, b"x": [datetime(1, 1, 1, tzinfo=UTC)]}]))
@example(call=Call(1, "QUEUE", "sendBatch", [7]))
@example(call=Call(1, "QUEUE", "sendBatch", [[{"body": 1, "delaySeconds": math.nan}]]))
@example(call=Call(1, "PIPELINE", "send", [[{"a": math.nan, "b": StreamRef(1)}]]))
@example(call=Call(1, "PIPELINE", "send", [[{None: 1}]]))
@example(call=Call(1, "R2", "put", ["k"]))
@example(call=Call(1, "R2", "put", ["k", b"", 1], {"customMetadata": {1: 2, None: 3}}))
@example(call=Call(1, "R2", "list", [], {"limit": 1e300}))
@example(call=Call(1, "R2", "get", ["k"], {"range": {"offset": 1e300}}))
def test_any_call_is_answered(platform, call):
    """Every call gets a reply or a PlatformError; no internal error is logged."""
    with capture_logs() as logs:
        platform.call(platform.answer, call)
    faults = [entry for entry in logs if entry["event"] == "internal error"]
    assert faults == []


def test_the_platform_is_well(platform):
    """The platform still serves requests after the hostile calls."""
    platform.call(platform.is_well)
