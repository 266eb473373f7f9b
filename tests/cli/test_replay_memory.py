"""Memory of a replay: a fixture may be larger than it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.cli.test_replay_virtual import one_worker
from tests.processes import ROOT

EVENT_BYTES = 100_000
GROWTH_KB_MAX = 12_000
"""Allowed growth in kB: a quarter of the difference between the two fixtures."""
KEEPER = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        event = await request.json()
        await self.env.P.send([event])
        await self.env.Q.send(event)
        await self.env.B.put(event["id"], event["text"])
        return Response("OK")

    async def queue(self, batch, env=None, ctx=None):
        batch.ackAll()
"""
ACCOUNT = """
[pipelines.p]
bucket = "big"
[r2.big]
[[r2.big.notifications]]
queue = "told"
event = "object-create"
"""
MEASURED = """
import atexit, runpy, sys
from pathlib import Path

def say_peak():
    status = Path("/proc/self/status").read_text()
    print(status.partition("VmHWM:")[2].split()[0], file=sys.__stderr__)

atexit.register(say_peak)
runpy.run_module("edgesim.cli", run_name="__main__")
"""


def peak_kb(project: Path, megabytes: int) -> int:
    """Return peak kB of a checked replay whose every event is a record, a message and an object."""
    fixture = project / f"{megabytes}.ndjson"
    with fixture.open("w") as file:
        for number in range(megabytes * 1_000_000 // EVENT_BYTES):
            text = f"{number:010d}" * (EVENT_BYTES // 10)
            file.write(json.dumps({"id": f"event {number}", "text": text}) + "\n")
    command = [sys.executable, "-c", MEASURED, "replay", fixture, "--project", project, "--check"]
    done = subprocess.run(
        [*map(str, command), "--isolation", "inline", "--report", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout or "{}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["stats"]["pipelines"]["p"]["records"] == megabytes * 1_000_000 // EVENT_BYTES
    return int(done.stderr.splitlines()[-1])


def test_a_larger_fixture_takes_no_more_memory(tmp_path):
    """Records, messages and objects are on disk; memory holds a few bytes for each."""
    project = one_worker(
        tmp_path,
        KEEPER,
        ACCOUNT,
        r2_buckets=[{"binding": "B", "bucket_name": "big"}],
        pipelines=[{"binding": "P", "pipeline": "p"}],
        queues={
            "producers": [{"binding": "Q", "queue": "q"}],
            "consumers": [{"queue": "q"}, {"queue": "told"}],
        },
    )
    small, large = peak_kb(project, 10), peak_kb(project, 60)
    assert large < small + GROWTH_KB_MAX, f"{small} kB for 10 MB, {large} kB for 60 MB"
