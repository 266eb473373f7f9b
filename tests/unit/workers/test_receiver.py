"""The receiver's handler: replies, and records in the events and errors pipelines."""

import gzip
import json
import tracemalloc
import zlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.workers.test_event import event
from tests.worker_world import Scripted, World, world

pytestmark = pytest.mark.anyio

GOOD = {"event": "kill", "player_id": "p", "ts": 1_767_225_600_000}
SITE = "https://play.example"


def opened(tmp_path: Path, **receiver: str) -> AbstractAsyncContextManager[World]:
    """Open the project within a test: a fixture's stdout is not the test's."""
    return world(tmp_path, scripted=Scripted(), receiver=receiver)


async def test_one_event_or_an_array(tmp_path):
    """One event and an array are 200, and every event is a record, in order."""
    async with opened(tmp_path) as running:
        assert (await running.post(GOOD))[0] == 200
        batch = [GOOD | {"player_id": f"p{number}"} for number in range(500)]
        status, _, body = await running.post(batch)
        assert (status, body) == (200, b"OK")
        records = await running.records("events")
        assert [record["player_id"] for record in records] == [
            "p",
            *(each["player_id"] for each in batch),
        ]
        assert await running.records("errors") == []


@pytest.mark.parametrize("value", [[], [GOOD] * 501, {}, [GOOD, 5]])
async def test_a_wrong_payload_is_400_and_kept(tmp_path, value):
    """A wrong payload is 400 with the reason; the raw payload and its client go to errors."""
    async with opened(tmp_path) as running:
        headers = {"cf-connecting-ip": "192.0.2.7", "user-agent": "game/2", "cf-ipcountry": "NL"}
        status, _, body = await running.post(value, headers)
        assert status == 400
        answer = json.loads(body)
        assert set(answer) == {"error", "detail"}
        [record] = await running.records("errors")
        assert (record["reason"], record["detail"]) == (answer["error"], answer["detail"])
        assert record["raw"] == json.dumps(value)[:8192]
        assert [record[key] for key in ("ip", "user_agent", "country")] == [
            "192.0.2.7",
            "game/2",
            "NL",
        ]
        assert await running.records("events") == []


@pytest.mark.parametrize("encoding", [{"content-encoding": "gzip"}, {}])
async def test_a_packed_body_is_unpacked(tmp_path, encoding):
    """gzip is detected by its first bytes, with any headers."""
    async with opened(tmp_path) as running:
        body = gzip.compress(json.dumps([GOOD] * 20).encode())
        assert (await running.post(body, encoding))[0] == 200
        assert len(await running.records("events")) == 20


PACKED = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (PACKED[:-6], "invalid_gzip"),
        (b"\x1f\x8bnot gzip at all", "invalid_gzip"),
        (PACKED + b"{}", "invalid_gzip"),
        (PACKED + PACKED, "invalid_gzip"),
        (gzip.compress(b"{broken", mtime=0), "invalid_json"),
        (zlib.compress(json.dumps(GOOD).encode()), "invalid_json"),
    ],
    ids=["cut short", "no gzip", "text behind it", "two of them", "broken inside", "zlib"],
)
async def test_a_body_that_is_no_gzip_after_all(tmp_path, body, error):
    """Truncated gzip, trailing data and other compressions are 400, and are recorded."""
    async with opened(tmp_path) as running:
        status, _, answer = await running.post(body)
        assert (status, json.loads(answer)["error"]) == (400, error)
        [record] = await running.records("errors")
        assert record["reason"] == error


async def test_too_large_is_413(tmp_path):
    """Too large by content-length, by size or after decompression is 413."""
    async with opened(tmp_path) as running:
        big = b'"' + b"x" * 4_900_000 + b'"'
        for body, headers in (
            (b"{}", {"content-length": "4900001"}),
            (big, {}),
            (big, {"content-length": ""}),
            (gzip.compress(big), {}),
        ):
            status, _, answer = await running.post(body, headers)
            assert (status, json.loads(answer)["error"]) == (413, "payload_too_large")
        reasons = [record["reason"] for record in await running.records("errors")]
        assert reasons == ["payload_too_large"] * 4


async def test_an_event_that_grows_when_written_out(tmp_path):
    """An event that a Pipeline would refuse after encoding is 413: 1e15 becomes 18 characters."""
    async with opened(tmp_path) as running:
        body = json.dumps(GOOD)[:-1] + ', "props": {"n": [' + ",".join(["1e15"] * 400_000) + "]}}"
        assert (await running.post(body.encode()))[0] == 413


async def test_too_large_for_the_log(tmp_path):
    """A batch too large for the log is 200 at once; the large-payload Worker sends its events."""
    async with opened(tmp_path) as running:
        batch = [
            GOOD | {"player_id": f"p{number}", "props": {"text": "é" * 3_000}}
            for number in range(50)
        ]
        assert (await running.post(batch))[0] == 200
        records = await running.records("events")
        assert [record["player_id"] for record in records] == [each["player_id"] for each in batch]
        assert (await running.simulator.stats())["invocations"]["large-payload"] == {"ok": 1}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("POST", "/health", 405),
        ("GET", "/", 405),
        ("PUT", "/?x=/health", 405),
        ("POST", "/else", 404),
        ("OPTIONS", "/else", 404),
    ],
)
async def test_other_requests(tmp_path, method, path, status):
    """A wrong method is 405 with Allow; any other path is 404."""
    async with opened(tmp_path) as running:
        got, headers, _ = await running.post(b"", method=method, path=path)
        assert got == status
        assert ("allow" in headers) == (status == 405)


