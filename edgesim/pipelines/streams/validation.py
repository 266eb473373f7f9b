"""Validation of a stream's records: the rows of those that fit its schema, and the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgesim.clock import Clock
from edgesim.config.pipelines import Field
from edgesim.pipelines.streams.drops import DroppedSample, Drops, shown
from edgesim.pipelines.streams.row_types import RowType
from edgesim.pipelines.streams.rows import MisfitError, row_of


class SchemaValidator:
    """The schema of one stream.

    Records are converted together, then one by one if one of them does not fit, and a record by
    ``row_of`` if it does not fit the fast type.
    """

    def __init__(self, fields: Sequence[Field], clock: Clock) -> None:
        self._fields = fields
        self._type = RowType(fields)
        self._clock = clock
        self._encoder = msgspec.json.Encoder()

    def decoded(self, body: bytes) -> list[Any] | None:
        """The rows of a JSON array; None if a record does not fit, or the fast type cannot tell."""
        return self._type.decoded(body)

    def fitting(self, records: list[Any]) -> tuple[list[Any], Drops]:
        """The rows of the records that fit, and the others."""
        drops = Drops()
        if (rows := self._type.rows(records)) is not None:
            return rows, drops
        rows = []
        for record in records:
            try:
                row = self._type.row(record)
                rows.append(row_of(record, self._fields) if row is None else row)
            except MisfitError as fault:
                text = shown(self._encoder.encode(record))
                now = self._clock.now()
                drops.add(DroppedSample(now, fault.reason, fault.column, text))
        return rows, drops


class BodyError(ValueError):
    """A body that is no JSON array of objects; the message says what it is."""


def objects_of(body: bytes) -> list[Any]:
    """The objects of a JSON array.  BodyError if it is none."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.MsgspecError as error:
        raise BodyError(f"the body is not valid JSON: {error}") from error
    if not isinstance(found, list):
        raise BodyError("the body is not an array of records")
    for index, record in enumerate(found):
        if not isinstance(record, dict):
            raise BodyError(f"record {index} of the body is not a JSON object")
    return found
