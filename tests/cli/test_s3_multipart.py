"""Multipart uploads through the S3 API, used with boto3."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from edgesim.r2.limits import PART_BYTES_MIN
from tests.processes import Dev, dev, edgesim
from tests.s3_clients import Signer, code_of, refused, s3_client, s3_project, signed

PART = bytes(range(256)) * (PART_BYTES_MIN // 256)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("s3")
    with dev(s3_project(folder / "project"), folder / "state", "--no-reload") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture
def client(running: Dev) -> Any:
    return s3_client(running.url)


def begin(client: Any, key: str, **options: Any) -> dict[str, str]:
    """Create an upload; return the arguments that name it."""
    made = client.create_multipart_upload(Bucket="kept", Key=key, **options)
    return {"Bucket": "kept", "Key": key, "UploadId": made["UploadId"]}


def upload(client: Any, place: dict[str, str], *parts: bytes) -> list[dict[str, Any]]:
    """Upload the bodies as parts 1, 2, ... and return the list that completes them."""
    return [
        {"PartNumber": n, "ETag": client.upload_part(**place, PartNumber=n, Body=body)["ETag"]}
        for n, body in enumerate(parts, 1)
    ]


def complete(client: Any, place: dict[str, str], parts: list[dict[str, Any]]) -> Any:
    return client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})


def test_a_large_file_goes_in_parts(client):
    """boto3's transfer uploads and downloads a file in parallel parts."""
    settings = TransferConfig(
        multipart_threshold=PART_BYTES_MIN, multipart_chunksize=PART_BYTES_MIN, max_concurrency=3
    )
    body = PART + PART[::-1] + b"the end"
    client.upload_fileobj(
        io.BytesIO(body),
        "kept",
        "large",
        ExtraArgs={"ContentType": "text/x", "Metadata": {"a": "b"}},
        Config=settings,
    )
    found = client.head_object(Bucket="kept", Key="large")
    assert found["ContentLength"] == len(body)
    assert (found["ContentType"], found["Metadata"]) == ("text/x", {"a": "b"})
    assert found["ETag"].endswith('-3"')
    read = io.BytesIO()
    client.download_fileobj("kept", "large", read, Config=settings)
    assert read.getvalue() == body
    refusal = refused(client.get_object, Bucket="kept", Key="large", PartNumber=2)
    assert refusal == (501, "NotImplemented")


def test_parts_are_listed_and_replaced(client):
    """ListParts has pages; a part of the same number replaces the earlier one."""
    place = begin(client, "listed")
    upload(client, place, PART, b"old")
    parts = upload(client, place, PART, PART, b"new")
    found = client.list_parts(**place)
    assert [(each["PartNumber"], each["Size"]) for each in found["Parts"]] == [
        (1, len(PART)),
        (2, len(PART)),
        (3, 3),
    ]
    assert [each["ETag"] for each in found["Parts"]] == [each["ETag"] for each in parts]
    pages = client.get_paginator("list_parts").paginate(**place, PaginationConfig={"PageSize": 2})
    assert [[each["PartNumber"] for each in page["Parts"]] for page in pages] == [[1, 2], [3]]
    assert complete(client, place, parts)["ETag"].endswith('-3"')
    assert refused(client.list_parts, **place) == (404, "NoSuchUpload")
    assert client.head_object(Bucket="kept", Key="listed")["ContentLength"] == 2 * len(PART) + 3


def test_parts_are_copied(client):
    """UploadPartCopy takes a range of an object; one beyond its end is refused."""
    client.put_object(Bucket="kept", Key="source", Body=PART + b"tail")
    place = begin(client, "copied")
    source = {**place, "CopySource": "kept/source"}
    end = len(PART)
    ranges = (f"bytes=0-{end - 1}", f"bytes={end}-{end + 3}")
    parts = [
        {
            "PartNumber": n,
            "ETag": client.upload_part_copy(**source, PartNumber=n, CopySourceRange=span)[
                "CopyPartResult"
            ]["ETag"],
        }
        for n, span in enumerate(ranges, 1)
    ]
    for wrong, expected in (
        ({"CopySourceRange": f"bytes=0-{end + 4}"}, (416, "InvalidRange")),
        ({"CopySourceIfMatch": '"x"'}, (412, "PreconditionFailed")),
        ({"CopySource": "kept/none"}, (404, "NoSuchKey")),
    ):
        call = {**source, "PartNumber": 3, **wrong}
        assert refused(client.upload_part_copy, **call) == expected
    complete(client, place, parts)
    found = client.get_object(Bucket="kept", Key="copied")["Body"].read()
    assert found == PART + b"tail"


def test_uploads_are_listed(client):
    """ListMultipartUploads has pages, prefixes and the id with which the upload was created."""
    places = [begin(client, f"up/{n}/x") for n in range(4)] + [begin(client, "up/9")]
    pages = list(
        client.get_paginator("list_multipart_uploads").paginate(
            Bucket="kept", Prefix="up/", PaginationConfig={"PageSize": 2}
        )
    )
    found = [each["UploadId"] for page in pages for each in page.get("Uploads", [])]
    assert found == [place["UploadId"] for place in places]
    assert len(pages) == 3
    folded = client.list_multipart_uploads(Bucket="kept", Prefix="up/", Delimiter="/")
    assert [each["Prefix"] for each in folded["CommonPrefixes"]] == [f"up/{n}/" for n in range(4)]
    for place in places:
        client.abort_multipart_upload(**place)
        assert refused(client.abort_multipart_upload, **place) == (404, "NoSuchUpload")
    assert "Uploads" not in client.list_multipart_uploads(Bucket="kept", Prefix="up/")


