"""Default ``request.cf``: the edge's metadata of a request and its client.

Facts: the types of Cloudflare's runtime.  There is no edge here, so the values are plausible
constants; ``[cf]`` in edgesim.toml replaces them field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PLAUSIBLE: dict[str, Any] = {
    "asOrganization": "Example Networks",
    "asn": 64496,  # reserved for documentation
    "city": "Lisbon",
    "clientAcceptEncoding": "gzip",
    "clientTcpRtt": 12,
    "colo": "LIS",
    "continent": "EU",
    "country": "PT",
    "edgeRequestKeepAliveStatus": 1,
    "httpProtocol": "HTTP/1.1",
    "isEUCountry": "1",
    "latitude": "38.71670",
    "longitude": "-9.13330",
    "postalCode": "1000",
    "region": "Lisbon",
    "regionCode": "11",
    "requestPriority": "",
    "timezone": "Europe/Lisbon",
    "tlsCipher": "AEAD-AES128-GCM-SHA256",
    "tlsVersion": "TLSv1.3",
}


def request_cf(configured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``cf`` of every request, before values of its own connection are added."""
    return {**PLAUSIBLE, **configured}
