"""``[sql]`` of edgesim.toml: limits of the statements of pipelines."""

from __future__ import annotations

from typing import Annotated

import msgspec


class SqlLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one batch of rows, up to 4 MB of JSON, in one statement.

    ``memory_bytes`` is what the batch may need beyond the memory that the engine has already.
    """

    batch_cpu_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    memory_bytes: Annotated[int, msgspec.Meta(ge=64 << 20)] = 1 << 30
