"""Zygotes and isolates are killed: every request ends, and the next ones are served.

Runs a whole project on each level that has processes, with real SIGKILLs.
"""

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from edgesim.isolates.host.zygotes import _is_alive
from edgesim.simulator import Simulator
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)
from tests.simulated import ask, simulated, write_worker

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 40
SERVER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.rpartition("/")[2]
        if path == "called":
            await self.env.QUEUE.send("called")
            await asyncio.sleep(0.2)
        if path == "slow":
            await asyncio.sleep(0.2)
        return Response("served")
"""
CONSUMER = """
import os

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.IN.sendBatch([{"body": n} for n in range(int(await request.text()))])
        return Response("sent")

    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            match message.body:
                case 13:
                    os._exit(3)
                case 14:
                    os.closerange(0, 64)
                case 15:
                    raise SystemExit(1)
                case 16:
                    [].extend(bytes(1 << 20) for _ in range(1 << 20))
            await self.env.OUT.send([message.body, message.attempts])
        await asyncio.sleep(0.05)
"""
QUEUES = """
[queues.in]
[queues.out]
[queues.dead]
"""


@pytest.fixture(params=["process", "warm"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Simulator]:
    producers = {"producers": [{"binding": "QUEUE", "queue": "called"}]}
    write_worker(tmp_path, "w", SERVER, queues=producers)
    async with simulated(tmp_path, "w", isolation=request.param) as simulator:
        yield simulator


def processes(of: Callable[[int], bool]) -> list[int]:
    return [int(each.name) for each in Path("/proc").glob("[0-9]*") if of(int(each.name))]


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def zygotes() -> list[int]:
    """Return the PIDs of the zygotes of this process, booting or ready."""

    def is_zygote(pid: int) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return parent(pid) == os.getpid() and b"edgesim.isolates.guest.zygote" in command

    return processes(is_zygote)


def isolates() -> list[int]:
    """Return the PIDs of the zygotes' forks, without the first process of a PID namespace."""
    ours = set(zygotes())
    return processes(lambda pid: parent(pid) in ours and not is_first_of_namespace(pid))


def is_first_of_namespace(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    ids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return len(ids) > 1 and ids[-1] == "1"


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def until(found: Callable[[], Any]) -> Any:
    """Poll ``found`` until its value is true, and return it; TimeoutError in bounded time."""
    with anyio.fail_after(BOUND_SECONDS):
        while not (value := found()):  # noqa: ASYNC110 (/proc has no change events)
            await anyio.sleep(0.002)
    return value


async def served(simulator: Simulator, path: str = "", times: int = 1) -> list[int]:
    """Return the statuses of ``times`` concurrent requests; each must end in bounded time."""
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await ask(simulator, f"http://x/{path}"))[0])

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(times):
                tasks.start_soon(one)
    return statuses


async def test_an_idle_zygote_is_killed(server):
    """Requests before and after the exit is detected are all served by the next zygote."""
    assert await served(server) == [200]
    for rest in (0, 0.02):
        kill(zygotes())
        await anyio.sleep(rest)
        assert await served(server, times=8) == [200] * 8


async def test_a_zygote_is_killed_under_load(server):
    """Requests that made no call are served; the others are served or fail with status 500."""
    for path, right in (("slow", {200}), ("called", {200, 500})):
        statuses: list[int] = []
        async with anyio.create_task_group() as tasks:

            async def client(path: str = path, statuses: list[int] = statuses) -> None:
                for _ in range(4):
                    statuses.extend(await served(server, path))

            for _ in range(8):
                tasks.start_soon(client)
            for _ in range(3):
                await anyio.sleep(0.1)
                kill(zygotes())
        assert len(statuses) == 32
        assert set(statuses) <= right
    assert await served(server, times=8) == [200] * 8


async def test_isolates_are_killed(server):
    """Invocations of killed isolates restart elsewhere or fail; the zygote keeps running."""
    assert await served(server) == [200]
    before = zygotes()
    statuses: list[int] = []
    async with anyio.create_task_group() as tasks:

        async def client(path: str) -> None:
            for _ in range(5):
                statuses.extend(await served(server, path))

        for path in ("slow", "called", "") * 3:
            tasks.start_soon(client, path)
        for _ in range(5):
            await anyio.sleep(0.05)
            kill(isolates())
    assert len(statuses) == 45
    assert set(statuses) <= {200, 500}
    assert await served(server, times=8) == [200] * 8
    assert zygotes() == before


