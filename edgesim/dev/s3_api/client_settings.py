"""Settings with which Iceberg's clients read the files of a table through the S3 API."""

from __future__ import annotations

from starlette.requests import Request

from edgesim.dev.access import bearer
from edgesim.dev.s3_api.authorisation import OWN

PARENT = "/cdn-cgi"
FOLDER = "local/r2/s3/"
PREFIX = f"{PARENT}/{FOLDER}".rstrip("/")
"""The path below which buckets are, as in Cloudflare's local server."""


def settings(request: Request) -> dict[str, str]:
    """The settings, as Iceberg's FileIO names them."""
    found = {
        "s3.endpoint": f"{request.url.scheme}://{request.headers['host']}{PREFIX}",
        "s3.access-key-id": OWN.access_key,
        "s3.secret-access-key": OWN.secret,
        "s3.region": "auto",
        "s3.path-style-access": "true",
        "s3.force-virtual-addressing": "false",
    }
    token = bearer(request.headers)
    return found | ({"s3.session-token": token} if token else {})
