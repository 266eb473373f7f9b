"""Multipart uploads: create, upload and copy parts, list, complete, abort."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgesim.dev.s3_api import metadata
from edgesim.dev.s3_api.call import S3Call, iso_time, storage_class_header, xml_response
from edgesim.dev.s3_api.documents import read_document
from edgesim.dev.s3_api.listing import OWNER
from edgesim.dev.s3_api.objects import COPY_SOURCE, copy_source, read_range
from edgesim.dev.s3_api.refusals import (
    S3ApiError,
    invalid_argument,
    malformed_xml,
    no_such_key,
    not_implemented,
    precondition_failed,
)
from edgesim.dev.s3_api.request import S3Request
from edgesim.dev.s3_api.signature import encode
from edgesim.model import HttpResponse
from edgesim.r2.bucket import R2ObjectBody
from edgesim.r2.limits import KEYS_MAX, PARTS_MAX
from edgesim.r2.multipart import MultipartUpload, OpenUpload

_NUMBER = re.compile("[0-9]{1,9}")


async def create_upload(call: S3Call) -> HttpResponse:
    """Begin an upload."""
    request = call.request
    upload = await call.bucket.create_multipart_upload(
        request.key,
        http_metadata=metadata.http_metadata(request),
        custom_metadata=metadata.custom_metadata(request),
        storage_class=call.storage_class() or "Standard",
    )
    return xml_response(
        "InitiateMultipartUploadResult",
        {"Bucket": request.bucket, "Key": request.key, "UploadId": upload.upload_id},
    )


def _upload(call: S3Call) -> MultipartUpload:
    upload_id = call.request.parameter("uploadId") or ""
    return call.bucket.resume_multipart_upload(call.request.key, upload_id)


def _part_number(request: S3Request) -> int:
    given = request.parameter("partNumber") or ""
    if not _NUMBER.fullmatch(given) or not 1 <= int(given) <= PARTS_MAX:
        text = f"Part number must be an integer between 1 and {PARTS_MAX}, inclusive."
        raise invalid_argument(text)
    return int(given)


async def upload_part(call: S3Call) -> HttpResponse:
    """Store the body as a part."""
    upload, number = _upload(call), _part_number(call.request)
    payload = call.payload()
    payload.needs_length()
    part = await upload.upload_part(number, payload.stream())
    return HttpResponse(200, [("etag", f'"{part.etag}"'), *payload.shown().items()])


async def copy_part(call: S3Call) -> HttpResponse:
    """Store an object's bytes, or a range of them, as a part."""
    request = call.request
    upload, number = _upload(call), _part_number(request)
    source, source_key = copy_source(call)
    given = request.header(f"{COPY_SOURCE}-range")
    wanted = read_range(given) if given else None
    condition = metadata.conditional(request, f"{COPY_SOURCE}-")
    found = await source.head(source_key)
    if found is None:
        raise no_such_key()
    if wanted is not None and (wanted.offset or 0) + (wanted.length or 0) > found.size:
        text = "The requested range is not satisfiable"
        raise S3ApiError(416, "InvalidRange", text)
    read = await source.get(source_key, range=wanted, only_if=condition)
    if read is None:
        raise no_such_key()
    if not isinstance(read, R2ObjectBody):
        raise precondition_failed()
    part = await upload.upload_part(number, read.body)
    now_ms = call.simulator.primitives.clock.now_ms()
    return xml_response(
        "CopyPartResult", {"ETag": f'"{part.etag}"', "LastModified": iso_time(now_ms)}
    )


async def complete_upload(call: S3Call) -> HttpResponse:
    """Join the parts that the body names."""
    request, upload = call.request, _upload(call)
    stream = call.payload(is_object=False).stream()  # its checksum is the whole object's
    wanted = await read_document(aiter(stream), "CompleteMultipartUpload", "Part")
    await upload.parts()  # refuses an unknown upload
    parts: list[tuple[int, str]] = []
    for item in wanted.items:
        number, etag = item.get("PartNumber", "").strip(), item.get("ETag", "").strip()
        if not _NUMBER.fullmatch(number) or not etag:
            raise malformed_xml()
        if parts and int(number) <= parts[-1][0]:
            text = (
                "The list of parts was not in ascending order. "
                "Parts must be ordered by part number."
            )
            raise S3ApiError(400, "InvalidPartOrder", text)
        parts.append((int(number), etag.strip('"')))
    if not parts:
        raise malformed_xml()
    if not 1 <= parts[0][0] <= parts[-1][0] <= PARTS_MAX:
        text = "One or more of the specified parts could not be found."
        raise S3ApiError(400, "InvalidPart", text)
    stored = await upload.complete(parts)
    base = request.path.decode("latin-1")
    host = request.header("host") or "localhost"
    return xml_response(
        "CompleteMultipartUploadResult",
        {
            "Location": f"{request.scope['scheme']}://{host}{base}",
            "Bucket": request.bucket,
            "Key": request.key,
            "ETag": f'"{stored.etag}"',
        },
    )


