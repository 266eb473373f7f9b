"""Access to everything that is not a Worker: admin endpoints, schedules, queues API, ClickHouse.

The order of the checks: no web page of another origin, none that a Worker serves under its own
host; no Worker of another edgesim, whose ``fetch`` sends LINEAGE; then the token, if one is set or
sent; else only a client of this machine, through no proxy, that asks for this machine by a name of
its own (DNS rebinding brings another).
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
    """The rules of one run.

    ``token`` is EDGESIM_ADMIN_TOKEN; if it is set, every request needs it.  ``own_token`` is made
    for this run and stands in owner.json, which only the user can read: the commands use it.
    """

    def __init__(self, token: str | None, own_token: str) -> None:
        self._token = token
        self._own_token = own_token

    def refusal(self, scope: Scope, edge: Edge, *, worker_hosts: bool = False) -> str | None:
        """The reason to refuse the request, one line; None to serve it.

        ``worker_hosts``: a program (no page) may ask under ``<worker>.localhost``.
        """
        headers = Headers(scope=scope)
        problem = page_problem(headers) or (_OF_A_WORKER if LINEAGE in headers else None)
        if problem is not None or self.is_admin(bearer(headers)):
            return problem
        return self.tokenless_problem(scope, edge, worker_hosts=worker_hosts)

    def tokenless_problem(
        self, scope: Scope, edge: Edge, *, worker_hosts: bool = False
    ) -> str | None:
        """The reason to refuse a request without a token; None if it needs none."""
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
        """Whether EDGESIM_ADMIN_TOKEN is set."""
        return self._token is not None

    def is_admin(self, given: str | None) -> bool:
        """Whether it is the admin token, or this run's own; compared in constant time."""
        if given is None:
            return False
        return any(same(given, token) for token in (self._token, self._own_token) if token)


def page_problem(headers: Headers) -> str | None:
    """The reason to refuse a request of a web page; None for programs and for our own pages."""
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
    """The token of the one Authorization header, if its scheme is Bearer."""
    given = headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() or None if scheme.lower() == "bearer" else None


def same(given: str, token: str) -> bool:
    """Equality in a time that does not depend on where they differ."""
    return hmac.compare_digest(given.encode(), token.encode())


def _authority(url: str) -> str | None:
    """``host:port`` of a URL; None for "null" and what else is no URL."""
    try:
        return urlsplit(url).netloc.lower() or None
    except ValueError:  # half of a bracket around the host
        return None
