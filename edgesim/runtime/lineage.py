"""The Workers that one incoming request has come through, and how many it may still start.

Fact: a request invokes Workers at most 32 times, and through at most 16 of them in a row
(https://developers.cloudflare.com/workers/runtime-apis/bindings/service-bindings/).  The count
stays with a request that leaves by ``fetch`` and comes back, over a proxy for example: it carries a
header whose value nobody can guess.  Workers neither see nor set it; from clients it means nothing.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict

import msgspec

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest

HEADER = "edgesim-lineage"
INVOCATIONS_MAX = 32
KNOWN_MAX = 4096
"""Requests that have gone out by ``fetch``, the latest of which are remembered."""
_LIMIT_EXCEEDED = (
    f"Too many Worker invocations: one incoming request may start {INVOCATIONS_MAX}, "
    "service bindings and fetches of local Workers included."
)

_known: OrderedDict[str, Lineage] = OrderedDict()


class _Budget:
    """What all invocations of one incoming request share."""

    def __init__(self) -> None:
        self.left = INVOCATIONS_MAX


class Lineage:
    """Where an invocation stands: its depth, and the budget of the request that it began with."""

    def __init__(self, depth: int = 0, budget: _Budget | None = None) -> None:
        self.depth = depth
        self._budget = budget or _Budget()
        self._token: str | None = None

    def next(self) -> Lineage:
        """That of a Worker which this one calls."""
        return Lineage(self.depth + 1, self._budget)

    def count(self) -> None:
        """Count one invocation; PlatformError if it is one too many."""
        if self._budget.left <= 0:
            raise PlatformError(_LIMIT_EXCEEDED)
        self._budget.left -= 1

    def header(self) -> tuple[str, str]:
        """For a request that leaves: with it the request is known again should it come back."""
        if self._token is None:
            self._token = secrets.token_hex(16)
        _known[self._token] = self
        _known.move_to_end(self._token)
        if len(_known) > KNOWN_MAX:
            _known.popitem(last=False)
        return HEADER, self._token


def arrived(request: HttpRequest) -> Lineage:
    """The lineage of a request from outside: known by its header, else a new one."""
    return _known.get(request.header(HEADER) or "") or Lineage()


def without_header(request: HttpRequest) -> HttpRequest:
    """The request as Workers see it."""
    if request.header(HEADER) is None:
        return request
    kept = [(name, value) for name, value in request.headers if name.lower() != HEADER]
    return msgspec.structs.replace(request, headers=kept)
