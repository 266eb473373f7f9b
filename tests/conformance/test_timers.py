"""Timers of worker code at every level, on both event loops: none is lost, none is early.

The platform's timers and its clock have different resolutions: uvloop's timers count whole
milliseconds, and the machine's clock may be set while a handler sleeps.
"""

import json
import random
import socket
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim import urls
from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.isolates.host.driver import DRIVERS, Host, Isolates
from edgesim.isolates.host.zygotes import Forks, open_forks
from edgesim.isolates.protocol.wire import (
    Call,
    Done,
    Frame,
    Invoke,
    Log,
    MessageReader,
    Reply,
    Respond,
    one,
)
from edgesim.model import BindingSpec, WorkerSpec
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)

pytestmark = pytest.mark.anyio

JAILED = ["process", "warm"]
LEVELS = [*JAILED, "inline"]
SEEDS = range(2)
AT_ONCE = 24
BINDING = BindingSpec("SVC", "service")

# Each leaf waits for a timer and reports how much too early it returned, by its loop's clock.
RANDOM = """
import asyncio, json, random, time
from workers import WorkerEntrypoint, Response

EARLY_MAX = 0.002  # at the inline level the loop is the platform's, which counts milliseconds

async def leaf(chance):
    loop = asyncio.get_running_loop()
    began, seconds = loop.time(), chance.uniform(0, 0.12)
    match chance.choice(["sleep", "timeout", "wait_for", "wait", "call_later", "call_at", "block"]):
        case "sleep":
            await asyncio.sleep(seconds)
        case "timeout":
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.sleep(chance.choice([seconds + 30, 60]))
                return ["no timeout"]
            except TimeoutError:
                pass
        case "wait_for":
            try:
                await asyncio.wait_for(asyncio.Event().wait(), seconds)
                return ["no timeout"]
            except TimeoutError:
                pass
        case "wait":
            task = asyncio.ensure_future(asyncio.sleep(30))
            await asyncio.wait([task], timeout=seconds)
            task.cancel()
        case "call_later":
            called = loop.create_future()
            loop.call_later(seconds, called.set_result, None)
            await called
        case "call_at":
            called = loop.create_future()
            loop.call_at(began + seconds, called.set_result, None)
            await called
        case "block":
            seconds /= 20
            time.sleep(seconds)
    early = began + seconds - loop.time()
    return [f"{early} s early"] if early > EARLY_MAX else []

async def node(chance, depth):
    if depth == 0:
        return await leaf(chance)
    many = [node(random.Random(chance.random()), depth - 1) for _ in range(chance.randint(1, 4))]
    if chance.random() < 0.5:
        return sum(await asyncio.gather(*many), [])
    return sum([await each for each in many], [])

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        faults = await node(random.Random(int(await request.text())), 3)
        return Response(json.dumps(faults))
"""


class Jumping(Clock):
    """The machine's clock plus ``set_by`` seconds."""

    set_by = 0.0

    def now(self) -> float:
        return super().now() + self.set_by


class Slow(Clock):
    """A slow clock: by it, every timer of the event loop fires early."""

    def __init__(self) -> None:
        super().__init__()
        self.began = super().steady()

    def steady(self) -> float:
        return self.began + (super().steady() - self.began) * 0.9


class Answers(Host):
    """The handler's responses; a call to its binding runs ``on_call``."""

    depth = 0

    def __init__(self, on_call: Any = None) -> None:
        self.bodies: list[Any] = []
        self._on_call = on_call

    async def call(self, call: Call) -> Any:
        if self._on_call is None:
            raise PlatformError("nothing to call")
        self._on_call()
        return {
            "status": 200,
            "headers": [],
            "body": b"",
            "statusText": "",
            "url": "",
            "redirected": False,
        }

    def log(self, log: Log) -> None:
        pass

    def respond(self, response: Respond) -> None:
        self.bodies.append(json.loads(response.body))

    def spent(self, cpu_ms: float) -> None:
        pass


@asynccontextmanager
async def opened(
    level: str, folder: Path, source: str, clock: Clock | None = None
) -> AsyncIterator[Isolates]:
    spec = written(folder, source)
    async with urls.opener("isolation", level, DRIVERS)(spec, clock or Clock()) as isolates:
        yield isolates


def written(folder: Path, source: str) -> WorkerSpec:
    main = folder / "entry.py"
    main.write_text(textwrap.dedent(source))
    return WorkerSpec("w", str(main), [BINDING])


def request(body: str = "") -> Invoke:
    event = {"method": "POST", "url": "http://x/", "headers": [], "body": body.encode(), "cf": {}}
    return Invoke("fetch", event, 0.0)


async def answer(isolates: Isolates, invoke: Invoke, host: Answers) -> Any:
    done = await isolates.invoke(invoke, host)
    assert done.outcome == "ok", done
    return host.bodies[0]


@pytest.mark.parametrize("level", LEVELS)
async def test_every_timer_comes_and_none_is_early(level, tmp_path):
    """Concurrent invocations with random sleeps, timeouts, calls and gathers all return."""
    faults: list[Any] = []

    async def run(seed: int) -> None:
        faults.append(await answer(isolates, request(str(seed)), Answers()))

    async with opened(level, tmp_path, RANDOM) as isolates:
        for seed in SEEDS:
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    for number in range(AT_ONCE):
                        tasks.start_soon(run, 1000 * seed + number)
    assert faults == [[]] * (len(SEEDS) * AT_ONCE)


