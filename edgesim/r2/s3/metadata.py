"""R2's object metadata on an S3 server: one metadata header, as base64 of JSON.

S3 has no field for most of it and allows only ASCII.  A multipart object's header is written before
its bytes, so its size, etag and time are the server's; for an object stored by other programs
(``keys=plain``) all metadata is the server's.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from edgesim.errors import RunError
from edgesim.model import R2Object
from edgesim.r2.header_options import http_metadata_of
from edgesim.r2.s3 import names
from edgesim.r2.s3.url import Settings

_HEADER = "edgesim"
_PREFIX = "x-amz-meta-"


class Naming:
    """Converts keys to the server's names, and an object's headers to R2's metadata."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.prefix
        self._is_plain = settings.keys == "plain"
        self._spell = names.plain if self._is_plain else names.encoded
        self.head_characters = len(settings.prefix) + names.HEAD_CHARACTERS
        """Length of the prefix by which names are ordered like their keys."""

    def name(self, key: str) -> str:
        """The object's name on the server."""
        return self._prefix + self._spell(key)

    def headers(self, stored: R2Object) -> dict[str, str]:
        """The headers to send with the object."""
        data = base64.urlsafe_b64encode(msgspec.json.encode(stored)).decode()
        headers = {f"{_PREFIX}{_HEADER}": data}
        content_type = stored.http_metadata.content_type or ""
        if content_type.isascii() and content_type.isprintable() and content_type:
            headers["Content-Type"] = content_type
        return headers

    def read(self, name: str, headers: Mapping[str, str]) -> R2Object | None:
        """The object; None if it was not written by edgesim and its key cannot be known."""
        header = headers.get(f"{_PREFIX}{_HEADER}")
        ours = None if header is None else _decode(name, header)
        if ours is not None and self.name(ours.key) == name:  # else copied by another program
            return ours if ours.etag else _completed(ours, headers)
        return self._foreign(name, headers) if self._is_plain else None

    def _foreign(self, name: str, headers: Mapping[str, str]) -> R2Object:
        etag = _etag(headers)
        pairs = [(key.lower(), value) for key, value in headers.items()]
        return R2Object(
            key=name.removeprefix(self._prefix),
            version=etag,
            size=_size(headers),
            etag=etag,
            uploaded=_uploaded(headers),
            http_metadata=http_metadata_of(pairs),
            custom_metadata={
                key.removeprefix(_PREFIX): value
                for key, value in pairs
                if key.startswith(_PREFIX) and key != f"{_PREFIX}{_HEADER}"
            },
        )


def _completed(planned: R2Object, headers: Mapping[str, str]) -> R2Object:
    return msgspec.structs.replace(
        planned, size=_size(headers), etag=_etag(headers), uploaded=_uploaded(headers)
    )


def _decode(name: str, header: str) -> R2Object:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(header), type=R2Object)
    except (ValueError, msgspec.MsgspecError) as error:
        raise RunError(f"r2 store {name}: its {_HEADER} header is damaged: {error}") from error


def _etag(headers: Mapping[str, str]) -> str:
    return headers["etag"].strip('"')


def _size(headers: Mapping[str, str]) -> int:
    """Size of the whole object, also for a response to a range request."""
    return int(headers.get("content-range", headers["content-length"]).rpartition("/")[2])


def _uploaded(headers: Mapping[str, str]) -> float:
    return parsedate_to_datetime(headers["last-modified"]).timestamp() * 1000
