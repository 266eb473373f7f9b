"""Access to the endpoints that are not Workers: tokens, hosts and origins."""

import pytest

from edgesim.dev.access import Access
from edgesim.dev.edge import Edge
from edgesim.runtime.lineage import Lineage
from tests.unit.dev.test_edge import scope

OPEN = Access(None, "run-token")
CLOSED = Access("admin-token", "run-token")
LOCAL = {"peer": "127.0.0.1", "host": "127.0.0.1:8787"}


def refused(access, edge=None, *, worker_hosts=False, **request):
    seen = scope(**{**LOCAL, **request})
    return access.refusal(seen, edge or Edge(), worker_hosts=worker_hosts)


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost", "LOCALHOST:1", "[::1]:8787"])
def test_a_program_of_this_machine_needs_no_token(host):
    """Without an admin token, a local request to a loopback name is allowed."""
    assert refused(OPEN, host=host) is None
    assert refused(CLOSED, host=host) is not None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "localhost.",
        "127.0.0.1.nip.io",
        "10.0.0.7",
        "a.localhost",
    ],
)
def test_other_names_of_this_machine_are_refused(host):
    """Other host names are refused, against DNS rebinding; a Worker's host is no admin host."""
    assert repr(host) in refused(OPEN, host=host)


@pytest.mark.parametrize("token", ["admin-token", "run-token"])
@pytest.mark.parametrize("edge", [Edge(), Edge(loopback=False), Edge(["127.0.0.1"])])
def test_the_token_opens_from_everywhere(edge, token):
    """The admin token and the run's token are accepted from any client and through a proxy."""
    bearer = f"Bearer {token}"
    assert refused(CLOSED, edge, authorization=bearer) is None
    assert refused(CLOSED, edge, authorization=bearer.replace("B", "b"), peer="192.0.2.1") is None
    assert refused(CLOSED, edge, authorization=bearer, host="x.example", via="1.1 a") is None


@pytest.mark.parametrize(
    "authorization",
    [
        *("", "Bearer", "Bearer ", "Bearer wrong", "Bearer admin-toke", "Bearer admin-token2"),
        *("admin-token", "Basic admin-token", "Bearer admin-tok\xe9n", "Bearer None"),
        ["Bearer admin-token", "Bearer admin-token"],
        ["Bearer wrong", "Bearer admin-token"],
    ],
)
def test_a_wrong_token_does_not(authorization):
    """A set token is required of local programs too; any other value is refused."""
    assert "EDGESIM_ADMIN_TOKEN" in refused(CLOSED, authorization=authorization)


@pytest.mark.parametrize(
    "request_of_a_proxy",
    [
        {"peer": "192.0.2.1"},
        {"version": "1.0"},
        {"x_forwarded_for": "203.0.113.9"},
        {"x_real_ip": "203.0.113.9"},
        {"forwarded": "for=203.0.113.9"},
        {"via": "1.1 proxy"},
        {"cf_connecting_ip": "203.0.113.9"},
    ],
)
def test_without_a_token_a_forwarded_request_is_refused(request_of_a_proxy):
    """Without a token, a request through a proxy is refused, as its real client is unknown."""
    assert "through a proxy" in refused(OPEN, **request_of_a_proxy)


OWN = "http://127.0.0.1:8787"


@pytest.mark.parametrize("access", [OPEN, CLOSED])
@pytest.mark.parametrize(
    "page",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": ["same-origin", "cross-site"]},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": "http://127.0.0.1:8788"},
        {"origin": [OWN, "https://evil.example"]},
        {"referer": "https://evil.example/page"},
        {"host": "w.localhost:8787", "origin": "http://w.localhost:8787"},
        {"host": "w.localhost:8787", "sec_fetch_site": "same-origin"},
        {"host": "w.localhost:8787", "referer": "http://w.localhost:8787/"},
        {"host": "w.me.workers.dev", "sec_fetch_site": "none"},
    ],
)
def test_a_page_of_another_origin_is_refused(access, page):
    """Pages of other origins and of Workers' hosts are refused, even with the token."""
    token = {"authorization": "Bearer admin-token"} if access is CLOSED else {}
    assert "page" in refused(access, worker_hosts=True, **page, **token)


@pytest.mark.parametrize(
    "page",
    [
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"},
        {"sec_fetch_site": "same-origin", "origin": OWN, "referer": f"{OWN}/cdn-cgi/edgesim/"},
    ],
)
def test_our_own_pages_are_served(page):
    """A typed address and a page of the same origin are served."""
    assert refused(OPEN, **page) is None


def test_a_schedule_is_set_off_under_a_workers_host():
    """A local `curl http://<worker>.localhost:8787/cdn-cgi/handler/scheduled` is allowed."""
    assert refused(OPEN, worker_hosts=True, host="w.localhost:8787") is None
    assert refused(OPEN, worker_hosts=True, host="w.me.workers.dev") is not None
    assert refused(CLOSED, worker_hosts=True, host="w.localhost:8787") is not None


def test_a_worker_of_another_edgesim_is_refused():
    """A request sent by another edgesim's Worker with ``fetch`` is refused, even with the token."""
    name, value = Lineage().header()
    for access, authorization in ((OPEN, ""), (CLOSED, "Bearer admin-token")):
        marked = {name: value, "authorization": authorization}
        assert refused(access, **marked) == "a Worker may not use this"
        assert access.tokenless_problem(scope(**{**LOCAL, **marked}), Edge()) is not None
