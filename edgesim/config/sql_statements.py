"""Statements of a pipeline: ``INSERT INTO sink SELECT ... FROM stream``, separated by semicolons.

This module finds which stream and sink a statement names, and refuses the clauses that Pipelines
refuse, with their position.  Expressions and types are the SQL engine's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from edgesim.config.sql_tokens import SqlError, SqlToken, tokens_of

_CLAUSES = {
    "JOIN": "a pipeline does not join; send one record that has both, or join what the sinks store",
    "HAVING": "a pipeline does not aggregate; every record is transformed by itself",
    "UNION": "a statement is one SELECT; write another INSERT for the other one",
    "INTERSECT": "a statement is one SELECT",
    "QUALIFY": "a pipeline has no window functions",
    "LATERAL": "a pipeline does not join",
    "RECURSIVE": "WITH cannot refer to itself here",
    "OFFSET": "a stream has no end, so there is nothing to skip",
    "TABLESAMPLE": "a statement takes every record; choose by WHERE",
}
"""Keywords that refuse a statement wherever they stand, with the reason."""
_BEFORE_BY = {
    "GROUP": "a pipeline does not aggregate; every record is transformed by itself",
    "ORDER": "a stream has no end, so nothing can be sorted",
    "PARTITION": "a pipeline has no window functions",
    "CONNECT": "every record is transformed by itself",
}
_QUERY_BEGINS = (["(", "SELECT"], ["(", "WITH"])
_AGGREGATES = {
    *("approx_distinct", "approx_median", "approx_percentile_cont", "array_agg", "avg"),
    *("bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count", "covar"),
    *("covar_pop", "covar_samp", "first_value", "last_value", "max"),
    *("mean", "median", "min", "nth_value"),
    *("stddev", "stddev_pop", "stddev_samp", "string_agg", "sum", "var", "var_pop", "var_samp"),
}
_WINDOWS = {
    *("cume_dist", "dense_rank", "lag", "lead", "ntile", "percent_rank", "rank", "row_number"),
}
_FUNCTIONS = {
    **dict.fromkeys(_AGGREGATES, "a pipeline does not aggregate"),
    **dict.fromkeys(_WINDOWS, "a pipeline has no window functions"),
}


class InsertInto(msgspec.Struct, frozen=True):
    """One statement: ``query`` is its SELECT; ``takes_all`` is true for ``SELECT * FROM stream``.

    Names are as SQL reads them: in lower case unless quoted.  ``place`` is line and column.
    """

    sink: str
    stream: str
    query: str
    takes_all: bool
    place: tuple[int, int]
    sink_place: tuple[int, int]
    stream_place: tuple[int, int]


def read_statements(text: str) -> list[InsertInto]:
    """The statements of a pipeline's SQL; SqlError for what a pipeline cannot run."""
    groups = list(_split(tokens_of(text)))
    if not groups:
        raise SqlError((1, 1), "there is no statement; write INSERT INTO sink SELECT * FROM stream")
    return [_read(text, tokens) for tokens in groups]


def _split(tokens: Sequence[SqlToken]) -> Iterator[Sequence[SqlToken]]:
    start = 0
    for index, token in enumerate(tokens):
        if token.is_symbol(";"):
            if index > start:
                yield tokens[start:index]
            start = index + 1
    if start < len(tokens):
        yield tokens[start:]


def _read(text: str, tokens: Sequence[SqlToken]) -> InsertInto:
    head = tokens[0]
    if not (head.is_word("INSERT") and len(tokens) > 2 and tokens[1].is_word("INTO")):
        raise SqlError(head.place, "a statement begins with INSERT INTO and the name of a sink")
    sink = tokens[2]
    if not sink.is_name:
        raise SqlError(sink.place, f"{sink.text} is not the name of a sink")
    query = tokens[3:]
    if not query or not query[0].is_word("SELECT", "WITH"):
        place = query[0].place if query else sink.place
        raise SqlError(place, f"after INSERT INTO {sink.text} comes SELECT or WITH")
    stream = _Query(query).stream()
    words = [token.text.upper() for token in query[:3]]
    return InsertInto(
        sink.name,
        stream.name,
        text[query[0].start : query[-1].end],
        words == ["SELECT", "*", "FROM"] and len(query) == 4,
        head.place,
        sink.place,
        stream.place,
    )


