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
    kv: str | None = None
    clickhouse: str | None = None
    admin_token: str | None = None
    api_token: str | None = None
    ingest_token: str | None = None
    workerd: str | None = None
    esbuild: str | None = None
    variables: Mapping[str, str] = {}
    """The whole process environment: credentials of stores, secrets that Workers require."""

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Environment:
        """Read EDGESIM_R2 into ``r2``, EDGESIM_ADMIN_TOKEN into ``admin_token``, and so on."""
        source = os.environ if variables is None else variables
        names = {
            field: f"EDGESIM_{field.upper()}"
            for field in cls.__struct_fields__
            if field != "variables"
        }
        given = {field: source[name] for field, name in names.items() if source.get(name)}
        return cls(**given, variables=dict(source))

    def credentials(self, variables: Mapping[str, str]) -> dict[str, str | None]:
        """The value of each parameter's variable; None if it is unset or empty."""
        return {name: self.variables.get(variable) or None for name, variable in variables.items()}
