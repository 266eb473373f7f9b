"""A stream's schema as a msgspec type, which converts records that fit many times faster.

It also decodes JSON straight into rows.

It accepts what ``rows.row_of`` accepts, or less: where a record does not fit the type, ``row_of``
decides and names the reason.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import GenericAlias
from typing import Annotated, Any

import msgspec

from edgesim.config.pipelines import Field
from edgesim.pipelines.streams.timestamps import DEFAULT_UNIT, timestamp_text

_FLOAT32_MAX = 3.4028234663852886e38
_FINITE = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
"""A number, but not NaN or an infinity, which a Worker can send: JSON writes them as null."""
_TYPES: dict[str, Any] = {
    "string": str,
    "bool": bool,
    "int32": Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)],
    "int64": Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    "float32": Annotated[float, msgspec.Meta(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)],
    "float64": _FINITE,
    "json": str | int | _FINITE | bool | list[Any] | dict[str, Any],
    "timestamp": str | int,
    "binary": str,
    "bytes": str,
}

Finish = Callable[[Any], Any]
"""Makes the value of a row from one of its type.  ValueError if it is none."""


class _Whole(msgspec.Struct, gc=False):
    """The row of an unstructured stream."""

    value: dict[str, Any]


class RowType:
    """Makes rows of records; each method gives None if a record does not fit.

    Rows are in the schema's order, as structs that are encoded like dicts.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._finish: Finish | None = _finish_of_struct(fields) if fields else _Whole
        self._rows: Any = None
        try:
            row = _struct(fields) if fields else dict[str, Any]
        except ValueError:  # a name that msgspec cannot have, with a quotation mark for example
            return
        self._rows = GenericAlias(list, (row,))
        self._decoder: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(self._rows)

    def rows(self, records: list[Any]) -> list[Any] | None:
        """The rows of records."""
        return self._finished(partial(msgspec.convert, records, self._rows))

    def row(self, record: Any) -> Any:
        """The row of one record."""
        rows = self.rows([record])
        return rows and rows[0]

    def decoded(self, body: bytes) -> list[Any] | None:
        """The rows of a JSON array, without the records between."""
        try:
            body.decode()  # the decoder skips unknown fields, whatever their bytes are
        except UnicodeDecodeError:
            return None
        return self._finished(lambda: self._decoder.decode(body))

    def _finished(self, make: Callable[[], list[Any]]) -> list[Any] | None:
        if self._rows is None:
            return None
        try:
            rows = make()
            return rows if self._finish is None else list(map(self._finish, rows))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None


def _type_of(field: Field) -> Any:
    """The type of a value that is not null, before it is finished."""
    if field.type == "list":
        assert field.items is not None
        inner = _type_of(field.items)
        return GenericAlias(list, (inner if field.items.required else inner | None,))
    return _struct(field.fields) if field.type == "struct" else _TYPES[field.type]


def _struct(fields: Sequence[Field]) -> type[msgspec.Struct]:
    names = {_member(index): field.name for index, field in enumerate(fields)}
    types = [_type_of(field) for field in fields]
    members = [
        (name, kind) if field.required else (name, kind | None, None)
        for (name, field, kind) in zip(names, fields, types, strict=True)
    ]
    # Required members first: msgspec wants defaults at the end, unless members are keywords.
    return msgspec.defstruct("Row", members, rename=names, kw_only=True, gc=False)


def _member(index: int) -> str:
    return f"c{index}"


def _finish_of(field: Field) -> Finish | None:
    """The last step for values of a field; None if their type has told all."""
    match field.type:
        case "timestamp":
            return partial(_time, field.unit or DEFAULT_UNIT)
        case "binary" | "bytes":
            return _base64
        case "list":
            assert field.items is not None
            inner = _finish_of(field.items)
            return inner and partial(_items, inner)
        case "struct":
            return _finish_of_struct(field.fields)
    return None


def _finish_of_struct(fields: Sequence[Field]) -> Finish | None:
    found = [(_member(index), _finish_of(field)) for index, field in enumerate(fields)]
    members = [(name, finish) for name, finish in found if finish is not None]
    return partial(_members, members) if members else None


def _time(unit: str, value: str | int) -> str:
    text = timestamp_text(value, unit)
    if text is None:
        raise ValueError(value)
    return text


def _base64(value: str) -> str:
    base64.b64decode(value, validate=True)
    return value


def _items(finish: Finish, values: list[Any]) -> list[Any]:
    return [each if each is None else finish(each) for each in values]


def _members(members: list[tuple[str, Finish]], row: Any) -> Any:
    for name, finish in members:
        if (value := getattr(row, name)) is not None:
            setattr(row, name, finish(value))
    return row
