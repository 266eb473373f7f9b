"""JSON functions of SQL on the texts that clients may send."""

import pytest

from edgesim.pipelines.sql.json_functions import BY_JSONPATH, BY_PATH

HOSTILE = {
    "a number of 400 digits": '{"x": ' + "9" * 400 + "}",
    "a number beyond a double": '{"x": 1e400}',
    "half of a surrogate pair": '{"x": "\\ud800"}',
    "deep arrays": '{"x": ' + "[" * 900 + "]" * 900 + "}",
    "deep objects": '{"x":' * 900 + "1" + "}" * 900,
    "deeper than JSON is read": "[" * 50_000,
    "no JSON": "{x",
    "nothing": "",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_fails_a_statement(text):
    """One record that fails would keep all others of its window from their sink, for ever."""
    for function, _ in BY_PATH.values():
        for path in ((), ("x",), ("x", "x"), ("0",), ("9" * 5000,)):
            function(text, *path)
    for function, _ in BY_JSONPATH.values():
        for query in ("$", "$..x", "$.x[*]", "$..*"):
            function(text, query)


def test_values_without_a_double_are_zero():
    """As every other value that is no number of 64 bits."""
    json_get_float = BY_PATH["json_get_float"][0]
    assert json_get_float(HOSTILE["a number of 400 digits"], "x") == 0.0
    assert json_get_float('{"x": 2}', "x") == 2.0


def test_a_path_too_deep_matches_nothing():
    """Null for the deep record alone; the same path finds what others have."""
    extract_json = BY_JSONPATH["extract_json"][0]
    assert extract_json(HOSTILE["deep objects"], "$..x") is None
    assert extract_json('{"a": {"x": 1}}', "$..x") == ["1"]
