"""The addresses that a Worker's fetch may connect to."""

import socket
from pathlib import Path

import pytest

from edgesim.config.outbound import allowed
from edgesim.runtime.reach import OWN, Reach

INTERNAL = [
    *("127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.3.4", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "100.127.255.254", "224.0.0.1", "239.1.2.3", "240.0.0.1"),
    *("255.255.255.255", "192.0.2.1", "198.18.0.1", "192.88.99.1"),
    *("::", "::1", "fe80::1", "fe80::1%lo", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:0"),
    *("::127.0.0.1", "::10.1.2.3", "::ffff:0:10.0.0.1"),  # compatible, SIIT
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),  # NAT64
    *("2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::5"),  # 6to4
    *("2001:0:4136:e378:8000:63bf:80ff:fffe",),  # Teredo of 127.0.0.1
    *("2001:db8::1", "2a00:1450::5efe:10.0.0.1", "2a00:1450::200:5efe:127.0.0.1"),  # ISATAP
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001::1"),
    *("::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"),
]


@pytest.mark.parametrize("address", INTERNAL)
def test_serve_refuses_internal_addresses(address):
    """`serve` refuses internal addresses in every notation."""
    reason = Reach(strict=True).refusal("example.com", address, 80)
    assert reason is not None
    assert "[outbound] allow" in reason


@pytest.mark.parametrize("address", PUBLIC)
def test_serve_reaches_public_addresses(address):
    """`serve` allows addresses of the public internet."""
    assert Reach(strict=True).refusal("example.com", address, 443) is None


@pytest.mark.parametrize("address", [*INTERNAL, *PUBLIC])
def test_dev_reaches_all_but_its_own(address):
    """`dev` allows all addresses, so that Workers reach a developer's other services."""
    assert Reach().refusal("example.com", address, 80) is None


def reach_beside(host: str, family: socket.AddressFamily, **settings) -> tuple[Reach, int]:
    reach = Reach(**settings)
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        reach.add_listener(listener)
        return reach, listener.getsockname()[1]


LOOPBACK_FORMS = [
    *("127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "::"),
    *("64:ff9b::7f00:1", "2002:7f00:1::"),
]


@pytest.mark.parametrize("address", LOOPBACK_FORMS)
def test_own_port_on_loopback_is_refused(address):
    """edgesim's own port on loopback is refused in every notation, even if allow-listed."""
    entries = allowed(Path("edgesim.toml"), ["127.0.0.0/8", "::/0", "0.0.0.0/0"])
    for strict in (False, True):
        reach, port = reach_beside("127.0.0.1", socket.AF_INET, strict=strict, allow=entries)
        assert reach.refusal("localhost", address, port) == OWN
        assert reach.refusal("localhost", address, port ^ 1) is None


def test_own_port_on_all_addresses_is_refused():
    """A port bound to 0.0.0.0 is refused on every address of the machine and on no other."""
    reach, port = reach_beside("0.0.0.0", socket.AF_INET)
    for address in (*LOOPBACK_FORMS, "127.4.5.6", "::1"):
        assert reach.refusal("x", address, port) == OWN
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            assert reach.refusal("x", probe.getsockname()[0], port) == OWN
        except OSError:  # a machine without a network has no other address
            pass
    assert reach.refusal("x", "192.0.2.1", port) is None


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "is_allowed"),
    [
        ("127.0.0.1:9200", "localhost", "127.0.0.1", 9200, True),
        ("127.0.0.1:9200", "localhost", "::ffff:127.0.0.1", 9200, True),
        ("127.0.0.1:9200", "localhost", "127.0.0.1", 9201, False),
        ("127.0.0.1:9200", "localhost", "127.0.0.2", 9200, False),
        ("10.0.0.0/8", "x", "10.200.3.4", 1, True),
        ("10.0.0.0/8", "x", "11.0.0.1", 1, True),
        ("10.0.0.0/8", "x", "192.168.0.1", 1, False),
        ("search.internal", "search.internal", "10.0.0.1", 80, True),
        ("search.internal", "SEARCH.internal.", "10.0.0.1", 80, True),
        ("search.internal", "evil.search.internal", "10.0.0.1", 80, False),
        ("search.internal:443", "search.internal", "10.0.0.1", 80, False),
        ("[fd00::1]:8080", "x", "fd00::1", 8080, True),
        ("[fd00::1]:8080", "x", "fd00::1", 80, False),
        ("fd00::/8", "x", "fd77::1", 80, True),
    ],
)
def test_the_list_permits_what_it_names(entry, host, address, port, is_allowed):
    """An entry is an address, a network or a host name, with or without a port."""
    reach = Reach(allowed(Path("edgesim.toml"), [entry]), strict=True)
    assert (reach.refusal(host, address, port) is None) is is_allowed
