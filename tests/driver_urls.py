"""URLs of drivers from installed packages, for the conformance suites."""

from pathlib import Path

import pytest

OPTION = "--driver-url"


def url_of_installed(request: pytest.FixtureRequest, scheme: str, folder: Path) -> str:
    """The URL for ``scheme`` from --driver-url, with ``{folder}`` replaced by an empty folder."""
    for template in request.config.getoption(OPTION):
        if str(template).partition(":")[0] == scheme:
            return str(template).replace("{folder}", str(folder))
    raise pytest.UsageError(f"the driver {scheme!r} needs {OPTION} '{scheme}:...{{folder}}...'")
