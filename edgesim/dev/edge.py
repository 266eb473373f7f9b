"""Clients, proxies and edge headers: the parts of a request that its sender may set.

Cloudflare's edge sets ``cf-*``, ``x-forwarded-*`` and similar headers itself, so Workers trust
them. Here they are accepted only from the proxies in ``[server] trusted_proxies``; from any other
sender they are removed and set again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from edgesim.model import Body, HttpRequest

TARGET = "edgesim.target"
"""Name of the ASGI extension with the raw request target: path, `?` and query, in bytes."""
LOOPBACK_HOSTS = {"127.0.0.1", "::1", "localhost"}
_EDGE_PREFIXES = (b"cf-", b"x-forwarded")
_EDGE_HEADERS = {
    b"client-ip",
    b"fastly-client-ip",
    b"forwarded",
    b"forwarded-for",
    b"true-client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"x-original-forwarded-for",
    b"x-original-host",
    b"x-original-url",
    b"x-real-ip",
    b"x-rewrite-url",
}
"""Headers in which proxies pass the original client, host or scheme."""
_PROXY_PREFIXES = (
    *_EDGE_PREFIXES,
    b"akamai-",
    b"cdn-",
    b"cloudfront-",
    b"fastly-",
    b"fly-",
    b"ngrok-",
    b"tailscale-",
    b"x-akamai-",
    b"x-amz-cf-",
    b"x-amzn-trace-",
    b"x-appengine-",
    b"x-arr-",
    b"x-azure-",
    b"x-client-",
    b"x-cloud-trace-",
    b"x-cluster-",
    b"x-envoy-",
    b"x-ngrok-",
    b"x-original-",
    b"x-proxy",
    b"x-real-",
    b"x-vercel-",
)
_OF_PROGRAMS = {b"x-client-version"}
"""Headers that Iceberg clients send themselves, in spite of their prefix."""
_PROXY_HEADERS = {*_EDGE_HEADERS, b"max-forwards", b"proxy-connection", b"via", b"x-nginx-proxy"}

NAMES_KEPT_MAX, NAME_KEPT_MAX, ADDRESSES_KEPT_MAX = 1024, 64, 1024
"""Header names and their length, and addresses, whose kind is kept: clients repeat them."""
_EDGE, _PROXY, _CLIENT = "edge", "proxy", "client"

_Address = IPv4Address | IPv6Address


class Edge:
    """The front's network position: whether it is bound to loopback, and its trusted proxies."""

    def __init__(self, trusted_proxies: Iterable[str] = (), *, loopback: bool = True) -> None:
        self.loopback = loopback
        self._trusted = [ip_network(each, strict=False) for each in trusted_proxies]

    def is_direct(self, scope: Scope) -> bool:
        """True if a client on this machine made the request itself, through no proxy.

        A proxy is recognised by its address, by a header that proxies add, or by HTTP/1.0, which
        nginx uses for upstreams by default, without any such header.
        """
        peer = _peer(scope)
        return (
            self.loopback
            and peer is not None
            and peer.is_loopback
            and not self._is_trusted(peer)
            and scope["http_version"] != "1.0"
            and not any(_sender(name) is not _CLIENT for name, _ in scope["headers"])
        )

    def request(self, scope: Scope, body: Body, cf: dict[str, Any]) -> HttpRequest:
        """The request passed to a Worker, with the headers that the edge sets."""
        peer = _peer(scope)
        trusted = bool(self._trusted) and peer is not None and self._is_trusted(peer)
        headers = [
            (name.decode("latin-1"), value.strip(b" \t").decode("utf-8", "replace"))
            for name, value in scope["headers"]
            if trusted or _sender(name) is not _EDGE
        ]
        given = dict(headers)
        scheme = _last(given.get("x-forwarded-proto", "")) if trusted else ""
        if scheme not in {"http", "https"}:
            scheme = scope["scheme"]
        client = self._client(scope, peer) if trusted else _shown(peer)
        # XX is the platform's code for an unknown country.
        country = given.get("cf-ipcountry") or str(cf.get("country") or "XX")
        edge = {
            "cf-connecting-ip": client,
            "cf-ipcountry": country,
            "x-forwarded-proto": scheme,
        }
        headers = [each for each in headers if each[0] not in edge]
        headers += edge.items()
        host = given.get("host") or "localhost"
        url = f"{scheme}://{host}{scope['extensions'][TARGET].decode()}"
        connection = {
            "httpProtocol": f"HTTP/{scope['http_version']}",
            "clientAcceptEncoding": given.get("accept-encoding", ""),
        }
        return HttpRequest(scope["method"], url, headers, body, cf | connection)

    def _is_trusted(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)

    def _client(self, scope: Scope, peer: _Address | None) -> str:
        """The client's address according to trusted proxies; it is the last untrusted hop."""
        headers = Headers(scope=scope)
        named = headers.getlist("cf-connecting-ip")
        if len(named) == 1 and (address := _address(named[0])) is not None:
            return str(address)
        hops = ",".join(headers.getlist("x-forwarded-for")) or headers.get("x-real-ip", "")
        client = peer
        for hop in reversed(hops.split(",")):
            address = _address(hop.strip())
            if address is None:
                break
            client = address
            if not self._is_trusted(address):
                break
        return str(client)


def host_of(scope: Scope) -> str:
    """The lower-case host name of the Host header, without its port; "" if there is none."""
    for name, value in reversed(scope["headers"]):
        if name == b"host":
            return name_of(value.decode("latin-1"))
    return ""


def name_of(authority: str) -> str:
    """The host name in ``host:port``, lower-case, an IPv6 address without its brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()


def _last(values: str) -> str:
    return values.rpartition(",")[2].strip().lower()


def _sender(name: bytes) -> str:
    """Return who may set a header: _EDGE (the edge itself), _PROXY (any proxy) or _CLIENT."""
    return _known_sender(name) if len(name) <= NAME_KEPT_MAX else _sender_of(name)


def _sender_of(name: bytes) -> str:
    if name in _EDGE_HEADERS or name.startswith(_EDGE_PREFIXES):
        return _EDGE
    if name in _OF_PROGRAMS:
        return _CLIENT
    return _PROXY if name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES) else _CLIENT


_known_sender = lru_cache(NAMES_KEPT_MAX)(_sender_of)


def _peer(scope: Scope) -> _Address | None:
    client = scope.get("client")
    return None if client is None else _peer_address(client[0])


@lru_cache(ADDRESSES_KEPT_MAX)
def _peer_address(text: str) -> _Address | None:
    return _address(text)


@lru_cache(ADDRESSES_KEPT_MAX)
def _shown(peer: _Address | None) -> str:
    return str(peer or "127.0.0.1")


def _address(text: str) -> _Address | None:
    """Parse an address; IPv4-mapped IPv6 becomes IPv4; None if it is invalid."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
