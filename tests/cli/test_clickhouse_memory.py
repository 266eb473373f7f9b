"""Memory that the platform needs to send an object to a ClickHouse server."""

import gzip
from pathlib import Path

import pytest

from tests.nodes.world import until, write_project
from tests.processes import Dev, dev, edgesim
from tests.servers_clickhouse import clickhouse_server

pytestmark = pytest.mark.clickhouse_server

ROWS = 1_000_000
MORE_BYTES_MAX = 48 << 20
"""Allowed growth in bytes for an object of 64 MB of JSON, or 100 MB of ids as Python columns."""


def packed(path: Path, rows: int, name: str) -> Path:
    """Build a gzip NDJSON object of ``rows`` rows."""
    with gzip.open(path, "wt", 1) as file:
        for start in range(0, rows, 10_000):
            file.writelines(
                f'{{"id":"{name}-{number:0>50}"}}\n' for number in range(start, start + 10_000)
            )
    return path


def peak_bytes(running: Dev) -> int:
    """Return the peak memory of the platform's process."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("scheme", ["clickhouse", "clickhouse+http"])
def test_memory_does_not_grow_with_the_object(tmp_path, scheme):
    """A million rows need hardly more memory in the platform than fifty thousand do."""
    project, state = write_project(tmp_path / "project"), tmp_path / "state"
    (tmp_path / "server").mkdir()
    with clickhouse_server(tmp_path / "server") as (http, tcp):
        port = tcp if scheme == "clickhouse" else http
        given = ("--clickhouse", f"{scheme}://127.0.0.1:{port}")
        with dev(project, state, *given, command="serve") as running:

            def insert(rows: int, name: str) -> int:
                file = packed(tmp_path / f"{name}.gz", rows, name)
                asked = ("--project", project, "--state", state)
                done = edgesim("r2", "put", "events", f"{name}.gz", file, *asked)
                assert done.returncode == 0, done.stderr
                query = f"SELECT count() AS n FROM seen WHERE id LIKE '{name}-%'"
                until(lambda: int(running.sql(query)[0]["n"]) == rows, 60, pause=0.2)
                return peak_bytes(running)

            insert(10_000, "schema")
            small = insert(50_000, "small")
            large = insert(ROWS, "large")
            assert running.stop() == 0
    print(f"{scheme}: {small / 1e6:.0f} MB, {large / 1e6:.0f} MB")
    assert large - small < MORE_BYTES_MAX
