"""Minimal SQL scanner: finds the ends of statements, their kind, their FORMAT and their data.

It reads token by token, lazily: the data after an INSERT's FORMAT is not SQL and is never read.
Masking quotes and comments by one substitution over the whole text was dropped: it read megabytes
of data as SQL, and a trailing comment or a column called ``values`` led to wrong cuts.
The database parses; this module only splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from edgesim.clickhouse.exceptions import NOT_IMPLEMENTED
from edgesim.errors import ClickHouseError

BAD_ARGUMENTS = 36
SYNTAX_ERROR = 62
UNKNOWN_SETTING = 115
KNOWN_CHARS_MAX = 4096
"""Statements above this size are not cached."""

_SPACES = r"\t-\r \x85\xa0\u180e\u2000-\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
"""The engine's white space, which differs from Python's."""
_TOKEN = re.compile(
    rf"""(?P<gap>[{_SPACES}]++|(?:--|//)[^\n]*+|\#[ !][^\n]*+|/\*.*?(?:\*/|\Z))
    |(?P<quoted>'(?:[^'\\]++|\\.|'')*+'|"(?:[^"\\]++|\\.|"")*+"|`(?:[^`\\]++|\\.|``)*+`
        |\u2018[^\u2019]*+\u2019|\u201c[^\u201d]*+\u201d|\$(?P<tag>\w*+)\$.*?\$(?P=tag)\$)
    |(?P<word>[^\W\d][\w$]*+)
    |(?P<number>\d\w*+(?:\.(?!\.)\w*+)*+|(?<![\w)\]])\.\d[\d_]*+(?:[eE][+-]?\d++)?)
    |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DATA_START = re.compile(r"[ \t\r\f]*\n?")
_IDENTIFIER = r"""(?:`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*"|[^\W\d]\w*)"""
_NAME = re.compile(_IDENTIFIER)
_TARGET = re.compile(
    rf"INSERT (?:INTO )?(?:TABLE (?=\S+ ?(?:[.(]|$)))?"
    rf"(?P<table>{_IDENTIFIER}(?: \. {_IDENTIFIER})?)"
    rf"(?: (?P<columns>\( {_IDENTIFIER}(?: , {_IDENTIFIER})* \)))?",
    re.IGNORECASE,
)
_READING = {"SELECT", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "SET", "USE", "CHECK"}
# FORMAT before a word of the first set, or after one of the second, is a name and not the clause.
_NOT_BEFORE = {"FROM", "AS", "WHERE", "AND", "OR", "IN", "IS", "LIKE", "THEN", "ELSE", "END"}
_NOT_AFTER = {
    "SELECT",
    "DISTINCT",
    "AS",
    "BY",
    "WHERE",
    "AND",
    "OR",
    "NOT",
    ",",
    ".",
    "=",
    "+",
    "-",
}


class Token(msgspec.Struct, frozen=True):
    """A word (in capitals), quoted text, number or sign, and its position in the SQL."""

    kind: str
    text: str
    start: int
    end: int


class Insert(msgspec.Struct, frozen=True):
    """An INSERT whose rows are sent as data.

    ``head`` is the statement up to VALUES or FORMAT; ``format`` is "" if there is none; data within
    the SQL starts at ``data_at``; ``input`` is the span of ``input('...')``.  ``settings_at`` is
    the start of the head's SETTINGS clause, None if there is none.
    """

    head: str
    format: str
    data_at: int
    input: tuple[int, int] | None = None
    structure: str = ""
    settings_at: int | None = None

    def from_file(self, path: str, compression: str) -> str:
        """Return the INSERT with the file ``path`` as its data; compression "none" or "gzip"."""
        at = len(self.head) if self.settings_at is None else self.settings_at
        source = f"FROM INFILE {quoted(path)} COMPRESSION {quoted(compression)}"
        # New lines keep the clauses out of a preceding comment.
        return f"{self.head[:at]}\n{source}\n{self.head[at:]}\nFORMAT {self.format}"

    def reading(self, source: str) -> str:
        """Return the INSERT ... SELECT with ``source`` in place of input()."""
        start, end = self.input or (0, 0)
        return self.head[:start] + source + self.head[end:]


