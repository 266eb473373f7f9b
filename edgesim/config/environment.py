"""The one place that reads the process environment: secrets and per-run overrides.

Only EDGESIM_PORTABLE is read elsewhere (``edgesim.system``), because isolates need it too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec


class Environment(msgspec.Struct, frozen=True):
    """Values of the ``EDGESIM_*`` environment variables; None if one is unset or empty."""

    r2: str | None = None
    queues: str | None = None
    clickhouse: str | None = None
    s3_access_key: str | None = None
    s3_secret_key: str | None = None
    clickhouse_user: str | None = None
    clickhouse_password: str | None = None
    nats_user: str | None = None
    nats_password: str | None = None
    nats_token: str | None = None
    admin_token: str | None = None
    api_token: str | None = None
    ingest_token: str | None = None
    variables: Mapping[str, str] = {}
    """The whole process environment, a source for ``secrets.required`` of a Worker."""

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Environment:
        """Read EDGESIM_R2 into ``r2``, EDGESIM_S3_ACCESS_KEY into ``s3_access_key``, and so on."""
        source = os.environ if variables is None else variables
        names = {
            field: f"EDGESIM_{field.upper()}"
            for field in cls.__struct_fields__
            if field != "variables"
        }
        given = {field: source[name] for field, name in names.items() if source.get(name)}
        return cls(**given, variables=dict(source))
