"""Access to the platform's HTTP API of an account, and its errors.

Every request needs a bearer token. If EDGESIM_API_TOKEN or EDGESIM_ADMIN_TOKEN is set, it must be
one of those. Otherwise any token is accepted from a program on this machine, since clients send one
anyway; requests through a proxy or from another machine are refused.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

from edgesim.dev.access import Access, bearer, page_problem, same
from edgesim.dev.front import Front

ACCOUNT = "/client/v4/accounts/{account}"
"""Path of an account; any is accepted."""


class RefusedError(Exception):
    """An error reply: the HTTP status, and the platform's error code and text."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Guard:
    """Checks the requests of one run; ``token`` is EDGESIM_API_TOKEN, None if it is not set."""

    def __init__(self, front: Front, access: Access, token: str | None) -> None:
        self._front = front
        self._access = access
        self._token = token

    def check(self, request: Request) -> None:
        """Raise RefusedError unless the request may use the API."""
        problem = page_problem(request.headers)
        if problem is not None:
            raise RefusedError(403, 10000, problem)
        given = bearer(request.headers)
        if given is None:
            raise RefusedError(401, 10000, "Authentication error: no Authorization: Bearer TOKEN")
        token = self._token
        if self._access.is_admin(given) or (token is not None and same(given, token)):
            return
        if token is not None:
            message = "Authentication error: the token is not EDGESIM_API_TOKEN"
            raise RefusedError(403, 10000, message)
        problem = self._access.tokenless_problem(request.scope, self._front.edge)
        if problem is not None:
            raise RefusedError(403, 10000, f"{problem}; or set EDGESIM_API_TOKEN")


def failure(status: int, code: int, message: str) -> JSONResponse:
    """An error in the API's envelope."""
    errors = [{"code": code, "message": message}]
    return JSONResponse(
        {"success": False, "errors": errors, "messages": [], "result": None}, status
    )


async def body_of(request: Request, most: int, code: int) -> bytes:
    """The request's body; RefusedError with this code if it is over ``most`` bytes."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise RefusedError(413, code, f"the body is over {most} bytes")
    return bytes(content)
