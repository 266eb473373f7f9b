"""Write game events as a replay fixture: the same bytes for the same arguments, on every machine.

A small model of a live game makes them: players come (a few of them all the time, most of them
rarely), open a session, join a match, fight, buy, talk, level up, and leave.  So the fields depend
on each other as they do in real telemetry, which is what makes compression figures mean something.

Every line is an event, or an envelope {"request": ...} where the request must be exactly as given:
a malformed body, or one that is too large for the log of a Worker.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from breakage import BREAKAGES

PLAYERS = 50_000
SKEW = 3.0
"""Player number int(PLAYERS * u**SKEW): the busiest 1% of the players make a fifth of the events."""
SECONDS_BETWEEN_EVENTS = 6.0
"""Of one session; the number of sessions at one time follows from it and from the rate."""
MATCH_SIZE = 12

PLATFORMS = ("windows", "ps5", "xbox", "android", "ios", "switch", "linux")
REGIONS = ("eu-west", "us-east", "us-west", "ap-south", "ap-northeast", "sa-east", "eu-north")
BUILDS = ("1.42.3-release", "1.42.2-release", "1.41.9-release", "1.43.0-beta.2")
MAPS = ("harbor", "citadel", "dustbowl", "skyline", "catacombs", "glacier", "orchard", "foundry")
MODES = ("ranked_5v5", "casual_5v5", "battle_royale", "deathmatch")
WEAPONS = (
    "rifle_ak", "rifle_m4", "smg_vector", "sniper_awp", "pistol_g18", "shotgun_nova", "knife",
    "grenade_frag", "bow_compound", "lmg_negev", "launcher_rpg", "turret",
)  # fmt: skip
ITEMS = (
    ("skin_rifle_ember", 1250), ("battle_pass_s9", 950), ("crate_bronze", 150),
    ("emote_wave", 300), ("skin_knife_ruby", 4200), ("xp_boost_2h", 200), ("name_change", 500),
    ("crate_gold", 600), ("banner_founder", 80), ("charm_duck", 120),
)  # fmt: skip
CHANNELS = ("team", "all", "party", "whisper")
WORDS = (
    "gg", "go", "push", "mid", "need", "heal", "rush", "wait", "enemy", "behind", "nice", "shot",
    "lol", "drop", "ammo", "please", "one", "left", "cover", "me", "b", "long", "save", "next",
    "round", "who", "has", "bomb", "well", "played", "again", "bien joué", "schön", "давай",
    "がんばれ", "加油", "😂", "🔥",
)  # fmt: skip


def ranked(rng: random.Random, values: Sequence[Any], skew: float = 2.0) -> Any:
    """One of the values, the early ones much more often."""
    return values[int(len(values) * rng.random() ** skew)]


def player_name(number: int) -> str:
    """The id of a player, always the same for the number."""
    return f"plr_{(number * 2_654_435_761 + 97) % (1 << 40):010x}"


def coordinate(rng: random.Random) -> dict[str, float]:
    """A place on the map, in meters."""
    spread = ((rng.random() * 512, 1), (rng.random() * 512, 1), (rng.random() * 24, 2))
    return {axis: round(value, digits) for axis, (value, digits) in zip("xyz", spread, strict=True)}


class Match:
    """One round of the game, as its players see it."""

    def __init__(self, rng: random.Random, region: str) -> None:
        self.id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        self.region = region
        self.map: str = ranked(rng, MAPS)
        self.mode: str = ranked(rng, MODES)
        self.seats = MATCH_SIZE
        self.roster: list[str] = []


class Session:
    """One player at the game, from start to end."""

    def __init__(self, rng: random.Random) -> None:
        number = int(PLAYERS * rng.random() ** SKEW)
        self.player_id = player_name(number)
        self.id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        home = random.Random(number)  # what a player keeps from one session to the next
        self.platform: str = ranked(home, PLATFORMS)
        self.region: str = ranked(home, REGIONS)
        self.level = 1 + int(99 * home.random() ** 2)
        self.build: str = ranked(rng, BUILDS, 4.0)
        self.gold = rng.randrange(200, 8000)
        self.match: Match | None = None
        self.started = False
        self.kills = 0
        self.deaths = 0


class Game:
    """Everybody who plays at the moment; ``event`` is the next thing that happens."""

    def __init__(self, rng: random.Random, rate: float) -> None:
        self.rng = rng
        self.lobbies: dict[str, Match] = {}
        self.sessions = [Session(rng) for _ in range(max(2, int(rate * SECONDS_BETWEEN_EVENTS)))]

    def event(self, ts: int) -> dict[str, Any]:
        """One event of somebody at ``ts``, Unix time in ms."""
        seat = self.rng.randrange(len(self.sessions))
        session = self.sessions[seat]
        match = session.match
        name, props = self._act(session)
        if name == "session_end":
            self.sessions[seat] = Session(self.rng)
        shown = session.match or match
        event = {"event": name, "player_id": session.player_id, "ts": ts}
        event |= {"match_id": shown.id} if shown else {}
        event |= {"session_id": session.id, "platform": session.platform}
        event |= {"region": session.region, "build": session.build, "props": props}
        if self.rng.random() < 0.004:  # an old client: a field that the schema has no column for
            event["client_tz"] = self.rng.choice(("UTC+1", "UTC-5", "UTC+9"))
        return event

    def _act(self, session: Session) -> tuple[str, dict[str, Any]]:
        if not session.started:
            session.started = True
            return "session_start", self._session_start(session)
        if session.match is None:
            if self.rng.random() < 0.15:
                return "session_end", self._session_end(session)
            session.match = self._join(session)
            return "match_start", self._match_start(session, session.match)
        chance = self.rng.random()
        if chance < 0.58:
            return "kill", self._kill(session, session.match)
        if chance < 0.74:
            return "chat", self._chat(session.match)
        if chance < 0.87:
            return "purchase", self._purchase(session)
        if chance < 0.94:
            return "level_up", self._level_up(session)
        match, session.match = session.match, None
        return "match_end", self._match_end(session, match)

    def _join(self, session: Session) -> Match:
        match = self.lobbies.get(session.region)
        if match is None or match.seats == 0:
            match = self.lobbies[session.region] = Match(self.rng, session.region)
        match.seats -= 1
        match.roster.append(session.player_id)
        return match

    def _session_start(self, session: Session) -> dict[str, Any]:
        return {
            "device": {
                "model": f"{session.platform}-{self.rng.randrange(12)}",
                "memory_mb": 1024 * self.rng.choice((4, 6, 8, 16, 32)),
                "resolution": self.rng.choice(("1920x1080", "2560x1440", "1280x720")),
            },
            "locale": self.rng.choice(("en-US", "de-DE", "pt-BR", "ja-JP", "ru-RU", "zh-CN")),
            "level": session.level,
            "referrer": self.rng.choice(("launcher", "store", "invite", "notification")),
            "vsync": self.rng.random() < 0.4,
        }

    def _session_end(self, session: Session) -> dict[str, Any]:
        return {
            "reason": self.rng.choice(("quit", "timeout", "crash", "kicked")),
            "kills": session.kills,
            "deaths": session.deaths,
            "gold": session.gold,
            "level": session.level,
            "fps_average": round(30 + self.rng.random() * 110, 1),
            "crash_free": self.rng.random() < 0.98,
        }

    def _match_start(self, session: Session, match: Match) -> dict[str, Any]:
        return {
            "map": match.map,
            "mode": match.mode,
            "server": f"{match.region}-{int(match.id[:2], 16) % 40:02d}.game.example.net",
            "queue_ms": int(400 + 30_000 * self.rng.random() ** 3),
            "team": self.rng.choice(("red", "blue")),
            "party_size": ranked(self.rng, (1, 2, 3, 5)),
            "loadout": [ranked(self.rng, WEAPONS) for _ in range(3)],
            "rating": 800 + session.level * 12 + self.rng.randrange(60),
        }

    def _match_end(self, session: Session, match: Match) -> dict[str, Any]:
        return {
            "map": match.map,
            "mode": match.mode,
            "result": self.rng.choice(("win", "loss", "loss", "draw", "abandoned")),
            "duration_s": 120 + self.rng.randrange(1500),
            "kills": session.kills,
            "deaths": session.deaths,
            "accuracy": round(self.rng.random() * 0.6, 3),
            "rating_change": self.rng.randrange(-25, 26),
            "rewards": {"gold": 10 * self.rng.randrange(30), "xp": 50 * self.rng.randrange(40)},
        }

    def _kill(self, session: Session, match: Match) -> dict[str, Any]:
        session.kills += 1
        session.deaths += self.rng.random() < 0.8
        session.gold += 25
        roster = match.roster
        return {
            "map": match.map,
            "mode": match.mode,
            "weapon": ranked(self.rng, WEAPONS),
            "victim_id": roster[self.rng.randrange(len(roster))],
            "assist_ids": [] if self.rng.random() < 0.7 else [self.rng.choice(roster)],
            "headshot": self.rng.random() < 0.23,
            "distance_m": round(120 * self.rng.random() ** 2, 1),
            "damage": 20 + self.rng.randrange(100),
            "attacker": coordinate(self.rng),
            "victim": coordinate(self.rng),
            "ping_ms": int(12 + 180 * self.rng.random() ** 3),
            "streak": ranked(self.rng, (1, 2, 3, 4, 5, 8), 3.0),
        }

    def _chat(self, match: Match) -> dict[str, Any]:
        text = " ".join(ranked(self.rng, WORDS) for _ in range(1 + self.rng.randrange(9)))
        if self.rng.random() < 0.02:
            text += "\n\u0007"  # what a chat box lets through and a log must not
        return {
            "channel": ranked(self.rng, CHANNELS),
            "map": match.map,
            "text": text,
            "length": len(text),
            "muted": self.rng.random() < 0.03,
            "toxicity": round(self.rng.random() ** 4, 3),
            "client": {"font": "default", "scale": 1, "push_to_talk": self.rng.random() < 0.5},
        }

    def _purchase(self, session: Session) -> dict[str, Any]:
        sku, price = ranked(self.rng, ITEMS)
        session.gold = max(0, session.gold - price)
        return {
            "sku": sku,
            "price": price,
            "currency": self.rng.choice(("gold", "gold", "EUR", "USD", "BRL")),
            "quantity": ranked(self.rng, (1, 2, 5), 3.0),
            "order_id": f"ord_{self.rng.getrandbits(48):012x}",
            "balance": session.gold,
            "store": {"page": self.rng.choice(("featured", "daily", "search")), "version": 7},
            "discount": self.rng.choice((0, 0, 0, 10, 25)),
            "gift": self.rng.random() < 0.05,
        }

    def _level_up(self, session: Session) -> dict[str, Any]:
        session.level += 1
        return {
            "level": session.level,
            "previous": session.level - 1,
            "xp_total": session.level * session.level * 140 + self.rng.randrange(140),
            "source": self.rng.choice(("kill", "match_end", "quest", "boost")),
            "unlocked": [ranked(self.rng, ITEMS)[0] for _ in range(self.rng.randrange(3))],
            "minutes_played": session.level * 55 + self.rng.randrange(55),
        }


def replay_upload(rng: random.Random, event: dict[str, Any]) -> dict[str, Any]:
    """The event with a recording in its props that no log has room for: 300 to 600 KB."""
    frames = [
        [tick, rng.randrange(512), rng.randrange(512), rng.randrange(8) * 45]
        for tick in range(18_000 + rng.randrange(14_000))
    ]
    return event | {"event": "replay_upload", "props": {"format": "frames/2", "frames": frames}}


def dumps(value: Any) -> str:
    """One line of JSON, as a game client sends it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def envelope(body: str) -> str:
    """A fixture line for a request whose body must arrive exactly so."""
    headers = {"content-type": "application/json", "user-agent": "GameClient/1.42 (fixture)"}
    # ASCII, since a body may hold halves of characters that UTF-8 cannot write.
    request = {"method": "POST", "path": "/", "headers": headers, "body": body}
    return json.dumps({"request": request}, separators=(",", ":"))


