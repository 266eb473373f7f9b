"""Throughput of each backend beside its siblings, as ratios in one run; `make bench`.

Rounds are interleaved, so that other load on the machine affects all alike: read the ratios. R2 is
measured by Bucket, queues by Queue and a driver's leases; ClickHouse is the run of
tests/bench/clickhouse.py, whose reference is the server's own HTTP interface.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parents[2]))
from edgesim import drivers
from edgesim.clock import Clock
from edgesim.model import read_all
from edgesim.queues.producer import MessageSendRequest, Queue
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.notifications import Notifications
from tests.bench import clickhouse
from tests.servers_nats import nats_server
from tests.servers_s3 import seaweedfs_process

SMALL = os.urandom(1024)
LARGE = os.urandom(1 << 20)
MESSAGE = os.urandom(200)
BATCH = 100
Jobs = dict[str, Callable[[], Awaitable[int]]]
"""Job name -> function that runs the job once and returns the number of operations."""


def r2_jobs(bucket, rounds_of):
    """put + get of 1 MiB, and of 1 KiB, one after the other."""

    async def there_and_back(body, times):
        for number in range(times):
            await bucket.put(f"bench/{number}", body)
            found = await bucket.get(f"bench/{number}")
            assert isinstance(found, R2ObjectBody)
            assert len(await read_all(found.body)) == len(body)
        return times

    return {
        "put + get 1 MiB": lambda: there_and_back(LARGE, rounds_of // 5),
        "put + get 1 KiB": lambda: there_and_back(SMALL, rounds_of),
    }


def queue_jobs(queue, driver, clock, rounds_of):
    """Send in batches of 100; lease and acknowledge in batches of 100; send one at a time."""
    batch = [MessageSendRequest(MESSAGE, "bytes")] * BATCH

    async def send():
        for _ in range(rounds_of):
            await queue.send_batch(batch)
        return rounds_of * BATCH

    async def pull():
        taken = 0
        while leased := await driver.lease(queue.name, BATCH, clock.now(), clock.now() + 60):
            await driver.ack(queue.name, [message.lease_id for message in leased])
            taken += len(leased)
        return taken

    async def send_one():
        for _ in range(rounds_of):
            await queue.send(MESSAGE, "bytes")
        return rounds_of

    return {"send x100": send, "lease + ack x100": pull, "send one": send_one}


async def opened(stack, primitive, url, *arguments):
    """Open the driver that the URL names."""
    return await stack.enter_async_context(drivers.opener(primitive, url)(url, *arguments))


async def measure(ways, rounds):
    """Return {(job, way): [operations per second, ...]}."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for way, jobs in ways.items():
            for job, do in jobs.items():
                started = time.perf_counter()
                done = await do()
                if number:  # the first round is a warm-up
                    rate = done / (time.perf_counter() - started)
                    found.setdefault((job, way), []).append(rate)
    return found


def show(found, reference):
    """Print operations per second and the ratio to the reference."""
    for job in dict.fromkeys(job for job, _ in found):
        for way in dict.fromkeys(way for _, way in found):
            values = found[job, way]
            median = statistics.median(values)
            ratio = median / statistics.median(found[job, reference])
            spread = f"({min(values):,.0f}-{max(values):,.0f})"
            print(f"{job:18} {way:16} {median:10,.0f} a second {spread:22} {ratio:6.2f}")


async def run_r2(arguments, s3, folder):
    """Measure R2; the reference is `file`, a project's default."""
    clock = Clock()
    stores = {
        "file": (f"file:{folder}/r2", clock, folder),
        "memory": ("memory:", clock, folder),
        "s3": (
            f"s3://{s3.address}?secure=false&region=us-east-1",
            *(clock, folder, s3.access_key, s3.secret_key),
        ),
    }
    async with AsyncExitStack() as stack:
        ways = {}
        for way, given in stores.items():
            driver = await opened(stack, "r2", *given)
            bucket = Bucket("bench", driver, clock, Notifications({}, clock, "bench"))
            ways[way] = r2_jobs(bucket, arguments.times)
        print("R2: reference file")
        show(await measure(ways, arguments.rounds), "file")


async def run_queues(arguments, nats, folder):
    """Measure queues; the reference is `sqlite`, a project's default."""
    clock = Clock()
    urls = {
        "sqlite": f"sqlite:{folder}/queues.db",
        "memory": "memory:",
        "nats": f"nats://{nats.address}/bench",
    }
    async with AsyncExitStack() as stack:
        ways = {}
        for way, url in urls.items():
            driver = await opened(stack, "queues", url, clock)
            ways[way] = queue_jobs(Queue("bench", driver, clock), driver, clock, arguments.times)
        print("Queues: reference sqlite")
        show(await measure(ways, arguments.rounds), "sqlite")


def main():
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=50, help="of each job in a round")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgesim-bench-") as name:
        folder = Path(name)
        with seaweedfs_process(folder) as s3:
            anyio.run(run_r2, arguments, s3.server, folder)
        with nats_server(folder) as nats:
            anyio.run(run_queues, arguments, nats, folder)
    print("ClickHouse: reference the server's own HTTP interface, no edgesim between")
    anyio.run(clickhouse.run, arguments)


if __name__ == "__main__":
    main()
