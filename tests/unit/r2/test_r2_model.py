"""Listings and ranges compared with simple models, on the drivers that need no server."""

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim.errors import PlatformError
from edgesim.r2.options import Range
from tests.r2_world import Store, World, text

KEYS = st.text(st.sampled_from("ab/-.é\0~\uffff😀"), min_size=1, max_size=6)


def entries(keys: set[str], prefix: str, delimiter: str, start_after: str) -> list[tuple[str, str]]:
    """The expected entries of a listing, in order: ("key", ...) or ("prefix", ...), each once."""
    found: dict[tuple[str, str], None] = {}
    for key in sorted(keys, key=str.encode):
        head, middle, _ = key[len(prefix) :].partition(delimiter or "\ud800")
        if key.startswith(prefix) and key.encode() > start_after.encode():
            found["prefix" if middle else "key", prefix + head + middle] = None
    return list(found)


async def pages(world: World, limit: int, **options) -> list[tuple[list[str], list[str]]]:
    """The keys and delimited prefixes of each page of a listing."""
    found = []
    cursor: str | None = None
    while True:
        page = await world.bucket.list(limit=limit, cursor=cursor, **options)
        found.append(([one.key for one in page.objects], page.delimited_prefixes))
        cursor = page.cursor
        if not page.truncated:
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
def test_a_listing_is_what_a_dict_would_list(
    scheme, tmp_path_factory, puts, deletes, prefix, delimiter, start_after, limit
):
    """After any puts and deletes, every page has exactly the next entries of the model."""
    expected = entries(set(puts) - set(deletes), prefix, delimiter, start_after)

    async def check() -> None:
        async with _store(scheme, tmp_path_factory).open() as world:
            for key in puts:
                await world.bucket.put(key, key.encode())
            await world.bucket.delete(deletes)
            found = await pages(
                world, limit, prefix=prefix, delimiter=delimiter, start_after=start_after
            )
        assert len(found) == max(1, -(-len(expected) // limit))
        for number, page in enumerate(found):
            shown = expected[number * limit : (number + 1) * limit]
            assert page == tuple(
                [name for kind, name in shown if kind == wanted] for wanted in ("key", "prefix")
            )

    anyio.run(check)


@pytest.mark.parametrize("scheme", ["memory", "file"])
@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=40),
    offset=st.none() | st.integers(0, 45),
    length=st.none() | st.integers(0, 45),
    suffix=st.integers(0, 45),
)
def test_a_range_is_what_a_slice_would_give(scheme, tmp_path_factory, data, offset, length, suffix):
    """A range is a slice of the bytes; an empty slice is InvalidRange."""
    start = offset or 0
    slices = {
        Range(offset, length): data[start : None if length is None else start + length],
        Range(suffix=suffix): data[max(0, len(data) - suffix) :],
    }

    async def check() -> None:
        async with _store(scheme, tmp_path_factory).open() as world:
            await world.bucket.put("a", data)
            for asked, expected in slices.items():
                if expected:
                    assert await text(await world.bucket.get("a", range=asked)) == expected
                else:
                    with pytest.raises(PlatformError, match="10039"):
                        await world.bucket.get("a", range=asked)

    anyio.run(check)


def _store(scheme: str, factory: pytest.TempPathFactory) -> Store:
    return Store.memory() if scheme == "memory" else Store.file(factory.mktemp("model"))