async def test_a_zygote_is_killed_while_it_boots(server):
    """The boot is retried with the next zygote; requests made meanwhile are served."""
    statuses: list[int] = []
    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            last = zygotes()
            kill(last)

            async def client() -> None:
                statuses.extend(await served(server, times=4))

            tasks.start_soon(client)
            for _ in range(2):
                new = await until(lambda: list(set(zygotes()) - set(last)))  # noqa: B023 (called at once)
                kill(new)
                last += new
    assert statuses == [200] * 4
    events = [entry["event"] for entry in logs]
    assert events.count("worker not restarted") <= 1
    assert events.count("worker restarted") >= 1


@contextmanager
def no_descriptors() -> Any:
    """Use up all file descriptors of this process."""
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        yield
    finally:
        for each in taken:
            os.close(each)


@pytest.fixture(params=["process", "warm"])
async def consumer(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Simulator]:
    queues = {
        "producers": [{"binding": "IN", "queue": "in"}, {"binding": "OUT", "queue": "out"}],
        "consumers": [
            {
                "queue": "in",
                "max_batch_size": 1,
                "max_batch_timeout": 0,
                "max_retries": 1,
                "dead_letter_queue": "dead",
            }
        ],
    }
    write_worker(tmp_path, "w", CONSUMER, queues=queues)
    async with simulated(tmp_path, "w", account=QUEUES, isolation=request.param) as simulator:
        yield simulator


async def empty(simulator: Simulator) -> None:
    with anyio.fail_after(BOUND_SECONDS):
        while True:
            changed = simulator.primitives.queue("in").changed
            if not (await simulator.primitives.queue("in").depth()).messages:
                return
            await changed.wait()


async def bodies(simulator: Simulator, queue: str) -> list[Any]:
    return [
        json.loads(message.body) for message in await simulator.primitives.queue(queue).peek(1000)
    ]


async def test_zygote_deaths_are_no_attempts(consumer):
    """Every message is delivered and none dead-lettered, however often the zygote is killed."""
    assert (await ask(consumer, method="POST", body=b"12"))[0] == 200
    for _ in range(8):
        kill(zygotes())
        await anyio.sleep(0.04)
    await empty(consumer)
    seen = await bodies(consumer, "out")
    assert {body for body, _ in seen} == set(range(12))
    assert await bodies(consumer, "dead") == []


async def test_lack_of_descriptors_is_no_attempt(consumer):
    """Messages wait while the platform cannot fork, which is logged; then they are delivered."""
    assert (await ask(consumer, method="POST", body=b"1"))[0] == 200
    await empty(consumer)
    forks = isolates()
    with capture_logs() as logs:
        with no_descriptors():
            kill(forks)
            for _ in range(12):
                await consumer.primitives.queue("in").send(b"7")
            await until(lambda: consumer.primitives.consumers[0].retried >= 3)
        await empty(consumer)
    assert (await bodies(consumer, "out"))[1:] == [[7, 1]] * 12
    assert await bodies(consumer, "dead") == []
    assert "queue batch not delivered" in [entry["event"] for entry in logs]


@pytest.mark.linux
def test_without_descriptors_a_dead_process_is_still_known_as_dead():
    """A process that exited by itself is found dead even without a free file descriptor."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        with no_descriptors():
            assert _is_alive(process.pid, process.pid)
            assert not _is_alive(process.pid, os.getpid())
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
            assert not _is_alive(process.pid, process.pid)
        process.wait()
        assert not _is_alive(process.pid, process.pid)


async def test_a_worker_that_ends_its_own_process_has_its_attempts_counted(consumer):
    """A message whose handler exits is dead-lettered after max_retries; others are delivered."""
    for poison in (13, 14, 15, 16):
        for body in (poison + 100, poison, poison + 200):
            await consumer.primitives.queue("in").send(str(body).encode())
        await empty(consumer)
        assert (await bodies(consumer, "dead"))[-1] == poison
    assert sorted(await bodies(consumer, "dead")) == [13, 14, 15, 16]
    seen = {body for body, _ in await bodies(consumer, "out")}
    assert seen == {poison + more for poison in (13, 14, 15, 16) for more in (100, 200)}
