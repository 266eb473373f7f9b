"""Parser of ``nats:`` URLs: servers, the prefix of all stream names, and a few options."""

from __future__ import annotations

import re
from typing import NoReturn
from urllib.parse import parse_qsl, urlsplit

import msgspec

from edgesim.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Place(msgspec.Struct, frozen=True):
    """Contents of a URL; ``ack_wait`` in seconds."""

    servers: list[str]
    where: str
    name: str = "edgesim"
    replicas: int = 1
    ack_wait: float = 30.0


def place_of(url: str) -> Place:
    """Parse the URL; ConfigError if it is invalid."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        _refuse("no user or password in the URL; set EDGESIM_NATS_USER and EDGESIM_NATS_PASSWORD")
    if not parts.netloc:
        _refuse("nats: needs a server, as in nats://127.0.0.1:4222")
    name = parts.path.strip("/") or "edgesim"
    if not NAME.fullmatch(name):
        _refuse(f"the name {name!r} in the URL is not letters, digits, dashes and underscores")
    scheme, values = "nats", {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "tls" and value in {"true", "false"}:
            scheme = "tls" if value == "true" else "nats"
        elif key in {"replicas", "ack_wait"} and re.fullmatch(r"\d+(\.\d+)?", value):
            values[key] = msgspec.convert(value, float, strict=False)
        else:
            known = "ack_wait=SECONDS, replicas=N, tls=true"
            _refuse(f"cannot read {key}={value} in the URL; known: {known}")
    servers = [f"{scheme}://{server}" for server in parts.netloc.split(",")]
    return Place(
        servers,
        f"nats://{parts.netloc}",
        name,
        int(values.get("replicas", 1)),
        values.get("ack_wait", 30.0),
    )


def _refuse(problem: str) -> NoReturn:
    raise ConfigError("backends", "queues", problem)
