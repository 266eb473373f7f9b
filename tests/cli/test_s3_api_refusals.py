"""Requests that the S3 API refuses: who may not use it, and bodies that are not as announced."""

import base64
import hashlib
import socket
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.processes import Dev, dev
from tests.s3_clients import (
    BASE,
    OWN,
    PAIR,
    Signer,
    code_of,
    refused,
    s3_client,
    s3_project,
    send,
    signed,
)

SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
CHECKSUMS = {
    "crc32": "y/Q5Jg==",
    "crc32c": "4waSgw==",
    "crc64nvme": "rosUhgp5mIg=",
    "sha1": base64.b64encode(hashlib.sha1(b"123456789").digest()).decode(),
    "sha256": base64.b64encode(hashlib.sha256(b"123456789").digest()).decode(),
}
"""Published check values: the checksums of the text 123456789."""
CHECKED = b"123456789"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("s3")
    with dev(s3_project(folder / "project"), folder / "state", "--no-reload") as server:
        yield server
        assert server.stop() == 0


def status_and_code(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    return answer[0], code_of(answer[2])


# --- callers --------------------------------------------------------------------------------------


def test_signatures_are_checked(running):
    """A wrong secret, key, service, time or header is refused with R2's code."""
    url = running.url
    assert signed(url, "GET", "/kept")[0] == 200
    for signer, expected in (
        (Signer((PAIR[0], "wrong")), (403, "SignatureDoesNotMatch")),
        (Signer((OWN[0], "wrong")), (403, "SignatureDoesNotMatch")),
        (Signer(("unknown", PAIR[1])), (401, "Unauthorized")),
        (Signer(service="sqs"), (400, "InvalidArgument")),
        (Signer(age=-16 * 60), (403, "RequestTimeTooSkewed")),
        (Signer(age=16 * 60), (403, "RequestTimeTooSkewed")),
    ):
        assert status_and_code(signed(url, "GET", "/kept", signer=signer)) == expected
    for age in (-14 * 60, 14 * 60):
        assert signed(url, "GET", "/kept", signer=Signer(age=age))[0] == 200
    signer = Signer()
    headers = signer.sign("GET", f"{url}{BASE}/kept/a", {}, "UNSIGNED-PAYLOAD")
    for other, expected in (
        ("/kept/b", (403, "SignatureDoesNotMatch")),
        ("/kept/a?prefix=x", (403, "SignatureDoesNotMatch")),
        ("/open/a", (401, "Unauthorized")),
        ("/none/a", (401, "Unauthorized")),
    ):
        assert status_and_code(send(f"{url}{BASE}{other}", "GET", headers)) == expected
    for name in ("x-amz-content-sha256", "x-amz-date"):
        fewer = {key: value for key, value in headers.items() if key != name}
        assert send(f"{url}{BASE}/kept/a", "GET", fewer)[0] == 400
    fewer = headers | {"authorization": "AWS4-HMAC-SHA256 Credential=x"}
    assert status_and_code(send(f"{url}{BASE}/kept/a", "GET", fewer)) == (400, "InvalidRequest")


def test_a_bucket_with_credentials_needs_a_signature(running):
    """Programs on this machine need none for other buckets, as for the admin endpoints."""
    assert status_and_code(send(f"{running.url}{BASE}/kept", "GET", {})) == (
        400,
        "InvalidArgument",
    )
    assert send(f"{running.url}{BASE}/open/unsigned", "PUT", {}, b"x")[0] == 200
    assert send(f"{running.url}{BASE}/open/unsigned", "GET", {})[2] == b"x"


def test_presigned_urls_expire(running):
    """An expired, altered or overlong URL is refused; so is a header that it does not sign."""
    client = s3_client(running.url)
    place = {"Bucket": "kept", "Key": "k"}
    client.put_object(**place, Body=b"x")
    old = client.generate_presigned_url("get_object", place, ExpiresIn=1)
    stamp = old.partition("X-Amz-Date=")[2][:16]
    expired = old.replace(stamp, f"{int(stamp[:4]) - 1}{stamp[4:]}")
    expired = expired.replace(f"%2F{stamp[:8]}%2F", f"%2F{int(stamp[:4]) - 1}{stamp[4:8]}%2F")
    assert status_and_code(send(expired, "GET", {})) == (403, "ExpiredRequest")
    get = client.generate_presigned_url("get_object", place, ExpiresIn=600)
    for altered, expected in (
        (get.replace("/kept/k?", "/kept/l?"), (403, "SignatureDoesNotMatch")),
        (get.replace("Expires=600", "Expires=601"), (403, "SignatureDoesNotMatch")),
        (get.replace("Expires=600", "Expires=604801"), (400, "InvalidArgument")),
        (get.replace("Expires=600", "Expires=x"), (400, "InvalidArgument")),
        (get.replace("Expires=600", "Expires=-600"), (403, "ExpiredRequest")),
        (get.replace("X-Amz-SignedHeaders=host&", ""), (400, "InvalidArgument")),
    ):
        assert altered != get
        assert status_and_code(send(altered, "GET", {})) == expected
    assert send(get, "GET", {})[2] == b"x"
    assert send(get, "PUT", {}, b"y")[0] == 403
    put = client.generate_presigned_url("put_object", place, ExpiresIn=600)
    smuggled = send(put, "PUT", {"x-amz-copy-source": "kept/other"}, b"")
    assert status_and_code(smuggled) == (403, "AccessDenied")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"referer": "https://evil.example/page"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_pages_of_other_sites_are_refused(running, headers):
    """Also with a valid signature: no bucket has a CORS rule.  A preflight is refused too."""
    client = s3_client(running.url)
    url = client.generate_presigned_url("put_object", {"Bucket": "kept", "Key": "page"})
    assert status_and_code(send(url, "PUT", headers, b"x")) == (403, "AccessDenied")
    assert send(f"{running.url}{BASE}/open/page", "PUT", headers, b"x")[0] == 403
    assert send(f"{running.url}{BASE}/open/page", "OPTIONS", headers)[0] == 403
    assert send(f"{running.url}{BASE}/open/page", "GET", {})[0] == 404


def test_workers_are_refused_without_the_buckets_credentials(running):
    """A request of a Worker, by its lineage, is not the operator's, signed or not."""
    for signer, path, expected in (
        (Signer(OWN), "/open/w", 403),
        (Signer(OWN), "/kept/w", 403),
        (Signer(), "/kept/w", 200),
    ):
        found = signed(running.url, "PUT", path, b"x", signer=signer, edgesim_lineage="0" * 32)
        assert found[0] == expected
    lineage = {"edgesim-lineage": "0" * 32}
    assert send(f"{running.url}{BASE}/open/w", "PUT", lineage, b"x")[0] == 403


def test_the_admin_token_closes_the_operators_way(tmp_path, monkeypatch):
    """With a token, edgesim's own key pair needs it; a bucket's credentials do not."""
    monkeypatch.setenv("EDGESIM_ADMIN_TOKEN", "secret")
    with dev(s3_project(tmp_path / "project"), tmp_path / "state", "--no-reload") as running:
        own = s3_client(running.url, OWN)
        assert refused(own.list_buckets) == (403, "AccessDenied")
        assert send(f"{running.url}{BASE}/open", "GET", {})[0] == 403
        bearer = {"authorization": "Bearer secret"}
        assert send(f"{running.url}{BASE}/open/k", "PUT", bearer, b"x")[0] == 200
        with_token = s3_client(running.url, OWN, aws_session_token="secret")
        assert [each["Key"] for each in with_token.list_objects(Bucket="open")["Contents"]]
        wrong = s3_client(running.url, OWN, aws_session_token="wrong")
        assert refused(wrong.list_buckets) == (403, "AccessDenied")
        s3_client(running.url).put_object(Bucket="kept", Key="k", Body=b"x")


# --- bodies ---------------------------------------------------------------------------------------


def put(running: Dev, body: bytes, payload: str | None = None, **headers: Any) -> tuple[int, str]:
    answer = signed(running.url, "PUT", "/kept/body", body, payload=payload, **headers)
    return status_and_code(answer)


def stored(running: Dev) -> bytes | None:
    """The object's bytes; None if there is none.  It is removed."""
    status, _, body = signed(running.url, "GET", "/kept/body")
    signed(running.url, "DELETE", "/kept/body")
    return body if status == 200 else None


@pytest.mark.parametrize("name", CHECKSUMS)
def test_checksums_are_compared(running, name):
    """A right one is stored and returned, in header and trailer; a wrong one is BadDigest."""
    value, header = CHECKSUMS[name], f"x-amz-checksum-{name}"
    right: dict[str, Any] = {header.replace("-", "_"): value}
    status, headers, _ = signed(running.url, "PUT", "/kept/body", CHECKED, **right)
    assert (status, headers[header]) == (200, value)
    assert stored(running) == CHECKED
    assert put(running, b"other", **right) == (400, "BadDigest")
    assert put(running, CHECKED, **{header.replace("-", "_"): "AAAA"}) == (400, "InvalidRequest")
    assert stored(running) is None
    for data, expected in ((b"987654321", (400, "BadDigest")), (CHECKED, (200, ""))):
        body = b"9\r\n%b\r\n0\r\n%b:%b\r\n\r\n" % (data, header.encode(), value.encode())
        trailer = {"x_amz_trailer": header, "x_amz_decoded_content_length": "9"}
        assert put(running, body, UNSIGNED_TRAILER, **trailer) == expected
        assert stored(running) == (data if expected[0] == 200 else None)


def test_hashes_are_compared(running):
    """The signed SHA-256 and Content-MD5 must be the body's."""
    digest = hashlib.sha256(b"x").hexdigest()
    assert put(running, b"y", digest) == (400, "XAmzContentSHA256Mismatch")
    md5 = base64.b64encode(hashlib.md5(b"x").digest()).decode()
    assert put(running, b"y", content_md5=md5) == (400, "BadDigest")
    assert put(running, b"y", content_md5="x") == (400, "InvalidDigest")
    assert put(running, b"y", "STREAMING-OTHER") == (400, "InvalidRequest")
    assert stored(running) is None
    assert put(running, b"x", content_md5=md5) == (200, "")
    assert put(running, b"x", "UNSIGNED-PAYLOAD") == (200, "")
    assert stored(running) == b"x"


def chunked(
    running: Dev, pieces: list[bytes], *, end: bytes | None = None, length: int | None = None
) -> tuple[int, str]:
    """PUT signed chunks, with a changed end or declared length."""
    signer = Signer()
    size = sum(map(len, pieces)) if length is None else length
    target = f"{running.url}{BASE}/kept/body"
    headers = {"x-amz-decoded-content-length": str(size), "content-encoding": "aws-chunked"}
    given = signer.sign("PUT", target, headers, SIGNED_CHUNKS)
    body = b"".join(map(signer.chunk, pieces))
    last = signer.chunk(b"") if end is None else end
    return status_and_code(send(target, "PUT", given, body + last))


def test_signed_chunks(running):
    """A body in signed chunks is stored; one that is altered, short or long is not."""
    big = bytes(range(256)) * 1024
    assert chunked(running, [big, b"the rest"]) == (200, "")
    assert stored(running) == big + b"the rest"
    bad_chunk = b"1;chunk-signature=" + b"0" * 64 + b"\r\nx\r\n"
    for end, length, code in (
        (b"", None, "IncompleteBody"),
        (b"5;chunk-signature=" + b"0" * 64 + b"\r\nab", None, "IncompleteBody"),
        (bad_chunk, None, "SignatureDoesNotMatch"),
        (b"0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n", None, "SignatureDoesNotMatch"),
        (b"x\r\n", None, "InvalidRequest"),
        (b"0" * 5000, None, "InvalidRequest"),
        (None, 5, "IncompleteBody"),
        (None, 3, "IncompleteBody"),
    ):
        status, found = chunked(running, [b"good"], end=end, length=length)
        assert (400 <= status < 500, found) == (True, code)
        assert stored(running) is None


def test_signed_trailers(running):
    """A checksum in a signed trailer is compared; a wrong signature stores nothing."""
    name = "x-amz-checksum-crc32"
    value = base64.b64encode(zlib.crc32(b"data").to_bytes(4)).decode()
    target = f"{running.url}{BASE}/kept/body"
    for alter, code in ((False, ""), (True, "SignatureDoesNotMatch")):
        signer = Signer()
        headers = {"x-amz-decoded-content-length": "4", "x-amz-trailer": name}
        given = signer.sign("PUT", target, headers, f"{SIGNED_CHUNKS}-TRAILER")
        body = signer.chunk(b"data") + signer.chunk(b"").removesuffix(b"\r\n")
        trailer = signer.trailer(name, value)
        if alter:
            trailer = trailer.replace(b"signature:", b"signature:0")
        assert status_and_code(send(target, "PUT", given, body + trailer))[1] == code
        assert stored(running) == (None if alter else b"data")
    lacking = {"x_amz_trailer": name, "x_amz_decoded_content_length": "1"}
    for end in (b"0\r\n\r\n", b"0\r\nno colon\r\n\r\n", b"0\r\na:" + b"x" * 400 + b"\r\n\r\n"):
        found = put(running, b"1\r\nx\r\n" + end, UNSIGNED_TRAILER, **lacking)
        assert found == (400, "MalformedTrailerError")
    assert stored(running) is None


def test_a_client_that_goes_away_stores_nothing(running):
    """A body that ends before its Content-Length is dropped without a trace in the log."""
    parts = urlsplit(running.url)
    start = f"PUT {BASE}/open/gone HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    head = f"{start}Content-Length: 900000\r\n\r\n"
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"x" * 300_000)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert send(f"{running.url}{BASE}/open/gone", "GET", {})[0] == 404
    assert not any("Traceback" in line or "failed" in line for line in running.log)
