"""Faults of stores that are switched on and off while a project runs."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import WORKERS, Dev, dev

EVENT = {"event": "kill", "player_id": "player-7731", "ts": 1_767_225_600_000}
PATH = "/cdn-cgi/edgesim/faults"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with dev(WORKERS, tmp_path_factory.mktemp("faults"), "--no-reload") as running:
        yield running


def switch(running: Dev, rules: str, **options: Any) -> tuple[int, str]:
    status, body = running.request(PATH, rules.encode(), method="PUT", **options)
    return status, body.decode()


def active(running: Dev) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = json.loads(running.request(PATH, method="GET")[1])["rules"]
    return rules


def test_an_outage_delays_rows_and_loses_none(running):
    """During an outage of ClickHouse no row arrives; after it the same event has exactly one."""
    assert switch(running, "clickhouse.insert outage")[0] == 200
    assert running.post([EVENT]) == 200
    status, body = running.request("/cdn-cgi/edgesim/drain?timeout=5", b"")
    assert status == 504
    assert json.loads(body)["left"]["queues"]
    deadline = time.monotonic() + 60
    while active(running)[0]["struck"] == 0:
        assert time.monotonic() < deadline
    assert [each["rule"] for each in active(running)] == ["clickhouse.insert outage"]
    assert running.sql("SELECT count() AS rows FROM events") == [{"rows": 0}]
    assert switch(running, "") == (200, '{"rules":[]}')
    running.drain()
    assert running.sql("SELECT count() AS rows FROM events") == [{"rows": 1}]
    running.wait_log("faults are on", "clickhouse.insert outage")
    running.wait_log("faults are off")


def test_a_rule_that_stays_on_keeps_its_count(running):
    """A change of the set restarts only the rules that it adds."""
    switch(running, "r2.list error 100%")
    operation = b'{"operation": "r2.ls", "arguments": {"bucket": "events"}}'
    assert running.request("/cdn-cgi/edgesim/operations", operation)[0] == 503
    before = active(running)[0]["struck"]
    assert before >= 1
    switch(running, "r2.list error 100%\nqueues latency 1ms")
    assert active(running)[0] == {"rule": "r2.list error 100%", "struck": before}
    assert active(running)[1]["rule"] == "queues latency 1ms"
    switch(running, "")
    assert active(running) == []


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("r2 eror 5%", "rule 1: 'r2 eror 5%': there is no fault 'eror'; did you mean 'error'?"),
        ("r2 outage\nplatform kill at 1s", "rule 2: 'platform kill at 1s': there is no target"),
        ("/etc/hostname", "rule 1: '/etc/hostname': a rule is TARGET KIND"),
        ("r2 latency 1ms\n" * 30, "30 rules are too many; 20 can be on at a time"),
        ("#" * 20_000, "the rules are over 10000 bytes"),
    ],
)
def test_bad_rules_change_nothing(running, rules, problem):
    """A rule that is not valid, or not a store's, is refused with its line."""
    status, body = switch(running, rules)
    assert status == 400
    assert body.startswith(problem)
    assert active(running) == []


def test_a_page_of_another_site_switches_nothing(running):
    """The endpoint has the protection of the admin API."""
    status, _ = switch(running, "r2 outage", headers={"origin": "http://evil.example"})
    assert (status, active(running)) == (403, [])


def test_serve_refuses(tmp_path):
    """``serve`` injects no fault and says so."""
    with dev(WORKERS, tmp_path, command="serve") as running:
        status, body = switch(running, "r2 outage")
        assert (status, body) == (409, "faults are for `edgesim dev`; `serve` injects none\n")
        seen = json.loads(running.request(PATH, method="GET")[1])
        assert (seen["allowed"], seen["rules"]) == (False, [])
