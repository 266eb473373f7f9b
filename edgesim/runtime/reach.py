"""Allow-list of addresses for a Worker's ``fetch``, checked on the resolved address it connects to.

edgesim's own listeners are always refused, because they would treat a Worker as the operator.
``strict`` (``edgesim serve``) also refuses loopback, link-local, private, shared (CGNAT),
multicast, reserved and unspecified addresses, in every IPv6 form that leads to one, unless
``allow`` lists them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from edgesim.config.outbound import Allowed

Address = IPv4Address | IPv6Address

_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("::ffff:0:0:0/96"))
"""NAT64 and SIIT prefixes: the IPv4 address is in the last four bytes."""
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_ISATAP = 0x00005EFE
"""Bytes 8 to 11 of an ISATAP address, ignoring the universal bit; the IPv4 address follows."""
_SIX_TO_FOUR_RELAYS = IPv4Network("192.88.99.0/24")

OWN = "it is a port of edgesim itself; use a binding or http://<worker>.localhost/"
INTERNAL = "a {} address; list it under [outbound] allow in edgesim.toml to permit it"


class RefusedAddressError(PermissionError):
    """A connection that a Worker may not open."""


class Reach:
    """Address rule for all Workers of one run; edgesim adds its own listeners as it opens them."""

    def __init__(self, allow: Iterable[Allowed] = (), *, strict: bool = False) -> None:
        self.strict = strict
        self.allow: Sequence[Allowed] = list(allow)
        self.inspectors: Callable[[], Collection[int]] = tuple
        """Returns the ports on loopback at which debuggers of Workers are served."""
        self._own: set[tuple[Address, int]] = set()

    def add_listener(self, listener: socket.socket) -> None:
        """Refuse the address and port of one of edgesim's own listeners from now on."""
        host, port = listener.getsockname()[:2]
        self._own.add((embedded(ip_address(host.partition("%")[0])), port))

    def refusal(self, host: str, address: str, port: int) -> str | None:
        """Return the reason to refuse a connection; None if it is allowed.

        ``host`` is the URL's host, ``address`` the IP address that it was resolved to.
        """
        target = embedded(ip_address(address.partition("%")[0]))
        if self._is_own(target, port):
            return OWN
        if not self.strict:
            return None
        kind = _internal(target)
        if kind is None or any(each.matches(host, target, port) for each in self.allow):
            return None
        return INTERNAL.format(kind)

    def _is_own(self, target: Address, port: int) -> bool:
        if port in self.inspectors() and (_is_local(target) or target.is_unspecified):
            return True
        for bound, own_port in self._own:
            if port != own_port:
                continue
            if bound.is_unspecified and _is_local(target):
                return True
            # A connection to the unspecified address goes to this machine's loopback.
            if target == bound or (target.is_unspecified and bound.is_loopback):
                return True
        return False


def embedded(address: Address) -> Address:
    """Return the IPv4 address embedded in an IPv6 address, else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return embedded(address.sixtofour)
    if address.teredo is not None:
        return address.teredo[1]
    number = int(address)
    inside = any(address in network for network in _TRANSLATED)
    isatap = number >> 32 & 0xFDFFFFFF == _ISATAP
    if inside or isatap or (address in _COMPATIBLE and number > 1):  # not :: and ::1
        return IPv4Address(number & 0xFFFFFFFF)
    return address


def _internal(address: Address) -> str | None:
    """Return the kind of an address outside the public internet; None for a public address."""
    for kind in ("unspecified", "loopback", "link_local", "multicast"):
        if getattr(address, f"is_{kind}"):
            return kind.replace("_", "-")
    local = getattr(address, "is_site_local", False) or address in _LOCAL_NAT64
    if local or address.is_private:
        return "private"
    relay = isinstance(address, IPv4Address) and address in _SIX_TO_FOUR_RELAYS
    return "reserved or shared" if address.is_reserved or not address.is_global or relay else None


def _is_local(address: Address) -> bool:
    """Return True if the address is one of this machine's."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
