"""Sizes of rows, with nulls for absent columns, are known before the rows are made."""

import json

import msgspec
import pytest

from edgesim.config.pipelines import Field
from edgesim.pipelines.streams import growth
from edgesim.pipelines.streams.growth import RowGrowth, RowsTooLargeError
from edgesim.pipelines.streams.rows import row_of

INNER = [Field("string", "left"), Field("int64", "right")]
FIELDS = [
    Field("string", "id"),
    Field("json", "any"),
    Field("struct", "pair", fields=INNER),
    Field("list", "pairs", items=Field("struct", fields=INNER)),
    Field("list", "deep", items=Field("list", items=Field("struct", fields=INNER))),
]
RECORDS = [
    {},
    {"id": "a", "any": [{}, {}, {}]},
    {"pair": {}, "pairs": [{}, {"left": "{"}, None]},
    {"deep": [[{}, {}], [], None, [{"right": 1}]]},
    {"id": None, "pair": {"left": "b", "right": 2}},
]


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
@pytest.mark.parametrize("fields", [FIELDS, []], ids=["structured", "unstructured"])
def test_sizes_are_those_of_the_rows(monkeypatch, fields, record):
    """The limit is exceeded by rows that are larger, and by no others.

    A comma is counted for the last null of a struct too, and a null that a record says is counted
    again.
    """
    encoded = json.dumps([record] * 50, separators=(",", ":")).encode()
    rows = msgspec.json.Encoder().encode_lines([row_of(record, fields)] * 50)
    monkeypatch.setattr(growth, "ROWS_BYTES_MAX", len(rows) - 60)
    with pytest.raises(RowsTooLargeError, match="over the limit"):
        RowGrowth(fields).check(encoded, lambda: [record] * 50)
    monkeypatch.setattr(growth, "ROWS_BYTES_MAX", len(rows) + 50 * 20)
    RowGrowth(fields).check(encoded, lambda: [record] * 50)


def test_records_are_read_only_in_doubt():
    """Ordinary records are not looked at: the number of their braces is proof enough."""

    def never() -> list[object]:
        raise AssertionError("records were read")

    RowGrowth(FIELDS).check(b"[" + b'{"id":"a"},' * 1000 + b"{}]", never)