async def abort_upload(call: S3Call) -> HttpResponse:
    """Drop the upload and its parts."""
    upload = _upload(call)
    await upload.parts()  # refuses an unknown upload
    await upload.abort()
    return HttpResponse(204)


async def list_parts(call: S3Call) -> HttpResponse:
    """The uploaded parts, by number."""
    request = call.request
    most = _count(request, "max-parts")
    after = _count(request, "part-number-marker", 0)
    parts = [each for each in await _upload(call).parts() if each.number > after]
    page = parts[:most]
    more = len(parts) > most
    return xml_response(
        "ListPartsResult",
        {
            "Bucket": request.bucket,
            "Key": request.key,
            "UploadId": request.parameter("uploadId"),
            "Initiator": OWNER,
            "Owner": OWNER,
            "StorageClass": "STANDARD",
            "PartNumberMarker": after,
            "NextPartNumberMarker": page[-1].number if more and page else None,
            "MaxParts": most,
            "IsTruncated": more,
            "Part": [
                {"PartNumber": each.number, "ETag": f'"{each.etag}"', "Size": each.size}
                for each in page
            ],
        },
    )


async def list_uploads(call: S3Call) -> HttpResponse:
    """The bucket's uploads in progress, by key and then by their start."""
    request = call.request
    prefix, delimiter = request.parameter("prefix") or "", request.parameter("delimiter") or ""
    encoding = request.parameter("encoding-type")
    if encoding not in {None, "url"}:
        raise not_implemented(f'Unrecognized encoding-type "{encoding}"')

    def shown(text: str) -> str:
        return encode(text, "/") if encoding else text

    most = _count(request, "max-uploads")
    marker, id_marker = request.parameter("key-marker") or "", request.parameter("upload-id-marker")
    entries = _folded(await call.bucket.uploads(prefix), prefix, delimiter)
    rest = _after(entries, marker, id_marker or "")
    page = rest[:most]
    more = len(rest) > most
    last = page[-1] if more and page else None
    return xml_response(
        "ListMultipartUploadsResult",
        {
            "Bucket": request.bucket,
            "KeyMarker": shown(marker),
            "UploadIdMarker": id_marker or "",
            "NextKeyMarker": None if last is None else shown(_place(last)),
            "NextUploadIdMarker": last.upload_id if isinstance(last, OpenUpload) else None,
            "Prefix": shown(prefix),
            "Delimiter": shown(delimiter) if delimiter else None,
            "EncodingType": encoding,
            "MaxUploads": most,
            "IsTruncated": more,
            "Upload": [
                {
                    "Key": shown(each.key),
                    "UploadId": each.upload_id,
                    "Initiator": OWNER,
                    "Owner": OWNER,
                    "StorageClass": storage_class_header(each.storage_class),
                    "Initiated": iso_time(each.begun_ms),
                }
                for each in page
                if isinstance(each, OpenUpload)
            ],
            "CommonPrefixes": [{"Prefix": shown(each)} for each in page if isinstance(each, str)],
        },
    )


def _folded(uploads: Sequence[OpenUpload], prefix: str, delimiter: str) -> list[OpenUpload | str]:
    """The uploads, and once each prefix into which the delimiter folds several."""
    entries: list[OpenUpload | str] = []
    for each in uploads:
        end = each.key.find(delimiter, len(prefix)) if delimiter else -1
        entry = each if end < 0 else each.key[: end + len(delimiter)]
        if not entries or entries[-1] != entry:
            entries.append(entry)
    return entries


def _after(
    entries: Sequence[OpenUpload | str], marker: str, id_marker: str
) -> list[OpenUpload | str]:
    """The entries of the pages after this place; the id counts only with its key."""
    for number, each in enumerate(entries):
        if isinstance(each, OpenUpload) and (each.key, each.upload_id) == (marker, id_marker):
            return list(entries[number + 1 :])
    return [each for each in entries if _place(each).encode() > marker.encode()]


def _place(entry: OpenUpload | str) -> str:
    return entry if isinstance(entry, str) else entry.key


def _count(request: S3Request, name: str, default: int = KEYS_MAX) -> int:
    given = request.parameter(name)
    if given is None or not given:
        return default
    if not _NUMBER.fullmatch(given):
        raise invalid_argument(f"{name} is not a number")
    return min(int(given), KEYS_MAX if default else PARTS_MAX)
