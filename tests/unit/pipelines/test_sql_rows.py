"""DataFusion's reader of rows gives the columns that pyarrow's gives, for every type and value."""

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from edgesim.config.pipelines import Field
from edgesim.pipelines.sql.columns import can_read_rows, rows_with_json_as_text, table_of
from edgesim.pipelines.sql.planner import Planner
from edgesim.pipelines.sql.wire import Query
from edgesim.pipelines.streams.rows import MisfitError, row_of
from tests.stream_fields import SCALARS, records, stream_schema

MEMORY_BYTES = 1 << 30
READ = [kind for kind in SCALARS if kind != "binary"]


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[Field], bytes]:
    """A schema, and rows of it as a stream's log has them."""
    columns = draw(stream_schema(READ))
    rows = []
    for each in draw(st.lists(records(columns), min_size=1, max_size=20)):
        try:
            rows.append(row_of(each, columns))
        except MisfitError:
            continue
    return columns, msgspec.json.Encoder().encode_lines(rows)


@given(windows())
def test_both_readers_give_equal_columns(tmp_path_factory, window):
    """Types, nulls and metadata included."""
    columns, lines = window
    assume(lines)
    file = tmp_path_factory.getbasetemp() / "rows.ndjson"
    file.write_bytes(lines)
    assert can_read_rows(columns)
    text = rows_with_json_as_text(file, columns)
    if text is not None:
        file.write_bytes(text)
    planner = Planner(Query("SELECT * FROM s", "s", columns, "2026-01-01"), MEMORY_BYTES)
    expected, found = planner.transformed(table_of(lines, columns)), planner.transformed_file(file)
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.equals(expected)


def test_types_that_it_cannot_read():
    """Bytes, at any depth, and whole records are read by pyarrow."""
    inside = Field("struct", "s", fields=[Field("list", "l", items=Field("binary", ""))])
    assert not can_read_rows([])
    assert not can_read_rows([Field("string", "x"), inside])
