"""The event loop of a replay: virtual time, order of tasks and refused operations."""

import asyncio
import io
import threading
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from edgesim import foreign
from edgesim.errors import RunError
from edgesim.replay.virtual_clock import VirtualClock
from edgesim.replay.virtual_loop import StuckError, run_virtual

START = 1_893_456_000.0


def run(body, seed=0, journal=None):
    """Return the result of ``body(loop)`` on a new virtual loop."""
    return run_virtual(body, seed, START, journal)


def test_time_jumps_to_the_next_timer():
    """A sleep of a day advances the clock by exactly a day and takes no real time."""

    async def body(loop):
        clock = VirtualClock(loop, 0)
        await anyio.sleep(86_400)
        return clock.now()

    assert run(body) == START + 86_400


def test_timers_fire_in_order_of_their_times():
    """Timers fire in the order of their times, for any order of creation."""
    fired = []

    async def body(loop):
        async def wait(seconds):
            await anyio.sleep(seconds)
            fired.append((seconds, loop.time() - START))

        async with anyio.create_task_group() as tasks:
            for seconds in (90, 0.25, 3600, 1, 90):
                tasks.start_soon(wait, seconds)

    run(body)
    assert fired == [(0.25, 0.25), (1, 1), (90, 90), (90, 90), (3600, 3600)]


async def _scramble(loop, order):
    """Start tasks that are all ready at the same time, and cancel them together."""

    async def work(number):
        try:
            await anyio.lowlevel.checkpoint()
            order.append(number)
            await anyio.sleep(1000 + number)
        finally:
            order.append(-number)

    with anyio.move_on_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(1, 30):
                tasks.start_soon(work, number)


def test_the_order_is_the_seeds():
    """The order of tasks and cancellations depends only on the seed."""
    orders: list[list[int]] = []
    for seed in (1, 1, 2):
        orders.append([])
        ballast = [bytearray(index * 37 % 900) for index in range(len(orders) * 500)]
        run(partial(_scramble, order=orders[-1]), seed)
        del ballast
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_the_journal_names_every_turn():
    """The journal has the time of each turn, and each task with the line where it waits."""
    journal = io.StringIO()
    run(partial(_scramble, order=[]), 1, journal)
    lines = journal.getvalue().splitlines()
    assert lines[0].startswith("1893456000.000000 0 callbacks, tasks: 1")
    assert any(line.startswith("1893456030.000000") for line in lines)
    assert any("test_virtual_loop.py:" in line for line in lines)


def test_what_can_never_go_on_is_an_error():
    """A deadlock is an error at once, with the lines where all tasks wait."""

    async def body(loop):
        await anyio.Event().wait()

    with pytest.raises(StuckError, match="nothing can run") as error:
        run(body)
    assert any("test_virtual_loop.py" in note for note in error.value.__notes__)


def test_threads_are_refused():
    """Using a thread and calling from a thread are errors."""

    async def use(loop):
        await loop.run_in_executor(None, lambda: None)

    async def call_in(loop):
        failures = []

        def call():
            try:
                loop.call_soon_threadsafe(lambda: None)
            except RunError as error:
                failures.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        raise failures[0]

    for body in (use, call_in):
        with pytest.raises(RunError, match="virtual time"):
            run(body)


def test_the_network_is_out_of_reach():
    """Opening a network connection is an error."""

    async def body(loop):
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises((RunError, NotImplementedError)):
        run(body)


def test_a_foreign_process_takes_no_virtual_time():
    """Waiting for a child process takes no virtual time; the end of its stream is seen."""
    import socket
    import sys

    code = "import os,time; time.sleep(0.05); os.write({fd}, b'done')"

    async def body(loop):
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", code.format(fd=theirs.fileno())]
            process = await foreign.start(command, pass_fds=[theirs.fileno()], env={})
        stream = await foreign.stream(ours)
        said = await stream.receive()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()
        status = await process.wait()
        await process.aclose()
        return said, status, loop.time()

    assert run(body) == (b"done", 0, START)
