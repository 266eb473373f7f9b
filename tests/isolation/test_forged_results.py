"""Invalid handler results that an isolate reports are refused."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.errors import PlatformError
from edgesim.isolates.host.process import ProcessIsolates
from edgesim.model import Message, Retry
from edgesim.queues.producer import Metrics
from edgesim.runtime.delivery import deliver
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.worker import Worker
from edgesim.simulator import open_simulator

pytestmark = pytest.mark.anyio

# The first message's body is (route, result): the route is "sdk" or "raw", past the SDK; the
# result is a Python expression.
SOURCE = """
import os, stat
from workers import Response, WorkerEntrypoint
from workers._runtime import invocation

def wire():
    real = invocation().log.__func__.__globals__["asyncio"].events.sys.modules
    return vars(real["edgesim.isolates.protocol.wire"])

def say(frame):
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                break
        except OSError:
            pass
    number = invocation()._channel._invocation
    os.write(fd, wire()["encode"](wire()["FrameBatch"]([(number, eval(frame, wire()))])))

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
    async def queue(self, batch, env=None, ctx=None):
        how, result = batch.messages[0].body
        if how == "sdk":
            batch._decisions = eval(result)
        elif how == "raw":
            say(f"Done(result={result})")
    async def forged(self, frame):
        say(frame)
    async def add(self, a, b):
        return a + b
"""
IDS = ["m0", "m1"]
NONSENSE = [
    *("7", "0", "False", "''", "'x'", "b'x'", "[1]", "[]"),
    *("{'messages': 7}", "{'messages': [1]}", "{'messages': {'m0': 7}}"),
    *("{'messages': {'m0': ['ack']}}", "{'messages': {'m0': ['ack', 'soon']}}"),
    *("{'messages': {'m0': ['evil', None]}}", "{'messages': {'m0': ['ack', None, 1]}}"),
    *("{'messages': {7: ['ack', None]}}", "{'messages': {'m0': ['retry', -1]}}"),
    *("{'messages': {'m1': ['retry', 1e9]}}", "{'messages': {'m1': ['retry', float('nan')]}}"),
    *("{'all': 'evil'}", "{'all': ['ack']}", "{'all': 'retry', 'delaySeconds': 'soon'}"),
    "{'messages': {'m1': ['ack', None]}, 'all': 7}",
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Module-scoped, like the Worker."""
    return "asyncio"


@pytest.fixture(scope="module", params=["process", "warm", "inline"])
async def worker(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Worker]:
    folder: Path = tmp_path_factory.mktemp("forged")
    (folder / "w").mkdir()
    (folder / "w" / "w.py").write_text(SOURCE)
    wrangler = {"name": "w", "main": "w.py", "compatibility_date": "2026-10-01"}
    (folder / "w" / "wrangler.jsonc").write_text(json.dumps(wrangler))
    (folder / "edgesim.toml").write_text('workers = ["w"]\n')
    overrides = Overrides(
        state=folder / "state",
        r2="memory:",
        queues="memory:",
        isolation={DEFAULT: request.param},
    )
    project = load_project(folder, overrides)
    clock = Clock()
    async with (
        open_backends(project, Environment(), clock) as backends,
        open_simulator(project, backends, clock) as simulator,
    ):
        yield simulator.workers["w"]


def has_a_channel(worker: Worker) -> bool:
    """True if worker code can write to the channel: not at warm, where it lacks the key."""
    return isinstance(worker._isolates, ProcessIsolates)


async def cheat(worker: Worker, how: str, result: str) -> Any:
    messages = [Message(each, json.dumps([how, result]).encode(), "json", 0, 1) for each in IDS]
    with capture_logs() as logs:
        settled = await deliver(worker, "q", messages, Metrics(2, 2))
    assert [entry for entry in logs if entry["event"] == "internal error"] == []
    return settled


@pytest.mark.parametrize("how", ["sdk", "raw"])
@pytest.mark.parametrize("result", NONSENSE)
async def test_decisions_that_make_no_sense(worker, how, result):
    """All messages are retried with outcome internalError; the next batch is acked."""
    if how == "raw" and not has_a_channel(worker):
        pytest.skip("no channel that worker code can write to")
    before = worker.outcomes["internalError"]
    settled = await cheat(worker, how, result)
    assert settled.acks == []
    assert settled.retries == [Retry(each) for each in IDS]
    assert settled.failed
    assert worker.outcomes["internalError"] == before + 1
    assert (await cheat(worker, "not", "")).acks == IDS


@pytest.mark.parametrize("how", ["sdk", "raw"])
async def test_only_messages_of_the_batch_are_acked(worker, how):
    """Decisions about messages of other batches are ignored."""
    if how == "raw" and not has_a_channel(worker):
        pytest.skip("no channel that worker code can write to")
    result = "{'messages': {'other': ['ack', None], 'm0': ['retry', 5]}, 'all': None}"
    settled = await cheat(worker, how, result)
    assert settled.acks == ["m1"]
    assert settled.retries == [Retry("m0", 5)]
    assert not settled.failed


@pytest.mark.parametrize(
    "frame",
    [
        "Done('exception')",
        "Done('exception', [Failure('', '')])",
        "Done('exception', [Failure('', chr(10))])",
        "Done('exceededCpu', [], 7)",
    ],
)
async def test_a_call_of_a_method_that_ends_without_reason(worker, frame):
    """The caller gets a PlatformError even if the callee reports no reason."""
    if not has_a_channel(worker):
        pytest.skip("no channel that worker code can write to")
    with pytest.raises(PlatformError):
        await worker.rpc("forged", [frame], Lineage())
    assert await worker.rpc("add", [1, 2], Lineage()) == 3
