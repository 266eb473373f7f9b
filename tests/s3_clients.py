"""Clients of the S3 API of a running edgesim: boto3, and requests signed by hand."""

import hashlib
import hmac
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from tests.simulated import write_worker

BASE = "/cdn-cgi/local/r2/s3"
PAIR = ("local-key", "local/secret")
OWN = ("edgesim", "edgesim")
EMPTY = hashlib.sha256().hexdigest()
MODULE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        body = await request.text()
        if body:
            answer = await fetch(body, method="PUT", body="by a Worker")
            return Response(str(answer.status))
        options = {
            "customMetadata": {"lines": "a\\r\\nb: c", "k\\u00e9y": "v", "plain": "x"},
            "httpMetadata": {"contentType": "text/a\\r\\nx: y"},
        }
        await self.env.KEPT.put("odd", "x", **options)
        return Response("OK")
"""


def s3_project(folder: Path, server: str = "") -> Path:
    """A project with the bucket ``kept``, which has credentials, and ``open``, which has none."""
    folder.mkdir()
    text = f'workers = ["main"]\n{server}\n[r2.open]\n[r2.other]\n'
    (folder / "edgesim.toml").write_text(text)
    pair = {"accessKeyId": PAIR[0], "secretAccessKey": PAIR[1]}
    local = {"experimental_s3_credentials": pair}
    bucket = {"binding": "KEPT", "bucket_name": "kept", "local_dev": local}
    write_worker(folder, "main", MODULE, r2_buckets=[bucket])
    return folder


def s3_client(url: str, pair: tuple[str, str] = PAIR, **options: Any) -> Any:
    """A boto3 client; ``url`` is that of edgesim."""
    return boto3.client(
        "s3",
        endpoint_url=url + BASE,
        aws_access_key_id=pair[0],
        aws_secret_access_key=pair[1],
        region_name="auto",
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        **options,
    )


def refused(call: Callable[..., Any], **options: Any) -> tuple[int, str]:
    """Status and code with which boto3's call was refused."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**options)
    found = error.value.response
    return found["ResponseMetadata"]["HTTPStatusCode"], found["Error"]["Code"]


def code_of(body: bytes) -> str:
    """The code in the XML of an error; empty if there is none."""
    return body.decode().partition("<Code>")[2].partition("</Code>")[0]


class Signer:
    """Signs requests by AWS's description of Signature Version 4."""

    def __init__(
        self, pair: tuple[str, str] = PAIR, *, age: float = 0, service: str = "s3"
    ) -> None:
        """``age`` in seconds: the signature is that old."""
        time = datetime.now(UTC) - timedelta(seconds=age)
        self.time = f"{time:%Y%m%dT%H%M%SZ}"
        self.key_id, self._secret = pair
        self.scope = f"{self.time[:8]}/auto/{service}/aws4_request"
        self.previous = ""

    def signature(self, *parts: str) -> str:
        """The signature of a string to sign."""
        key = f"AWS4{self._secret}".encode()
        for part in self.scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = "\n".join((parts[0], self.time, self.scope, *parts[1:]))
        self.previous = hmac.digest(key, text.encode(), "sha256").hex()
        return self.previous

    def sign(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        payload: str,
        unsigned: Sequence[str] = (),
    ) -> dict[str, str]:
        """The request's headers, with an Authorization that covers all but ``unsigned``."""
        parts = urllib.parse.urlsplit(url)
        given = headers | {"host": parts.netloc, "x-amz-date": self.time}
        given["x-amz-content-sha256"] = payload
        names = sorted(set(given) - set(unsigned))
        query = "&".join(
            "=".join(each.partition("=")[::2]) for each in sorted(parts.query.split("&")) if each
        )
        canonical = "\n".join(
            (
                method,
                parts.path,
                query,
                *(f"{name}:{given[name]}" for name in names),
                "",
                ";".join(names),
                payload,
            )
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        signature = self.signature("AWS4-HMAC-SHA256", digest)
        given["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key_id}/{self.scope}, "
            f"SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        return given

    def chunk(self, data: bytes) -> bytes:
        """A signed chunk of an aws-chunked body."""
        digest = hashlib.sha256(data).hexdigest()
        signature = self.signature("AWS4-HMAC-SHA256-PAYLOAD", self.previous, EMPTY, digest)
        return b"%x;chunk-signature=%b\r\n%b\r\n" % (len(data), signature.encode(), data)

    def trailer(self, name: str, value: str) -> bytes:
        """A signed trailer, after the last chunk without its end."""
        digest = hashlib.sha256(f"{name}:{value}\n".encode()).hexdigest()
        signature = self.signature("AWS4-HMAC-SHA256-TRAILER", self.previous, digest)
        return f"{name}:{value}\r\nx-amz-trailer-signature:{signature}\r\n\r\n".encode()


def send(
    url: str, method: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request; return status, headers and body."""
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def signed(
    url: str,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    signer: Signer | None = None,
    payload: str | None = None,
    unsigned: Sequence[str] = (),
    **headers: Any,
) -> tuple[int, dict[str, str], bytes]:
    """Send a signed request to the API; in names of headers ``_`` stands for ``-``."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    digest = hashlib.sha256(body or b"").hexdigest() if payload is None else payload
    target = url + BASE + path
    return send(
        target,
        method,
        (signer or Signer()).sign(method, target, given, digest, unsigned),
        body,
    )


def stats_of(running: Any, bucket: str) -> int:
    """The number of objects in a bucket."""
    found = json.loads(running.request("/cdn-cgi/edgesim/stats", method="GET")[1])
    return int(found["r2"][bucket]["objects"])
