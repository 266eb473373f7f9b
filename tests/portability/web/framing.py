"""Raw requests with unusual framing, methods, targets and headers: name -> bytes."""

from tests.portability.web.cases import FORM, MULTIPART, raw

LONG = b"x" * 3000
HOST = b"Host: example.com"


def sent(line: bytes, *headers: bytes, body: bytes = b"", host: bytes = HOST) -> bytes:
    """Return a request of these lines; without ``host`` if that is empty."""
    lines = [line, *filter(None, [host]), b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(target: bytes, *headers: bytes, host: bytes = HOST) -> bytes:
    return sent(b"GET " + target + b" HTTP/1.1", *headers, host=host)


def post(*headers: bytes, body: bytes = b"abc") -> bytes:
    return sent(b"POST /echo HTTP/1.1", *headers, body=body)


def chunks(body: bytes, *headers: bytes, coding: bytes = b"chunked") -> bytes:
    return post(b"Transfer-Encoding: " + coding, *headers, body=body)


def method(name: bytes) -> bytes:
    return sent(name + b" /echo HTTP/1.1")


def urlencoded(body: bytes, kind: str = "application/x-www-form-urlencoded") -> bytes:
    return raw("/form", "POST", {"Content-Type": kind}, body)


def multipart(kind: str) -> bytes:
    return raw("/form", "POST", {"Content-Type": kind}, MULTIPART.encode())


ABC = b"3\r\nabc\r\n0\r\n\r\n"
METHODS = (
    *(b"ACL", b"CHECKOUT", b"COPY", b"LOCK", b"MERGE", b"MKACTIVITY", b"MKCOL", b"MOVE", b"NOTIFY"),
    *(b"PROPFIND", b"PROPPATCH", b"PURGE", b"QUERY", b"REPORT", b"SEARCH", b"SUBSCRIBE"),
    *(b"UNLOCK", b"UNSUBSCRIBE"),
)
EQUAL = {
    **{f"method {name.decode()}": method(name) for name in METHODS},
    "a trailer": chunks(b"3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", b"Trailer: X-T"),
    "an expectation of 100": post(b"Expect: 100-continue", b"Content-Length: 3"),
    "another expectation": post(b"Expect: something", b"Content-Length: 3"),
    "HTTP/1.0": sent(b"GET /echo HTTP/1.0"),
    "HTTP/1.0 with a body": sent(b"POST /echo HTTP/1.0", b"Content-Length: 3", body=b"abc"),
    "a host with a port": get(b"/echo", host=b"Host: example.com:8080"),
    "a host with the default port": get(b"/echo", host=b"Host: example.com:80"),
    "a host in upper case": get(b"/echo", host=b"Host: EXAMPLE.com"),
    "an IPv6 host": get(b"/echo", host=b"Host: [::1]:80"),
    "escaped dots": get(b"/a/%2e%2e/b/%2E/c"),
    "escaped slashes": get(b"/a%2Fb%5Cc"),
    "backslashes": get(b"/a\\b\\..\\c"),
    "escapes that are none": get(b"/a%zz%2"),
    "an escaped NUL": get(b"/a%00b"),
    "a long path": get(b"/" + LONG),
    "headers without a value": get(b"/echo", b"X-A:", b"X-B:    "),
    "a name of all allowed characters": get(b"/echo", b"X-A!#$%&'*+.^_`|~: 1"),
    "an empty line before": b"\r\n" + get(b"/echo"),
    "chunk extensions": chunks(b"3;a=b\r\nabc\r\n0;c\r\n\r\n"),
    "a long chunk extension": chunks(b"3;" + LONG + b"\r\nabc\r\n0\r\n\r\n"),
    "a chunk size in upper case": chunks(b"A\r\n0123456789\r\n0\r\n\r\n"),
    "zeros before a chunk size": chunks(b"0003\r\nabc\r\n000\r\n\r\n"),
    "CHUNKED": chunks(ABC, coding=b"CHUNKED"),
    "a GET with a body": get(b"/echo", b"Content-Length: 3") + b"abc",
    "a HEAD with a body": sent(b"HEAD /echo HTTP/1.1", b"Content-Length: 3", body=b"abc"),
    "a POST of length 0": post(b"Content-Length: 0", body=b""),
    "a POST without a length": post(body=b""),
    "a DELETE with a body": sent(b"DELETE /echo HTTP/1.1", b"Content-Length: 3", body=b"abc"),
    "an OPTIONS with a body": sent(b"OPTIONS /echo HTTP/1.1", b"Content-Length: 3", body=b"abc"),
    "an upgrade to h2c": get(b"/echo", b"Upgrade: h2c", b"HTTP2-Settings: x"),
    "a range": get(b"/echo", b"Range: bytes=0-1"),
    "ninety headers": get(b"/echo", *[b"X-%d: %d" % (each, each) for each in range(90)]),
    "a long header": get(b"/echo", b"X-Long: " + LONG * 2),
    "two cookies": get(b"/echo", b"Cookie: a=1", b"Cookie: b=2"),
    "an urlencoded form with a charset": urlencoded(
        b"a=%ff&=c&d&&e=f=g;h", "application/x-www-form-urlencoded; charset=UTF-8"
    ),
    "an urlencoded form in upper case": urlencoded(b"a=1", "APPLICATION/X-WWW-FORM-URLENCODED"),
    "broken escapes in a form": urlencoded(b"a=%2&b=%2g&c=%g2&d=%&e=%%41&f=%zz&%g=%u0041"),
    "empty parts of a form": urlencoded(b"&&a&=&b==c&"),
    "a form that is not UTF-8": urlencoded(b"a=\xff\xfe&b=%e4%b8%ad%e4&c=+%2B"),
    "a form without a boundary": multipart("multipart/form-data"),
    "a boundary in quotes": multipart('multipart/form-data; boundary="b"'),
    "a boundary after a charset": multipart("multipart/form-data; charset=utf-8; BOUNDARY=b"),
    "a form without a type": raw("/form", "POST"),
    "a form twice": raw(
        "/form", "POST", FORM, (MULTIPART.removesuffix("--b--\r\n") + MULTIPART).encode()
    ),
}
"""Requests with equal responses."""
REFUSED = {
    **{f"unknown method {name.decode()}": method(name) for name in (b"get", b"BREW", b"GETS")},
    **{f"method {name.decode()}": method(name) for name in (b"LINK", b"BIND", b"M-SEARCH")},
    "HTTP/1.1 without a host": get(b"/echo", host=b""),
    "an empty host": get(b"/echo", host=b"Host:"),
    "HTTP/1.2": sent(b"GET /echo HTTP/1.2"),
    "a control character in the URL": get(b"/a\x01b"),
    "a tab in the URL": get(b"/a\tb"),
    "a blank after the version": sent(b"GET /echo HTTP/1.1 "),
    "a query without a path": get(b"?a"),
    "a folded header": get(b"/echo", b"X-A: 1\r\n 2"),
    "a header folded by a tab": get(b"/echo", b"X-A: 1\r\n\t2"),
    "a blank before the colon": get(b"/echo", b"X-A : 1"),
    "a header without a colon": get(b"/echo", b"X-A"),
    "a header without a name": get(b"/echo", b": 1"),
    "a header name in brackets": get(b"/echo", b"X-(a): 1"),
    "a NUL in a header": get(b"/echo", b"X-A: a\0b"),
    "identity as transfer encoding": chunks(b"abc", b"Content-Length: 3", coding=b"identity"),
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"),
    **{
        f"a length of {length.decode()!r}": post(b"Content-Length: " + length)
        for length in (b"3, 3", b"+3", b"-1", b"abc", b"9" * 20, b"")
    },
}
"""Requests that both refuse with the same status, each with its own explanation."""
STRICTER = {
    "a length beside chunks": (chunks(ABC, b"Content-Length: 3"), 400),
    "one length twice": (post(b"Content-Length: 3", b"Content-Length: 3"), 400),
    "another transfer encoding": (chunks(ABC, coding=b"gzip, chunked"), 501),
    "line feeds only": (b"GET /echo HTTP/1.1\nHost: example.com\nConnection: close\n\n", 400),
    "a control character in a header": (get(b"/echo", b"X-A: a\x01b"), 400),
    "a fragment": (get(b"/a#b"), 400),
    "another host in the URL": (get(b"http://other.example/a?b"), 400),
    "a user in the URL": (get(b"http://u:p@example.com/a"), 400),
    "another scheme in the URL": (get(b"ftp://example.com/a"), 400),
    "a path in the host": (get(b"/echo", host=b"Host: a/b"), 400),
    "a user in the host": (get(b"/echo", host=b"Host: u@a"), 400),
    "a star": (sent(b"OPTIONS * HTTP/1.1"), 400),
    "TRACE": (method(b"TRACE"), 405),
}
"""Requests that workerd serves and edgesim refuses with this status: a proxy in front of either may
parse them differently."""
