"""DataFusion's reader of rows gives the columns that pyarrow's gives, for every type and value."""

from typing import Any

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from edgesim.config.pipelines import Field
from edgesim.pipelines.sql.columns import can_read_rows, rows_with_json_as_text, table_of
from edgesim.pipelines.sql.planner import Planner
from edgesim.pipelines.sql.wire import Query
from edgesim.pipelines.streams.rows import MisfitError, row_of

MEMORY_BYTES = 1 << 30
INT32, INT64 = 1 << 31, 1 << 63
FLOAT32_MAX = 3.4028234663852886e38
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-INT64, INT64) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
TIMES = st.sampled_from(
    [
        "2024-02-29T12:00:00Z",
        "1969-12-31T23:59:59.999999999+02:00",
        "1700-01-01t00:00:00.5z",
        "2024-01-01 10:00:00.123456789-11:30",
        "2261-12-31T23:59:59Z",
    ]
) | st.integers(-(10**9), 10**9)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "json": JSON,
    "bool": st.booleans(),
    "int32": st.integers(-INT32, INT32 - 1),
    "int64": st.integers(-INT64, INT64 - 1),
    "float32": st.floats(-FLOAT32_MAX, FLOAT32_MAX) | st.integers(-100, 100),
    "float64": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-INT64, INT64),
    "timestamp": TIMES,
}
UNITS: st.SearchStrategy[Any] = st.sampled_from(
    [None, "second", "millisecond", "microsecond", "nanosecond"]
)


@st.composite
def fields(draw: st.DrawFn, name: str = "", depth: int = 0) -> Field:
    """A field of any type but bytes, with fields inside up to three deep."""
    nested = ["list", "struct"] if depth < 3 else []
    kind: Any = draw(st.sampled_from([*SCALARS, *nested]))
    required = draw(st.booleans())
    if kind == "list":
        return Field(kind, name, required=required, items=draw(fields("", depth + 1)))
    if kind == "struct":
        inside = [
            draw(fields(f"f{number}", depth + 1)) for number in range(draw(st.integers(1, 3)))
        ]
        return Field(kind, name, required=required, fields=inside)
    unit = draw(UNITS) if kind == "timestamp" else None
    return Field(kind, name, required=required, unit=unit)


def values(field: Field) -> st.SearchStrategy[Any]:
    """Values of a field, with nulls where they may be."""
    if field.type == "list":
        assert field.items is not None
        found: st.SearchStrategy[Any] = st.lists(values(field.items), max_size=3)
    elif field.type == "struct":
        found = st.fixed_dictionaries({each.name: values(each) for each in field.fields})
    else:
        found = SCALARS[field.type]
    return found if field.required else found | st.none()


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[Field], bytes]:
    """A schema, and rows of it as a stream's log has them."""
    names = draw(
        st.lists(st.sampled_from(["a", "B", "c d", "é", "x.y", 'q"t']), min_size=1, unique=True)
    )
    columns = [draw(fields(name)) for name in names]
    record = st.fixed_dictionaries({each.name: values(each) for each in columns})
    rows = []
    for each in draw(st.lists(record, min_size=1, max_size=20)):
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
