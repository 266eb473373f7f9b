"""The schema of the rows in a stream's log: rows of another schema cannot be read with a new one.

On the platform a stream with another schema is another stream, and the buffered records of the old
one are lost.  Here they are set aside, in a folder in that of the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from edgesim import durable
from edgesim.config.pipelines import Field
from edgesim.pipelines.log import SUFFIX
from edgesim.pipelines.streams.checked import with_checksum, without_checksum

FILE = "schema.json"

log = structlog.get_logger()


def keep_schema(folder: Path, fields: Sequence[Field]) -> None:
    """Record the schema; a log with rows of another one is set aside first.

    A damaged record of the schema is reported and written again: it is no other schema.
    """
    text = msgspec.json.encode(fields)
    file = folder / FILE
    kept = without_checksum(file.read_bytes()) if file.is_file() else None
    if kept == text:
        return
    if file.is_file() and kept is None:
        log.error("schema of a stream damaged, written again", file=str(file))
    segments = sorted(folder.glob(f"*{SUFFIX}"))
    if kept is not None and segments:
        aside = _free_name(folder)
        durable.make_folder(aside)
        for each in (*segments, file):
            each.replace(aside / each.name)
        durable.flush_folder(aside)
        durable.flush_folder(folder)
        log.warning(
            "schema of a stream changed: its buffered records are set aside",
            stream=folder.name,
            folder=str(aside),
        )
    durable.make_folder(folder)
    durable.write_file(file, with_checksum(text))


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder / f"schema-{number}").exists():
        number += 1
    return aside