@pytest.mark.parametrize("level", JAILED)
async def test_a_timer_that_fires_early_is_set_again(level, tmp_path):
    """If the loop's timer fires before the clock's time, the isolate is woken at its time."""
    source = """
        import asyncio, time
        from workers import WorkerEntrypoint, Response
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                loop = asyncio.get_running_loop()
                began, began_unix = loop.time(), time.monotonic()
                await asyncio.sleep(0.04)
                time.sleep(0.03)
                late = [loop.time() - began, time.monotonic() - began_unix]
                return Response(str([each >= 0.0699 for each in late]).lower())
        """
    async with opened(level, tmp_path, source, Slow()) as isolates:
        with anyio.fail_after(60):
            assert await answer(isolates, request(), Answers()) == [True, True]


@pytest.mark.parametrize("hours", [1, -1, 24 * 400])
@pytest.mark.parametrize("level", JAILED)
async def test_the_clock_is_set_while_a_handler_sleeps(level, hours, tmp_path):
    """Sleeps and timeouts keep their length when the machine's clock is set; time.time() shows it.

    A clock that was set back shows no change, as the platform's never steps back.
    """
    source = """
        import asyncio, json, time
        from workers import WorkerEntrypoint, Response
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                loop = asyncio.get_running_loop()
                began, unix = loop.time(), time.time()
                sleeping = asyncio.ensure_future(asyncio.sleep(0.2))
                far = asyncio.ensure_future(asyncio.wait_for(asyncio.Event().wait(), 600))
                await asyncio.sleep(0.02)
                await self.env.SVC.fetch("http://x/")
                await asyncio.sleep(0.02)
                early = far.done() or (sleeping.done() and loop.time() - began < 0.1999)
                await sleeping
                jumped = round((time.time() - unix) / 3600)
                return Response(json.dumps([early, loop.time() - began >= 0.1999, jumped]))
        """
    clock = Jumping()

    def jump() -> None:
        clock.set_by = hours * 3600.0

    async with opened(level, tmp_path, source, clock) as isolates:
        with anyio.fail_after(60):
            seen = await answer(isolates, request(), Answers(jump))
    assert seen == [False, True, max(hours, 0)]


async def test_an_answer_means_that_the_time_has_come(tmp_path):
    """An isolate continues when its timer's reply arrives, whatever time the reply contains."""
    source = """
        import asyncio, time
        from workers import WorkerEntrypoint, Response
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                if await request.text() == "blocking":
                    time.sleep(2)
                else:
                    await asyncio.sleep(2)
                await asyncio.sleep(0.5)
                return Response("woken")
        """
    async with open_forks(written(tmp_path, source)) as forks:
        for handler in ("awaiting", "blocking"):
            for early in (0.0, 0.0003, 0.0009, 5.0):
                assert answered(forks, handler, early) == (2, "ok"), (handler, early)


def answered(forks: Forks, body: str, early: float) -> tuple[int, str]:
    """Reply to each timer of one invocation at once; return their number and the outcome."""
    timers = 0
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            forks.one(theirs)
        ours.settimeout(60)
        ours.sendall(one(request(body), 1))
        for frame in frames_of(ours):
            if isinstance(frame, Call):
                timers += 1
                when = frame.args[0]
                ours.sendall(one(Reply(frame.id, when - early, steady=when - early)))
            if isinstance(frame, Done):
                return timers, frame.outcome
    raise AssertionError("the isolate ended without a Done")


@pytest.mark.parametrize("level", LEVELS)
async def test_a_sleep_without_end_harms_nobody(level, tmp_path):
    """A task that sleeps for ever does not block the handler beside it."""
    source = """
        import asyncio
        from workers import WorkerEntrypoint, Response
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                sleeping = asyncio.ensure_future(asyncio.sleep(float(await request.text())))
                await asyncio.sleep(0.01)
                sleeping.cancel()
                return Response(str(sleeping.done()).lower())
        """
    async with opened(level, tmp_path, source) as isolates:
        for seconds in ("inf", "1e300", "1e10"):
            with anyio.fail_after(60):
                assert await answer(isolates, request(seconds), Answers()) is False, seconds


@pytest.mark.parametrize("level", JAILED)
async def test_what_is_no_length_of_time_is_refused(level, tmp_path):
    """NaN and a negative time.sleep raise ValueError in the handler, as in Python; none hangs."""
    source = """
        import asyncio, time
        from workers import WorkerEntrypoint, Response
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                match await request.text():
                    case "await nan":
                        await asyncio.sleep(float("nan"))
                    case "nan":
                        time.sleep(float("nan"))
                    case "negative":
                        time.sleep(-1)
        """
    async with opened(level, tmp_path, source) as isolates:
        for call in ("await nan", "nan", "negative"):
            with anyio.fail_after(60):
                done = await isolates.invoke(request(call), Answers())
            assert done.outcome == "exception", call
            assert "ValueError" in done.exceptions[0].message, call


@pytest.mark.parametrize("level", LEVELS)
async def test_requests_in_a_row_that_sleep(level, tmp_path):
    """Consecutive requests sleep for a fraction of milliseconds each."""
    source = """
        import asyncio
        from workers import WorkerEntrypoint, Response
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                await asyncio.sleep(float(await request.text()))
                return Response("1")
        """
    chance = random.Random(7)
    async with opened(level, tmp_path, source) as isolates:
        for _ in range(25):
            with anyio.fail_after(60):
                await answer(isolates, request(str(chance.uniform(0.001, 0.03))), Answers())


def frames_of(sock: socket.socket) -> Iterator[Frame]:
    """Yield an isolate's frames until it closes the connection."""
    reader = MessageReader()
    while data := sock.recv(1 << 16):
        for message in reader.feed(data):
            for _, frame in message.frames:
                yield frame
