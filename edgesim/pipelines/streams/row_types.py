"""A stream's schema as a msgspec type, which converts records that fit many times faster.

It also decodes JSON straight into rows.

It accepts what ``rows.row_of`` accepts, or less: where a record does not fit the type, ``row_of``
decides and names the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import GenericAlias
from typing import Annotated, Any

import msgspec

from edgesim.config.pipelines import Field
from edgesim.pipelines.streams.rows import DEFAULT_UNIT, timestamp_text

_FLOAT32_MAX = 3.4028234663852886e38
_TYPES: dict[str, Any] = {
    "string": str,
    "bool": bool,
    "int32": Annotated[int, msgspec.Meta(ge=-(1 << 31), le=(1 << 31) - 1)],
    "int64": Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    "float32": Annotated[float, msgspec.Meta(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)],
    "float64": float,
    "json": Any,
}


class RowType:
    """Makes rows of records; ``rows`` and ``decoded`` give None if one of them does not fit."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._times = [
            (f"c{index}", field.unit or DEFAULT_UNIT)
            for index, field in enumerate(fields)
            if field.type == "timestamp"
        ]
        types = [Any if each.type == "timestamp" else _type_of(each) for each in fields]
        self._type: Any = None
        if fields and all(each is not None for each in types):
            self._type = GenericAlias(list, (_struct(fields, types),))
            self._decoder = msgspec.json.Decoder(self._type)

    def rows(self, records: list[Any]) -> list[Any] | None:
        """The rows in the schema's order, as structs that are encoded like dicts."""
        if self._type is None:
            return None
        try:
            rows: list[Any] = msgspec.convert(records, self._type)
        except msgspec.ValidationError:
            return None
        return self._with_times(rows)

    def decoded(self, body: bytes) -> list[Any] | None:
        """The rows of a JSON array, without the records between; None if one does not fit."""
        if self._type is None:
            return None
        try:
            body.decode()  # the decoder skips unknown fields, whatever their bytes are
            rows: list[Any] = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return self._with_times(rows)

    def _with_times(self, rows: list[Any]) -> list[Any] | None:
        """The rows with timestamps as text; None if one is no time."""
        for name, unit in self._times:
            for row in rows:
                value = getattr(row, name)
                if value is None:
                    continue
                if not isinstance(value, str):  # a number, or no time at all
                    return None
                text = timestamp_text(value, unit)
                if text is None:
                    return None
                setattr(row, name, text)
        return rows


def _type_of(field: Field) -> Any:
    """The type of a value that is not null; None for a type that only ``row_of`` knows."""
    if field.type == "list":
        assert field.items is not None
        inner = _type_of(field.items)
        if inner is None:
            return None
        if not field.items.required:
            inner |= None
        return GenericAlias(list, (inner,))
    if field.type == "struct":
        types = [_type_of(each) for each in field.fields]
        return None if None in types else _struct(field.fields, types)
    return _TYPES.get(field.type)


def _struct(fields: Sequence[Field], types: Sequence[Any]) -> type[msgspec.Struct]:
    names = {f"c{index}": field.name for index, field in enumerate(fields)}
    members = [
        (name, kind) if field.required else (name, kind | None, None)
        for (name, field, kind) in zip(names, fields, types, strict=True)
    ]
    # Required members first: msgspec wants defaults at the end, unless members are keywords.
    return msgspec.defstruct("Row", members, rename=names, kw_only=True, gc=False)
