"""Who may use the endpoints that are not Workers."""

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
    """As long as none is set, and it asks for this machine by a name of its own."""
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
    """DNS rebinding brings a name that is not the machine's own; a Worker's is no admin host."""
    assert repr(host) in refused(OPEN, host=host)


@pytest.mark.parametrize("token", ["admin-token", "run-token"])
@pytest.mark.parametrize("edge", [Edge(), Edge(loopback=False), Edge(["127.0.0.1"])])
def test_the_token_opens_from_everywhere(edge, token):
    """The set token and the one of the run, through a proxy and from another machine too."""
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
    """A token that is set is always demanded, of programs of this machine too."""
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
    """The proxy's own client could be anybody."""
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
    """Also with the token, and also a page that a Worker serves under its own host."""
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
    """An address typed by a person, and a page of the same origin."""
    assert refused(OPEN, **page) is None


def test_a_schedule_is_set_off_under_a_workers_host():
    """By a program: `curl http://<worker>.localhost:8787/cdn-cgi/handler/scheduled`."""
    assert refused(OPEN, worker_hosts=True, host="w.localhost:8787") is None
    assert refused(OPEN, worker_hosts=True, host="w.me.workers.dev") is not None
    assert refused(CLOSED, worker_hosts=True, host="w.localhost:8787") is not None


def test_a_worker_of_another_edgesim_is_refused():
    """What its ``fetch`` sends is marked; the admin endpoints refuse it with the token too."""
    name, value = Lineage().header()
    for access, authorization in ((OPEN, ""), (CLOSED, "Bearer admin-token")):
        marked = {name: value, "authorization": authorization}
        assert refused(access, **marked) == "a Worker may not use this"
        assert access.tokenless_problem(scope(**{**LOCAL, **marked}), Edge()) is not None
