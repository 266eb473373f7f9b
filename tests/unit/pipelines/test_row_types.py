"""The fast conversion of records gives the rows of the slow one, or none."""

import json
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgesim.clock import Clock
from edgesim.config.pipelines import Field
from edgesim.pipelines.streams.row_types import RowType
from edgesim.pipelines.streams.rows import MisfitError, row_of
from edgesim.pipelines.streams.validation import SchemaValidator
from tests.stream_fields import JSON, SCALARS, records, stream_schema

ODD: list[Any] = [
    None,
    True,
    0,
    -(2**31) - 1,
    2**31,
    2**53 + 1,
    2**63,
    -(2**63) - 1,
    10**22,
    10**400,
    34028234663852886 * 10**22,
    3.0,
    -0.0,
    0.5,
    1e39,
    1e300,
    "",
    "12",
    "\ud83d\ude00",
    "\0",
    "AQI",
    "é===",
    "2026-02-30T00:00:00Z",
    "2026-01-02T03:04:05.678901Z",
    "2026-W01-2T03:04:05Z",
    "2026-01-02T03:04:05.\u0663Z",
    "0001-01-01T00:00:00+01:00",
    [],
    [None],
    [1, "a"],
    {},
    {"f0": 1},
]
"""Values that fit some types, and others that fit none."""
OF_A_BINDING: list[Any] = [
    float("nan"),
    float("-inf"),
    b"",
    b"\x00\xff",
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    {1: 2},
    {"f0": float("nan")},
    [b"x"],
]
"""Values that JSON has not, but a Worker can send."""
ENCODER = msgspec.json.Encoder()


class Writer:
    """JSON texts of values, spelled in many ways; a share of the values is replaced by odd ones."""

    def __init__(self, chance: random.Random, odd: float) -> None:
        self._chance = chance
        self._odd = odd

    def text(self, value: Any) -> str:
        if self._chance.random() < self._odd:
            value = self._chance.choice(ODD)
        match value:
            case dict():
                return self._object(value)
            case list():
                return self._joined("[", [self.text(each) for each in value], "]")
            case str():
                return json.dumps(value, ensure_ascii=self._chance.random() < 0.5)
            case bool() | None:
                return json.dumps(value)
            case int() if self._odd and self._chance.random() < 0.1 and abs(value) < 10**300:
                return self._chance.choice([f"{value}.0", f"{value}e0", f"{value}E+0"])
        return json.dumps(value)

    def _object(self, value: dict[str, Any]) -> str:
        members = list(value.items())
        if self._odd:
            if members and self._chance.random() < 0.2:  # of two members of a name the last counts
                members.insert(0, (members[-1][0], self._chance.choice(ODD)))
            if self._chance.random() < 0.2:
                members.insert(0, ("unknown", self._chance.choice(ODD)))
            if members and self._chance.random() < 0.2:
                members.pop()
        escapes = self._chance.random() < 0.3
        names = [
            _escaped(name) if escapes else json.dumps(name, ensure_ascii=False)
            for name, _ in members
        ]
        pairs = [
            f"{name}{self._space()}:{self._space()}{self.text(each)}"
            for name, (_, each) in zip(names, members, strict=True)
        ]
        return self._joined("{", pairs, "}")

    def _joined(self, first: str, parts: list[str], last: str) -> str:
        space = self._space()
        return f"{first}{space}{f'{space},'.join(parts)}{space}{last}"

    def _space(self) -> str:
        return self._chance.choice(["", "", " ", "\n\t"])


def _escaped(name: str) -> str:
    """The name with an escape for each unit of UTF-16."""
    units = name.encode("utf-16-be").hex(" ", 2).split()
    return f'"{"".join(f"{chr(92)}u{unit}" for unit in units)}"'


@st.composite
def bodies(draw: st.DrawFn, odd: float) -> tuple[list[Field], bytes]:
    """A schema, and a JSON array of records that mostly fit it."""
    fields = draw(stream_schema())
    sent = draw(st.lists(records(fields), min_size=1, max_size=4))
    writer = Writer(draw(st.randoms(use_true_random=False)), odd)
    return fields, f"[{','.join(map(writer.text, sent))}]".encode("utf-8", "surrogatepass")


def by_rows(body: bytes, fields: list[Field]) -> tuple[list[Any], list[tuple[str, str]]] | None:
    """The rows of a body one by one, and the misfits; None if it is no array of objects."""
    try:
        found = msgspec.json.decode(body, type=list[dict[str, Any]])
    except msgspec.MsgspecError:
        return None
    return one_by_one(found, fields)