def tokens(sql: str) -> Iterator[Token]:
    """Yield the tokens without spaces and comments; ClickHouseError at an unclosed quote."""
    for found in _TOKEN.finditer(sql):
        kind = found.lastgroup or ""
        if kind == "gap":
            continue
        text = found[0]
        if kind == "sign" and text in "'\"`\u2018\u201c":
            raise ClickHouseError(
                SYNTAX_ERROR,
                f"Syntax error: the quote at position {found.start() + 1} is not closed",
            )
        yield Token(kind, text.upper() if kind == "word" else text, found.start(), found.end())


def split(sql: str) -> list[str]:
    """Return the non-empty statements of a script, without semicolons."""
    pieces, start, seen = [], 0, False
    for token in tokens(sql):
        if token.text == ";":
            pieces += [sql[start : token.start].strip()] if seen else []
            start, seen = token.end, False
        else:
            seen = True
    return pieces + ([sql[start:].strip()] if seen else [])


def single(sql: str) -> str:
    """Return the only statement in ``sql``; ClickHouseError for none or several, as over HTTP."""
    found = split(sql)
    if len(found) == 1:
        return found[0]
    problem = "Multi-statements are not allowed" if found else "Empty query"
    raise ClickHouseError(SYNTAX_ERROR, f"Syntax error ({problem})")


def kind(sql: str) -> str:
    """Return the first word in capitals; "" if there are only comments."""
    return next((token.text for token in tokens(sql) if token.text != "("), "")


def reads_only(sql: str) -> bool:
    """Return True if the statement changes no stored data."""
    what = kind(sql)
    if what == "WITH":
        return all(token.text != "INSERT" for token in _outside_brackets(tokens(sql)))
    return what in _READING


def writes_a_file(sql: str) -> bool:
    """Return True for a statement with an INTO OUTFILE clause."""
    return "outfile" in sql.lower() and any(
        (word.text, after.text) == ("INTO", "OUTFILE")
        for _, word, after in _windows(tokens(sql))
        if after is not None and word.kind == after.kind == "word"
    )


def as_insert(sql: str) -> Insert | None:
    """Return the parts of an INSERT whose rows are sent as data; None for other statements."""
    # Cached: a statement is scanned several times per request, and Workers repeat statements.
    return _known_insert(sql) if len(sql) <= KNOWN_CHARS_MAX else _read_insert(sql)


def _read_insert(sql: str) -> Insert | None:
    walk = tokens(sql)
    first = next(walk, None)
    if first is None or first.text != "INSERT":
        return None
    settings_at: int | None = None
    for token in _outside_brackets(_after_target(walk)):
        if token.text == "VALUES":
            return Insert(sql[: token.start].rstrip(), "Values", token.end, settings_at=settings_at)
        if token.text == "FORMAT":
            found = _with_format(sql, token, next(walk, None))
            return msgspec.structs.replace(found, settings_at=settings_at)
        if token.text == "SETTINGS" and settings_at is None:
            settings_at = token.start
        if token.text in {"SELECT", "WITH"}:
            return _from_input(sql, walk)
        if token.text in {"FROM", ";"}:
            return None  # FROM INFILE, or the start of another statement
    return Insert(sql.rstrip(), "", len(sql), settings_at=settings_at)


_known_insert = lru_cache(64)(_read_insert)


def target(head: str) -> tuple[str, list[str] | None]:
    """Return the table of an INSERT's head, as SQL, and its column names (None if it lists none).

    Raises ClickHouseError if the head has more than a table and column names.
    """
    columns = None
    table = _TARGET.fullmatch(_without_comments(head))
    if table is None or table["table"].upper() == "FUNCTION":
        raise ClickHouseError(
            NOT_IMPLEMENTED,
            "only INSERT INTO table (column, ...) takes rows over the native protocol; name the "
            "server as clickhouse+http://host:8123",
        )
    if table["columns"] is not None:
        columns = [unquoted(each) for each in _NAME.findall(table["columns"])]
    return table["table"], columns


def table_of(insert: Insert) -> str:
    """Return the table that an INSERT names, as SQL."""
    walk = tokens(insert.head)
    next(walk)  # INSERT
    name = ""
    for token in walk:
        if not name and token.text in {"INTO", "TABLE"}:
            continue
        if name and token.text != "." and name[-1] != ".":
            break
        name += insert.head[token.start : token.end]
    return name