async def test_a_page_may_post_from_anywhere(tmp_path):
    """By default every origin is allowed, also to read errors."""
    async with opened(tmp_path) as running:
        status, headers, body = await running.post(b"", {"origin": SITE}, "OPTIONS")
        assert (status, body) == (204, b"")
        assert headers["access-control-allow-origin"] == "*"
        assert "POST" in headers["access-control-allow-methods"]
        assert "content-type" in headers["access-control-allow-headers"]
        for value in (GOOD, {}):
            assert (await running.post(value))[1]["access-control-allow-origin"] == "*"


async def test_only_the_pages_that_are_named(tmp_path):
    """Only whole configured origins are allowed; Vary tells caches that the reply depends on it."""
    async with opened(tmp_path, ALLOWED_ORIGINS=f"https://other.example {SITE}") as running:
        for method in ("OPTIONS", "POST"):
            _, headers, _ = await running.post(GOOD, {"origin": SITE}, method)
            assert headers["access-control-allow-origin"] == SITE
            assert headers["vary"] == "Origin"
        for origin in ("https://evil.example", f"{SITE}.evil.example", "https://play", "null", ""):
            _, headers, _ = await running.post(b"", {"origin": origin}, "OPTIONS")
            assert not [name for name in headers if name.startswith("access-control")]


async def test_no_page_at_all(tmp_path):
    """Without allowed origins no CORS header is sent."""
    async with opened(tmp_path, ALLOWED_ORIGINS="") as running:
        status, headers, _ = await running.post(GOOD, {"origin": SITE})
        assert status == 200
        assert not [name for name in headers if name.startswith(("access-control", "vary"))]


# --- bounded work ---


def bomb(megabytes: int) -> bytes:
    member = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(member.compress(b"[" * 1_000_000) for _ in range(megabytes)) + member.flush()


def test_a_bomb_costs_no_more_than_the_limit():
    """Decompressing a bomb stops at the limit: 100 MB in less than 1 MB use less than 4 MB."""
    body = bomb(100)
    assert len(body) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(event.InvalidError, match="bytes"):
            event.unpack(body, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=300)
@given(st.binary(max_size=2_000), st.binary(max_size=20), st.integers(0, 2_500))
def test_any_packed_bytes_are_a_body_or_a_refusal(text, mess, limit):
    """Valid gzip is decompressed up to the limit; damaged bytes are refused or stay within it."""
    packed = gzip.compress(text)
    if len(text) <= limit:
        assert event.unpack(packed, limit) == text
    else:
        with pytest.raises(event.InvalidError, match="bytes"):
            event.unpack(packed, limit)
    for broken in (packed + mess, mess + packed, packed[: len(mess)] + mess + packed[len(mess) :]):
        try:
            assert len(event.unpack(broken, limit)) <= max(limit, len(broken))
        except event.InvalidError:
            continue


def nested(kind: str, depth: int) -> bytes:
    start, end = {"list": (b"[", b"]"), "dict": (b'{"a":', b"}")}[kind]
    return (
        b'{"event":"e","player_id":"p","ts":1,"props":{"a":'
        + start * depth
        + b"1"
        + end * depth
        + b"}}"
    )


ATTACKS: dict[str, bytes] = {
    "open brackets": b"[" * 250_000,
    "open objects": b'{"a":' * 75_000,
    "deep lists": nested("list", 50_000),
    "deep objects": nested("dict", 50_000),
    "long integer": b'{"event":"e","player_id":"p","ts":' + b"1" * 250_000 + b"}",
    "long float": b'{"event":"e","player_id":"p","ts":1,"props":{"n":0.' + b"1" * 250_000 + b"}}",
    "exponent": b'{"event":"e","player_id":"p","ts":1,"props":{"n":1e' + b"9" * 250_000 + b"}}",
    "escapes": b'{"event":"e","player_id":"' + b"\\u0000" * 75_000 + b'","ts":1}',
    "backslashes": b'{"event":"e","player_id":"' + b"\\\\" * 225_000 + b'","ts":1}',
    "open string": b'"' + b"x" * 500_000,
    "many keys": json.dumps(GOOD | {f"k{number}": 1 for number in range(25_000)}).encode(),
    "the same key": b'{"event":"e","player_id":"p","ts":1' + b',"k":1' * 75_000 + b"}",
    "long event name": json.dumps(GOOD | {"event": "a" * 500_000 + "!"}).encode(),
    "spaces": b" " * 500_000 + b"{}",
    "empty objects": b"[" + b"{}," * 150_000 + b"{}]",
    "not UTF-8": b"\xff" * 500_000,
}


@pytest.mark.parametrize("body", ATTACKS.values(), ids=ATTACKS)
def test_no_body_costs_more_than_its_length(body):
    """An attack costs at most 10 times the CPU time of a plain body of its length."""
    import time

    def cost(content: bytes) -> float:
        started = time.process_time()
        try:
            for found in event.read_events(content, 2_000_000_000_000):
                event.to_line(found)
        except event.InvalidError:
            pass
        return time.process_time() - started

    filler = json.dumps(
        GOOD | {"props": {"list": [1.5, "ab", {"k": 1}] * (len(body) // 20)}}
    ).encode()
    # The best of several: other processes disturb the caches.
    assert min(cost(body) for _ in range(3)) < 10 * min(cost(filler) for _ in range(3))


def test_a_refusal_is_short():
    """A refusal names the field and the rule, and does not repeat the payload."""
    values: list[Any] = [[GOOD] * 501, {"event": "x" * 100_000}]
    for value in values:
        with pytest.raises(event.InvalidError) as caught:
            event.read_events(json.dumps(value).encode(), 2_000_000_000_000)
        assert len(caught.value.detail) < 500
