"""Parser of ``nats:`` URLs: servers, the prefix of all stream names, and a few options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

import msgspec

from edgesim.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KV_OPTIONS = {"replicas": "N", "tls": "true"}
_OPTIONS = {"queues": {"ack_wait": "SECONDS", **_KV_OPTIONS}, "kv": _KV_OPTIONS}


class Place(msgspec.Struct, frozen=True):
    """Contents of a URL; ``ack_wait`` in seconds, for queues only."""

    servers: list[str]
    where: str
    name: str = "edgesim"
    replicas: int = 1
    ack_wait: float = 30.0


def place_of(url: str, primitive: str = "queues") -> Place:
    """Parse the URL of a store of that primitive; ConfigError if it is invalid."""
    try:
        return _parse(url, _OPTIONS[primitive])
    except ValueError as error:
        raise ConfigError("backends", primitive, str(error)) from error


def _parse(url: str, options: Mapping[str, str]) -> Place:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError(
            "no user or password in the URL; set EDGESIM_NATS_USER and EDGESIM_NATS_PASSWORD"
        )
    if not parts.netloc:
        raise ValueError("nats: needs a server, as in nats://127.0.0.1:4222")
    name = parts.path.strip("/") or "edgesim"
    if not NAME.fullmatch(name):
        raise ValueError(
            f"the name {name!r} in the URL is not letters, digits, dashes and underscores"
        )
    scheme, values = "nats", {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key == "tls" and value in {"true", "false"}:
            scheme = "tls" if value == "true" else "nats"
        elif key in options and key != "tls" and re.fullmatch(r"\d+(\.\d+)?", value):
            values[key] = msgspec.convert(value, float, strict=False)
        else:
            known = ", ".join(f"{option}={example}" for option, example in options.items())
            raise ValueError(f"cannot read {key}={value} in the URL; known: {known}")
    servers = [f"{scheme}://{server}" for server in parts.netloc.split(",")]
    return Place(
        servers,
        f"nats://{parts.netloc}",
        name,
        int(values.get("replicas", 1)),
        values.get("ack_wait", 30.0),
    )
