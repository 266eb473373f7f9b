"""Expectations on a replay: a TOML file in which every table is optional.

[responses]                             requests by response status; no other status may occur
200 = 970
[[requests]]                            one request of the fixture, counted from 1
number = 3
status = 400
json = { error = "invalid_event" }      compares only these keys; or body = "the whole text"
[sql]
"SELECT count() FROM events" = 970      a value, a row, or rows
[counts]
"tail.lost" = 0                         any counter of the report's stats
[objects.events]
count = 2
rows = 970                              lines in all of them
[queues.ingest]
backlog = 0                             also: delivered, retried, dead
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgesim.clickhouse.compression import gunzip
from edgesim.config.files import convert, read_table
from edgesim.errors import RunError
from edgesim.model import iterate
from edgesim.r2.bucket import R2ObjectBody
from edgesim.replay.counters import at
from edgesim.simulator import Simulator

_INTEGER = re.compile(r"-?[0-9]+")


class RequestExpectation(msgspec.Struct, forbid_unknown_fields=True):
    """Expected response to one request; ``json`` compares only the keys that it names."""

    number: int
    status: int | None = None
    body: str | None = None
    json: dict[str, Any] | None = None


class ObjectsExpectation(msgspec.Struct, forbid_unknown_fields=True):
    """Expected objects in a bucket under ``prefix``."""

    prefix: str = ""
    count: int | None = None
    rows: int | None = None


class Expectations(msgspec.Struct, forbid_unknown_fields=True):
    """Content of the file."""

    responses: dict[str, int] = {}
    requests: list[RequestExpectation] = []
    sql: dict[str, Any] = {}
    counts: dict[str, int] = {}
    objects: dict[str, ObjectsExpectation] = {}
    queues: dict[str, dict[str, int]] = {}


class Answered(msgspec.Struct, frozen=True):
    """Response to a request that the expectations name."""

    status: int
    body: str


class Mismatch(msgspec.Struct, frozen=True):
    """One expectation that was not met."""

    what: str
    expected: Any
    got: Any

    def diff(self) -> list[str]:
        """Diff of expected and actual value, line by line."""
        lines = difflib.ndiff(_lines(self.expected), _lines(self.got))
        return [line for line in lines if not line.startswith("?")]


class Outcome(msgspec.Struct):
    """Results of a replay that expectations use; ``sql`` returns JSONCompact."""

    responses: Mapping[int, int]
    answers: Mapping[int, Answered]
    stats: Mapping[str, Any]
    simulator: Simulator
    sql: Callable[[str], Awaitable[str]]

    def counter(self, path: str) -> Any:
        """The counter at a dotted path; an error text if no such counter exists."""
        return at(self.stats, self.simulator, path)


def read(path: Path) -> Expectations:
    """Read a file; ConfigError names the file and key."""
    expectations: Expectations = convert(path, read_table(path), Expectations)
    return expectations


async def compare(expected: Expectations, outcome: Outcome) -> tuple[list[str], list[Mismatch]]:
    """Compare all expectations; return their names, and the mismatches."""
    pairs = [
        *_responses(expected, outcome),
        *_requests(expected, outcome),
        *[pair async for pair in _sql(expected, outcome)],
        *[(what, value, outcome.counter(what)) for what, value in expected.counts.items()],
        *[pair async for pair in _objects(expected, outcome)],
        *[
            (f"queue {name} {what}", value, outcome.counter(f"queues.{name}.{what}"))
            for name, wanted in expected.queues.items()
            for what, value in wanted.items()
        ],
    ]
    mismatches = [Mismatch(*pair) for pair in pairs if not _equal(pair[1], pair[2])]
    return [what for what, _, _ in pairs], mismatches


_Pair = tuple[str, Any, Any]


def _responses(expected: Expectations, outcome: Outcome) -> list[_Pair]:
    if not expected.responses:
        return []
    wanted = {int(status): count for status, count in expected.responses.items()}
    return [
        (f"responses {status}", wanted.get(status, 0), outcome.responses.get(status, 0))
        for status in sorted(wanted.keys() | outcome.responses.keys())
    ]


def _requests(expected: Expectations, outcome: Outcome) -> list[_Pair]:
    pairs: list[_Pair] = []
    for wanted in expected.requests:
        answer = outcome.answers.get(wanted.number)
        what = f"request {wanted.number}"
        if answer is None:
            pairs.append((what, "an answer", "none"))
            continue
        if wanted.status is not None:
            pairs.append((f"{what} status", wanted.status, answer.status))
        if wanted.body is not None:
            pairs.append((f"{what} body", wanted.body, answer.body))
        if wanted.json is not None:
            pairs.append((f"{what} json", wanted.json, _named(answer.body, wanted.json)))
    return pairs


def _named(body: str, keys: Mapping[str, Any]) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    return {key: value.get(key) for key in keys} if isinstance(value, dict) else value


async def _sql(expected: Expectations, outcome: Outcome) -> Any:
    for statement, wanted in expected.sql.items():
        try:
            answer = await outcome.sql(statement)
        except RunError as error:
            yield statement, wanted, f"an error: {error.problem}"
        else:
            yield statement, wanted, _shaped(json.loads(answer)["data"])


async def _objects(expected: Expectations, outcome: Outcome) -> Any:
    for bucket, wanted in expected.objects.items():
        known = outcome.simulator.primitives.bucket_names()
        if bucket not in known:
            none = f"no bucket {bucket!r}; the project has {', '.join(sorted(known))}"
            yield f"objects in {bucket}", _wanted(wanted), none
            continue
        count = rows = 0
        async for found in outcome.simulator.primitives.objects(bucket, wanted.prefix):
            count += 1
            if wanted.rows is not None:
                rows += await count_rows(outcome.simulator, bucket, found.key)
        if wanted.count is not None:
            yield f"objects in {bucket}", wanted.count, count
        if wanted.rows is not None:
            yield f"rows in objects of {bucket}", wanted.rows, rows


async def count_rows(simulator: Simulator, bucket: str, key: str) -> int:
    """Number of lines of an object, decompressed for ``.gz`` names; 0 if deleted."""
    return sum([len(lines) async for lines in read_lines(simulator, bucket, key)])


async def read_lines(simulator: Simulator, bucket: str, key: str) -> AsyncIterator[list[bytes]]:
    """Yield lists of lines of an object, decompressed for ``.gz`` names; none if deleted."""
    found = await simulator.primitives.bucket(bucket).get(key)
    if not isinstance(found, R2ObjectBody):
        return
    body, begun = iterate(found.body), b""
    async for chunk in gunzip(body) if key.endswith(".gz") else body:
        *lines, begun = (begun + chunk).split(b"\n")
        yield lines
    if begun:
        yield [begun]


def _shaped(rows: list[list[Any]]) -> Any:
    """Reduce a result to a value or a row if it has only one; otherwise its rows."""
    if len(rows) != 1:
        return rows
    return rows[0][0] if len(rows[0]) == 1 else rows[0]


def _wanted(expected: ObjectsExpectation) -> dict[str, int]:
    pairs = {"count": expected.count, "rows": expected.rows}
    return {name: value for name, value in pairs.items() if value is not None}


def _equal(expected: Any, got: Any) -> bool:
    """Compare numbers by value, integers exactly: ClickHouse's JSON has 64-bit integers as text."""
    if isinstance(expected, list):
        return (
            isinstance(got, list) and len(expected) == len(got) and all(map(_equal, expected, got))
        )
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and expected.keys() == got.keys()
            and all(_equal(each, got[key]) for key, each in expected.items())
        )
    if isinstance(expected, bool) or isinstance(got, bool):
        return str(expected).lower() == str(got).lower()
    if isinstance(expected, int | float) and isinstance(got, int | float | str):
        return _same_number(expected, got)
    return str(expected) == str(got)


def _same_number(expected: float, got: float | str) -> bool:
    if isinstance(expected, int) and not isinstance(got, float) and _INTEGER.fullmatch(str(got)):
        return int(got) == expected
    try:
        return math.isclose(expected, float(got), rel_tol=1e-12)
    except ValueError:
        return False


def _lines(value: Any) -> list[str]:
    if isinstance(value, list):
        return [json.dumps(each, ensure_ascii=False) for each in value]
    if isinstance(value, dict):
        return [
            f"{key} = {json.dumps(each, ensure_ascii=False)}" for key, each in sorted(value.items())
        ]
    return str(value).splitlines() or [""]
