"""JSON operators and functions that DataFusion does not have, rewritten to functions that we add.

``a -> 'b' -> 'c'`` becomes ``json_get(a, 'b', 'c')``; likewise ``->>`` and ``?``.  A function of a
variable number of arguments becomes one of a fixed number, ``json_get_2``, because user-defined
functions have one signature.  ``now()`` becomes the time of the query, as a literal.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgesim.config.sql_tokens import SqlToken, tokens_of
from edgesim.pipelines.sql.json_functions import BY_JSONPATH, BY_PATH, check_path

_OPERATORS = {"->": "json_get", "->>": "json_as_text", "?": "json_contains"}
_NOW = {"NOW", "CURRENT_TIMESTAMP"}


def rewritten(sql: str, now: str) -> str:
    """The SQL in functions that DataFusion and this package have."""
    return _joined(_Rewriter(tokens_of(sql), now).run(0)[0])


def _joined(parts: Sequence[str]) -> str:
    return " ".join(parts)


class _Rewriter:
    """Walks over the tokens; every list of parts that it makes is balanced SQL text."""

    def __init__(self, tokens: Sequence[SqlToken], now: str) -> None:
        self._tokens = tokens
        self._now = now

    def run(self, at: int) -> tuple[list[str], int]:
        """Parts up to the parenthesis or bracket that closes the current one, and its position."""
        parts: list[str] = []
        while at < len(self._tokens) and not self._tokens[at].is_symbol(")", "]"):
            if self._begins_operand(at):
                operand, at = self._operand(at)
                parts.append(operand)
            else:
                parts.append(self._tokens[at].text)
                at += 1
        return parts, at

    def _begins_operand(self, at: int) -> bool:
        token = self._tokens[at]
        return token.kind != "symbol" or token.is_symbol("(", "[")

    def _operand(self, at: int) -> tuple[str, int]:
        """An operand with the JSON operators that follow it."""
        text, at = self._primary(at)
        function, path = "", [text]
        while at < len(self._tokens) - 1 and self._tokens[at].text in _OPERATORS:
            name = _OPERATORS[self._tokens[at].text]
            key, at = self._primary(at + 1)
            if function not in {"", "json_get"}:  # only `->` gives JSON to go on with
                path = [_call(function, path)]
            function, path = name, [*path, key]
        return (_call(function, path) if function else text), at

    def _primary(self, at: int) -> tuple[str, int]:
        """A literal, a name, a call or a parenthesis, with what is attached: `.x`, `[1]`, `::t`."""
        token = self._tokens[at]
        if token.is_symbol("(", "["):
            text, at = self._inside(at)
        elif token.kind == "word" and token.text.upper() in _NOW and self._is_now(at):
            at += 3 if self._is(at + 1, "(") else 1
            text = f"arrow_cast('{self._now}', 'Timestamp(Nanosecond, Some(\"+00:00\"))')"
        elif token.is_name and self._is(at + 1, "("):
            text, at = self._function(at)
        else:
            text, at = token.text, at + 1
        while at < len(self._tokens) - 1:
            if self._is(at, ".") or self._is(at, "::"):
                text += self._tokens[at].text + self._tokens[at + 1].text
                at += 2
            elif self._is(at, "[") and token.kind != "number" and not _is_keyword(token):
                index, at = self._inside(at)
                text += index
            elif self._is(at, "(") and self._is(at - 2, "::"):
                precision, at = self._inside(at)
                text += precision
            else:
                break
        return text, at

    def _is_now(self, at: int) -> bool:
        call = self._is(at + 1, "(") and self._is(at + 2, ")")
        return call or self._tokens[at].text.upper() == "CURRENT_TIMESTAMP"

    def _inside(self, at: int) -> tuple[str, int]:
        opening = self._tokens[at].text
        parts, at = self.run(at + 1)
        closing = self._tokens[at].text if at < len(self._tokens) else ""
        return f"{opening}{_joined(parts)}{closing}", at + 1

    def _function(self, at: int) -> tuple[str, int]:
        name = self._tokens[at].text
        arguments, after = self._inside(at + 1)
        if name.lower() in BY_JSONPATH and after >= at + 5:
            comma, path = self._tokens[after - 3 : after - 1]
            if comma.is_symbol(",") and path.kind == "string":  # else it is known with a row only
                check_path(path.text[1:-1].replace("''", "'"))
        if name.lower() in BY_PATH:
            name = f"{name.lower()}_{self._arguments(at + 2) - 1}"
        return name + arguments, after

    def _arguments(self, at: int) -> int:
        """Number of arguments of a call, from the token after its parenthesis."""
        depth, count = 0, 1
        while at < len(self._tokens):
            token = self._tokens[at]
            if token.is_symbol("(", "["):
                depth += 1
            elif token.is_symbol(")", "]"):
                if depth == 0:
                    break
                depth -= 1
            elif token.is_symbol(",") and depth == 0:
                count += 1
            at += 1
        return count

    def _is(self, at: int, symbol: str) -> bool:
        return 0 <= at < len(self._tokens) and self._tokens[at].is_symbol(symbol)


def _call(function: str, path: Sequence[str]) -> str:
    return f"{function}_{len(path) - 1}({', '.join(path)})"


def _is_keyword(token: SqlToken) -> bool:
    """True for a keyword before a list literal: `SELECT [1, 2]`, `IN [..]`."""
    return token.is_word("SELECT", "WHERE", "AND", "OR", "NOT", "THEN", "ELSE", "WHEN", "IN", "AS")
