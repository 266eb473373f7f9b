"""The web pages at /cdn-cgi/edgesim/: static files without data, which any local browser may load.

All data comes from the admin endpoints, under their access rules.  A strict Content-Security-Policy
keeps an event that holds HTML from running anything, whatever a page does with it.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).with_name("ui")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-cache",
}
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}


def page_routes(prefix: str) -> list[BaseRoute]:
    """The routes of the pages below ``prefix``."""

    async def bare(request: Request) -> Response:
        return RedirectResponse(f"{prefix}/")

    async def index(request: Request) -> Response:
        return _file("index.html")

    async def part(request: Request) -> Response:
        return _file(request.path_params["name"])

    return [
        Route(prefix, bare, methods=["GET"]),
        Route(f"{prefix}/", index, methods=["GET"]),
        Route(f"{prefix}/ui/{{name}}", part, methods=["GET"]),
    ]


def _file(name: str) -> Response:
    known = {each.name: each for each in FOLDER.iterdir()}
    if name not in known:
        return Response("no such file\n", 404, media_type="text/plain")
    path = known[name]
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=_HEADERS)
