"""A query over the rows of a window; the rows that it cannot have are found and left out.

A row on which SQL fails is found by the SQL process itself.  If a batch exceeds a limit, it is
halved until single rows do; a statement that is slow everywhere just runs in smaller batches.  A
process that ends otherwise (killed, out of the machine's memory) is the platform's failure: the
window is tried again, and cut like that only if it ends the process again and again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import anyio
import msgspec

from edgesim.backoff import Backoff
from edgesim.pipelines.segment import RowChunk
from edgesim.pipelines.sql import wire
from edgesim.pipelines.sql.cuts import Cuts, Piece, batches
from edgesim.pipelines.sql.engine import EngineEndedError, SqlEngine

CRASHES_MAX = 3
"""Ends of the process with the same rows until they are at fault."""
RECORD_SHARE = 0.1
"""A single record may take this share of the limit of a batch."""
_PART_SHARE = 4.0
"""Rows of a batch that is over the limit may take so many times their share of it."""
_SLACK = 2.0
"""A piece that has run within its limit may take so many times that when it runs again."""
_PROBLEMS = {
    wire.TIME: "takes too much CPU time by itself",
    wire.MEMORY: "needs too much memory by itself",
    wire.CRASH: f"ended the SQL engine {CRASHES_MAX} times by itself",
}

Rows = Callable[[], Iterator[RowChunk]]
Dropped = Callable[[int, bytes, str, str], None]
"""Called with a row's number in the window, its line, the reason and the engine's error."""


class PiecePlace(msgspec.Struct):
    """A piece that the engine has taken: its batch, its index there, and its lines in chunks."""

    batch: int
    piece: int
    first: int
    """Number of its first row in the window."""
    chunks: Sequence[bytes]

    @property
    def rows(self) -> list[bytes]:
        """Its lines, one by one."""
        return b"".join(self.chunks).splitlines(keepends=True)


class Transformation:
    """One query over one window; ``run`` may be called again after an error."""

    def __init__(
        self,
        engine: SqlEngine,
        query: wire.Query,
        form: wire.FileFormat,
        name: str,
        rows: Rows,
        cuts: Cuts | None = None,
    ) -> None:
        self._engine = engine
        self._query = query
        self._form = form
        self._name = name
        self._rows = rows
        self._cuts = cuts or Cuts(query, None)
        self._seconds = engine.limits.batch_cpu_seconds
        self._taken: deque[PiecePlace] = deque()
        """The piece that the process works on or has done last, then that which comes next."""
        self._crashes, self._crashed_at = 0, -1

    async def run(self, dropped: Dropped) -> tuple[Path, wire.Transformed]:
        """Returns the file of the result, which the caller removes, without the dropped rows.

        EngineEndedError if the process has ended through no fault of the rows, as far as is known.
        """
        while True:
            drops: list[tuple[int, bytes, str, str]] = []
            try:
                done = await self._engine.transform(
                    self._query, self._form, self._name, self._pieces(drops), self._noting(drops)
                )
            except EngineEndedError as error:
                place = self._taken[0] if self._taken else None
                if place is None or not (error.is_own or self._repeats(place)):
                    raise
                await self._cut(place, error.reason)
            else:
                for drop in sorted(drops):
                    dropped(*drop)
                return done

    def _repeats(self, place: PiecePlace) -> bool:
        """True if the process has crashed too often with these rows."""
        self._crashes = self._crashes + 1 if place.first == self._crashed_at else 1
        self._crashed_at = place.first
        return self._crashes >= CRASHES_MAX

    def _pieces(
        self, drops: list[tuple[int, bytes, str, str]]
    ) -> Iterator[tuple[Sequence[bytes], float]]:
        self._taken.clear()
        first = 0
        for number, chunks in enumerate(batches(self._rows())):
            count = sum(chunk.rows for chunk in chunks)
            pieces = self._cuts.of(number, count, self._seconds)
            for index, (piece, some) in enumerate(zip(pieces, _parts(chunks, pieces), strict=True)):
                if piece.reason:
                    row = b"".join(some)
                    drops.append((first, row, piece.reason, _PROBLEMS[piece.reason]))
                else:
                    self._taken.append(PiecePlace(number, index, first, some))
                    yield some, piece.seconds
                first += piece.rows

    def _noting(
        self, drops: list[tuple[int, bytes, str, str]]
    ) -> Callable[[Sequence[wire.RowDrop]], None]:
        def note(found: Sequence[wire.RowDrop]) -> None:
            place = self._taken[0]
            rows = place.rows if found else []
            for each in found:
                row = rows[each.row]
                drops.append((place.first + each.row, row, each.reason, each.message))
            if len(self._taken) > 1:
                self._taken.popleft()

        return note

    async def _cut(self, place: PiecePlace, reason: str) -> None:
        """Cut the piece that has ended the process, and save it."""
        found: list[Piece] = []
        piece = place.rows
        waiting = [piece]
        while waiting:
            rows = waiting.pop()
            share = _PART_SHARE * len(rows) / len(piece)
            seconds = self._seconds * min(max(RECORD_SHARE, share), 1.0)
            fault = reason if rows is piece else await self._fault(rows, seconds)
            if not fault:
                found.append(Piece(len(rows), seconds * _SLACK))
            elif len(rows) == 1:
                found.append(Piece(1, 0, fault))
            else:
                middle = len(rows) // 2
                waiting += [rows[middle:], rows[:middle]]
        self._crashes = 0
        self._cuts.replace(place.batch, place.piece, found)

    async def _fault(self, rows: list[bytes], seconds: float) -> str:
        """The reason for which these rows alone end the process; "" if they do not."""
        backoff = Backoff()
        while True:
            try:
                path, _ = await self._engine.transform(
                    self._query,
                    self._form,
                    f"{self._name}.part",
                    iter([([b"".join(rows)], seconds)]),
                    lambda _: None,
                )
            except EngineEndedError as error:
                is_repeated = len(rows) > 1 or backoff.failures + 1 >= CRASHES_MAX
                if error.reason != wire.CRASH or is_repeated:
                    return error.reason
                await anyio.sleep(backoff.failed())
            else:
                path.unlink()
                return ""


def _parts(chunks: Sequence[RowChunk], pieces: Sequence[Piece]) -> Iterator[Sequence[bytes]]:
    """The lines of each piece, in chunks."""
    lines = [chunk.lines for chunk in chunks]
    if len(pieces) == 1:
        yield lines
        return
    rows = iter(b"".join(lines).splitlines(keepends=True))
    for piece in pieces:
        yield [b"".join(islice(rows, piece.rows))]
