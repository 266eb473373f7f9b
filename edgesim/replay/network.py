"""The internet of a replay: what the fixture, or a test, says that it answers, and nothing else."""

from __future__ import annotations

from edgesim.errors import PlatformError
from edgesim.model import HttpRequest, HttpResponse
from edgesim.runtime.lineage import Lineage


class Network:
    """Answers by method and URL; a later answer replaces an earlier one."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], HttpResponse] = {}

    def learn(self, method: str, url: str, response: HttpResponse) -> None:
        """From now on this is the answer; its body is bytes."""
        self._answers[method.upper(), url] = response

    async def fetch(self, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        """The answer; AbortError, as for a network failure, where there is none."""
        found = self._answers.get((request.method, request.url))
        if found is None:
            raise PlatformError(
                f"a replay has no internet, and nothing was said of {request.method} {request.url}",
                "AbortError",
            )
        return HttpResponse(found.status, list(found.headers), found.body)
