"""Lineage of an incoming request: its depth in Workers, and its remaining invocations.

Fact: a request invokes Workers at most 32 times, and through at most 16 of them in a row
(https://developers.cloudflare.com/workers/runtime-apis/bindings/service-bindings/).  A request that
leaves by ``fetch`` and comes back, over a proxy for example, keeps its count: it carries a header
with an unguessable value.  Workers neither see nor set it; unknown values are ignored.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict

import msgspec

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest
from edgesim.tracing import TraceContext, current

HEADER = "edgesim-lineage"
INVOCATIONS_MAX = 32
KNOWN_MAX = 4096
"""Maximum lineages of outgoing requests that are remembered; the oldest are forgotten first."""
_LIMIT_EXCEEDED = (
    f"Too many Worker invocations: one incoming request may start {INVOCATIONS_MAX}, "
    "service bindings and fetches of local Workers included."
)

_known: OrderedDict[str, Lineage] = OrderedDict()


class _Budget:
    """Remaining invocations, shared by all invocations of one incoming request."""

    def __init__(self) -> None:
        self.left = INVOCATIONS_MAX


class Lineage:
    """Depth of an invocation, and the invocation budget of its incoming request."""

    def __init__(
        self,
        depth: int = 0,
        budget: _Budget | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        self.depth = depth
        self.trace = trace
        """The caller's span; None without tracing, and for a request from outside."""
        self._budget = budget or _Budget()
        self._token: str | None = None

    def next(self) -> Lineage:
        """Return the lineage of a Worker that this one calls."""
        return Lineage(self.depth + 1, self._budget, current.get())

    def count(self) -> None:
        """Count one invocation; PlatformError if the budget is used up."""
        if self._budget.left <= 0:
            raise PlatformError(_LIMIT_EXCEEDED)
        self._budget.left -= 1

    def header(self) -> tuple[str, str]:
        """Return the header of an outgoing request, by which it is recognized if it comes back."""
        if self._token is None:
            self._token = secrets.token_hex(16)
        _known[self._token] = self
        _known.move_to_end(self._token)
        if len(_known) > KNOWN_MAX:
            _known.popitem(last=False)
        return HEADER, self._token


def arrived(request: HttpRequest) -> Lineage:
    """Return the lineage of a request from outside: the one its header names, else a new one."""
    return _known.get(request.header(HEADER) or "") or Lineage()


def without_header(request: HttpRequest) -> HttpRequest:
    """Return the request without the lineage header, which Workers must not see."""
    if request.header(HEADER) is None:
        return request
    kept = [(name, value) for name, value in request.headers if name.lower() != HEADER]
    return msgspec.structs.replace(request, headers=kept)
