"""``URL`` and ``URLSearchParams``: parsing, and the parts that code sets.  Judge: Node."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from js import URL, URLSearchParams
from pyodide.ffi import JsException, jsnull

PARSED = [
    ("https://u:p@Ex.com:8443/a b/../c?x=1&y=é#h|", "https://u:p@ex.com:8443/c?x=1&y=%C3%A9#h|"),
    ("file:///C:/x/../y", "file:///C:/y"),
    ("http://127.1/", "http://127.0.0.1/"),
    ("http://0x7f.0.0.1/", "http://127.0.0.1/"),
    ("http://[::0:1]:81", "http://[::1]:81/"),
    ("http://BÜCHER.de/", "http://xn--bcher-kva.de/"),
    (" \thttp:\\\\h\\a\\b\n", "http://h/a/b"),
    ("foo:///a//b/", "foo:///a//b/"),
    ("http://h/%7Efoo/%2e%2E/x", "http://h/x"),
    ("javascript:alert(1)", "javascript:alert(1)"),
    ("http://a.b:65535/", "http://a.b:65535/"),
    ("http://h?q'\"<>", "http://h/?q%27%22%3C%3E"),
    ("web+demo:/.//not-a-host/", "web+demo:/.//not-a-host/"),
    ("http://EXAMPLE.com:80", "http://example.com/"),
    ("ftp://h:21/x", "ftp://h/x"),
    ("HTTPS://h:443", "https://h/"),
    ("http://XN--BCHER-KVA.faß.日本", "http://xn--bcher-kva.xn--fa-hia.xn--wgv71a/"),
    ("http://%41.com", "http://a.com/"),
    ("http://h/a/./b/..", "http://h/a/"),
]
RELATIVE = [
    ("../d?z", "http://h:80/a/b/c", "http://h/a/d?z"),
    ("//other/x", "https://h/a", "https://other/x"),
    ("?only", "http://h/a/b?q", "http://h/a/b?only"),
    ("#f", "mailto:a@b", "mailto:a@b#f"),
]
INVALID = [
    *("http://xn--/", "http://xn--a/", "http://a.xn--0/", "http://xn--bücher/", "http://a\u200cb/"),
    "http://" + "1" * 5000,
    *("http://user@/", "http://h:65536/", "http://", "nope", "http://a b/", "http://[::1"),
    *("http://256.256.256.256/", "//x", ""),
]
PARTS = {"protocol": "ws:", "host": "x:1", "pathname": "p q", "search": "a=é", "hash": "h"}


@pytest.mark.parametrize(("text", "href"), PARSED)
def test_absolute_urls(text, href):
    """A URL is normalised as the URL standard says, and its own text is parsed to itself."""
    assert URL.new(text).href == href
    assert URL.new(href).href == href


@pytest.mark.parametrize(("text", "base", "href"), RELATIVE)
def test_relative_urls(text, base, href):
    """A relative URL takes from the base what it lacks."""
    assert URL.new(text, base).href == href


@pytest.mark.parametrize("text", INVALID)
def test_invalid_urls(text):
    """Text that is no URL is a TypeError of JavaScript, False of canParse and null of parse."""
    with pytest.raises(JsException, match=r"^TypeError: "):
        URL.new(text)
    assert URL.canParse(text) is False
    assert URL.parse(text) is jsnull


def test_parts_that_are_set():
    """Each part can be set; the query and searchParams are two views of one value."""
    url = URL.new("http://u@h:8080/a?b#c")
    for name, value in PARTS.items():
        setattr(url, name, value)
    assert url.href == "ws://u@x:1/p%20q?a=%C3%A9#h"
    url.searchParams.append("b", "1 2")
    assert url.search == "?a=%C3%A9&b=1+2"
    url.search = "?z=9"
    assert url.searchParams.get("z") == "9"
    url.port = "not a port"
    assert url.port == "1"


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.text("aé +&=%#"))))
def test_a_query_is_what_was_put_in(pairs):
    """The text of a query has each name and value, for this parser and for Python's."""
    params = URLSearchParams.new()
    for name, value in pairs:
        params.append(name, value)
    text = params.toString()
    assert text.isascii()
    assert [tuple(each) for each in URLSearchParams.new(text).entries()] == pairs
    assert parse_qsl(text, keep_blank_values=True) == pairs


@given(st.text(max_size=30))
def test_any_path_is_normalised_once(text):
    """Whatever text a path has, the URL of a URL's text is the same URL."""
    url = URL.parse(f"http://h/{text}")
    assert url is jsnull or URL.new(url.href).href == url.href
