"""Generate realistic game events; the same seed produces the same events.

    python generate.py --count 1000 --seed 1 --malformed 0.03 --oversized 0.002 --out
    events.ndjson.gz

Players have sessions and matches; a few players and maps are very busy, most are not.  Each line is
a fixture line: a bare event, or a request envelope for malformed input.  Counts by kind are printed
to stderr.
"""

import argparse
import gzip
import json
import random
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

PLATFORMS = ["pc", "ps5", "xbox", "switch", "ios", "android"]
REGIONS = ["eu-west", "eu-central", "us-east", "us-west", "ap-south", "ap-northeast", "sa-east"]
BUILDS = ["2.14.0", "2.14.1", "2.15.0-rc1"]
MAPS = ["harbor", "dustbowl", "citadel", "frostline", "jungle", "metro", "oasis", "quarry"]
WEAPONS = ["rifle", "shotgun", "bow", "sword", "pistol", "sniper", "grenade", "launcher"]
ITEMS = ["skin_dragon", "xp_boost", "emote_wave", "battle_pass", "crate_gold", "banner_wolf"]
WORDS = [
    "gg",
    "wp",
    "nice",
    "shot",
    "push",
    "mid",
    "need",
    "heal",
    "going",
    "left",
    "enemy",
    "ahead",
    "wait",
    "regroup",
    "save",
    "ult",
    "lol",
]
KINDS = {
    "kill": 40,
    "move": 22,
    "chat": 12,
    "purchase": 6,
    "level_up": 4,
    "match_start": 6,
    "match_end": 6,
    "heartbeat": 4,
}

MALFORMED = [
    lambda event: json.dumps(event)[: len(event) * 5],
    lambda event: json.dumps({key: event[key] for key in event if key != "player_id"}),
    lambda event: json.dumps(event | {"ts": str(event["ts"])}),
    lambda event: json.dumps(event | {"event": "kill player!"}),
    lambda event: json.dumps(event | {"props": [1, 2, 3]}),
    lambda event: json.dumps(event | {"ts": event["ts"] + 10**13}),
    lambda event: json.dumps(event | {"player_id": "p" * 200}),
    lambda event: "[]",
    lambda event: json.dumps(event)[:-1] + ', "score": NaN}',
    lambda event: "just text",
]


