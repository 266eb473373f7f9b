"""Attacks on a sink's Iceberg table: its files as a Worker may write them into the bucket.

Each attack changes the metadata, or the manifest list, of a table that has one snapshot.
"""

import json
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from edgesim.pipelines.iceberg.catalog import FILE_BYTES_MAX
from edgesim.pipelines.sinks.catalog_table import SINK

LIMIT = "it needs more than the "
MEMORY = f"{LIMIT}memory of a request (iceberg.memory_bytes)"


class TableAttack(NamedTuple):
    """``change`` returns the file's new content; ``problem`` is in the sink's error."""

    change: Callable[[bytes], bytes]
    problem: str
    of_the_list: bool = False


def _json(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        metadata = json.loads(content)
        change(metadata)
        return json.dumps(metadata).encode()

    return changed


def _many_fields(metadata: dict[str, Any]) -> None:
    fields = metadata["schemas"][0]["fields"]
    fields += [
        {"id": at, "name": f"x{at}", "required": False, "type": "string"}
        for at in range(1000, 200_000)
    ]


def _many_snapshots(metadata: dict[str, Any]) -> None:
    snapshot = metadata["snapshots"][0]
    metadata["snapshots"] = [snapshot | {"snapshot-id": at} for at in range(80_000)]


def _nested(metadata: dict[str, Any]) -> None:
    kind: Any = "string"
    for at in range(100):
        kind = {"type": "list", "element-id": 1000 + at, "element": kind, "element-required": False}
    # json.dumps would be too deep: the rest is text.
    metadata["schemas"][0]["fields"].append(
        {"id": 999, "name": "deep", "required": False, "type": kind}
    )


def _too_deep(content: bytes) -> bytes:
    text = '{"type": "list", "element-id": 1, "element-required": false, "element": ' * 20_000
    deep = text + '"string"' + "}" * 20_000
    metadata = json.loads(content)
    metadata["schemas"][0]["fields"].append({"id": 9, "name": "deep", "type": "DEEP"})
    return json.dumps(metadata).replace('"DEEP"', deep).encode()


def _number(value: int) -> bytes:
    """A number in Avro's form."""
    value = value << 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_number(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value >> 1 if not value & 1 else -(value >> 1) - 1, at


def _avro(content: bytes) -> tuple[dict[str, bytes], bytes, bytes]:
    """The header of an Avro file, its sync mark, and the bytes of its first block."""
    header: dict[str, bytes] = {}
    at = 4
    while True:
        count, at = _read_number(content, at)
        if count == 0:
            break
        for _ in range(count):
            size, at = _read_number(content, at)
            name = content[at : at + size].decode()
            size, at = _read_number(content, at + size)
            header[name] = content[at : at + size]
            at += size
    sync = content[at : at + 16]
    _, at = _read_number(content, at + 16)
    size, at = _read_number(content, at)
    return header, sync, zlib.decompress(content[at : at + size], -15)


def _written(header: dict[str, bytes], sync: bytes, records: int, block: bytes) -> bytes:
    pairs = [
        _number(len(each)) + each
        for name, value in header.items()
        for each in (name.encode(), value)
    ]
    head = b"Obj\x01" + _number(len(header)) + b"".join(pairs) + _number(0) + sync
    deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = deflate.compress(block) + deflate.flush()
    return head + _number(records) + _number(len(packed)) + packed + sync


def _bomb(content: bytes) -> bytes:
    """A block of 2 MB that unpacks to 512 MB."""
    header, sync, _ = _avro(content)
    return _written(header, sync, 1, bytes(1 << 29))


def _long(content: bytes) -> bytes:
    """A block of 200,000 manifests."""
    header, sync, block = _avro(content)
    return _written(header, sync, 200_000, block * 200_000)


def _unknown(content: bytes) -> bytes:
    """A record with a list of 10^15 elements, each of no byte."""
    header, sync, block = _avro(content)
    schema = json.loads(header["avro.schema"])
    nothing = {"type": "record", "name": "nothing", "fields": []}
    kind = {"type": "array", "element-id": 9999, "items": nothing}
    schema["fields"].append({"name": "more", "field-id": 9998, "type": kind})
    header["avro.schema"] = json.dumps(schema).encode()
    return _written(header, sync, 1, block + _number(10**15))


ATTACKS = {
    "metadata that is no JSON": TableAttack(lambda _: b"garbage", "is damaged"),
    "metadata of another form": TableAttack(lambda _: b'{"location": 1}', "is damaged"),
    "empty metadata": TableAttack(lambda _: b"", "is damaged"),
    "metadata beyond 64 MB": TableAttack(lambda _: b" " * (FILE_BYTES_MAX + 1), "has 64000001"),
    "brackets nested 100,000 deep": TableAttack(lambda _: b"[" * 100_000, "is damaged"),
    "a type nested 20,000 deep": TableAttack(_too_deep, "is damaged"),
    "a type nested 100 deep": TableAttack(_json(_nested), ""),
    "200,000 columns": TableAttack(_json(_many_fields), LIMIT),
    "80,000 snapshots": TableAttack(_json(_many_snapshots), LIMIT),
    "the location of another bucket": TableAttack(
        _json(lambda each: each.update({"location": "s3://other/x"})), "is not in s3://lake/"
    ),
    "a location outside of the catalog": TableAttack(
        _json(lambda each: each.update({"location": "s3://lake/x"})), "a table's location is below"
    ),
    "the name of another sink": TableAttack(
        _json(lambda each: each["properties"].update({SINK: "other"})), "was made by sink 'other'"
    ),
    "other columns": TableAttack(
        _json(lambda each: each["schemas"][0]["fields"].pop()), "has other columns"
    ),
    "no columns": TableAttack(
        _json(lambda each: each.update({"schemas": []})), "has damaged metadata"
    ),
    "format version 99": TableAttack(_json(lambda each: each.update({"format-version": 99})), ""),
    "a snapshot whose list is missing": TableAttack(
        _json(lambda each: each["snapshots"][0].update({"manifest-list": "s3://lake/no"})),
        "is missing",
    ),
    "a list of manifests that is no Avro": TableAttack(lambda _: b"x" * 100, "", of_the_list=True),
    "a list of manifests that unpacks to 512 MB": TableAttack(_bomb, MEMORY, of_the_list=True),
    "a list of 200,000 manifests": TableAttack(_long, LIMIT, of_the_list=True),
    "a list of manifests with an endless field": TableAttack(_unknown, "", of_the_list=True),
}
