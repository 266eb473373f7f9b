"""JavaScript Workers in virtual time: the platform's clock, timers and randomness; replays."""

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
        virtual(tmp_path, source, level, seed=seed, requests=5, **settings) for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    uuids = {each[1][1] for each in runs[0][0]}
    assert len(uuids) == 5
    assert all(len(each) == 36 and each[14] == "4" for each in uuids)


@pytest.mark.parametrize("project", ["javascript", "mixed"])
def test_the_pipeline_puts_the_fixture_into_the_same_tables(tmp_path, project):
    """The Workers in TypeScript meet the expectations of those in Python."""
    found = programs()
    variables = {"EDGESIM_WORKERD": str(found.workerd), "EDGESIM_ESBUILD": str(found.esbuild)}
    fixture = ROOT / "examples" / "game-events"
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "edgesim.cli", "replay", fixture / "events.ndjson.gz"),
            *("--project", ROOT / "examples" / project, "--isolation", "warm"),
            *("--expect", fixture / "expected.toml"),
        ],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "12 expectations met" in finished.stdout
