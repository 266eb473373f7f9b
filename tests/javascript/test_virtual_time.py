"""JavaScript Workers in virtual time: the platform's clock, timers and randomness; replays."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from edgesim.replay.virtual_clock import VirtualClock
from edgesim.replay.virtual_loop import run_virtual
from tests.javascript_world import programs, write_javascript
from tests.simulated import ask, simulated

ROOT = Path(__file__).parents[2]
FIXTURE = ROOT / "examples" / "game-events"
START = 1_800_000_000
LEVELS = ["process", "warm"]


def virtual(folder, source, level, *, seed=1, requests=1, **settings):
    """Run a Worker in virtual time; return the JSON of its responses and the time at the end."""
    write_javascript(folder, "main", source, **settings)

    async def main(loop):
        seen = []
        clock = VirtualClock(loop, seed)
        async with simulated(
            folder, "main", isolation=level, clock=clock, programs=programs()
        ) as simulator:

            async def one():
                status, text = await ask(simulator)
                assert status == 200, text
                seen.append(json.loads(text))

            async with anyio.create_task_group() as tasks:
                for _ in range(requests):
                    tasks.start_soon(one)
            assert not (await simulator.draining.drain(100)).left
        return seen, loop.time() - START

    return run_virtual(main, seed, START)


@pytest.mark.parametrize("level", LEVELS)
def test_the_clock_and_the_timers_are_the_platforms(tmp_path, level):
    """An hour of waiting takes no real time, and Date follows."""
    source = """
    export default {
      async fetch(request, env, ctx) {
        const seen = [Date.now(), new Date().toISOString(), typeof Date()];
        await scheduler.wait(3_600_000);
        seen.push(Date.now(), new Date() instanceof Date, new Date(5).getTime());
        const order = [];
        const timer = setInterval(() => order.push("tick"), 1000);
        const cancelled = setTimeout(() => order.push("never"), 10);
        clearTimeout(cancelled);
        await new Promise((resolve) => setTimeout(resolve, 2500));
        clearInterval(timer);
        try {
          await Promise.race([new Promise(() => {}), new Promise((_, reject) => {
            const signal = AbortSignal.timeout(500);
            signal.addEventListener("abort", () => reject(signal.reason));
          })]);
        } catch (error) { order.push(error.name); }
        return Response.json([...seen, order, Date.now()]);
      },
    };
    """
    ((seen,), took) = virtual(tmp_path, source, level)
    ms = START * 1000
    assert seen == [
        *(ms, "2027-01-15T08:00:00.000Z", "string", ms + 3_600_000, True, 5),
        *(["tick", "tick", "TimeoutError"], ms + 3_603_000),
    ]
    assert took >= 3603


CLOCKS = """
import timers from "timers";
import { setTimeout as later, setInterval as every } from "node:timers/promises";
const ago = async (wait) => {
  const begun = performance.now();
  await wait();
  return performance.now() - begun;
};
export default {
  async fetch() {
    await scheduler.wait(1);
    class Own extends Date {}
    performance.mark("begin");
    const signal = AbortSignal.timeout(20);
    const ticks = [];
    const result = {
      dates: [new Own(), new (new Date(0).constructor)(), Reflect.construct(Date, [])].map(Number),
      format: new Intl.DateTimeFormat("en", { timeStyle: "medium", timeZone: "UTC" }).format(),
      parts: new Intl.DateTimeFormat("en", { year: "numeric" }).formatToParts()[0].value,
      file: new File(["a"], "a").lastModified,
      mark: performance.getEntriesByName("begin")[0].startTime,
      hrtime: String(process.hrtime.bigint()),
      node: await ago(() => new Promise((resolve) => timers.setTimeout(resolve, 1000))),
      promise: await ago(() => later(500)),
      waited: await ago(() => scheduler.wait(300)),
      timeout: typeof setTimeout(() => {}, 5).unref,
    };
    for await (const tick of every(10, "tick")) if (ticks.push(tick) === 3) break;
    const timer = setTimeout(() => ticks.push("late"), 50);
    await later(40);
    timer.refresh();
    await later(40);
    ticks.push("refreshed");
    await later(40);
    const aborted = await ago(() => scheduler.wait(9e9, { signal }).catch(() => {}));
    return Response.json({ ...result, ticks, aborted });
  },
};
"""
CHANCE = """
import { randomBytes, randomInt, randomUUID, webcrypto } from "node:crypto";
const name = (call) => { try { call(); } catch (error) { return error.name; } };
export default {
  fetch() {
    return Response.json([Math.random(), crypto.randomUUID(), randomUUID(), randomInt(1e9),
      randomBytes(8).toString("hex"), [...webcrypto.getRandomValues(new Uint16Array(3))],
      name(() => crypto.getRandomValues(new Uint8Array(65_537))),
      name(() => crypto.getRandomValues(new Float32Array(1)))]);
  },
};
"""


@pytest.mark.parametrize("level", LEVELS)
def test_every_clock_and_timer_is_the_platforms(tmp_path, level):
    """Node's modules too; nothing of it takes real time."""
    flags = ["nodejs_compat"]
    ((seen,), _) = virtual(tmp_path, CLOCKS, level, compatibility_flags=flags)
    now = START * 1000 + 1
    assert seen == {
        "dates": [now] * 3,
        "format": "8:00:00 AM",
        "parts": "2027",
        "file": now,
        "mark": now,
        "hrtime": f"{now}000000",
        "node": 1000,
        "promise": 500,
        "waited": 300,
        "timeout": "function",
        "aborted": 0,
        "ticks": ["tick", "tick", "tick", "refreshed", "late"],
    }


