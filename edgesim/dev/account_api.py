"""The platform's HTTP API of an account, as far as edgesim has it."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.types import ASGIApp

from edgesim.dev.access import Access
from edgesim.dev.analytics_api import analytics_routes
from edgesim.dev.api_guard import Guard
from edgesim.dev.front import Front
from edgesim.dev.queues_api import queues_routes


def account_api(front: Front, access: Access, token: str | None) -> ASGIApp:
    """Build the application; ``token`` is EDGESIM_API_TOKEN, None if it is not set."""
    guard = Guard(front, access, token)
    return Starlette(routes=[*queues_routes(front, guard), *analytics_routes(front, guard)])
