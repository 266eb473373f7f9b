"""Commands that a test runs in its own process."""

import pytest


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command leaves the logging of the test process alone: its streams end with the test."""
    monkeypatch.setattr("edgesim.cli.logs.configure", lambda **_: None)
