"""Records of a stream as rows: what fits a schema, and the reason where a record does not."""

import pytest

from edgesim.config.pipelines import Field
from edgesim.pipelines.streams.rows import MisfitError, row_of

FIELDS = [
    Field("string", "id", required=True),
    Field("int32", "level"),
    Field("timestamp", "at", unit="second"),
    Field("json", "extra"),
    Field("list", "tags", items=Field("string", required=True)),
    Field("struct", "from", fields=[Field("string", "ip", required=True), Field("bool", "bot")]),
]


def test_a_row_has_the_columns_of_the_schema():
    """Every column is there, in order; other fields are not, at any depth."""
    row = row_of({"x": 1, "from": {"ip": "::1", "y": 2}, "id": "a"}, FIELDS)
    assert list(row.items()) == [
        ("id", "a"),
        ("level", None),
        ("at", None),
        ("extra", None),
        ("tags", None),
        ("from", {"ip": "::1", "bot": None}),
    ]


def test_values_have_the_types_of_the_schema():
    """Whole numbers become integers, times UTC text; JSON stays as it is."""
    extra = {"a": [1, None, {"b": "c"}]}
    row = row_of({"id": "a", "level": 3.0, "at": 1_700_000_000, "extra": extra, "tags": []}, FIELDS)
    assert row["level"] == 3
    assert isinstance(row["level"], int)
    assert row["at"] == "2023-11-14T22:13:20Z"
    assert row["extra"] == extra
    assert row["tags"] == []


def test_an_unstructured_record_is_one_column():
    """Without a schema the whole record is the column `value`."""
    assert row_of({"a": {"b": 1}}, []) == {"value": {"a": {"b": 1}}}


@pytest.mark.parametrize(
    ("record", "reason", "column"),
    [
        ({}, "missing_field", "id"),
        ({"id": None}, "null_value", "id"),
        ({"id": 5}, "type_mismatch", "id"),
        ({"id": "a", "level": "3"}, "type_mismatch", "level"),
        ({"id": "a", "level": True}, "type_mismatch", "level"),
        ({"id": "a", "level": 2**31}, "parse_failure", "level"),
        ({"id": "a", "at": "yesterday"}, "parse_failure", "at"),
        ({"id": "a", "at": "2023-02-30T00:00:00Z"}, "parse_failure", "at"),
        ({"id": "a", "at": 10**15}, "parse_failure", "at"),
        ({"id": "a", "tags": "x"}, "type_mismatch", "tags"),
        ({"id": "a", "tags": ["x", 1]}, "type_mismatch", "tags[]"),
        ({"id": "a", "tags": [None]}, "null_value", "tags[]"),
        ({"id": "a", "from": []}, "type_mismatch", "from"),
        ({"id": "a", "from": {}}, "missing_field", "from.ip"),
        ({"id": "a", "from": {"ip": "x", "bot": 0}}, "type_mismatch", "from.bot"),
    ],
)
def test_a_record_that_does_not_fit(record, reason, column):
    """The reason and the column say why a record is dropped."""
    with pytest.raises(MisfitError) as caught:
        row_of(record, FIELDS)
    assert (caught.value.reason, caught.value.column) == (reason, column)
