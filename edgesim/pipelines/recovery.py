"""Recovery of a window from its log file: complete frames are kept, damaged bytes are set aside.

A power cut may leave a partial frame at the end, which was never acknowledged.  A disk may damage
any byte: the frames after it are still used, and the damaged bytes are copied into a file beside
the log and reported as an error.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from edgesim import durable
from edgesim.errors import RunError
from edgesim.pipelines import frames
from edgesim.pipelines.frames import Frame, Window

SUFFIX = ".damaged"
_SAVED_BYTES_MAX = 16 << 20

log = structlog.get_logger()


class Header(msgspec.Struct, frozen=True):
    """The first frame of a first-version file; ``opened_at`` is Unix seconds."""

    opened_at: float


class Seal(msgspec.Struct, frozen=True):
    """The last frame of a complete window: its object's key, and its number of records."""

    key: str
    rows: int


class Recovered(msgspec.Struct):
    """The contents of a window's file.

    ``places`` are the starts of the frames that hold records, in their order, and ``rows_at`` the
    numbers of records in them; ``end`` is the byte after the last complete frame, ``rest`` the
    number of bytes after that.  ``window`` is None in a
    first-version file.
    """

    window: Window | None
    opened_at: float
    end: int
    rest: int
    places: array[int]
    rows_at: array[int]
    rows: int = 0
    bytes: int = 0
    seal: Seal | None = None


def recover(path: Path, descriptor: int, size: int) -> Generator[None, None, Recovered | None]:
    """Read the file; None if it has no complete frame.  Yields between pieces of work.

    Raises RunError if damaged bytes cannot be set aside.
    """
    found = yield from _collect(frames.find(descriptor, size))
    if not any(each.kind in {frames.HEADER, frames.RECORDS} for each in found):
        found += yield from _collect(frames.find_old(descriptor, size))
    kept = _of_one_window(found)
    if not kept:
        return None
    recovered = _put_together(path, kept, size)
    for begin, end in _gaps(kept, size):
        saved = set_aside(path, descriptor, begin, end)
        place = {"file": str(path), "offset": begin, "bytes": end - begin, "saved": saved}
        if end == size and not recovered.seal and frames.is_cut_short(descriptor, begin, size):
            log.warning("pipeline log torn at its end", **place)
        else:
            log.error("pipeline log damaged", **place)
        yield
    if (lost := _lost(kept, recovered)) > 0:
        log.error("pipeline log lost records", file=str(path), records=lost)
    return recovered


def _collect(work: Iterator[Frame | None]) -> Generator[None, None, list[Frame]]:
    found = []
    for frame in work:
        if frame is None:
            yield
        else:
            found.append(frame)
    return found


def _of_one_window(found: Sequence[Frame]) -> list[Frame]:
    """The frames of the window that has the most, one for each place, in their order.

    A disk can write a block twice or to the wrong place: of two copies the one in place is used.
    """
    votes = Counter(each.window for each in found if each.kind != frames.SEAL)
    if not votes:
        return []
    window = votes.most_common(1)[0][0]
    chosen: dict[int, Frame] = {}
    for each in found:
        # The seal of a first-version window is a frame of the second version.
        is_ours = each.window == window or (window is None and each.kind == frames.SEAL)
        if is_ours and (each.place not in chosen or each.start == each.place):
            chosen[each.place] = each
    return [chosen[place] for place in sorted(chosen)]


def _gaps(kept: Sequence[Frame], size: int) -> Iterator[tuple[int, int]]:
    """Begin and end of each range of bytes outside the frames."""
    at = 0
    for frame in sorted(kept, key=lambda each: each.start):
        if frame.start > at:
            yield at, frame.start
        at = max(at, frame.end)
    if size > at:
        yield at, size


def set_aside(path: Path, descriptor: int, begin: int, end: int) -> str | None:
    """Copy damaged bytes to a file beside the log; its name, or None if they are only zeros."""
    data = durable.read_at(descriptor, min(end - begin, _SAVED_BYTES_MAX), begin)
    if not data.strip(b"\0"):
        return None
    saved = path.with_name(f"{path.stem}.{begin}{SUFFIX}")
    try:
        if not saved.exists():
            durable.write_file(saved, data)
    except OSError as error:
        problem = f"{saved}: cannot set damaged bytes of a pipeline log aside: {error}"
        raise RunError(problem) from error
    return saved.name


def _put_together(path: Path, kept: Sequence[Frame], size: int) -> Recovered:
    records = [each for each in kept if each.kind == frames.RECORDS]
    end = max(each.end for each in kept)
    window = next((each.window for each in kept if each.kind != frames.SEAL), None)
    seals = [msgspec.json.decode(each.text, type=Seal) for each in kept if each.kind == frames.SEAL]
    return Recovered(
        window,
        _opened_at(path, kept) if window is None else window.opened_at,
        end,
        size - end,
        array("Q", [each.start for each in records]),
        array("Q", [each.rows for each in records]),
        sum(each.rows for each in records),
        sum(each.length for each in records),
        seals[0] if seals else None,
    )


def _opened_at(path: Path, kept: Sequence[Frame]) -> float:
    """Opening time of a first-version window; without its header, the file's modification time."""
    if kept[0].kind == frames.HEADER:
        return msgspec.json.decode(kept[0].text, type=Header).opened_at
    return path.stat().st_mtime


def _lost(kept: Sequence[Frame], recovered: Recovered) -> int:
    """The number of records missing according to later frames and the seal."""
    lost = 0
    rows = 0
    for each in kept:
        if each.window is not None and each.kind == frames.RECORDS:
            lost += max(0, each.rows_before - rows - lost)
        rows += each.rows
    if recovered.seal is not None:
        lost = max(lost, recovered.seal.rows - rows)
    return lost
