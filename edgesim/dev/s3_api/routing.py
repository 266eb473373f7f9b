"""The operation that a request asks for, by method and query.

The named operations that R2 does not have, and those on settings that a local bucket does not have,
are refused as R2 does: ``<name> not implemented``.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgesim.dev.s3_api import buckets, deletion, listing, multipart, objects
from edgesim.dev.s3_api.call import Operation
from edgesim.dev.s3_api.refusals import (
    S3ApiError,
    invalid_argument,
    not_implemented,
    route_not_found,
)
from edgesim.dev.s3_api.request import S3Request

_SETTINGS = {
    "accelerate": "BucketAccelerateConfiguration",
    "acl": "BucketAcl",
    "analytics": "BucketAnalyticsConfiguration",
    "cors": "BucketCors",
    "encryption": "BucketEncryption",
    "intelligent-tiering": "BucketIntelligentTieringConfiguration",
    "inventory": "BucketInventoryConfiguration",
    "lifecycle": "BucketLifecycleConfiguration",
    "logging": "BucketLogging",
    "metrics": "BucketMetricsConfiguration",
    "notification": "BucketNotificationConfiguration",
    "object-lock": "ObjectLockConfiguration",
    "ownershipControls": "BucketOwnershipControls",
    "policy": "BucketPolicy",
    "policyStatus": "BucketPolicyStatus",
    "publicAccessBlock": "PublicAccessBlock",
    "replication": "BucketReplication",
    "requestPayment": "BucketRequestPayment",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
    "website": "BucketWebsite",
}
"""A bucket's settings: the query parameter, and the end of the operations' names."""
_ANSWERED: Mapping[str, Operation] = {
    "encryption": buckets.get_encryption,
    "location": buckets.get_location,
    "object-lock": buckets.get_object_lock,
    "replication": buckets.get_replication,
    "tagging": buckets.get_tagging,
    "uploads": multipart.list_uploads,
    "versioning": buckets.get_versioning,
}
"""GET of a bucket's settings that R2 answers."""
_NO_DELETION = {
    *("accelerate", "acl", "logging", "notification", "object-lock", "policyStatus"),
    *("requestPayment", "versioning"),
}
_OBJECT_SETTINGS = {
    "acl": ("GetObjectAcl", "PutObjectAcl"),
    "attributes": ("GetObjectAttributes", None),
    "legal-hold": ("GetObjectLegalHold", "PutObjectLegalHold"),
    "retention": ("GetObjectRetention", "PutObjectRetention"),
    "tagging": ("GetObjectTagging", "PutObjectTagging"),
    "torrent": ("GetObjectTorrent", None),
}

CLASS_B = {
    *(objects.get_object, objects.head_object, buckets.head_bucket, buckets.get_location),
    *(buckets.get_encryption, buckets.get_versioning),
}
"""Operations that R2 bills as reads; others are class A, as changes and lists are."""
FREE = {objects.delete_object, deletion.delete_objects, multipart.abort_upload}


def operation_of(request: S3Request) -> Operation:
    """The operation; S3ApiError if there is none."""
    if request.method == "OPTIONS":
        text = "This CORS request is not allowed: the bucket has no CORS rule."
        raise S3ApiError(403, "AccessForbidden", text)
    if not request.bucket:
        if request.method == "GET":
            return buckets.list_buckets
        raise route_not_found()
    return _of_object(request) if request.key else _of_bucket(request)


def _of_bucket(request: S3Request) -> Operation:
    match request.method:
        case "HEAD":
            return buckets.head_bucket
        case "GET":
            return _reading_of_bucket(request)
        case "POST" if request.has("delete"):
            return deletion.delete_objects
        case "POST":
            return buckets.post_form
        case "PUT" | "DELETE" as method:
            return _change_of_bucket(request, method)
    raise route_not_found()


def _reading_of_bucket(request: S3Request) -> Operation:
    for name, _ in request.query:
        if name in _ANSWERED:
            return _ANSWERED[name]
        if name in _SETTINGS:
            raise not_implemented(f"Get{_SETTINGS[name]}")
        if name == "versions":
            raise not_implemented("ListObjectVersions")
    return listing.list_objects


def _change_of_bucket(request: S3Request, method: str) -> Operation:
    for name, _ in request.query:
        if name in _SETTINGS and not (method == "DELETE" and name in _NO_DELETION):
            raise not_implemented(f"{method.title()}{_SETTINGS[name]}")
    names = [
        f'"{name}"'
        for name in dict(request.query)
        if not name.startswith("X-Amz-") and name != "x-id"
    ]
    if names:
        text = f"Unsupported search param(s) {', '.join(names)} on a {method} bucket route"
        raise invalid_argument(text)
    if method == "DELETE":
        raise not_implemented("DeleteBucket")
    return buckets.create_bucket


def _of_object(request: S3Request) -> Operation:
    copies = request.header(objects.COPY_SOURCE) is not None
    in_upload = request.has("uploadId")
    match request.method:
        case "GET" if in_upload:
            return multipart.list_parts
        case "GET" if request.has("uploads"):
            return multipart.list_uploads
        case "GET":
            _check_settings(request, 0)
            return objects.get_object
        case "HEAD":
            return objects.head_object
        case "PUT" if in_upload or request.has("partNumber"):
            return multipart.copy_part if copies else multipart.upload_part
        case "PUT":
            _check_settings(request, 1)
            return objects.copy_object if copies else objects.put_object
        case "POST" if request.has("uploads"):
            return multipart.create_upload
        case "POST" if in_upload:
            return multipart.complete_upload
        case "POST":
            return objects.put_object
        case "DELETE":
            return multipart.abort_upload if in_upload else objects.delete_object
    raise route_not_found()


def _check_settings(request: S3Request, place: int) -> None:
    for name, _ in request.query:
        operation = _OBJECT_SETTINGS.get(name, (None, None))[place]
        if operation is not None:
            raise not_implemented(operation)
