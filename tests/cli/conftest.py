"""Fixtures for commands that run in the test's own process."""

import pytest


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep commands from configuring the test process' logging: its streams close with the test."""
    monkeypatch.setattr("edgesim.cli.logs.configure", lambda **_: None)
