"""Names of R2 buckets."""

from __future__ import annotations

import re
from pathlib import Path

from edgesim.errors import ConfigError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


def check_bucket(file: Path, key: str, name: str) -> None:
    """Raise ConfigError, with ``file`` and ``key``, if R2 does not accept the bucket name."""
    if not _NAME.fullmatch(name):
        problem = (
            f"{name!r} is no bucket name; write 3 to 63 lower-case letters, digits and dashes, "
            "with no dash at either end"
        )
        raise ConfigError(file, key, problem)
