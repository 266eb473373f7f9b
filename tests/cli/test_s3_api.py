"""The S3 API of `edgesim dev`, used with boto3."""

import base64
import gzip
import io
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.processes import WORKERS, Dev, dev
from tests.s3_clients import OWN, refused, s3_client, s3_project, send

ROW = '{"event":"kill","player_id":"%s","ts":1767225600000,"props":{}}\n'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("s3")
    with dev(s3_project(folder / "project"), folder / "state", "--no-reload") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture
def client(running: Dev) -> Any:
    """A client with the credentials of the bucket ``kept``, which is empty."""
    client = s3_client(running.url)
    for found in client.list_objects_v2(Bucket="kept").get("Contents", []):
        client.delete_object(Bucket="kept", Key=found["Key"])
    return client


def text(found: Any) -> str:
    return str(found["Body"].read().decode())


@pytest.mark.parametrize(
    "key", ["a", "in/a b+c&d=e.txt", "ü/€/\U0001f600", "%2F..//x", "~(*)'!;:@$,"]
)
def test_an_object_has_its_bytes_and_metadata(client, key):
    """GET and HEAD return what PUT stored, for any key; DELETE removes it."""
    stored = client.put_object(
        Bucket="kept",
        Key=key,
        Body=b"hello",
        ContentType="text/x",
        CacheControl="max-age=5",
        ContentDisposition="inline",
        ContentEncoding="identity",
        ContentLanguage="fr",
        Expires="Thu, 01 Jan 2026 00:00:00 GMT",
        StorageClass="STANDARD_IA",
        Metadata={"player": "7", "note": "two words"},
    )
    assert stored["ETag"] == '"5d41402abc4b2a76b9719d911017c592"'
    for found in (
        client.get_object(Bucket="kept", Key=key),
        client.head_object(Bucket="kept", Key=key),
    ):
        assert found["ETag"] == stored["ETag"]
        assert found["ContentLength"] == 5
        assert found["ContentType"] == "text/x"
        assert found["CacheControl"] == "max-age=5"
        assert found["ContentDisposition"] == "inline"
        assert found["ContentEncoding"] == "identity"
        assert found["ContentLanguage"] == "fr"
        assert found["ExpiresString"] == "Thu, 01 Jan 2026 00:00:00 GMT"
        assert found["StorageClass"] == "STANDARD_IA"
        assert found["Metadata"] == {"player": "7", "note": "two words"}
    assert text(client.get_object(Bucket="kept", Key=key)) == "hello"
    client.delete_object(Bucket="kept", Key=key)
    assert refused(lambda: client.get_object(Bucket="kept", Key=key)) == (404, "NoSuchKey")


def test_metadata_outside_ascii_is_encoded(client):
    """RFC 2047 words are decoded for the bucket and encoded again for the client."""
    word = "=?utf-8?b?" + base64.b64encode("Kölner Dom".encode()).decode() + "?="
    client.put_object(Bucket="kept", Key="k", Body=b"", Metadata={"city": word})
    found = client.head_object(Bucket="kept", Key="k")["Metadata"]["city"]
    assert found.isascii()
    client.copy_object(
        Bucket="kept",
        Key="k2",
        CopySource="kept/k",
        Metadata={"city": found},
        MetadataDirective="REPLACE",
    )
    assert client.head_object(Bucket="kept", Key="k2")["Metadata"]["city"] == found


def test_metadata_of_workers_stays_in_its_headers(running, client):
    """Line ends are encoded or blanked, and names that no header can have are counted."""
    assert running.request() == (200, b"OK")
    found = client.get_object(Bucket="kept", Key="odd")
    encoded = base64.b64encode(b"a\r\nb: c").decode()
    assert found["Metadata"] == {"lines": f"=?utf-8?b?{encoded}?=", "plain": "x"}
    assert found["MissingMeta"] == 1
    assert found["ContentType"] == "text/a  x: y"


