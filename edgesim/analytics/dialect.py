"""The SQL of Analytics Engine: checked, and translated to ClickHouse's.

Facts: Cloudflare's SQL reference.  A statement reads one dataset, by the functions listed there;
what else ClickHouse can do is refused, so that a query that works here works on Cloudflare, and
reads nothing but datasets.  Names of columns and types are ClickHouse's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from edgesim.analytics.table import place_of
from edgesim.clickhouse import statements
from edgesim.clickhouse.statements import Token
from edgesim.errors import ClickHouseError

FORMATS = ("JSON", "JSONEachRow", "TabSeparated")
_FUNCTIONS = frozenset(
    {
        *("argmax", "argmin", "avg", "avgif", "count", "countif", "first_value", "last_value"),
        *("max", "min", "quantileexactweighted", "quantileweighted", "sum", "sumif", "topk"),
        "topkweighted",
        *("bitand", "bitcount", "bithammingdistance", "bitnot", "bitor", "bitrotateleft"),
        *("bitrotateright", "bitshiftleft", "bitshiftright", "bittest", "bitxor"),
        *("bin", "hex", "if"),
        *("formatdatetime", "now", "today", "todatetime", "todayofmonth", "todayofweek", "tohour"),
        *("tominute", "tomonth", "tosecond", "tostartofday", "tostartoffifteenminutes"),
        *("tostartoffiveminutes", "tostartofhour", "tostartofinterval", "tostartofminute"),
        *("tostartofmonth", "tostartoftenminutes", "tostartofweek", "tostartofyear"),
        *("tounixtimestamp", "toyear", "toyyyymm"),
        *("ceil", "floor", "intdiv", "ln", "log", "pow", "round"),
        *("empty", "endswith", "extract", "format", "length", "lower", "lowerutf8", "position"),
        *("startswith", "substring", "tolower", "toupper", "upper", "upperutf8"),
        *("touint32", "touint8"),
    }
)
_RENAMED = {
    "length": "lengthUTF8",
    "quantileweighted": "quantileExactWeighted",
    "substring": "substringUTF8",
    "tolower": "lowerUTF8",
    "toupper": "upperUTF8",
}
"""Functions whose ClickHouse function has another name."""
_PARAMETRIC = {"quantileexactweighted", "quantileweighted"}
"""Functions whose parameter may also be their first argument."""
_KEYWORDS = {
    *("ALL", "AND", "AS", "ASC", "BETWEEN", "BY", "DESC", "DISTINCT", "FROM", "HAVING", "ILIKE"),
    *("IN", "IS", "LIKE", "LIMIT", "NOT", "OFFSET", "OR", "ORDER", "SELECT", "WHERE"),
}
"""Words that a bracket may follow."""
_ABSENT = {
    *("CASE", "CAST", "EXCEPT", "FINAL", "INTERSECT", "INTO", "JOIN", "OVER", "PREWHERE"),
    *("QUALIFY", "SETTINGS", "UNION", "WINDOW", "WITH"),
}
_ONE = "a query reads one dataset, by its name"
_ABSENT_SIGNS = {"{", "[", ":", "?"}
_SHOWN: dict[tuple[str, ...], str] = {
    ("TABLES",): "SELECT name FROM system.tables WHERE database = 'analytics_engine' ORDER BY name",
    ("TIMEZONE",): "SELECT 'Etc/UTC' AS timezone",
    ("TIMEZONES",): "SELECT time_zone AS timezone FROM system.time_zones ORDER BY time_zone",
}


def translated(sql: str, datasets: Collection[str], now: int) -> tuple[str, str]:
    """The statement in ClickHouse's SQL, and the name of its format.

    ``datasets`` are those with a table, ``now`` is Unix seconds.  ClickHouseError, with one line
    that names the cause, for what Analytics Engine does not know.
    """
    sql = statements.single(sql)
    form = statements.trailing_format(sql) or FORMATS[0]
    known = {each.lower(): each for each in FORMATS}
    if form.lower() not in known:
        raise _invalid(f"FORMAT {form} is not one of {', '.join(FORMATS)}")
    tokens = list(statements.tokens(sql))
    if statements.trailing_format(sql) is not None:
        tokens = tokens[: _format_at(tokens)]
    if tokens and tokens[0].text == "SHOW":
        shown = _SHOWN.get(tuple(each.text for each in tokens[1:]))
        if shown is None:
            raise _invalid("SHOW is followed by TABLES, TIMEZONE or TIMEZONES")
        return shown, known[form.lower()]
    if not tokens or tokens[0].text != "SELECT":
        raise _invalid("a statement begins with SELECT or SHOW")
    changes = sorted(_Walk(sql, tokens, datasets, now).changes())
    parts, at = [], 0
    for start, end, text in changes:
        parts += [sql[at:start], text]
        at = end
    return "".join([*parts, sql[at : tokens[-1].end]]), known[form.lower()]


def _format_at(tokens: list[Token]) -> int:
    return max(at for at, token in enumerate(tokens) if token.text == "FORMAT")


def _invalid(problem: str) -> ClickHouseError:
    return ClickHouseError(statements.SYNTAX_ERROR, problem)


class _Walk:
    """Checks the tokens of a SELECT and yields the replacements: start, end and new text."""

    def __init__(self, sql: str, tokens: list[Token], datasets: Collection[str], now: int) -> None:
        self._sql = sql
        self._tokens = tokens
        self._datasets = datasets
        self._now = f"toDateTime({now}, 'Etc/UTC')"
        self._end = Token("", "", len(sql), len(sql))

    def _at(self, at: int) -> Token:
        return self._tokens[at] if 0 <= at < len(self._tokens) else self._end

    def changes(self) -> Iterator[tuple[int, int, str]]:
        calls: list[str] = [""]
        """The function of each open bracket; "" for one around a query or an expression."""
        for at, token in enumerate(self._tokens):
            before, after = self._at(at - 1), self._at(at + 1)
            if token.text == "(":
                calls.append("" if after.text == "SELECT" else self._called(before, at - 1))
            elif token.text == ")":
                calls = calls[:-1] or [""]
            elif token.text in _ABSENT_SIGNS:
                raise _invalid(f"{token.text} is not in the SQL of Analytics Engine")
            elif token.kind != "word" or before.text in {".", "AS"}:
                continue
            elif token.text in _ABSENT:
                raise _invalid(f"{token.text} is not in the SQL of Analytics Engine")
            elif token.text == "FROM" and calls[-1] != "extract":
                yield self._table(at + 1)
            elif token.text == "IN" and calls[-1] != "position":
                self._check_list(at + 1)
            elif (token.text, after.text) == ("LIMIT", "ALL"):
                yield token.start, after.end, ""
            elif after.text == "(" and token.text not in _KEYWORDS:
                yield from self._call(at)

    def _called(self, name: Token, at: int) -> str:
        """The function that a bracket belongs to; ClickHouseError for a quoted name."""
        if name.kind == "quoted" and name.text[0] in '"`':
            raise _invalid(f"{name.text} is not a function of Analytics Engine")
        if name.kind != "word" or name.text in _KEYWORDS or self._at(at - 1).text == "AS":
            return ""
        return name.text.lower()

    def _call(self, at: int) -> Iterator[tuple[int, int, str]]:
        token = self._tokens[at]
        name = token.text.lower()
        if name not in _FUNCTIONS:
            shown = self._sql[token.start : token.end]
            raise _invalid(f"{shown} is not a function of Analytics Engine")
        if name in {"now", "today"} and self._at(at + 2).text == ")":
            text = self._now if name == "now" else f"toDate({self._now})"
            yield token.start, self._tokens[at + 2].end, text
            return
        if name in _RENAMED:
            yield token.start, token.end, _RENAMED[name]
        if name in _PARAMETRIC and (comma := self._parameter_end(at + 1)) is not None:
            yield comma.start, comma.end, ")("

    def _parameter_end(self, at: int) -> Token | None:
        """The comma after the first of three arguments; None for another number of them."""
        depth, commas = 0, []
        for token in self._tokens[at:]:
            depth += (token.text == "(") - (token.text == ")")
            if depth == 0:
                break
            if depth == 1 and token.text == ",":
                commas.append(token)
        return commas[0] if len(commas) == 2 else None

    def _table(self, at: int) -> tuple[int, int, str]:
        token, after = self._at(at), self._at(at + 1)
        if token.text == "(" and after.text == "SELECT":
            self._check_alone(self._closing(at) + 1)
            return token.start, token.start, ""
        name = self._sql[token.start : token.end]
        if token.kind == "quoted" and name[0] in '"`':
            name = statements.unquoted(name)
        elif token.kind != "word":
            raise _invalid("FROM is followed by a dataset or a subquery in brackets")
        if after.text in {".", "("}:
            raise _invalid(f"FROM {name}: {_ONE}")
        self._check_alone(at + 1)
        if name not in self._datasets:
            there = ", ".join(sorted(self._datasets)[:20]) or "none"
            raise _invalid(f"there is no dataset {name!r}; with data points: {there}")
        return token.start, token.end, place_of(name)

    def _closing(self, at: int) -> int:
        """The position of the bracket that closes the one at this position."""
        depth = 0
        for there in range(at, len(self._tokens)):
            depth += (self._at(there).text == "(") - (self._at(there).text == ")")
            if depth == 0:
                return there
        return len(self._tokens)

    def _check_alone(self, at: int) -> None:
        """Refuse a second table after the first one and its alias."""
        for token in self._tokens[at : at + 3]:
            if token.text == ",":
                raise _invalid(_ONE)
            if token.kind not in {"word", "quoted"}:
                return

    def _check_list(self, at: int) -> None:
        """A single name in or without brackets would be a table of ClickHouse."""
        first, second, third = (self._at(at + ahead) for ahead in range(3))
        is_name = second.kind == "word" or (second.kind == "quoted" and second.text[0] in '"`')
        if first.text != "(" or (is_name and third.text in {")", "."}):
            raise _invalid("IN is followed by a list of values in brackets")
