"""Random schemas of streams, and values that fit them."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from edgesim.config.pipelines import Field

INT32, INT64 = 1 << 31, 1 << 63
FLOAT32_MAX = 3.4028234663852886e38
DEPTH_MAX = 3
NAMES = ["a", "B", "c d", "é", "x.y", 'q"t']
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
    "binary": st.sampled_from(["", "AQI=", "AAECAw=="]),
}
UNITS: st.SearchStrategy[Any] = st.sampled_from(
    [None, "second", "millisecond", "microsecond", "nanosecond"]
)


@st.composite
def stream_field(
    draw: st.DrawFn, name: str = "", scalars: Sequence[str] = tuple(SCALARS), depth: int = 0
) -> Field:
    """A field of any of the scalar types, or of one that has fields inside."""
    nested = ["list", "struct"] if depth < DEPTH_MAX else []
    kind: Any = draw(st.sampled_from([*scalars, *nested]))
    required = draw(st.booleans())
    if kind == "list":
        items = draw(stream_field("", scalars, depth + 1))
        return Field(kind, name, required=required, items=items)
    if kind == "struct":
        inside = [
            draw(stream_field(f"f{number}", scalars, depth + 1))
            for number in range(draw(st.integers(1, 3)))
        ]
        return Field(kind, name, required=required, fields=inside)
    unit = draw(UNITS) if kind == "timestamp" else None
    return Field(kind, name, required=required, unit=unit)


@st.composite
def stream_schema(draw: st.DrawFn, scalars: Sequence[str] = tuple(SCALARS)) -> list[Field]:
    """Fields with different names."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    return [draw(stream_field(name, scalars)) for name in names]


def values(field: Field) -> st.SearchStrategy[Any]:
    """Values of a field, with nulls where they may be; a ``json`` value may be null anywhere."""
    if field.type == "list":
        assert field.items is not None
        found: st.SearchStrategy[Any] = st.lists(values(field.items), max_size=3)
    elif field.type == "struct":
        found = st.fixed_dictionaries({each.name: values(each) for each in field.fields})
    else:
        found = SCALARS[field.type]
    return found if field.required else found | st.none()


def records(fields: Sequence[Field]) -> st.SearchStrategy[dict[str, Any]]:
    """Records of a schema."""
    return st.fixed_dictionaries({each.name: values(each) for each in fields})
