"""The cost of a replay: events per second through the chain up to R2, inline; `make bench`.

Requests hold 500 events, which are parsed, validated, logged, traced, tailed, written ahead and
packed.  The reference is msgspec parsing and re-encoding the same JSON in one loop.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import msgspec

from edgesim.cli import logs
from edgesim.config import load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.replay.runner import Plan, replay
from tests.processes import WORKERS

PER_REQUEST = 500
DAY_WINDOWS = 1_440
WINDOW_SECONDS = 91  # each request opens its own window


def event(number):
    return {
        "event": "kill",
        "player_id": f"player_{number % 5000:06d}",
        "ts": 1_767_225_600_000 + number,
        "match_id": f"m_{number // 100:016x}",
        "session_id": f"s_{number // 7:016x}",
        "platform": "pc",
        "region": "eu-west",
        "build": "2.14.0",
        "props": {"damage": number % 150, "weapon": "bow", "headshot": number % 3 == 0},
    }


def reference(lines):
    """Return seconds for msgspec alone to decode and encode every line."""
    began = time.perf_counter()
    for line in lines:
        msgspec.json.encode(msgspec.json.decode(line))
    return time.perf_counter() - began


def chain(folder, fixture):
    """Return seconds for a replay into a bucket without notifications."""
    project = folder / "project"
    shutil.copytree(WORKERS, project)
    toml = project / "edgesim.toml"
    text = toml.read_text()
    toml.write_text(text[: text.index("[[r2.events")] + text[text.index("[clickhouse]") :])
    loaded = load_project(project, Overrides(state=folder / "state", isolation={DEFAULT: "inline"}))
    began = time.perf_counter()
    report = replay(Plan(loaded, [fixture]))
    seconds = time.perf_counter() - began
    assert report.ok, report
    return seconds, report.stats["pipelines"]["events"]["records"]


def day(folder):
    """Return seconds for 1,440 windows with one small request each, all the way into ClickHouse."""
    fixture = folder / "day.ndjson"
    with fixture.open("w") as file:
        for number in range(DAY_WINDOWS):
            at = number * WINDOW_SECONDS
            file.write(json.dumps({"at": at, "request": {"json": [event(number)] * 3}}) + "\n")
    state = folder / "day-state"
    loaded = load_project(WORKERS, Overrides(state=state, isolation={DEFAULT: "inline"}))
    began = time.perf_counter()
    report = replay(Plan(loaded, [fixture]))
    assert report.ok, report
    return time.perf_counter() - began, report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    options = parser.parse_args()
    logs.configure(verbose=False)
    folder = Path(tempfile.mkdtemp(prefix="edgesim-bench-"))
    try:
        lines = [json.dumps(event(number)).encode() for number in range(options.events)]
        fixture = folder / "events.ndjson"
        with fixture.open("wb") as file:
            for at in range(0, len(lines), PER_REQUEST):
                file.write(b"[" + b",".join(lines[at : at + PER_REQUEST]) + b"]\n")
        alone = reference(lines)
        seconds, records = chain(folder, fixture)
        assert records == len(lines)
        print(f"{'msgspec alone':>16} {len(lines) / alone:10.0f} events/s")
        print(
            f"{'replay to R2':>16} {len(lines) / seconds:10.0f} events/s  "
            f"{seconds / alone:.1f} times the reference"
        )
        took, report = day(folder)
        events = report.stats["pipelines"]["events"]
        print(
            f"{'a day':>16} {took:10.1f} s for {events['objects']} windows with "
            f"{events['records']} events, {report.seconds:.0f} s of time"
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
