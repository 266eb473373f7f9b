"""``[iceberg]`` of edgesim.toml: limits of the requests to the Iceberg process."""

from __future__ import annotations

from typing import Annotated

import msgspec


class IcebergLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one request: a table's metadata read, checked or changed.

    ``memory_bytes`` is what the request may need beyond the memory that the process has already.
    """

    request_cpu_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    memory_bytes: Annotated[int, msgspec.Meta(ge=64 << 20)] = 1 << 30
