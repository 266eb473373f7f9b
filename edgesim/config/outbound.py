"""``[outbound]`` of edgesim.toml: internal addresses that Workers may reach under ``serve``."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

import msgspec

from edgesim.errors import ConfigError

_HOST = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_BRACKETS = re.compile(r"\[(?P<address>[^\]]*)\](?::(?P<port>\d+))?")
_CURE = 'write "127.0.0.1:9200", "10.0.0.0/8", "[fd00::1]:80", "host.name" or "host.name:443"'


class OutboundConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Allow-list for ``fetch`` beyond the public internet: addresses, networks, host names.

    Each with or without a port.  ``dev`` needs no entries: only edgesim's own ports are refused.
    """

    allow: list[str] = []


class Allowed(msgspec.Struct, frozen=True):
    """One entry of the allow-list: a host name or a network; ``port`` None means any port."""

    host: str | None
    network: IPv4Network | IPv6Network | None
    port: int | None

    def matches(self, host: str, address: IPv4Address | IPv6Address, port: int) -> bool:
        """True if the entry permits the connection; ``host`` is the URL's, ``address`` resolved."""
        if self.port not in {None, port}:
            return False
        if self.network is not None:
            return address in self.network
        return host.lower().rstrip(".") == self.host


def allowed(file: Path, entries: list[str]) -> list[Allowed]:
    """The entries, parsed; ConfigError for an invalid one."""
    return [_allowed(file, index, entry) for index, entry in enumerate(entries)]


def _allowed(file: Path, index: int, entry: str) -> Allowed:
    text, port = _split(entry.strip())
    if port is None or 0 < port < 1 << 16:
        try:
            return Allowed(None, ip_network(text, strict=False), port)
        except ValueError:
            is_numeric = re.fullmatch(r"[\d./:-]*", text)
            if not is_numeric and entry[:1] != "[" and _HOST.fullmatch(text.lower()):
                return Allowed(text.lower().rstrip("."), None, port)
    problem = f"{entry!r} is no address, network or host name; {_CURE}"
    raise ConfigError(file, f"outbound.allow[{index}]", problem)


def _split(entry: str) -> tuple[str, int | None]:
    """Address or name, and port; an IPv6 address needs brackets before a port."""
    inside = _BRACKETS.fullmatch(entry)
    if inside is not None:
        return inside["address"], int(inside["port"]) if inside["port"] else None
    name, colon, port = entry.rpartition(":")
    if colon and ":" not in name and port.isascii() and port.isdigit():
        return name, int(port)
    return entry, None
