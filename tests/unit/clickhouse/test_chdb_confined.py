"""The embedded engine's jail: SQL can access the database and nothing else on the machine."""

import socket
import threading
from pathlib import Path

import pytest

from edgesim.clickhouse.chdb.driver import open_clickhouse
from edgesim.clickhouse.gateway import Gateway
from edgesim.jail import landlock
from edgesim.model import HttpRequest, read_all

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock"),
]


@pytest.fixture
async def ask(tmp_path):
    async with open_clickhouse(f"chdb:{tmp_path}/db") as database:
        gateway = Gateway(database)

        async def ask(sql: str) -> tuple[int, str]:
            answer = await gateway.fetch(HttpRequest("POST", "http://c/", [], sql.encode()))
            return answer.status, (await read_all(answer.body)).decode()

        yield ask


async def test_files_of_others_cannot_be_read(ask, tmp_path):
    """file() cannot read system files or files beside the database."""
    (tmp_path / "queues.db").write_text("others' messages")
    for path in ("/etc/passwd", f"{tmp_path}/queues.db", "/proc/1/environ"):
        status, text = await ask(f"SELECT * FROM file('{path}', 'LineAsString')")
        assert status != 200, text
        assert ("/proc/1/environ is refused" if "/proc" in path else "Permission denied") in text


async def test_nothing_is_written_elsewhere(ask, tmp_path):
    """INTO OUTFILE is refused and creates no file."""
    outside = tmp_path / "stolen"
    status, text = await ask(f"SELECT 1 INTO OUTFILE '{outside}'")
    assert status != 200
    assert "INTO OUTFILE is not allowed" in text
    assert not outside.exists()


async def test_the_environment_is_not_the_platforms(ask, monkeypatch):
    """The engine does not inherit the platform's environment, which holds keys."""
    monkeypatch.setenv("EDGESIM_S3_SECRET_KEY", "sesame")
    status, text = await ask("SELECT * FROM file('/proc/self/environ', 'LineAsString')")
    assert status == 403, text
    assert await ask("SELECT 1") == (200, "1\n")
    processes = Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text()
    engines = [
        Path("/proc", pid, "environ").read_bytes()
        for pid in processes.split()
        if b"chdb.process" in Path("/proc", pid, "cmdline").read_bytes()
    ]
    assert engines
    assert not any(b"sesame" in each for each in engines)


CONNECTING = [
    "SELECT * FROM url('http://{}/x', 'LineAsString')",
    "SELECT * FROM s3('http://{}/bucket/key', 'k', 's', 'LineAsString')",
    "SELECT * FROM remote('{}', system.one)",
    "SELECT * FROM mysql('{}', 'd', 't', 'u', 'p')",
    "SELECT * FROM postgresql('{}', 'd', 't', 'u', 'p')",
    "SELECT * FROM redis('{}', 'k', 'k String, v String')",
    "SELECT * FROM mongodb('{}', 'd', 'c', 'u', 'p', 'a String')",
    "SELECT * FROM icebergS3('http://{}/bucket/key', 'k', 's')",
    "SELECT * FROM deltaLake('http://{}/bucket/key', 'k', 's')",
    "INSERT INTO FUNCTION url('http://{}/x', 'LineAsString', 'a String') SELECT 'x'",
    "CREATE TABLE u (a String) ENGINE = URL('http://{}/x', 'LineAsString'); SELECT * FROM u",
    "CREATE NAMED COLLECTION n AS url = 'http://{}/x', format = 'CSV'; SELECT * FROM url(n)",
]


async def test_no_connection_is_opened(ask):
    """No table function, table engine or named collection can connect to a server."""
    with socket.create_server(("127.0.0.1", 0)) as service:
        service.setblocking(False)
        address = f"127.0.0.1:{service.getsockname()[1]}"
        for script in CONNECTING:
            for statement in script.format(address).split("; "):
                status, text = await ask(statement)
            assert status != 200, statement
            with pytest.raises(BlockingIOError):
                service.accept()
        assert (await ask("SELECT 1"))[1] == "1\n", text


async def test_starting_removes_only_the_engines_own_leftovers(tmp_path):
    """A start removes the folders left by a killed engine and no other files."""
    scratch = tmp_path / "db" / "scratch"
    (scratch / "clickhouse-embedded-old").mkdir(parents=True)
    (scratch / "kept").write_text("x")
    (tmp_path / "kept").write_text("x")
    async with open_clickhouse(f"chdb:{tmp_path}/db") as database:
        answer = await Gateway(database).fetch(HttpRequest("POST", "http://c/", [], b"SELECT 1"))
        assert await read_all(answer.body) == b"1\n"
    assert not (scratch / "clickhouse-embedded-old").exists()
    assert (scratch / "kept").exists()
    assert (tmp_path / "kept").exists()
