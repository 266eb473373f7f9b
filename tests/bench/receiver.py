"""CPU cost of the receiver per event, beside the cost of JSON alone; `make bench`.

CPU time of validating, sanitising and serialising generated events, one event per body, as games
send them, and several per body; the reference is json.loads and json.dumps of the same bodies.
Everything is measured in one run, interleaved, so read the ratios.
"""

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.processes import ROOT
from tests.unit.workers.test_event import event

EVENTS = 5_000
ROUNDS = 9
NOW_MS = 2**43


def bodies():
    generator = ROOT / "examples" / "game-events" / "generate.py"
    command = [sys.executable, str(generator), "--count", str(EVENTS), "--seed", "3"]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.splitlines()


def reference(body):
    json.dumps(json.loads(body))


def receive(body):
    for found in event.read_events(event.unpack(body, 4_900_000), NOW_MS):
        event.to_line(found)


def microseconds(work, given):
    started = time.process_time()
    for body in given:
        work(body)
    return (time.process_time() - started) / len(given) * 1e6


def main():
    plain = bodies()
    packed = [gzip.compress(body) for body in plain]
    rows = [
        ("json.loads and json.dumps", reference, plain),
        ("the receiver", receive, plain),
        ("the receiver, gzip", receive, packed),
    ]
    best = dict.fromkeys([name for name, _, _ in rows], float("inf"))
    for _ in range(ROUNDS):
        for name, work, given in rows:
            best[name] = min(best[name], microseconds(work, given))
    size = sum(map(len, plain)) / len(plain)
    print(f"CPU of an event of {size:.0f} bytes, best of {ROUNDS} rounds of {EVENTS}:")
    base = best[rows[0][0]]
    for name, cost in best.items():
        print(f"{name:>28} {cost:7.1f} us  {cost / base:5.2f} of the reference")


if __name__ == "__main__":
    main()
