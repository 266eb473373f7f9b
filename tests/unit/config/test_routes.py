"""Routes: pattern matching, precedence and refused patterns."""

import re

import pytest

from edgesim.config.routes import RouteConfig, parse_route


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (
            "example.com",
            ["http://example.com/", "https://EXAMPLE.com:8787"],
            ["http://example.com/a", "http://example.com/?q", "http://www.example.com/"],
        ),
        (
            "https://*.example.com/images/*",
            ["https://a.example.com/images/", "https://a.b.example.com/images/x?y=1"],
            ["http://a.example.com/images/", "https://example.com/images/"],
        ),
        (
            "*example.com/*",
            ["http://example.com/x", "http://www.example.com/"],
            ["http://notexample.com/", "http://example.org/"],
        ),
        (
            "example.com/a*",
            ["http://example.com/a", "http://example.com/abc"],
            ["http://example.com/b"],
        ),
        ("example.com/a", ["http://example.com/a"], ["http://example.com/a?q=1"]),
        ("*/*", ["http://anything.at/all"], []),
    ],
)
def test_patterns(pattern, matching, others):
    """A star may begin the host and end the path; the query must match too."""
    route = parse_route(pattern)
    assert [url for url in matching if not route.matches(url)] == []
    assert [url for url in others if route.matches(url)] == []


def test_a_custom_domain_is_every_path_of_its_host():
    """A custom domain matches every path of its host and no other host."""
    route = parse_route(RouteConfig("app.example.com", custom_domain=True))
    assert route.matches("https://app.example.com/any/path?q")
    assert not route.matches("https://example.com/")
    assert route.zone == "example.com"


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("*.example.com/*", "www.example.com/*"),
        ("example.com/*", "example.com/images/*"),
        ("example.com/images*", "example.com/images"),
        ("*.example.com/a", "a.example.com/*"),
        ("*example.com/*", "*.example.com/*"),
        ("*/*", "*example.com/*"),
        ("example.com/*", "https://example.com/*"),
    ],
)
def test_the_most_specific_counts(less, more):
    """The more specific host wins, then the more specific path."""
    assert parse_route(less).specificity() < parse_route(more).specificity()


@pytest.mark.parametrize(
    "pattern",
    [
        "example.com/*.jpg",
        "example.com/?foo=*",
        "www.*.com/",
        "ftp://example.com/",
        "example.com:8080/",
        "/path",
        "",
    ],
)
def test_refused_patterns(pattern):
    """Infix stars, queries, other schemes and ports are refused; the error quotes the pattern."""
    with pytest.raises(ValueError, match=re.escape(repr(pattern))):
        parse_route(pattern)


def test_a_custom_domain_has_no_path():
    """A custom domain with a path is refused."""
    with pytest.raises(ValueError, match="nothing more"):
        parse_route(RouteConfig("example.com/x", custom_domain=True))
