"""Objects whose gzip is cut short or damaged: the lines before the damage are inserted."""

import zlib

PART_BYTES = 8_000_000
_PIECE_BYTES = 4096
_GZIP = 31  # zlib's wbits for a gzip header and trailer


async def insert(way, database, bucket, source, content, error):
    """Insert what can be unpacked, in parts with tokens of their own; the end is a refused line.

    ``way`` is the insert of tables.py or ledger.py, ``content`` the whole object and ``error`` that
    of ClickHouse, which is raised if the content can be unpacked after all.
    """
    if readable(content):
        raise error
    print(f"{source}: damaged gzip: {error}")
    line = 1
    for number, part in enumerate(parts(content)):

        async def opened(part=part, *, whole=False):
            return part

        name = f"{source}#part{number}"
        await way(database, bucket, name, opened, packed=False, first_line=line)
        line += part.count(b"\n")


def readable(content):
    """Whether all of it can be unpacked."""
    return all(problem is None for _, problem in _unpacked(content))


def parts(content):
    """The text before the damage, cut at line ends; the last part ends in what is left of a line.

    If the text breaks off at a line end, a line that says so stands for what is missing.
    """
    held = b""
    for text, problem in _unpacked(content):
        held += text
        if problem is not None and (not held or held.endswith(b"\n")):
            held += f"damaged gzip: {problem}".encode()
        if len(held) >= PART_BYTES and b"\n" in held:
            end = held.rindex(b"\n") + 1
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _unpacked(content):
    """(text, None) for each piece; (b"", problem) at the end if the gzip is damaged."""
    member = zlib.decompressobj(_GZIP)
    at = 0
    while at < len(content):
        if member.eof:
            member = zlib.decompressobj(_GZIP)
        piece = content[at : at + _PIECE_BYTES]
        before = member.copy()
        try:
            text = member.decompress(piece)
        except zlib.error as error:
            # zlib drops what it has unpacked of a call that fails: come closer byte by byte.
            yield from _byte_by_byte(before, piece)
            yield b"", f"{error}, in bytes {at} to {at + len(piece)} of {len(content)}"
            return
        at += len(piece) - len(member.unused_data)
        yield text, None
    if not member.eof:
        yield b"", f"it ends early, after {len(content)} bytes"


def _byte_by_byte(member, piece):
    for at in range(len(piece)):
        try:
            text = member.decompress(piece[at : at + 1])
        except zlib.error:
            return
        yield text, None