class World:
    """State of the generator: random source, clock (ms), and sessions by player number."""

    def __init__(self, seed, start_ms):
        self.random = random.Random(seed)
        self.now_ms = start_ms
        self.sessions = {}

    def skewed(self, size):
        """A random index below ``size``; small ones are much more frequent."""
        return min(int(self.random.paretovariate(0.9)) - 1, size - 1)

    def identifier(self, prefix):
        return f"{prefix}_{self.random.getrandbits(64):016x}"

    def event(self):
        """Advance the clock and return the next event."""
        self.now_ms += int(self.random.expovariate(1 / 40))
        number = self.skewed(50_000)
        session = self.sessions.get(number)
        if session is None or self.random.random() < 0.002:
            session = self.sessions[number] = self._session(number)
            return self._wrap("session_start", session, {"device": session["device"], "cold": True})
        kind = self.random.choices(list(KINDS), KINDS.values())[0]
        if kind == "match_start":
            session["match"] = self.identifier("m")
            session["map"] = MAPS[self.skewed(len(MAPS))]
        return self._wrap(kind, session, getattr(self, f"_{kind}")(session))

    def _session(self, number):
        return {
            "player": f"player_{number:06d}",
            "session": self.identifier("s"),
            "match": self.identifier("m"),
            "map": MAPS[self.skewed(len(MAPS))],
            "platform": PLATFORMS[number % len(PLATFORMS)],
            "region": REGIONS[number % len(REGIONS)],
            "build": BUILDS[self.skewed(len(BUILDS))],
            "device": f"{PLATFORMS[number % len(PLATFORMS)]}-gen{number % 4}",
            "level": 1 + number % 60,
        }

    def _wrap(self, kind, session, props):
        return {
            "event": kind,
            "player_id": session["player"],
            "ts": self.now_ms,
            "match_id": session["match"],
            "session_id": session["session"],
            "platform": session["platform"],
            "region": session["region"],
            "build": session["build"],
            "props": {
                "map": session["map"],
                "level": session["level"],
                "fps": self.random.randint(28, 144),
                "ping_ms": 12 + self.skewed(400),
                **props,
            },
        }

    def _place(self):
        return {axis: round(self.random.uniform(-500, 500), 1) for axis in "xyz"}

    def _kill(self, session):
        return {
            "weapon": WEAPONS[self.skewed(len(WEAPONS))],
            "victim_id": f"player_{self.skewed(50_000):06d}",
            "headshot": self.random.random() < 0.2,
            "distance_m": round(self.random.expovariate(1 / 25), 1),
            "killer": self._place(),
            "victim": self._place(),
            "damage": self.random.randint(1, 150),
        }

    def _move(self, session):
        return {
            "path": [self._place() for _ in range(3)],
            "speed": round(self.random.random() * 9, 2),
        }

    def _chat(self, session):
        words = [self.random.choice(WORDS) for _ in range(self.random.randint(2, 14))]
        return {"channel": self.random.choice(["team", "all"]), "text": " ".join(words)}

    def _purchase(self, session):
        return {
            "item": ITEMS[self.skewed(len(ITEMS))],
            "price_cents": self.random.choice([99, 199, 499, 999, 1999]),
            "currency": self.random.choice(["USD", "EUR", "BRL", "JPY"]),
            "order_id": self.identifier("o"),
        }

    def _level_up(self, session):
        session["level"] += 1
        return {"xp": self.random.randint(1_000, 90_000), "reward": ITEMS[self.skewed(len(ITEMS))]}

    def _match_start(self, session):
        return {"mode": self.random.choice(["ranked", "casual", "arcade"]), "players": 10}

    def _match_end(self, session):
        return {
            "won": self.random.random() < 0.5,
            "kills": self.random.randint(0, 30),
            "deaths": self.random.randint(0, 30),
            "duration_s": self.random.randint(300, 2_400),
        }

    def _heartbeat(self, session):
        return {
            "memory_mb": self.random.randint(900, 7_000),
            "battery": self.random.randint(1, 100),
        }


def generate(count, seed, malformed, oversized, start_ms):
    """Yield (kind, fixture line) for each request."""
    world = World(seed, start_ms)
    for number in range(count):
        event = world.event()
        chance = world.random.random()
        if chance < malformed:
            body = MALFORMED[number % len(MALFORMED)](event)
            yield "malformed", {"request": {"headers": {"user-agent": "game/2.14"}, "body": body}}
        elif chance < malformed + oversized:
            event["event"] = "replay_upload"
            event["props"]["frames"] = [world._place() for _ in range(8_000)]
            yield "oversized", event
        else:
            yield event["event"], event


def main():
    """Parse the command line, and write the events."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--malformed", type=float, default=0.0, help="share of the requests, 0 to 1"
    )
    parser.add_argument(
        "--oversized", type=float, default=0.0, help="share of the requests, 0 to 1"
    )
    parser.add_argument("--start", default="2026-01-01", help="ISO date of the first event, UTC")
    parser.add_argument("--out", default="-", help="file, .gz too (default: standard output)")
    options = parser.parse_args()
    start = datetime.fromisoformat(options.start).replace(tzinfo=UTC)
    made, kinds = [], Counter()
    for kind, line in generate(
        options.count,
        options.seed,
        options.malformed,
        options.oversized,
        int(start.timestamp() * 1000),
    ):
        kinds[kind] += 1
        made.append(json.dumps(line, separators=(",", ":")) + "\n")
    content = "".join(made).encode()
    if options.out == "-":
        sys.stdout.buffer.write(content)
    else:
        with Path(options.out).open("wb") as file:
            # No time in the gzip header, so the same events yield the same bytes.
            file.write(
                gzip.compress(content, 9, mtime=0) if options.out.endswith(".gz") else content
            )
    for kind, number in sorted(kinds.items()):
        print(f"{kind:>16} {number:>8}", file=sys.stderr)


if __name__ == "__main__":
    main()
