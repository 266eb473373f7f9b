"""The S3 API on a port of its own and on the front, used with several clients."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pyarrow.fs
import pytest
from miniopy_async.api import Minio

from tests.processes import Dev, dev, edgesim
from tests.s3_clients import BASE, OWN, PAIR, s3_client, s3_project, send

CLICKHOUSE = """
import sys, chdb
place, key, secret = sys.argv[1:]
table = f"s3('{place}', '{key}', '{secret}', 'CSV', 'n UInt32, s String')"
chdb.query(f"INSERT INTO FUNCTION {table} SELECT number, toString(number) FROM numbers(100000)")
print(chdb.query(f"SELECT sum(n), max(s) FROM {table}", "CSV"))
folder = place.rpartition("/")[0] + "/*.csv"
table = f"s3('{folder}', '{key}', '{secret}', 'CSV', 'n UInt32, s String')"
print(chdb.query(f"SELECT count(), uniqExact(_file) FROM {table}", "CSV"))
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dev, str]]:
    """The server, and the URL of its S3 port."""
    folder = tmp_path_factory.mktemp("s3")
    project = s3_project(folder / "project", "[server]\ns3_port = 0")
    with dev(project, folder / "state", "--no-reload") as server:
        assert server.process.stdout is not None
        line = server.process.stdout.readline()
        assert line.startswith("S3 on http://127.0.0.1:")
        yield server, line.removeprefix("S3 on ").strip()
        assert server.stop() == 0


def run(*command: object, **variables: str) -> str:
    environment = os.environ | {"NO_PROXY": "127.0.0.1"} | variables
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's, of parts
def test_miniopy_async(running):
    """The client that edgesim itself uses for S3 servers writes, lists, reads and removes."""
    server, url = running

    async def use() -> None:
        address = urlsplit(url).netloc
        async with Minio(address, *PAIR, secure=False, region="auto") as client:
            assert await client.bucket_exists("kept")
            body = bytes(range(256)) * 60_000  # in parts
            await client.put_object(
                "kept",
                "mini/a",
                io.BytesIO(body),
                len(body),
                part_size=5 << 20,
                metadata={"x": "y"},
            )
            await client.put_object("kept", "mini/b", io.BytesIO(b""), 0)
            found = [each.object_name async for each in client.list_objects("kept", "mini/")]
            assert found == ["mini/a", "mini/b"]
            read = await client.get_object("kept", "mini/a")
            assert await read.read() == body
            read.close()
            assert (await client.stat_object("kept", "mini/a")).size == len(body)
            await client.remove_object("kept", "mini/a")

    anyio.run(use)
    listed = s3_client(server.url).list_objects_v2(Bucket="kept", Prefix="mini/")
    assert [each["Key"] for each in listed["Contents"]] == ["mini/b"]


@pytest.mark.parametrize("on_own_port", [True, False])
def test_clickhouse(running, on_own_port):
    """ClickHouse's table function s3() inserts and reads, also a pattern of names."""
    server, url = running
    base = url if on_own_port else server.url + BASE
    place = f"{base}/kept/clickhouse-{on_own_port}/rows.csv"
    output = run(sys.executable, "-W", "ignore", "-c", CLICKHOUSE, place, *PAIR)
    assert output.split() == ['4999950000,"99999"', "100000,1"]


def test_pyarrow(running):
    """Arrow's file system, with the AWS SDK for C++, writes and reads files and folders."""
    _, url = running
    files = pyarrow.fs.S3FileSystem(
        access_key=PAIR[0],
        secret_key=PAIR[1],
        endpoint_override=urlsplit(url).netloc,
        scheme="http",
        region="auto",
    )
    body = b"0123456789" * 600_000
    with files.open_output_stream("kept/arrow/file") as stream:
        stream.write(body)
    with files.open_input_file("kept/arrow/file") as file:
        assert file.size() == len(body)
        assert file.read_at(10, 20) == b"0123456789"
        assert file.readall() == body
    selector = pyarrow.fs.FileSelector("kept/arrow", recursive=True)
    assert [each.path for each in files.get_file_info(selector)] == ["kept/arrow/file"]
    files.delete_file("kept/arrow/file")


@pytest.mark.skipif(shutil.which("aws") is None, reason="no AWS command line here")
def test_aws_command_line(running, tmp_path):
    """`aws s3` copies, synchronises, lists and removes; large files go in parts."""
    server, url = running
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "small").write_text("small")
    (tmp_path / "in" / "large").write_bytes(os.urandom(1 << 20) * 17)
    variables = {
        "AWS_ACCESS_KEY_ID": OWN[0],
        "AWS_SECRET_ACCESS_KEY": OWN[1],
        "AWS_REGION": "auto",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }

    def aws(*arguments: object, endpoint: str = url) -> str:
        return run("aws", "--endpoint-url", endpoint, *arguments, **variables)

    aws("s3", "sync", tmp_path / "in", "s3://open/aws")
    assert aws("s3", "ls", "s3://open/aws/").split()[3::4] == ["large", "small"]
    aws("s3", "cp", "s3://open/aws/small", "s3://other/copy")
    front = server.url + BASE
    aws("s3", "cp", "s3://other/copy", tmp_path / "copy", endpoint=front)
    assert (tmp_path / "copy").read_text() == "small"
    aws("s3", "cp", "s3://open/aws/large", tmp_path / "large")
    assert (tmp_path / "large").read_bytes() == (tmp_path / "in" / "large").read_bytes()
    aws("s3", "rm", "--recursive", "s3://open/aws")
    assert aws("s3api", "list-objects-v2", "--bucket", "open", "--prefix", "aws/").strip() in {
        "",
        '{\n    "RequestCharged": null,\n    "Prefix": "aws/"\n}',
    }


def test_a_worker_cannot_reach_it(running):
    """Neither address answers a Worker's fetch, not even for a bucket without credentials."""
    server, url = running
    for base in (url, server.url + BASE):
        status, _ = server.request("/", f"{base}/open/by-worker".encode())
        assert status == 500
        assert send(f"{base}/open/by-worker", "GET", {})[0] == 404


def test_the_port_is_the_operators(running, tmp_path):
    """It is on loopback; foreign hosts and pages are refused; one that is taken is one line."""
    _, url = running
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        assert send(f"{url}/open", "GET", headers)[0] == 403
    assert send(f"{url}/", "GET", {})[0] == 200
    port = urlsplit(url).port
    project = s3_project(tmp_path / "project", f"[server]\ns3_port = {port}")
    state = ("--port", 0, "--state", tmp_path / "state")
    done = edgesim("dev", project, *state)
    assert done.returncode == 2
    expected = f"edgesim: {Path(project)}/edgesim.toml: server.s3_port: cannot listen"
    assert done.stderr.splitlines()[-1].startswith(expected)
    done = edgesim("dev", project, "--s3-port", port, *state)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("edgesim: --s3-port: cannot listen on port")
