"""The fast conversion of records gives the rows of the slow one, or none."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.config.pipelines import Field
from edgesim.pipelines.streams.row_types import RowType
from edgesim.pipelines.streams.rows import MisfitError, row_of

FIELDS = [
    Field("string", "id", required=True),
    Field("int32", "class"),
    Field("int64", "c0", required=True),
    Field("float32", "half"),
    Field("float64", "ratio"),
    Field("bool", "ok"),
    Field("timestamp", "at"),
    Field("json", "any"),
    Field("list", "tags", items=Field("string", required=True)),
    Field("list", "more", items=Field("int32")),
    Field("struct", "geo", fields=[Field("string", "city", required=True), Field("bool", "x")]),
]
ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(
            [0, 1, -(2**31) - 1, 2**31, 2**63, -(2**63), 2**53, 3.0, -0.5, 1e39, 1e300]
        ),
        st.sampled_from(["", "a", "2026-01-02T03:04:05.678901Z", "12", "AQI="]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["city", "x", "y"]), inner, max_size=3),
    ),
    max_leaves=6,
)
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "id": st.text(st.characters(codec="utf-8"), max_size=3),
    "c0": st.integers(-(2**63), 2**63 - 1),
    "at": st.sampled_from([1_700_000_000_000, "2026-01-02T03:04:05Z", None]),
    "geo": st.just({"city": "Oslo", "other": 1}),
}
RECORDS = st.lists(
    st.fixed_dictionaries(
        RIGHT, optional={field.name: ANYTHING for field in FIELDS if field.name not in RIGHT}
    )
    | st.dictionaries(st.sampled_from([field.name for field in FIELDS]), ANYTHING, max_size=11),
    min_size=1,
    max_size=4,
)


@given(RECORDS)
def test_both_conversions_agree(records):
    """Fast rows are the slow rows, in order; where a record does not fit there are none."""
    fast = RowType(FIELDS).rows(records)
    try:
        slow = [row_of(record, FIELDS) for record in records]
    except MisfitError:
        assert fast is None
        return
    if fast is not None:
        encoder = msgspec.json.Encoder()
        assert encoder.encode_lines(fast) == encoder.encode_lines(slow)


def test_ordinary_records_are_converted_fast():
    """Records that fit take the fast way, with text times and nulls."""
    record = {"id": "a", "c0": 5, "class": 3, "at": "2026-01-02T03:04:05Z", "tags": ["x"]}
    rows = RowType(FIELDS).rows([record, {"id": "b", "c0": 6, "geo": {"city": "Oslo"}}])
    assert rows is not None
    assert msgspec.to_builtins(rows[0]) == row_of(record, FIELDS)


@pytest.mark.parametrize("fields", [[], [Field("binary", "raw")]])
def test_schemas_without_a_fast_way(fields):
    """Unstructured streams and binary columns take the slow way."""
    assert RowType(fields).rows([{"raw": "AQI="}]) is None
