"""Errors of the S3 API: HTTP status, R2's code and text, and their XML."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgesim.errors import PlatformError
from edgesim.r2 import limits

_CODE = re.compile(r"\((\d+)\)$")


class S3ApiError(Exception):
    """A refused request; ``details`` are further elements of the error's XML."""

    def __init__(
        self, status: int, code: str, message: str, details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details or {}


_BINDING_ERRORS = {
    limits.INTERNAL_ERROR: (500, "InternalError"),
    limits.ENTITY_TOO_SMALL: (400, "EntityTooSmall"),
    limits.METADATA_TOO_LARGE: (400, "MetadataTooLarge"),
    limits.INVALID_OBJECT_NAME: (400, "InvalidObjectName"),
    limits.INVALID_MAX_KEYS: (400, "InvalidMaxKeys"),
    limits.NO_SUCH_UPLOAD: (404, "NoSuchUpload"),
    limits.INVALID_PART: (400, "InvalidPart"),
    limits.INVALID_ARGUMENT: (400, "InvalidArgument"),
    limits.PRECONDITION_FAILED: (412, "PreconditionFailed"),
    limits.BAD_DIGEST: (400, "BadDigest"),
    limits.INVALID_RANGE: (416, "InvalidRange"),
    limits.BAD_UPLOAD: (400, "InvalidPart"),
    limits.ENTITY_TOO_LARGE: (400, "EntityTooLarge"),
}
"""R2's number of an error of the binding: status and code of the same error in the S3 API."""


def of_binding(error: PlatformError) -> S3ApiError:
    """The S3 API's form of an error of the binding, ``put: message (10020)``."""
    match = _CODE.search(error.message)
    known = _BINDING_ERRORS.get(int(match[1])) if match else None
    if match is None or known is None:
        return invalid_argument(error.message)
    text = error.message[: match.start()].partition(": ")[2].strip()
    if int(match[1]) == limits.BAD_UPLOAD:
        text = "All non-trailing parts must have the same length."
    return S3ApiError(*known, text)


def invalid_argument(message: str) -> S3ApiError:
    """A parameter or header with an impossible value."""
    return S3ApiError(400, "InvalidArgument", message)


def invalid_request(message: str) -> S3ApiError:
    """A request that makes no sense as a whole."""
    return S3ApiError(400, "InvalidRequest", message)


def not_implemented(subject: str) -> S3ApiError:
    """An operation, parameter or header that R2 does not have."""
    return S3ApiError(501, "NotImplemented", f"{subject} not implemented")


def header_not_implemented(name: str, value: str) -> S3ApiError:
    """A header that R2 refuses by name."""
    return not_implemented(f"Header '{name}' with value '{value}'")


def access_denied(message: str) -> S3ApiError:
    """A caller that may not use the API, or not this part of it."""
    return S3ApiError(403, "AccessDenied", message)


def unauthorized() -> S3ApiError:
    """An access key that is not known, or not for this bucket."""
    return S3ApiError(401, "Unauthorized", "Unauthorized")


def no_such_bucket() -> S3ApiError:
    """A bucket that the project does not have."""
    return S3ApiError(404, "NoSuchBucket", "The specified bucket does not exist.")


def no_such_key() -> S3ApiError:
    """An object that does not exist."""
    return S3ApiError(404, "NoSuchKey", "The specified key does not exist.")


def no_such_upload() -> S3ApiError:
    """A multipart upload that does not exist, or no longer."""
    text = "The specified multipart upload does not exist."
    return S3ApiError(404, "NoSuchUpload", text)


def precondition_failed() -> S3ApiError:
    """A condition that does not hold."""
    text = "At least one of the pre-conditions you specified did not hold."
    return S3ApiError(412, "PreconditionFailed", text)


def route_not_found() -> S3ApiError:
    """A path or method that no operation has."""
    return S3ApiError(404, "RouteNotFound", "No route matches this url.")


def incomplete_body() -> S3ApiError:
    """A body that ends before its declared length."""
    text = "The request body terminated unexpectedly."
    return S3ApiError(400, "IncompleteBody", text)


def malformed_xml() -> S3ApiError:
    """A body that is no XML document of the operation."""
    text = (
        "The XML you provided was not well formed or did not validate against our published schema."
    )
    return S3ApiError(400, "MalformedXML", text)