class _Select:
    """A SELECT at a depth of parentheses, and the clause that is being read."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.clause = "SELECT"
        self.unnests = 0


class _Query:
    """Walks over the tokens of one SELECT with its subqueries."""

    def __init__(self, tokens: Sequence[SqlToken]) -> None:
        self._tokens = tokens
        self._named = {
            tokens[at - 1].name
            for at, token in enumerate(tokens)
            if token.is_word("AS")
            and [each.text.upper() for each in tokens[at + 1 : at + 3]] in _QUERY_BEGINS
        }
        """Names of WITH clauses."""
        self._selects: list[_Select] = []
        self._read: dict[str, SqlToken] = {}

    def stream(self) -> SqlToken:
        """The one stream that the query reads; SqlError if there is none, or something refused."""
        depth = 0
        for index, token in enumerate(self._tokens):
            if token.is_symbol("("):
                depth += 1
            elif token.is_symbol(")"):
                depth -= 1
                if depth < 0:
                    raise SqlError(token.place, "there is no parenthesis to close")
                while self._selects and self._selects[-1].depth > depth:
                    self._selects.pop()
            elif token.kind == "word":
                self._look_at(index, token, depth)
            elif token.is_symbol(",") and self._is_in_from(depth):
                raise SqlError(token.place, f"one table after FROM; {_CLAUSES['JOIN']}")
        if depth:
            raise SqlError(self._tokens[-1].place, f"{depth} parentheses are not closed")
        streams = list(self._read.values())
        if not streams:
            raise SqlError(
                self._tokens[0].place, "the statement reads no stream; write FROM stream"
            )
        if len(streams) > 1:
            raise SqlError(streams[1].place, f"a statement reads one stream; {_CLAUSES['JOIN']}")
        return streams[0]

    def _is_in_from(self, depth: int) -> bool:
        select = self._selects[-1] if self._selects else None
        return select is not None and select.depth == depth and select.clause == "FROM"

    def _look_at(self, index: int, token: SqlToken, depth: int) -> None:
        self._refuse(index, token)
        select = self._selects[-1] if self._selects else None
        if token.is_word("SELECT"):
            if select is not None and select.depth < depth and select.clause != "FROM":
                raise SqlError(token.place, "a subquery may stand after FROM and in WITH only")
            self._selects.append(_Select(depth))
        elif select is not None and token.is_word("UNNEST") and self._at(index + 1, "("):
            self._unnest(token, select)
        elif select is not None and select.depth == depth:
            if token.is_word("FROM") and not self._tokens[index - 1].is_word("DISTINCT"):
                select.clause = "FROM"
                self._table(index + 1)
            elif token.is_word("WHERE"):
                select.clause = "WHERE"

    def _refuse(self, index: int, token: SqlToken) -> None:
        word = token.text.upper()
        after = self._tokens[index + 1] if index + 1 < len(self._tokens) else None
        before = self._tokens[index - 1] if index else None
        if before is not None and before.is_symbol("."):
            return  # a column of a table
        if reason := _CLAUSES.get(word):
            raise SqlError(token.place, f"{word} is not for pipelines: {reason}")
        if word in _BEFORE_BY and after is not None and after.is_word("BY"):
            raise SqlError(token.place, f"{word} BY is not for pipelines: {_BEFORE_BY[word]}")
        if word == "OVER" and before is not None and before.is_symbol(")"):
            problem = "OVER is not for pipelines: a pipeline has no window functions"
            raise SqlError(token.place, problem)
        if word == "LIMIT" and after is not None and not after.is_symbol(",", ")"):
            problem = "LIMIT is not for pipelines: a stream has no end"
            raise SqlError(token.place, problem)
        if word == "DISTINCT" and before is not None and before.is_word("SELECT"):
            problem = "SELECT DISTINCT is not for pipelines: every record is transformed by itself"
            raise SqlError(token.place, problem)
        if word == "EXCEPT" and before is not None and not before.is_symbol("*"):
            raise SqlError(token.place, "EXCEPT is not for pipelines: a statement is one SELECT")
        reason = _FUNCTIONS.get(token.text.lower())
        if reason and after is not None and after.is_symbol("("):
            raise SqlError(token.place, f"{token.text}() is not for pipelines: {reason}")
        if word == "FOR" and after is not None and after.is_word("UPDATE", "SHARE"):
            raise SqlError(token.place, "FOR is not for pipelines: a stream has no locks")

    def _unnest(self, token: SqlToken, select: _Select) -> None:
        if select.clause != "SELECT":
            raise SqlError(token.place, f"UNNEST may stand after SELECT, not after {select.clause}")
        select.unnests += 1
        if select.unnests > 1:
            raise SqlError(token.place, "one UNNEST in a SELECT; nest another SELECT after FROM")

    def _table(self, index: int) -> None:
        token = self._tokens[index] if index < len(self._tokens) else None
        if token is None:
            raise SqlError(self._tokens[-1].place, "the name of a stream is missing after FROM")
        if token.is_symbol("(") or (token.is_name and token.name in self._named):
            return
        if not token.is_name or self._at(index + 1, "("):
            raise SqlError(token.place, f"{token.text} is not the name of a stream")
        self._read.setdefault(token.name, token)

    def _at(self, index: int, symbol: str) -> bool:
        return index < len(self._tokens) and self._tokens[index].is_symbol(symbol)
