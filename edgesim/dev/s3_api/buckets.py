"""Operations on buckets, most of which R2 answers the same for every bucket."""

from __future__ import annotations

import re

from edgesim.dev.s3_api.call import S3Call, iso_time, xml_response
from edgesim.dev.s3_api.listing import OWNER, max_keys
from edgesim.dev.s3_api.refusals import S3ApiError, invalid_argument, not_implemented
from edgesim.model import HttpResponse
from edgesim.r2.limits import KEYS_MAX

_OF_EVERY_REQUEST = re.compile("X-Amz-.*|x-id|location")


async def list_buckets(call: S3Call) -> HttpResponse:
    """The caller's buckets; a bucket's creation is the start of this run.

    R2's extensions: ``prefix``, ``start-after``, ``max-keys`` and ``continuation-token``.
    """
    request, primitives = call.request, call.simulator.primitives
    prefix = request.parameter("prefix") or ""
    after = request.parameter("continuation-token") or request.parameter("start-after") or ""
    most = min(max(max_keys(request), 1), KEYS_MAX)
    names = [
        name
        for name in sorted(primitives.bucket_names())
        if call.caller.may_use(name) and name.startswith(prefix) and name > after
    ]
    clock = primitives.clock
    begun_ms = clock.now_ms() - 1000 * (clock.elapsed() - call.simulator.opened_at)
    page = names[:most]
    more = len(names) > most
    return xml_response(
        "ListAllMyBucketsResult",
        {
            "Buckets": {
                "Bucket": [{"Name": name, "CreationDate": iso_time(begun_ms)} for name in page]
            },
            "Owner": OWNER,
            "IsTruncated": more,
            "NextContinuationToken": page[-1] if more else None,
        },
    )


async def head_bucket(call: S3Call) -> HttpResponse:
    """Success, if the bucket exists."""
    assert call.bucket
    return HttpResponse(200, [("x-amz-bucket-region", "auto")])


async def create_bucket(call: S3Call) -> HttpResponse:
    """Refused: a bucket of the project exists already, and others are made by its files."""
    if call.request.bucket in call.simulator.primitives.bucket_names():
        assert call.bucket
        raise S3ApiError(
            409,
            "BucketAlreadyOwnedByYou",
            "Your previous request to create the named bucket succeeded and you already own it.",
        )
    raise S3ApiError(
        501,
        "NotImplemented",
        "CreateBucket not implemented: a bucket exists as soon as r2_buckets of a Worker or "
        f"[r2.{call.request.bucket}] in edgesim.toml names it",
    )


async def get_location(call: S3Call) -> HttpResponse:
    """R2's only region."""
    assert call.bucket
    for name, _ in call.request.query:
        if not _OF_EVERY_REQUEST.fullmatch(name):
            raise invalid_argument(f"Search param {name} is unsupported for bucket location")
    return xml_response("LocationConstraint", "auto")


async def get_encryption(call: S3Call) -> HttpResponse:
    """R2 always encrypts at rest."""
    assert call.bucket
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
        "BucketKeyEnabled": True,
    }
    return xml_response("ServerSideEncryptionConfiguration", {"Rule": rule})


async def get_versioning(call: S3Call) -> HttpResponse:
    """R2 has no versions."""
    assert call.bucket
    return xml_response("VersioningConfiguration", "")


async def get_tagging(call: S3Call) -> HttpResponse:
    """R2 has no tags of buckets."""
    assert call.bucket
    raise S3ApiError(404, "NoSuchTagSet", "The TagSet does not exist.")


async def get_object_lock(call: S3Call) -> HttpResponse:
    """R2 has no object lock in this API."""
    assert call.bucket
    raise S3ApiError(
        404,
        "ObjectLockConfigurationNotFoundError",
        "Object Lock configuration does not exist for this bucket.",
    )


async def get_replication(call: S3Call) -> HttpResponse:
    """R2 has no replication."""
    assert call.bucket
    raise S3ApiError(
        404,
        "ReplicationConfigurationNotFoundError",
        "The replication configuration was not found.",
    )


async def post_form(call: S3Call) -> HttpResponse:
    """Refused: uploads by HTML forms."""
    assert call.bucket
    raise not_implemented("Presigned post requests are not yet implemented")
