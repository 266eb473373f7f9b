"""A project whose buckets are on a real S3 server, shared with other programs."""

import gzip
import io

import anyio
import pytest

from tests.processes import WORKERS, dev, edgesim
from tests.servers_s3 import S3Server, seaweedfs_process

pytestmark = pytest.mark.s3_server

ROW = '{"event":"kill","player_id":"%s","ts":1767225600000,"props":{}}\n'


@pytest.fixture
def process(tmp_path, monkeypatch):
    """The server; environment variables name it for every command."""
    (tmp_path / "server").mkdir()
    with seaweedfs_process(tmp_path / "server") as process:
        server = process.server
        url = f"s3://{server.address}?secure=false&region=us-east-1&keys=plain"
        monkeypatch.setenv("EDGESIM_R2", url)
        monkeypatch.setenv("EDGESIM_S3_ACCESS_KEY", server.access_key)
        monkeypatch.setenv("EDGESIM_S3_SECRET_KEY", server.secret_key)
        yield process


async def put_by_others(server: S3Server, key: str, body: bytes) -> None:
    """Put an object with another S3 client."""
    async with server.client() as client:
        if not await client.bucket_exists("events"):
            await client.make_bucket("events")
        await client.put_object("events", key, io.BytesIO(body), len(body))


def test_what_others_put_is_found_by_requeue(process, tmp_path):
    """Objects that edgesim never saw are listed and ingested, each once, beside its own objects."""
    state = tmp_path / "state"

    def run(*arguments: object) -> str:
        done = edgesim(*arguments, "--project", WORKERS, "--state", state)
        assert done.returncode == 0, done.stderr
        return done.stdout

    body = gzip.compress((ROW % "theirs").encode())
    anyio.run(put_by_others, process.server, "day=1/theirs.json.gz", body)
    assert run("r2", "ls", "events").startswith(f"day=1/theirs.json.gz\t{len(body)}\t")
    assert run("r2", "requeue", "events", "--prefix", "day=") == "objects 1, messages 1\n"
    assert "day=1/theirs.json.gz" in run("queue", "peek", "ingest")
    ours = tmp_path / "ours.json.gz"
    ours.write_bytes(gzip.compress((ROW % "ours").encode()))
    run("r2", "put", "events", "ours.json.gz", ours)  # the next run delivers its notification
    with dev(WORKERS, state, "--no-reload") as running:
        stats = running.drain()
        rows = running.sql("SELECT player_id FROM events ORDER BY player_id")
    assert rows == [{"player_id": "ours"}, {"player_id": "theirs"}]
    assert stats["r2"]["events"]["objects"] == 2


def test_a_server_that_is_away_is_one_line(process, tmp_path):
    """Every command names the server that cannot be reached, and exits with code 3."""
    process.kill()
    for command in (("r2", "ls", "events"), ("r2", "put", "events", "k", __file__)):
        failed = edgesim(*command, "--project", WORKERS, "--state", tmp_path / "state")
        assert failed.returncode == 3
        assert failed.stderr.count("\n") == 1
        assert "r2 store the account: Cannot connect to host 127.0.0.1" in failed.stderr
