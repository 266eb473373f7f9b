"""A call of an operation: the request, its caller, and the buckets it may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from edgesim.dev.s3_api.authorisation import Caller
from edgesim.dev.s3_api.documents import Element, document
from edgesim.dev.s3_api.payload import Payload
from edgesim.dev.s3_api.refusals import (
    S3ApiError,
    header_not_implemented,
    no_such_bucket,
    unauthorized,
)
from edgesim.dev.s3_api.request import S3Request
from edgesim.model import HttpResponse
from edgesim.r2.bucket import Bucket
from edgesim.simulator import Simulator

_STORAGE_CLASSES = {"STANDARD": "Standard", "STANDARD_IA": "InfrequentAccess"}
STORAGE_CLASS = "x-amz-storage-class"


class S3Call(msgspec.Struct, frozen=True):
    """One call of an operation."""

    request: S3Request
    caller: Caller
    simulator: Simulator

    @property
    def bucket(self) -> Bucket:
        """The bucket in the path."""
        return self.bucket_named(self.request.bucket)

    def bucket_named(self, name: str) -> Bucket:
        """A bucket that the caller may use."""
        if not self.caller.may_use(name):
            raise unauthorized()
        if name not in self.simulator.primitives.bucket_names():
            raise no_such_bucket()
        return self.simulator.primitives.bucket(name)

    def payload(self, *, is_object: bool = True) -> Payload:
        """The request's body; ``is_object`` False: the headers' checksums are not of it."""
        return Payload(self.request, self.caller, is_object=is_object)

    def storage_class(self) -> str | None:
        """R2's name of the storage class; None if the client names none."""
        given = self.request.header(STORAGE_CLASS)
        if given is None:
            return None
        if given not in _STORAGE_CLASSES:
            text = "The storage class specified is not valid."
            raise S3ApiError(400, "InvalidStorageClass", text)
        return _STORAGE_CLASSES[given]


Operation = Callable[[S3Call], Awaitable[HttpResponse]]


def storage_class_header(stored: str) -> str:
    """The value of the header for R2's name of a storage class."""
    names = {name: shown for shown, name in _STORAGE_CLASSES.items()}
    return names.get(stored, "STANDARD")


def xml_response(root: str, content: Element) -> HttpResponse:
    """A response with a document."""
    return HttpResponse(200, [("content-type", "application/xml")], document(root, content))


def iso_time(time_ms: float) -> str:
    """A time as documents have it."""
    time = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{int(time_ms) % 1000:03d}Z"


# --- headers that R2 refuses by name --------------------------------------------------------------

_OWNER = ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner")
_DELETING = ("x-amz-mfa", "x-amz-bypass-governance-retention")
_WRITING = (
    "x-amz-tagging",
    "x-amz-tagging-directive",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-website-redirect-location",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-bucket-key-enabled",
)
_CUSTOMER_KEY = (
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
)
_CANNED_ACLS = {
    *("private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read"),
    *("bucket-owner-read", "bucket-owner-full-control"),
}


def screen_headers(request: S3Request) -> None:
    """Refuse what R2 refuses, and encryption with the client's keys, which edgesim does not have.

    A canned ACL has no effect, as on R2.
    """
    refused = list(_OWNER + _CUSTOMER_KEY)
    if request.method in {"PUT", "POST"}:
        refused += _WRITING
    if request.method in {"DELETE", "POST"}:
        refused += _DELETING
    for name in refused:
        value = request.header(name)
        if value is not None:
            raise header_not_implemented(name, value)
    for name, accepted in (
        ("x-amz-server-side-encryption", {"AES256"}),
        ("x-amz-acl", _CANNED_ACLS),
    ):
        value = request.header(name)
        if value is not None and value not in accepted:
            raise header_not_implemented(name, value)