def one_by_one(
    records_: list[dict[str, Any]], fields: list[Field]
) -> tuple[list[Any], list[tuple[str, str]]]:
    """The rows of records by the slow way, and the misfits."""
    rows, misfits = [], []
    for record in records_:
        try:
            rows.append(row_of(record, fields))
        except MisfitError as fault:
            misfits.append((fault.reason, fault.column))
    return rows, misfits


def assert_conversions_agree(fields: list[Field], body: bytes) -> None:
    """Fast rows are the slow rows, in order, of JSON and of records; misfits have the reason."""
    expected = by_rows(body, fields)
    fast = RowType(fields).decoded(body)
    if expected is None:
        assert fast is None
        return
    rows, misfits = expected
    if misfits:
        assert fast is None
    if fast is not None:
        assert ENCODER.encode_lines(fast) == ENCODER.encode_lines(rows)
    assert_batches_agree(fields, msgspec.json.decode(body), rows, misfits)


def assert_batches_agree(
    fields: list[Field], sent: list[Any], rows: list[Any], misfits: list[tuple[str, str]]
) -> None:
    """A batch has these rows, and drops for these reasons."""
    found, drops = SchemaValidator(fields, Clock()).fitting(sent)
    assert ENCODER.encode_lines(found) == ENCODER.encode_lines(rows)
    assert drops.counts == Counter(reason for reason, _ in misfits)
    assert [(each.reason, each.column) for each in drops.samples] == misfits


@settings(max_examples=150, deadline=None)
@given(bodies(odd=0.05) | bodies(odd=0.3))
def test_both_conversions_agree(case):
    """Any schema and records."""
    assert_conversions_agree(*case)


KINDS = [
    *((kind, None) for kind in SCALARS),
    *(("timestamp", unit) for unit in ("second", "microsecond", "nanosecond")),
]
"""Every scalar type, and every unit of timestamps."""


def placed(field: Field, value: Any, depth: str) -> tuple[Field, Any]:
    """The field and its value as a column, or as a column with them inside."""
    match depth:
        case "list":
            items = Field(field.type, required=field.required, unit=field.unit)
            return Field("list", "x", items=items), [value, value]
        case "struct":
            return Field("struct", "x", fields=[field]), {"x": value}
    return field, value


@pytest.mark.parametrize("is_required", [False, True])
@pytest.mark.parametrize("depth", ["column", "list", "struct"])
@pytest.mark.parametrize(("kind", "unit"), KINDS)
def test_conversions_agree_on_odd_values(kind, unit, depth, is_required):
    """Every odd value in a field of every type, as a column and inside of one."""
    field = Field(kind, "x", required=is_required, unit=unit)
    for value in ODD:
        column, sent = placed(field, value, depth)
        assert_conversions_agree([column], json.dumps([{"x": sent}, {}]).encode())
    for value in OF_A_BINDING:
        column, sent = placed(field, value, depth)
        batch = [{"x": sent}, {}]
        assert_batches_agree([column], batch, *one_by_one(batch, [column]))


@pytest.mark.parametrize("kind", ["float32", "float64", "json"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_has_not_is_null(kind, value):
    """Where a value is required, no row has a null for it."""
    needed, free = Field(kind, "x", required=True), Field(kind, "x")
    assert_batches_agree([needed], [{"x": value}, {"x": 1.5}], [{"x": 1.5}], [("null_value", "x")])
    assert_batches_agree([free], [{"x": value}], [{"x": None}], [])


@settings(max_examples=80, deadline=None)
@given(bodies(odd=0))
def test_ordinary_records_are_converted_fast(case):
    """Records that fit take the fast way, whatever their schema."""
    fields, body = case
    assume(all('"' not in field.name for field in fields))
    expected = by_rows(body, fields)
    assert expected is not None
    rows, misfits = expected
    if not misfits:
        fast = RowType(fields).decoded(body)
        assert fast is not None
        assert ENCODER.encode_lines(fast) == ENCODER.encode_lines(rows)


@given(st.lists(st.dictionaries(st.text(max_size=3), JSON, max_size=3), max_size=3))
def test_unstructured_records_are_one_column(sent):
    """A stream without a schema has whole records, converted fast."""
    fast = RowType([]).decoded(json.dumps(sent, ensure_ascii=False).encode())
    assert fast is not None
    assert msgspec.to_builtins(fast) == [{"value": record} for record in sent]


@pytest.mark.parametrize(
    "body", [b"[1]", b"{}", b"[{}", b"null", b'[{"a":"\xff"}]', b'[{"x":"\xff","a":"b"}]', b""]
)
@pytest.mark.parametrize("fields", [[], [Field("string", "a")]])
def test_bodies_that_are_no_records(fields, body):
    """They have no rows."""
    assert RowType(fields).decoded(body) is None
