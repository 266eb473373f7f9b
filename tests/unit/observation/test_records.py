"""The search of objects, whatever their lines are like."""

import gzip

import pytest

from edgesim.observation import records
from edgesim.observation.records import in_bucket
from edgesim.observation.sighting import Needle
from tests.simulated import simulated, write_worker

WORKER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""


@pytest.mark.anyio
async def test_a_line_without_an_end_is_searched_in_parts(tmp_path, monkeypatch):
    """An object that unpacks to one endless line is read in blocks, up to the limit of bytes."""
    monkeypatch.setattr(records, "LINE_BYTES_MAX", 100_000)
    monkeypatch.setattr(records, "BYTES_MAX", 30_000_000)
    longest = 0

    def lines_with(block, needle):
        nonlocal longest
        longest = max(longest, len(block))
        return [(1, "found")] if needle.is_in_bytes(block) else []

    monkeypatch.setattr(records, "_lines_with", lines_with)
    write_worker(tmp_path, "w", WORKER, r2_buckets=[{"binding": "B", "bucket_name": "store"}])
    async with simulated(tmp_path, "w") as simulator:
        bucket = simulator.primitives.bucket("store")
        await bucket.put("bomb", gzip.compress(b"x" * 20_000_000 + b" needle"))
        found = [each async for each in in_bucket(bucket, Needle("needle"))]
    assert [each.place for each in found] == ["store/bomb"]
    assert longest < 8_000_000
