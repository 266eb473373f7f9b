"""Objects with truncated or damaged gzip: insert the lines before the damage."""

import zlib

PART_BYTES = 8_000_000
_PIECE_BYTES = 4096
_GZIP = 31  # zlib's wbits for a gzip header and trailer


async def insert(way, database, bucket, source, content, error):
    """Insert the readable text, one deduplication token per part; its end becomes a refused line.

    ``way`` is ``insert`` of tables.py or ledger.py and ``content`` the whole object.  ``error`` is
    ClickHouse's; it is raised if the whole content can be unpacked here.
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
    """True if the whole content can be unpacked."""
    return all(problem is None for _, problem in _unpacked(content))


def parts(content):
    """The text before the damage, split at line ends; the last part ends with a partial line.

    If the text stops at a line end, a line that describes the damage is appended instead.
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
            # zlib discards the output of a call that fails: repeat the piece byte by byte.
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
