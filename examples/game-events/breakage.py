"""Every way in which a client's body can be wrong: a right event in, a body for a 400 out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]

FAR_AHEAD_MS = 4_102_444_800_000
"""The year 2100: ahead of any clock that a run will have."""


def _json(event: Any) -> str:
    return json.dumps(event, separators=(",", ":"))


def _without(event: Event, key: str) -> Event:
    return {name: value for name, value in event.items() if name != key}


def _nested(event: Event) -> str:
    return _json(event).replace('"props":{', '"props":{"deep":' + "[" * 200 + "]" * 200 + ",", 1)


BREAKAGES: tuple[Callable[[Event], str], ...] = (
    lambda event: _json(event)[:-40],  # the connection broke
    lambda event: _json(_without(event, "event")),
    lambda event: _json(_without(event, "player_id")),
    lambda event: _json(_without(event, "ts")),
    lambda event: _json(event | {"ts": str(event["ts"])}),
    lambda event: _json(event | {"ts": event["ts"] / 1000}),  # seconds
    lambda event: _json(event | {"ts": True}),
    lambda event: _json(event | {"ts": FAR_AHEAD_MS}),
    lambda event: _json(event | {"event": "player died!"}),
    lambda event: _json(event | {"event": "e" * 65}),
    lambda event: _json(event | {"player_id": ""}),
    lambda event: _json(event | {"player_id": "p" * 129}),
    lambda event: _json(event | {"platform": 7}),
    lambda event: _json(event | {"props": [1, 2, 3]}),
    lambda event: _json(event | {"props": {"ratio": float("nan")}}),
    lambda event: _json(event | {"props": {"ratio": 0}}).replace('"ratio":0', '"ratio":1e999'),
    lambda event: _json([event, _without(event, "player_id")]),
    lambda event: _json(event["player_id"]),  # JSON, but no object
    lambda event: f"event={event['event']}&player_id={event['player_id']}",
    lambda event: _json(event).replace('"props":{', '"props":{"note":"line\nbreak",', 1),
    _nested,
    lambda _: "[]",
    lambda _: "",
    lambda _: "null",
)