def lines(
    count: int, seed: int, start_ms: int, rate: float, malformed: float, oversized: float
) -> Iterator[str]:
    """``count`` lines in the order of time, the first at ``start_ms``, ``rate`` a second.

    ``malformed`` and ``oversized`` are shares of the lines, 0 to 1.
    """
    rng = random.Random(seed)
    game = Game(rng, rate)
    clock = float(start_ms)
    breakages = 0
    for _ in range(count):
        event = game.event(int(clock))
        clock += rng.expovariate(rate) * 1000
        chance = rng.random()
        if chance < malformed:
            breakage = BREAKAGES[breakages % len(BREAKAGES)]  # in turn: every kind comes early
            breakages += 1
            yield envelope(breakage(event))
        elif chance < malformed + oversized:
            yield envelope(dumps(replay_upload(rng, event)))
        else:
            yield dumps(event)


def write(texts: Iterable[str], out: Path | None) -> None:
    """To a file, gzip where its name ends in .gz, or to standard output."""
    if out is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        sys.stdout.writelines(f"{text}\n" for text in texts)
        return
    with out.open("wb") as file:
        if out.suffix != ".gz":
            file.writelines(f"{text}\n".encode() for text in texts)
            return
        # No name and no time in the header: the same events are the same bytes.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            packed.writelines(f"{text}\n".encode() for text in texts)


