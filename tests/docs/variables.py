"""The EDGESIM_ environment variables that edgesim and its own drivers read."""

import importlib

from edgesim.config import Environment
from edgesim.drivers import BUILT_IN

PORTABLE = "EDGESIM_PORTABLE"
"""Read by ``edgesim.system``, because isolates need it too."""


def known_variables() -> set[str]:
    """Names of all variables."""
    fields = set(Environment.__struct_fields__) - {"variables"}
    modules = {module for drivers in BUILT_IN.values() for module in drivers.values()}
    credentials = [
        getattr(importlib.import_module(module), "CREDENTIALS", {}) for module in modules
    ]
    return {
        PORTABLE,
        *(f"EDGESIM_{field.upper()}" for field in fields),
        *(variable for each in credentials for variable in each.values()),
    }