def unquoted(name: str) -> str:
    """Return the name of a SQL identifier, without quotes and escapes."""
    if name[0] not in '`"':
        return name
    return re.sub(r"\\(.)", r"\1", name[1:-1]).replace(name[0] * 2, name[0])


def _without_comments(sql: str) -> str:
    """Return the statement with one space between its tokens, in their original spelling."""
    return " ".join(sql[token.start : token.end] for token in tokens(sql))


def trailing_format(sql: str) -> str | None:
    """Return the format of a statement's FORMAT clause for its response; None without one."""
    found: Token | None = None
    for before, word, name in _windows(_outside_brackets(tokens(sql))):
        if name is not None and _is_clause(before, word, name):
            found = name
    if found is None or kind(sql[found.end :]) not in {"", ";", "SETTINGS"}:
        return None
    return sql[found.start : found.end]


def quoted(value: str) -> str:
    """Return ``value`` as a SQL string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def named(value: str) -> str:
    """Return ``value`` as a quoted SQL identifier."""
    return "`" + value.replace("\\", "\\\\").replace("`", "\\`") + "`"


def setting(name: str, value: str) -> str:
    """Return ``name = 'value'`` for SET; ClickHouseError if the name is invalid."""
    if not _SETTING_NAME.fullmatch(name):
        raise ClickHouseError(UNKNOWN_SETTING, f"Unknown setting {name!r}")
    return f"{name} = {quoted(value)}"


def _after_target(walk: Iterator[Token]) -> Iterator[Token]:
    """Skip INTO, TABLE, FUNCTION and the name, which may be any word."""
    for token in walk:
        if token.text not in {"INTO", "TABLE", "FUNCTION"}:
            break
    for token in walk:
        if token.text != ".":
            yield token
            break
        next(walk, None)
    yield from walk


def _outside_brackets(walk: Iterator[Token]) -> Iterator[Token]:
    depth = 0
    for token in walk:
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0:
            yield token


def _with_format(sql: str, word: Token, name: Token | None) -> Insert:
    if name is None or name.kind != "word":
        raise ClickHouseError(SYNTAX_ERROR, "Syntax error: FORMAT without a name")
    at = _DATA_START.match(sql, name.end)
    return Insert(
        sql[: word.start].rstrip(), sql[name.start : name.end], at.end() if at else name.end
    )


def _from_input(sql: str, walk: Iterator[Token]) -> Insert | None:
    """Return an INSERT ... SELECT that reads data by input('structure') and FORMAT, else None.

    Raises ClickHouseError for input() without a FORMAT.
    """
    span: tuple[int, int] | None = None
    structure = ""
    for before, word, name in _windows(walk):
        if word.text == "INPUT" and name is not None and name.text == "(":
            span, structure = _input_call(sql, word)
        elif span and name is not None and _is_clause(before, word, name):
            parts = _with_format(sql, word, name)
            return Insert(parts.head, parts.format, parts.data_at, span, structure)
    if span:
        raise ClickHouseError(SYNTAX_ERROR, "Syntax error: input() needs a FORMAT for its data")
    return None


def _input_call(sql: str, word: Token) -> tuple[tuple[int, int], str]:
    inside = tokens(sql[word.end :])
    _, structure, close = (next(inside, None) for _ in range(3))
    if structure is None or structure.kind != "quoted" or close is None or close.text != ")":
        raise ClickHouseError(BAD_ARGUMENTS, "input() needs its structure as a string")
    return (word.start, word.end + close.end), sql[word.end :][structure.start : structure.end]


def _windows(walk: Iterator[Token]) -> Iterator[tuple[Token | None, Token, Token | None]]:
    """Yield each token with its predecessor and successor."""
    before: Token | None = None
    word = next(walk, None)
    while word is not None:
        after = next(walk, None)
        yield before, word, after
        before, word = word, after


def _is_clause(before: Token | None, word: Token, name: Token | None) -> bool:
    return (
        word.text == "FORMAT"
        and before is not None
        and before.text not in _NOT_AFTER
        and name is not None
        and name.kind == "word"
        and name.text not in _NOT_BEFORE
    )
