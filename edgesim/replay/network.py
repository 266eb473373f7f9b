"""The internet of a replay: only responses defined by the fixture or a test."""

from __future__ import annotations

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse
from edgesim.runtime.lineage import Lineage


class Network:
    """Responses by method and URL; a later one replaces an earlier one."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], HttpResponse] = {}

    def learn(self, method: str, url: str, response: HttpResponse) -> None:
        """Define the response from now on; its body must be bytes."""
        self._answers[method.upper(), url] = response

    async def fetch(self, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        """The defined response; without one, AbortError as for a network failure."""
        found = self._answers.get((request.method, request.url))
        if found is None:
            raise PlatformError(
                "a replay has no internet, and no response is defined for "
                f"{request.method} {request.url}",
                "AbortError",
            )
        return HttpResponse(found.status, list(found.headers), found.body)
