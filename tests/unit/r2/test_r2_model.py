"""Listing and ranges against plain models, on the drivers that need no server."""

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim.errors import PlatformError
from edgesim.r2.options import Range
from tests.r2_world import Store, text

KEYS = st.text(st.sampled_from("ab/-.é\0~\uffff😀"), min_size=1, max_size=6)


class Model:
    """R2's listing over a plain dict."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects

    def entries(self, prefix: str, delimiter: str, start_after: str) -> list[str]:
        """Keys, and delimited prefixes with a mark before them, in order and once."""
        found: list[str] = []
        for key in sorted(self.objects, key=str.encode):
            if not key.startswith(prefix) or key.encode() <= start_after.encode():
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                key = "prefix:" + prefix + rest[: rest.index(delimiter) + len(delimiter)]
            if key not in found:
                found.append(key)
        return found


@pytest.mark.parametrize("scheme", ["memory", "file"])
@settings(max_examples=60, deadline=None)
@given(
    puts=st.lists(KEYS, max_size=25),
    deletes=st.lists(KEYS, max_size=5),
    prefix=st.text(st.sampled_from("ab/-é"), max_size=2),
    delimiter=st.sampled_from(["", "/", "b", "é", "//"]),
    start_after=st.one_of(st.just(""), KEYS),
    limit=st.integers(1, 7),
)
def test_listing_is_what_a_dict_would_list(
    scheme, tmp_path_factory, puts, deletes, prefix, delimiter, start_after, limit
):
    """Whatever is put and deleted, pages of any size join to the model's entries."""

    async def check() -> None:
        folder = tmp_path_factory.mktemp("model")
        store = Store("memory:" if scheme == "memory" else f"file:{folder}", folder, {})
        async with store.open() as world:
            model = Model({})
            for key in puts:
                await world.bucket.put(key, key.encode())
                model.objects[key] = key.encode()
            await world.bucket.delete(deletes)
            for key in deletes:
                model.objects.pop(key, None)
            found: list[str] = []
            cursor = None
            while True:
                listing = await world.bucket.list(
                    prefix=prefix,
                    delimiter=delimiter,
                    start_after=start_after,
                    limit=limit,
                    cursor=cursor,
                )
                page = [one.key for one in listing.objects]
                page += [f"prefix:{one}" for one in listing.delimited_prefixes]
                assert 0 < len(page) <= limit or not found
                found += page
                cursor = listing.cursor
                if not listing.truncated:
                    break
                assert len(page) == limit
            assert sorted(found) == sorted(model.entries(prefix, delimiter, start_after))

    anyio.run(check)


@pytest.mark.parametrize("scheme", ["memory", "file"])
@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=40),
    offset=st.none() | st.integers(0, 45),
    length=st.none() | st.integers(0, 45),
    suffix=st.integers(0, 45),
)
def test_ranges_are_what_a_slice_would_give(scheme, tmp_path_factory, data, offset, length, suffix):
    """A range is a slice of the bytes; an empty slice is InvalidRange."""

    async def check() -> None:
        folder = tmp_path_factory.mktemp("model")
        store = Store("memory:" if scheme == "memory" else f"file:{folder}", folder, {})
        start = offset or 0
        end = len(data) if length is None else start + length
        asked = {
            Range(offset, length): data[start:end],
            Range(suffix=suffix): data[max(0, len(data) - suffix) :],
        }
        async with store.open() as world:
            await world.bucket.put("a", data)
            for one, expected in asked.items():
                try:
                    found = await world.bucket.get("a", range=one)
                except PlatformError as refused:
                    assert "(10039)" in refused.message
                    assert expected == b""
                else:
                    assert await text(found) == expected != b""

    anyio.run(check)
