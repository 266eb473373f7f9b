"""Access control for everything but Workers: admin endpoints, schedules, queues API, ClickHouse.

Checks, in this order: refuse web pages of another origin, and pages that a Worker serves under its
own host; refuse Workers of another edgesim, whose ``fetch`` sends LINEAGE; accept a valid token;
refuse everything else if EDGESIM_ADMIN_TOKEN is set; otherwise accept only a client on this
machine, through no proxy, whose Host header is a name of this machine (DNS rebinding sends
another).
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from edgesim.dev.edge import LOOPBACK_HOSTS, Edge, host_of, name_of
from edgesim.runtime.lineage import HEADER as LINEAGE
from edgesim.runtime.routing import LOCALHOST, named_by

_OWN_SITES = {"none", "same-origin"}
_PAGE_HEADERS = ("origin", "referer", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")
_OF_A_WORKER = "a Worker may not use this"


class Access:
    """Access rules of one run.

    ``token`` is EDGESIM_ADMIN_TOKEN; if it is set, every request needs a token. ``own_token`` is
    generated for this run and written to owner.json, which only the user can read: edgesim's
    commands use it.
    """

    def __init__(self, token: str | None, own_token: str) -> None:
        self._token = token
        self._own_token = own_token

    def refusal(self, scope: Scope, edge: Edge, *, worker_hosts: bool = False) -> str | None:
        """The reason to refuse the request, in one line; None to serve it.

        ``worker_hosts``: accept programs (not pages) that use the host ``<worker>.localhost``.
        """
        headers = Headers(scope=scope)
        problem = page_problem(headers) or (_OF_A_WORKER if LINEAGE in headers else None)
        if problem is not None or self.is_admin(bearer(headers)):
            return problem
        return self.tokenless_problem(scope, edge, worker_hosts=worker_hosts)

    def tokenless_problem(
        self, scope: Scope, edge: Edge, *, worker_hosts: bool = False
    ) -> str | None:
        """The reason to refuse a request without a valid token; None to serve it."""
        if LINEAGE in Headers(scope=scope):
            return _OF_A_WORKER
        if self._token is not None:
            return "the token is missing or wrong; send Authorization: Bearer $EDGESIM_ADMIN_TOKEN"
        if not edge.is_direct(scope):
            return (
                "only programs on this machine are served without a token, and none through a "
                "proxy; set EDGESIM_ADMIN_TOKEN and send Authorization: Bearer $EDGESIM_ADMIN_TOKEN"
            )
        name = host_of(scope)
        if name in LOOPBACK_HOSTS or (worker_hosts and named_by(name)[1] == LOCALHOST):
            return None
        return f"not served under the host name {name!r}; ask 127.0.0.1 or localhost"

    @property
    def needs_token(self) -> bool:
        """True if EDGESIM_ADMIN_TOKEN is set."""
        return self._token is not None

    def is_admin(self, given: str | None) -> bool:
        """True for the admin token or this run's own token; compares in constant time."""
        if given is None:
            return False
        return any(same(given, token) for token in (self._token, self._own_token) if token)


def page_problem(headers: Headers) -> str | None:
    """The reason to refuse a web page's request; None for programs and edgesim's own pages."""
    if not any(name in headers for name in _PAGE_HEADERS):
        return None
    host = headers.get("host", "").lower()
    if not set(headers.getlist("sec-fetch-site")) <= _OWN_SITES:
        return "a page of another site may not use this"
    for url in [*headers.getlist("origin"), *headers.getlist("referer")]:
        if _authority(url) != host:
            return "a page of another origin may not use this"
    if named_by(name_of(host))[0]:
        return "a page that a Worker serves under its own host may not use this"
    return None


def bearer(headers: Headers) -> str | None:
    """The Bearer token; None unless there is exactly one Authorization header, of that scheme."""
    given = headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() or None if scheme.lower() == "bearer" else None


def same(given: str, token: str) -> bool:
    """Compare two tokens in constant time."""
    return hmac.compare_digest(given.encode(), token.encode())


def _authority(url: str) -> str | None:
    """``host:port`` of a URL; None for "null" and invalid URLs."""
    try:
        return urlsplit(url).netloc.lower() or None
    except ValueError:  # unbalanced bracket around the host
        return None
