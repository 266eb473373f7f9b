"""Schema files of streams, as the official command line reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgesim.config.pipelines import Field


def schema_text(fields: Sequence[Field]) -> str:
    """The content of a schema file."""
    return json.dumps({"fields": [_column(field) for field in fields]}, indent=2) + "\n"


def _column(field: Field) -> dict[str, Any]:
    column: dict[str, Any] = {"type": field.type, "required": field.required}
    if field.name:
        column = {"name": field.name} | column
    if field.items is not None:
        column["items"] = _column(field.items)
    if field.unit is not None:
        column["unit"] = field.unit
    if field.fields:
        column["fields"] = [_column(each) for each in field.fields]
    return column
