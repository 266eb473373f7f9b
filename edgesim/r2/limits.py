"""R2's limits, and the error messages for requests beyond them.

Codes and messages are the platform's own: Worker code matches on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edgesim.errors import PlatformError
from edgesim.model import HttpMetadata

KEY_BYTES_MAX = 1024
METADATA_BYTES_MAX = 8192
PUT_BYTES_MAX = 5 * 1024**3 - 5 * 1024**2
PART_BYTES_MIN = 5 * 1024**2
PARTS_MAX = 10_000
KEYS_MAX = 1000
STORAGE_CLASSES = ("Standard", "InfrequentAccess")

INTERNAL_ERROR = 10001
ENTITY_TOO_SMALL = 10011
METADATA_TOO_LARGE = 10012
INVALID_OBJECT_NAME = 10020
INVALID_MAX_KEYS = 10022
NO_SUCH_UPLOAD = 10024
INVALID_PART = 10025
INVALID_ARGUMENT = 10029
PRECONDITION_FAILED = 10031
BAD_DIGEST = 10037
INVALID_RANGE = 10039
BAD_UPLOAD = 10048
ENTITY_TOO_LARGE = 100100

_TEXTS = {
    INTERNAL_ERROR: "We encountered an internal error. Please try again.",
    ENTITY_TOO_SMALL: "Your proposed upload is smaller than the minimum allowed object size.",
    NO_SUCH_UPLOAD: "The specified multipart upload does not exist.",
    INVALID_PART: "One or more of the specified parts could not be found.",
    BAD_UPLOAD: "There was a problem with the multipart upload.",
    INVALID_ARGUMENT: "Metadata missing or invalid",
    PRECONDITION_FAILED: "At least one of the pre-conditions you specified did not hold.",
    METADATA_TOO_LARGE: "Your metadata headers exceed the maximum allowed metadata size.",
    INVALID_OBJECT_NAME: "The specified object name is not valid.",
    INVALID_MAX_KEYS: "MaxKeys params must be positive integer <= 1000.",
    INVALID_RANGE: "The requested range is not satisfiable",
    ENTITY_TOO_LARGE: "Your proposed upload exceeds the maximum allowed object size.",
}


def refusal(action: str, code: int, text: str | None = None) -> PlatformError:
    """The error of a refused call: ``put: message (10020)``."""
    return PlatformError(f"{action}: {text or _TEXTS[code]} ({code})")


def check_text(action: str, text: str) -> int:
    """Return the size in UTF-8 bytes; refuse text with half a surrogate pair in it."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise refusal(action, INVALID_OBJECT_NAME) from None


def check_key(action: str, key: str) -> None:
    """Refuse an illegal key: empty, or more than 1,024 bytes of UTF-8."""
    if not 0 < check_text(action, key) <= KEY_BYTES_MAX:
        raise refusal(action, INVALID_OBJECT_NAME)


def check_keys(action: str, keys: Sequence[str]) -> None:
    """Refuse more than 1,000 keys, or one that is not legal."""
    if len(keys) > KEYS_MAX:
        raise refusal(action, INVALID_MAX_KEYS)
    for key in keys:
        check_key(action, key)


def check_metadata(action: str, http: HttpMetadata, custom: Mapping[str, str]) -> None:
    """Refuse metadata of more than 8,192 bytes of UTF-8, the names in ``custom`` included."""
    texts = [text for text in msgspec.structs.astuple(http) if isinstance(text, str)]
    for name, value in custom.items():
        texts += name, value
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError:
        raise refusal(action, INVALID_ARGUMENT) from None
    if size > METADATA_BYTES_MAX:
        raise refusal(action, METADATA_TOO_LARGE)


def check_limit(action: str, limit: int) -> None:
    """Refuse a page size outside 1 to 1,000."""
    if not 1 <= limit <= KEYS_MAX:
        raise refusal(action, INVALID_MAX_KEYS)


def check_storage_class(action: str, storage_class: str) -> None:
    """Refuse a storage class that R2 does not have."""
    if storage_class not in STORAGE_CLASSES:
        raise refusal(
            action, INVALID_ARGUMENT, f"The storage class {storage_class!r} is not valid."
        )
