"""Client addresses behind proxies, and which requests are direct from this machine."""

import pytest

from edgesim.dev.edge import TARGET, Edge


def scope(peer="192.0.2.1", version="1.1", **headers):
    named = {"host": "shop.example", **headers}
    return {
        "type": "http",
        "http_version": version,
        "method": "GET",
        "scheme": "http",
        "client": None if peer is None else (peer, 1),
        "path": "/a",
        "raw_path": b"/a",
        "query_string": b"b=c",
        "extensions": {TARGET: b"/a?b=c"},
        "headers": [
            (name.replace("_", "-").encode(), value.encode())
            for name, values in named.items()
            for value in ([values] if isinstance(values, str) else values)
        ],
    }


FORGED = {
    "cf_connecting_ip": "6.6.6.6",
    "cf_connecting_ipv6": "2001:db8::6",
    "cf_ipcountry": "KP",
    "cf_ray": "forged",
    "cf_visitor": '{"scheme":"https"}',
    "cf_worker": "evil.example",
    "cf_access_jwt_assertion": "forged",
    "forwarded": "for=6.6.6.6",
    "true_client_ip": "6.6.6.6",
    "x_client_ip": "6.6.6.6",
    "x_forwarded_for": "6.6.6.6",
    "x_forwarded_host": "evil.example",
    "x_forwarded_proto": "https",
    "x_original_url": "/cdn-cgi/edgesim/sql",
    "x_real_ip": "6.6.6.6",
}


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1", "::1", "2001:db8::1"])
def test_a_client_cannot_set_what_the_edge_sets(peer):
    """Edge headers of an untrusted client are dropped or replaced by the connection's values."""
    request = Edge().request(scope(peer, accept="*/*", **FORGED), b"", {"country": "PT"})
    assert dict(request.headers) == {
        "host": "shop.example",
        "accept": "*/*",
        "cf-connecting-ip": peer,
        "cf-ipcountry": "PT",
        "x-forwarded-proto": "http",
    }
    assert len(request.headers) == 5
    assert request.url == "http://shop.example/a?b=c"


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"cf_connecting_ip": "198.51.100.7"}, "198.51.100.7"),
        ({"cf_connecting_ip": "2001:db8::7", "x_forwarded_for": "9.9.9.9"}, "2001:db8::7"),
        ({"x_forwarded_for": "198.51.100.7"}, "198.51.100.7"),
        ({"x_forwarded_for": "6.6.6.6, 198.51.100.7"}, "198.51.100.7"),
        ({"x_forwarded_for": "6.6.6.6, 198.51.100.7, 10.2.3.4"}, "198.51.100.7"),
        ({"x_forwarded_for": ["6.6.6.6", "198.51.100.7"]}, "198.51.100.7"),
        ({"x_forwarded_for": "no address"}, "10.0.0.1"),
        ({"x_forwarded_for": "198.51.100.7, no address"}, "10.0.0.1"),
        ({"x_real_ip": "198.51.100.7"}, "198.51.100.7"),
        ({"cf_connecting_ip": "no address"}, "10.0.0.1"),
        ({"cf_connecting_ip": ["6.6.6.6", "198.51.100.7"]}, "10.0.0.1"),
        ({}, "10.0.0.1"),
    ],
)
def test_a_trusted_proxy_names_the_client(headers, client):
    """The client is cf-connecting-ip, else the last untrusted address of x-forwarded-for."""
    request = Edge(["10.0.0.0/8"]).request(scope("10.0.0.1", **headers), b"", {})
    assert [value for name, value in request.headers if name == "cf-connecting-ip"] == [client]


def test_a_trusted_proxy_names_scheme_and_country():
    """x-forwarded-proto sets the URL's scheme; country and other edge headers are kept."""
    headers = {"x_forwarded_proto": "https", "cf_ipcountry": "NL", "cf_ray": "abc-AMS"}
    request = Edge(["::ffff:10.0.0.1", "10.0.0.1"]).request(scope("10.0.0.1", **headers), b"", {})
    assert request.url.startswith("https://shop.example/")
    assert request.header("cf-ipcountry") == "NL"
    assert request.header("cf-ray") == "abc-AMS"
    odd = Edge(["10.0.0.1"]).request(scope("10.0.0.1", x_forwarded_proto="gopher"), b"", {})
    assert odd.url.startswith("http://")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_a_client_of_this_machine_is_direct(peer):
    """A loopback client is direct, with any ordinary headers."""
    assert Edge().is_direct(scope(peer, user_agent="curl/8", authorization="Bearer x", x_id="1"))


@pytest.mark.parametrize(
    "seen",
    [
        scope("192.0.2.1"),
        scope(None),
        scope("127.0.0.1", "1.0"),
        *(scope("127.0.0.1", **{name: value}) for name, value in FORGED.items()),
        scope("127.0.0.1", via="1.1 proxy"),
        scope("127.0.0.1", x_forwarded_port="443"),
        scope("127.0.0.1", x_forwarded_prefix="/a"),
        scope("127.0.0.1", x_envoy_external_address="6.6.6.6"),
        scope("127.0.0.1", x_amzn_trace_id="1"),
        scope("127.0.0.1", cdn_loop="cloudflare"),
        scope("127.0.0.1", fly_client_ip="6.6.6.6"),
        scope("127.0.0.1", proxy_connection="close"),
        scope("127.0.0.1", tailscale_user_login="a@b.c"),
    ],
)
def test_a_forwarded_request_is_not_direct(seen):
    """Requests from elsewhere, over HTTP/1.0 (nginx) or with a proxy's header are not direct."""
    assert not Edge().is_direct(seen)


def test_nobody_is_direct_beyond_loopback_or_through_a_trusted_proxy():
    """No request is direct if the listener is not on loopback or the peer is a trusted proxy."""
    assert not Edge(loopback=False).is_direct(scope("127.0.0.1"))
    assert not Edge(["127.0.0.1"]).is_direct(scope("127.0.0.1"))