def test_wrong_parts_are_refused(client):
    """Parts out of order, too small, uneven, unknown or of another upload complete nothing."""
    place = begin(client, "wrong")
    small = upload(client, place, b"1", b"2")
    assert refused(complete, client=client, place=place, parts=small) == (400, "EntityTooSmall")
    good = upload(client, place, PART, b"end")
    uneven = [
        good[0],
        *upload(client, place, PART, PART + b"x")[1:],
    ]
    refusals: tuple[tuple[list[dict[str, Any]], tuple[int, str]], ...] = (
        (good[::-1], (400, "InvalidPartOrder")),
        ([good[0], good[0]], (400, "InvalidPartOrder")),
        (uneven, (400, "InvalidPart")),
        ([{"PartNumber": 1, "ETag": '"0"'}], (400, "InvalidPart")),
        ([{"PartNumber": 7, "ETag": good[0]["ETag"]}], (400, "InvalidPart")),
        ([], (400, "MalformedXML")),
    )
    for parts, expected in refusals:
        assert refused(complete, client=client, place=place, parts=parts) == expected
    unknown = place | {"UploadId": "unknown"}
    assert refused(complete, client=client, place=unknown, parts=good) == (404, "NoSuchUpload")
    call = {**unknown, "PartNumber": 1, "Body": b"x"}
    assert refused(client.upload_part, **call) == (404, "NoSuchUpload")
    other = place | {"Key": "other"}
    assert refused(complete, client=client, place=other, parts=good) == (404, "NoSuchUpload")
    for number in (0, 10_001):
        call = {**place, "PartNumber": number, "Body": b"x"}
        assert refused(client.upload_part, **call) == (400, "InvalidArgument")
    client.abort_multipart_upload(**place)
    assert refused(client.head_object, Bucket="kept", Key="wrong")[0] == 404


def test_a_damaged_part_is_not_stored(running, client):
    """A part whose checksum is wrong leaves the earlier part of its number."""
    place = begin(client, "damaged")
    [part] = upload(client, place, b"good")
    path = f"/kept/damaged?partNumber=1&uploadId={place['UploadId']}"
    status, _, body = signed(
        running.url, "PUT", path, b"bad", x_amz_checksum_crc32c="AAAAAA==", signer=Signer()
    )
    assert (status, code_of(body)) == (400, "BadDigest")
    complete(client, place, [part])
    assert client.get_object(Bucket="kept", Key="damaged")["Body"].read() == b"good"


@pytest.mark.parametrize(
    "document",
    [b"", b"<x/>", b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber></Part>", b"\xff"],
)
def test_malformed_lists_of_parts(running, client, document):
    """They complete nothing, and the upload stays in progress."""
    place = begin(client, "malformed")
    upload(client, place, b"x")
    path = f"/kept/malformed?uploadId={place['UploadId']}"
    status, _, body = signed(running.url, "POST", path, document)
    assert (status, code_of(body)) == (400, "MalformedXML")
    assert len(client.list_parts(**place)["Parts"]) == 1
    client.abort_multipart_upload(**place)


def test_a_checksum_of_the_whole_object_is_not_the_lists(running, client):
    """CompleteMultipartUpload may name the object's checksum; only Content-MD5 is the body's."""
    place = begin(client, "whole")
    [part] = upload(client, place, b"x")
    document = (
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
        f"<ETag>{part['ETag']}</ETag></Part></CompleteMultipartUpload>"
    ).encode()
    path = f"/kept/whole?uploadId={place['UploadId']}"
    wrong = base64.b64encode(hashlib.md5(b"").digest()).decode()
    status, _, body = signed(running.url, "POST", path, document, content_md5=wrong)
    assert (status, code_of(body)) == (400, "BadDigest")
    whole: dict[str, Any] = {
        "x_amz_checksum_crc64nvme": "AAAAAAAAAAA=",
        "x_amz_checksum_type": "FULL_OBJECT",
    }
    assert signed(running.url, "POST", path, document, **whole)[0] == 200


def test_uploads_outlive_a_restart(tmp_path):
    """A part stored before kill -9 completes its upload afterwards, with one notification."""
    project = s3_project(tmp_path / "project")
    (project / "edgesim.toml").write_text(
        (project / "edgesim.toml").read_text()
        + '[[r2.kept.notifications]]\nqueue = "seen"\nevent = "object-create"\n'
    )
    with dev(project, tmp_path / "state", "--no-reload") as running:
        client = s3_client(running.url)
        place = begin(client, "k")
        parts = upload(client, place, b"before")
        running.process.kill()
        running.process.wait(60)
    with dev(project, tmp_path / "state", "--no-reload") as running:
        client = s3_client(running.url)
        [found] = client.list_multipart_uploads(Bucket="kept")["Uploads"]
        assert found["UploadId"] == place["UploadId"]
        complete(client, place, parts)
        assert client.get_object(Bucket="kept", Key="k")["Body"].read() == b"before"
        assert running.stop() == 0
    where = ("--project", project, "--state", tmp_path / "state")
    peeked = edgesim("queue", "peek", "seen", "--json", *where)
    assert peeked.returncode == 0, peeked.stderr
    text = json.dumps(json.loads(peeked.stdout))
    assert text.count("CompleteMultipartUpload") == 1