@pytest.mark.parametrize("level", LEVELS)
def test_every_source_of_chance_is_the_platforms(tmp_path, level):
    """Node's modules too; what the platform's own function refuses is refused."""
    runs = [
        virtual(tmp_path, CHANCE, level, seed=seed, compatibility_flags=["nodejs_compat"])[0][0]
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert all(one != other for one, other in zip(runs[0][:6], runs[2][:6], strict=True))
    assert runs[0][6:] == ["QuotaExceededError", "TypeMismatchError"]


@pytest.mark.parametrize("level", LEVELS)
def test_one_seed_gives_one_run(tmp_path, level):
    """Randomness, ids and the order of simultaneous calls repeat; another seed differs."""
    source = """
    let count = 0;
    export default {
      async fetch(request, env, ctx) {
        const number = count++;
        const random = [Math.random(), crypto.randomUUID(),
          [...crypto.getRandomValues(new Uint8Array(4))]];
        await Promise.all([1, 2, 3].map(async (each) => {
          await env.B.put(`${number}-${each}`, String(Math.random()));
        }));
        ctx.waitUntil(env.Q.send({ number }));
        const { objects } = await env.B.list();
        return Response.json([number, random, objects.length, Date.now()]);
      },
      async queue(batch, env) { await env.B.put("queued", String(batch.messages.length)); },
    };
    """
    settings = {
        "r2_buckets": [{"binding": "B", "bucket_name": "bucket"}],
        "queues": {
            "producers": [{"binding": "Q", "queue": "q"}],
            "consumers": [{"queue": "q"}],
        },
    }
    runs = [
        virtual(tmp_path, source, level, seed=seed, requests=40, **settings) for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    uuids = {each[1][1] for each in runs[0][0]}
    assert len(uuids) == 40
    assert all(len(each) == 36 and each[14] == "4" for each in uuids)


@pytest.mark.parametrize("level", LEVELS)
def test_an_aborted_fetch_ends_its_turn(tmp_path, level):
    """Fetches aborted before they leave and while they wait neither stop time nor its order."""
    source = """
    export default {
      async fetch(request, env) {
        if (request.url.endsWith("/slow")) {
          await scheduler.wait(10_000);
          return new Response("slow");
        }
        const early = AbortSignal.abort();
        const late = AbortSignal.timeout(50);
        const controller = new AbortController();
        const outcome = (signal) => env.SELF.fetch("http://x/slow", { signal })
          .then((response) => response.text(), (error) => error.name);
        const all = [early, late, controller.signal, undefined, early].map(outcome);
        await scheduler.wait(20);
        controller.abort();
        return Response.json([await Promise.all(all), Date.now()]);
      },
    };
    """
    services = [{"binding": "SELF", "service": "main"}]
    ((seen,), _) = virtual(tmp_path, source, level, services=services)
    aborted = "AbortError"
    assert seen == [
        [aborted, "TimeoutError", aborted, "slow", aborted],
        START * 1000 + 10_000,
    ]


def replay(*arguments):
    """Run `edgesim replay` with npm's programs."""
    found = programs()
    variables = {"EDGESIM_WORKERD": str(found.workerd), "EDGESIM_ESBUILD": str(found.esbuild)}
    command = [sys.executable, "-m", "edgesim.cli", "replay", *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("level", LEVELS)
def test_one_seed_gives_one_report(tmp_path, level):
    """Two replays of the pipeline in TypeScript print the same bytes."""
    events = gzip.decompress((FIXTURE / "events.ndjson.gz").read_bytes()).splitlines()[:40]
    fixture = tmp_path / "events.ndjson"
    fixture.write_bytes(b"\n".join(events))
    arguments = (fixture, "--project", ROOT / "examples" / "javascript", "--isolation", level)
    runs = [replay(*arguments, "--report", "json", "--seed", 3) for _ in range(2)]
    assert [each.returncode for each in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout
    assert json.loads(runs[0].stdout)["requests"] == 40


@pytest.mark.parametrize("project", ["javascript", "mixed"])
def test_the_pipeline_puts_the_fixture_into_the_same_tables(project):
    """The Workers in TypeScript meet the expectations of those in Python."""
    finished = replay(
        *(FIXTURE / "events.ndjson.gz", "--project", ROOT / "examples" / project),
        *("--isolation", "warm", "--expect", FIXTURE / "expected.toml"),
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "12 expectations met" in finished.stdout
