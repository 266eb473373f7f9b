"""Local secrets: which file is used and how its lines are parsed."""

import pytest

from edgesim.config.dotenv import expand, local_secrets, parse
from edgesim.errors import ConfigError

LINES = [
    ("A=1", {"A": "1"}),
    ("  export  A = 1  ", {"A": "1"}),
    ("A: yes", {"A": "yes"}),
    ("A=b#c", {"A": "b"}),
    ("A=b # c", {"A": "b"}),
    ("A='b # c' # d", {"A": "b # c"}),
    ('A="b # c"#d', {"A": "b # c"}),
    ('A=`it\'s "so"`', {"A": 'it\'s "so"'}),
    ('A="1\\n2\\t3"', {"A": "1\n2\\t3"}),
    ("A='1\\n2'", {"A": "1\\n2"}),
    ('A="one\ntwo\n"\nB=2', {"A": "one\ntwo\n", "B": "2"}),
    ('A="KEY=\nB=2\n"', {"A": "KEY=\nB=2\n"}),
    ("A=\r\nB=2\r\n", {"A": "", "B": "2"}),
    ("\ufeffA=1", {"A": "1"}),
    ("A=1\nnonsense\n# B=2\nC.d-e=3", {"A": "1", "C.d-e": "3"}),
    ("A=1\nA=2", {"A": "2"}),
    ("A=$B${C}", {"A": "$B${C}"}),
]


@pytest.mark.parametrize(("text", "expected"), LINES)
def test_lines(text, expected):
    """Comments, quotes, escapes, multi-line values and byte order marks are parsed as by dotenv."""
    assert parse(text) == expected


EXPANSIONS = [
    ({"A": "1", "B": "$A-${A}"}, {"A": "1", "B": "1-1"}),
    ({"B": "${A:-other}", "C": "${B}x"}, {"B": "other", "C": "otherx"}),
    ({"A": "1", "B": "${A:+set}${C:+set}"}, {"A": "1", "B": "set"}),
    ({"A": "m$ypass$wor@d"}, {"A": "m@d"}),
    ({"A": "a\\$b"}, {"A": "a$b"}),
    ({"A": "$A"}, {"A": ""}),
]


@pytest.mark.parametrize(("given", "expected"), EXPANSIONS)
def test_references_between_values(given, expected):
    """A value may refer to an earlier one, with :- and :+; a backslash escapes the $."""
    assert expand(given, {}) == expected


def test_which_file_counts(tmp_path):
    """.dev.vars.<env> replaces .dev.vars, which replaces the .env files; those merge in order."""
    (tmp_path / ".env").write_text("A=env\nB=env\nC=env\nD=env")
    (tmp_path / ".env.local").write_text("B=local\nC=local\nD=local")
    (tmp_path / ".env.s").write_text("C=s\nD=s")
    (tmp_path / ".env.s.local").write_text("D=s.local")
    assert local_secrets(tmp_path, None) == {"A": "env", "B": "local", "C": "local", "D": "local"}
    assert local_secrets(tmp_path, "s") == {"A": "env", "B": "local", "C": "s", "D": "s.local"}
    (tmp_path / ".dev.vars").write_text("X=$A")
    assert local_secrets(tmp_path, "s") == {"X": "$A"}
    (tmp_path / ".dev.vars.s").write_text("")
    assert local_secrets(tmp_path, "s") == {}
    assert local_secrets(tmp_path, "other") == {"X": "$A"}


def test_required_secrets_are_the_only_ones(tmp_path):
    """With secrets.required, only those names are read, and process variables override the file."""
    (tmp_path / ".env").write_text("A=file\nB=file")
    process = {"C": "process", "A": "process", "D": "process"}
    given = ["A", "C", "E"]
    assert local_secrets(tmp_path, None, given, process) == {"A": "process", "C": "process"}
    assert local_secrets(tmp_path, None, None, process) == {"A": "file", "B": "file"}


@pytest.mark.parametrize("value", ["${C:-$$C$&}", "${C:-${C}x$&}"])
def test_references_without_end_are_refused(tmp_path, value):
    """References without end are an error with the variable's name; wrangler runs out of memory."""
    (tmp_path / ".env").write_text(f"A=a\nB={value}\n")
    with pytest.raises(ConfigError, match=r"\.env: the references in B have no end"):
        local_secrets(tmp_path, None)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    """A UTF-16 file, as some editors write it, is an error of one line that says UTF-8."""
    (tmp_path / ".dev.vars").write_bytes("A=1".encode("utf-16"))
    with pytest.raises(ConfigError, match="UTF-8"):
        local_secrets(tmp_path, None)
    (tmp_path / ".dev.vars").write_bytes("A=1".encode("utf-16-le"))
    with pytest.raises(ConfigError, match="UTF-8"):
        local_secrets(tmp_path, None)
