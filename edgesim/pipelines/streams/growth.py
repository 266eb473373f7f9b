"""Growth of records into rows, which have a null for each optional column without a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from edgesim.config.pipelines import Field
from edgesim.errors import PlatformError

ROWS_BYTES_MAX = 64 << 20
"""Maximum size of the rows of one ``send``; its records have at most 5 MB."""
_VALUE_BYTES = len('{"value":}')


class RowsTooLargeError(PlatformError):
    """The rows of a ``send`` would be larger than ROWS_BYTES_MAX."""

    def __init__(self) -> None:
        super().__init__(
            f"the rows are over the limit of {ROWS_BYTES_MAX} bytes, with nulls for columns "
            "without a value"
        )


class RowGrowth:
    """Sizes of rows by the schema of a stream, known before they are made."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        self._widest = max(map(_nulls_bytes, _structs(fields))) if fields else _VALUE_BYTES

    def check(self, encoded: bytes, records: Callable[[], list[Any]]) -> None:
        """RowsTooLargeError if the rows of the records, whose JSON is ``encoded``, are too large.

        ``records`` is called only if a count of the braces does not prove that they are not.
        """
        if len(encoded) + encoded.count(b"{") * self._widest <= ROWS_BYTES_MAX:
            return
        size = len(encoded)
        for record in records():
            size += _growth(record, self._fields) if self._fields else _VALUE_BYTES
            if size > ROWS_BYTES_MAX:
                raise RowsTooLargeError


def _structs(fields: Sequence[Field]) -> list[Sequence[Field]]:
    """The fields of a struct, and of those inside it."""
    found = [fields]
    for field in fields:
        inside = [field.items] if field.items is not None else field.fields
        if inside:
            found += _structs(inside)
    return found


def _nulls_bytes(fields: Sequence[Field]) -> int:
    return sum(_null_bytes(field) for field in fields)


def _null_bytes(field: Field) -> int:
    return len(msgspec.json.encode(field.name)) + len(":null,")


def _growth(value: Any, fields: Sequence[Field]) -> int:
    """Bytes that a struct and those inside it have more as rows; 0 for what is no struct."""
    if not isinstance(value, dict):
        return 0
    size = 0
    for field in fields:
        found = value.get(field.name)
        if found is None:
            size += _null_bytes(field)
        else:
            size += _growth_of_value(found, field)
    return size


def _growth_of_value(value: Any, field: Field) -> int:
    if field.items is not None and isinstance(value, list):
        return sum(_growth_of_value(item, field.items) for item in value)
    return _growth(value, field.fields)
