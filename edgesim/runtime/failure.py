"""Errors of invocations without a response: an error page for clients, an exception for Workers."""

from __future__ import annotations

from edgesim.errors import PlatformError
from edgesim.isolates.protocol.wire import Failure
from edgesim.model import HttpResponse

_PAGES = {"exceededCpu": (503, 1102), "exceededMemory": (503, 1102)}
_EXCEPTION = (500, 1101)
_TEXT = [("content-type", "text/plain; charset=UTF-8")]


class NoResponseError(PlatformError):
    """Raised in the calling Worker; a client receives ``page()`` instead.

    ``code`` is the platform's error code: 1101 an exception, 1102 a limit, 1019 too many Workers in
    a row.
    """

    def __init__(
        self, status: int, code: int, message: str, failure: Failure | None = None
    ) -> None:
        super().__init__(message, "Error" if failure is None else failure.name)
        self._status = status
        self._code = code
        self._failure = failure

    def page(self, *, explained: bool = False) -> HttpResponse:
        """Return the platform's error page; ``explained``: the exception's traceback instead."""
        failure = self._failure
        text = f"error code: {self._code}"
        if explained and failure is not None:
            text = failure.shown()
        return HttpResponse(self._status, list(_TEXT), text.encode())


def status_of(outcome: str) -> int:
    """Return the HTTP status of the error page for an outcome."""
    return _PAGES.get(outcome, _EXCEPTION)[0]


def no_response(outcome: str, failure: Failure | None) -> NoResponseError:
    """Return the error for an outcome; ``failure`` is the uncaught exception, if any."""
    status, code = _PAGES.get(outcome, _EXCEPTION)
    message = f"The Worker ended as {outcome}."
    if failure is not None:
        message = failure.message.rpartition("\n")[2]
    return NoResponseError(status, code, message, failure)
