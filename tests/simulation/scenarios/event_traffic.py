"""Requests to the Workers of this repository: each event has its own id."""

import json
import random

from tests.simulation.adversity import HORIZON_SECONDS

PART_BYTES_MIN = 5 << 20
START_MS = 1_893_456_000_000
KINDS = ["kill", "death", "chat", "purchase", "match_end"]
BROKEN = ["", "{", "[1, 2]", '{"event": "x"}', '{"event": "a b", "player_id": "p", "ts": 1}', "nul"]


def generate(seed: int) -> list[str]:
    """Return the lines of a fixture, ordered by time."""
    chance = random.Random(f"traffic {seed}")
    count = chance.choice([3, 10, 30, 80])
    pattern = chance.choice(["steady", "bursts", "late"])
    times = sorted(_time(chance, pattern) for _ in range(count))
    ids = iter(range(10**6))
    lines = [(at, _line(chance, at, ids)) for at in times]
    uploads = [_upload(chance, number) for number in range(chance.choice([0, 0, 1, 4]))]
    return [line for _, line in sorted([*lines, *uploads])]


def _time(chance, pattern):
    if pattern == "bursts":
        return round(chance.choice([0, 89.9, 90, 181, 400]) + chance.random(), 3)
    if pattern == "late":
        return round(HORIZON_SECONDS * chance.random() ** 0.2, 3)
    return round(HORIZON_SECONDS * chance.random(), 3)


def _line(chance, at, ids):
    draw = chance.random()
    if draw < 0.05:
        return _envelope(at, {"body": chance.choice(BROKEN)})
    if draw < 0.08:
        return _envelope(at, {"method": "GET", "path": "/health"})
    if draw < 0.12:  # too large for the log path: handled by the large-payload Worker
        text = chance.choice(["ab", "c d"]) * 100_000
        return _envelope(at, {"json": _event(chance, at, ids, {"text": text})})
    if draw < 0.3:
        size = chance.choice([1, 7, 40, 150])
        return _envelope(at, {"json": [_event(chance, at, ids) for _ in range(size)]})
    return _envelope(at, {"json": _event(chance, at, ids)})


def _upload(chance, number):
    """An upload, mostly of one part: all parts but the last need at least 5 MiB."""
    parts = [PART_BYTES_MIN] * chance.choice([0, 0, 0, 1]) + [chance.randrange(1, 1000)]
    at = round(HORIZON_SECONDS * chance.random(), 3)
    # Sometimes reuse a key, possibly while its other upload is in progress.
    key = f"object-{number // chance.choice([1, 1, 2])}-{sum(parts)}"
    request = {"json": {"key": key, "parts": parts}}
    return at, _envelope(at, request, worker="uploader")


def _envelope(at, request, **more):
    return json.dumps({"at": at, "request": request, **more}, separators=(",", ":"))


def _event(chance, at, ids, props=None):
    return {
        "event": chance.choice(KINDS),
        "player_id": f"p{chance.randrange(50)}",
        "ts": START_MS + int(at * 1000),
        "match_id": f"m{next(ids)}",
        "props": props
        or {"n": chance.randrange(1000), "name": chance.choice(["ä", "x\u2028", '"'])},
    }