def timestamp(text: str) -> int:
    """Unix time in ms, from such a number or from an ISO date (UTC where it names no zone)."""
    if text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(zoned.timestamp() * 1000)


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="lines (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same lines (default: 1)")
    parser.add_argument("--start", type=timestamp, default=timestamp("2026-01-01"),
                        help="time of the first event, ISO or Unix ms (default: 2026-01-01)")  # fmt: skip
    parser.add_argument("--rate", type=positive, default=20.0, help="a second (default: 20)")
    parser.add_argument("--malformed", type=share, default=0.0, help="share of lines, 0 to 1")
    parser.add_argument("--oversized", type=share, default=0.0, help="share of lines, 0 to 1")
    parser.add_argument("--out", type=Path, help="file, .gz too (default: standard output)")
    wanted = parser.parse_args(argv)
    if wanted.count < 0:
        parser.error("argument --count: must not be negative")
    if wanted.malformed + wanted.oversized > 1:
        parser.error("--malformed and --oversized together are more than 1")
    made = lines(
        wanted.count, wanted.seed, wanted.start, wanted.rate, wanted.malformed, wanted.oversized
    )
    try:
        write(made, wanted.out)
    except OSError as error:
        parser.error(f"cannot write {wanted.out}: {error.strerror}")


if __name__ == "__main__":
    main()