def test_operations_are_counted(running, client):
    """Changes and lists are class A of the bill, reads class B, deletions free."""

    def counted() -> tuple[int, int]:
        bucket = running.stats()["r2"]["kept"]
        return bucket["class_a"], bucket["class_b"]

    before = counted()
    client.put_object(Bucket="kept", Key="k", Body=b"x")
    client.list_objects_v2(Bucket="kept")
    client.get_object(Bucket="kept", Key="k")
    client.delete_object(Bucket="kept", Key="k")
    after = counted()
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
@pytest.mark.parametrize("size", [0, 1, 70_001, 1_048_576])
def test_boto3_checks_what_it_sends(client, algorithm, size):
    """Bodies with a checksum in a trailer or a header are stored and read back, bytes and files."""
    body = bytes(range(256)) * (size // 256 + 1)
    for given in (body[:size], io.BytesIO(body[:size])):
        stored = client.put_object(Bucket="kept", Key="k", Body=given, ChecksumAlgorithm=algorithm)
        assert stored[f"Checksum{algorithm}"]
        found = client.get_object(Bucket="kept", Key="k", ChecksumMode="ENABLED")
        assert found["Body"].read() == body[:size]


def test_a_range_is_a_part(client):
    """Ranges return 206 with Content-Range; one beyond the object is 416."""
    client.put_object(Bucket="kept", Key="k", Body=b"0123456789")
    for span, part, shown in (
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ):
        found = client.get_object(Bucket="kept", Key="k", Range=span)
        assert (text(found), found["ContentRange"]) == (part, shown)
    for span in ("bytes=10-", "bytes=-0"):
        call = {"Bucket": "kept", "Key": "k", "Range": span}
        assert refused(client.get_object, **call) == (416, "InvalidRange")
    assert client.get_object(Bucket="kept", Key="k", PartNumber=1)["ContentLength"] == 10


def test_conditions_of_reads(client):
    """A condition that does not hold is 304 for a client that has the object, else 412."""
    etag = client.put_object(Bucket="kept", Key="k", Body=b"1")["ETag"]
    modified = client.head_object(Bucket="kept", Key="k")["LastModified"]
    hour = timedelta(hours=1)
    for condition, status in (
        ({"IfMatch": etag}, 200),
        ({"IfMatch": etag.strip('"')}, 200),
        ({"IfMatch": '"other"'}, 412),
        ({"IfNoneMatch": '"other"'}, 200),
        ({"IfNoneMatch": etag}, 304),
        ({"IfNoneMatch": "*"}, 304),
        ({"IfModifiedSince": modified - hour}, 200),
        ({"IfModifiedSince": modified}, 304),
        ({"IfUnmodifiedSince": modified}, 200),
        ({"IfUnmodifiedSince": modified - hour}, 412),
    ):
        for read in (client.get_object, client.head_object):
            call = {"Bucket": "kept", "Key": "k", **condition}
            if status == 200:
                assert read(**call)["ETag"] == etag
            else:
                assert refused(read, **call)[0] == status


def test_conditions_of_writes(client):
    """PutObject stores nothing if its condition does not hold."""
    etag = client.put_object(Bucket="kept", Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    failed = (412, "PreconditionFailed")
    assert (
        refused(lambda: client.put_object(Bucket="kept", Key="k", Body=b"2", IfNoneMatch="*"))
        == failed
    )
    assert (
        refused(lambda: client.put_object(Bucket="kept", Key="k", Body=b"2", IfMatch='"x"'))
        == failed
    )
    assert text(client.get_object(Bucket="kept", Key="k")) == "1"
    client.put_object(Bucket="kept", Key="k", Body=b"3", IfMatch=etag)
    assert text(client.get_object(Bucket="kept", Key="k")) == "3"


def test_headers_of_a_response_are_overridden(client):
    """The ``response-*`` parameters replace the object's headers."""
    client.put_object(Bucket="kept", Key="k", Body=b"x", ContentType="text/a")
    found = client.get_object(
        Bucket="kept",
        Key="k",
        ResponseContentType="text/b",
        ResponseContentDisposition="attachment",
        ResponseCacheControl="no-cache",
    )
    assert found["ContentType"] == "text/b"
    assert found["ContentDisposition"] == "attachment"
    assert found["CacheControl"] == "no-cache"


def test_copies(client):
    """CopyObject copies or replaces metadata, and obeys conditions on the source."""
    client.put_object(
        Bucket="kept", Key="a b/ü", Body=b"1", Metadata={"x": "1"}, ContentType="text/a"
    )
    source = {"Bucket": "kept", "Key": "a b/ü"}
    copied = client.copy_object(Bucket="kept", Key="c", CopySource=source)
    assert copied["CopyObjectResult"]["ETag"]
    assert client.head_object(Bucket="kept", Key="c")["Metadata"] == {"x": "1"}
    client.copy_object(
        Bucket="kept",
        Key="c",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"y": "2"},
    )
    found = client.head_object(Bucket="kept", Key="c")
    assert found["Metadata"] == {"y": "2"}
    assert found["ContentType"] == "application/octet-stream"
    for wrong, expected in (
        ({"CopySource": "kept/none"}, (404, "NoSuchKey")),
        ({"CopySource": "open/c"}, (401, "Unauthorized")),
        ({"CopySource": "kept"}, (400, "InvalidArgument")),
        ({"CopySource": source, "CopySourceIfMatch": '"x"'}, (412, "PreconditionFailed")),
        ({"CopySource": source, "MetadataDirective": "X"}, (400, "InvalidArgument")),
    ):
        call = {"Bucket": "kept", "Key": "d", **wrong}
        assert refused(client.copy_object, **call) == expected


def test_lists_have_pages(client):
    """Both versions return every key and delimited prefix once, page by page."""
    keys = [f"k{n}" for n in range(7)] + ["p/1", "p/2", "q/1", "z&<ü\x01"]
    for key in keys:
        client.put_object(Bucket="kept", Key=key, Body=b"")
    for version in ("list_objects", "list_objects_v2"):
        for size in (1, 3, 1000):
            pages = client.get_paginator(version).paginate(
                Bucket="kept", Delimiter="/", PaginationConfig={"PageSize": size}
            )
            found, prefixes = [], []
            for page in pages:
                found += [each["Key"] for each in page.get("Contents", [])]
                prefixes += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
            assert found == [key for key in keys if "/" not in key]
            assert prefixes == ["p/", "q/"]
    found = client.list_objects_v2(Bucket="kept", StartAfter="p/1", FetchOwner=True)
    assert [each["Key"] for each in found["Contents"]] == ["p/2", "q/1", "z&<ü\x01"]
    assert found["Contents"][0]["Owner"]["ID"]
    assert found["KeyCount"] == 3


def test_many_objects_are_deleted_at_once(client):
    """DeleteObjects reports each key; ``Quiet`` only the failures."""
    for key in ("a", "b", "c"):
        client.put_object(Bucket="kept", Key=key, Body=b"")
    wanted = [{"Key": key} for key in ("a", "none", "x" * 1025)]
    found = client.delete_objects(Bucket="kept", Delete={"Objects": wanted})
    assert [each["Key"] for each in found["Deleted"]] == ["a", "none"]
    assert [each["Code"] for each in found["Errors"]] == ["InvalidObjectName"]
    found = client.delete_objects(Bucket="kept", Delete={"Objects": [{"Key": "b"}], "Quiet": True})
    assert "Deleted" not in found
    assert [each["Key"] for each in client.list_objects(Bucket="kept")["Contents"]] == ["c"]


def test_presigned_urls(client):
    """A URL stores an object and another reads it, with nothing but the URL."""
    place = {"Bucket": "kept", "Key": "a b/ü+"}
    put = client.generate_presigned_url("put_object", place, ExpiresIn=60)
    assert send(put, "PUT", {}, b"by url")[0] == 200
    get = client.generate_presigned_url("get_object", place, ExpiresIn=60)
    assert send(get, "GET", {})[2] == b"by url"
    with urllib.request.urlopen(get, timeout=60) as answer:
        assert answer.headers["content-length"] == "6"


def test_buckets(running, client):
    """Clients see the buckets that their key opens, and R2's answers about them."""
    operator = s3_client(running.url, OWN)
    assert [each["Name"] for each in client.list_buckets()["Buckets"]] == ["kept"]
    names = [each["Name"] for each in operator.list_buckets()["Buckets"]]
    assert names == ["kept", "open", "other"]
    client.head_bucket(Bucket="kept")
    assert client.get_bucket_location(Bucket="kept")["LocationConstraint"] == "auto"
    assert client.get_bucket_versioning(Bucket="kept").get("Status") is None
    assert client.get_bucket_encryption(Bucket="kept")["ServerSideEncryptionConfiguration"]
    for call, expected in (
        (lambda: client.get_bucket_tagging(Bucket="kept"), (404, "NoSuchTagSet")),
        (lambda: client.get_bucket_policy(Bucket="kept"), (501, "NotImplemented")),
        (lambda: client.get_object_acl(Bucket="kept", Key="k"), (501, "NotImplemented")),
        (lambda: client.get_object_tagging(Bucket="kept", Key="k"), (501, "NotImplemented")),
        (lambda: client.create_bucket(Bucket="kept"), (409, "BucketAlreadyOwnedByYou")),
        (lambda: operator.create_bucket(Bucket="new"), (501, "NotImplemented")),
        (lambda: operator.delete_bucket(Bucket="open"), (501, "NotImplemented")),
        (lambda: operator.list_objects_v2(Bucket="none"), (404, "NoSuchBucket")),
        (lambda: client.list_objects_v2(Bucket="open"), (401, "Unauthorized")),
    ):
        assert refused(call) == expected


def test_a_write_fires_its_notification(tmp_path):
    """The queue consumer of the pipeline inserts what an S3 client puts, once."""
    with dev(WORKERS, tmp_path / "state", "--no-reload") as running:
        client = s3_client(running.url, OWN)
        body = gzip.compress((ROW % "by-s3").encode())
        client.put_object(Bucket="events", Key="day=1/a.json.gz", Body=body)
        client.copy_object(
            Bucket="events", Key="day=1/b.json.gz", CopySource="events/day=1/a.json.gz"
        )
        running.drain()
        rows = running.sql("SELECT player_id, count() AS n FROM events GROUP BY player_id")
    assert rows in ([{"player_id": "by-s3", "n": "2"}], [{"player_id": "by-s3", "n": 2}])
