"""Cache of object metadata from an S3 server, so that listings need not request it again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from edgesim.model import R2Object
from edgesim.r2.s3.store import Listed

_SETTLED_SECONDS = 2


class Seen(msgspec.Struct, frozen=True):
    """Metadata of an object as read; None if the object was not written by edgesim."""

    object: R2Object | None
    etag: str
    modified_seconds: int


class KnownObjects:
    """LRU cache of objects by bucket and name; an entry is valid for one etag and time.

    S3 lists names, sizes, etags and times, but no metadata.  Reads return times in whole seconds,
    so an object that changed in the last two seconds is not cached: its next change could have the
    same time.
    """

    def __init__(self, objects_max: int = 20_000) -> None:
        self._max = objects_max
        self._seen: OrderedDict[tuple[str, str], Seen] = OrderedDict()

    def learn(
        self, bucket: str, name: str, headers: Mapping[str, str], found: R2Object | None
    ) -> None:
        """Cache an object read with these headers."""
        answered = headers.get("date")
        modified = parsedate_to_datetime(headers["last-modified"])
        if answered is None:
            return
        if (parsedate_to_datetime(answered) - modified).total_seconds() < _SETTLED_SECONDS:
            return
        self._seen[bucket, name] = Seen(found, _plain(headers["etag"]), int(modified.timestamp()))
        self._seen.move_to_end((bucket, name))
        if len(self._seen) > self._max:
            self._seen.popitem(last=False)

    def forget(self, bucket: str, name: str) -> None:
        """Drop the entry of an object that changes."""
        self._seen.pop((bucket, name), None)

    def recall(self, bucket: str, listed: Listed) -> Seen | None:
        """The cached entry, if it matches the listed etag and time."""
        seen = self._seen.get((bucket, listed.name))
        is_same = seen is not None and (
            (seen.etag, seen.modified_seconds) == (listed.etag, listed.modified_seconds)
        )
        return seen if is_same else None


def _plain(etag: str) -> str:
    return etag.strip('"')
