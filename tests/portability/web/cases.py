"""Raw requests that are sent to both runtimes: name -> bytes."""

import base64
import json
from typing import Any

MULTIPART = (
    '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    '--b\r\nContent-Disposition: form-data; name="f"; filename="x.txt"\r\n'
    "Content-Type: text/x\r\n\r\nfile\r\n--b--\r\n"
)
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
NULL_BODY = (204, 205, 304)


def raw(
    target: str | bytes = "/echo",
    method: str = "GET",
    headers: dict[str, str] | bytes = b"",
    body: bytes = b"",
) -> bytes:
    """Return the bytes of one request; text is encoded as UTF-8."""
    if isinstance(headers, dict):
        headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    target = target.encode() if isinstance(target, str) else target
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    start = method.encode() + b" " + target + b" HTTP/1.1\r\nHost: example.com\r\n"
    return start + b"Connection: close\r\n" + headers + length + b"\r\n" + body


def described(sent_as: str = "GET", **spec: Any) -> bytes:
    """Return a request whose X-Spec header describes what the Worker does."""
    packed = base64.b64encode(json.dumps(spec).encode()).decode()
    return raw("/", sent_as, {"X-Spec": packed})


def posted_form(body: str) -> bytes:
    """Return a request with a form body, whose boundary is ``b``."""
    return raw("/form", "POST", FORM, body.encode())


def asked(path: str, **spec: Any) -> bytes:
    """Return a request that makes the Worker fetch ``path`` of the origin."""
    return described(url="ORIGIN" + path, **spec)


def through(path: str, **spec: Any) -> bytes:
    """Return a request that makes the Worker fetch ``path`` through its service binding."""
    return described(url="http://callee.example" + path, binding="S", **spec)


REQUESTS = {
    "a plain request": raw(),
    "a query": raw("/echo?a=1&b=%20+"),
    "an empty query": raw("/echo?"),
    "raw UTF-8 in the path": raw("/écho/žluť"),
    "raw UTF-8 in the query": raw("/echo?name=中文"),
    "percent escapes stay": raw("/%7Euser/%e4%b8%ad?x=%2F"),
    "dots in the path": raw("/a/../b/./c"),
    "two slashes": raw("//a//b"),
    "characters that URLs escape": raw('/a|b^c{d}"?e|f^`{g}'),
    "a backtick in the path": raw("/a`b"),
    "an angle bracket in the query": raw("/a?b=<c"),
    "a quote in the query": raw('/a?b="c'),
    "a URL that is not UTF-8": raw(b"/a\xffb"),
    "an absolute URL": raw("http://example.com/a?b"),
    "blanks around the host": raw().replace(b"example.com", b" example.com \t"),
    "a header in UTF-8": raw(headers={"X-City": "São Paulo"}),
    "a header in Latin-1": raw(headers=b"X-City: S\xe3o Paulo\r\n"),
    "blanks around a header": raw(headers=b"X-A:   spaced \t \r\n"),
    "a tab within a header": raw(headers=b"X-A: a\tb\r\n"),
    "an empty header": raw(headers=b"X-A:\r\n"),
    "a repeated header": raw(headers=b"X-A: 1\r\nX-A: 2\r\nX-A: 1\r\n"),
    "names in any case": raw(headers=b"x-LOUD: 1\r\n"),
    "a body": raw(method="POST", body="žluť".encode()),
    "a body that is not UTF-8": raw(method="POST", body=b"\xff\xfe"),
    "a body of a PUT in chunks": raw(method="PUT", headers=b"Transfer-Encoding: chunked\r\n")
    + b"3\r\nabc\r\n0\r\n\r\n",
    "DELETE without a body": raw(method="DELETE"),
    "HEAD": raw(method="HEAD"),
    "OPTIONS": raw(method="OPTIONS"),
    "PATCH": raw(method="PATCH", body=b"x"),
}
RESPONSES = {
    "text": described(body="hello"),
    "bytes": described(bytes=[0, 255, 10]),
    "no body": described(),
    "an empty body": described(body=""),
    "a Worker's content-length": described(body="hello", headers={"content-length": "3"}),
    "a content-length that is too long": described(body="hello", headers={"content-length": "99"}),
    "a content-length of a HEAD": described("HEAD", headers={"content-length": "99"}),
    "HEAD of a body": described("HEAD", body="hello"),
    "a Worker's transfer-encoding": described(body="x", headers={"transfer-encoding": "chunked"}),
    "a Worker's connection": described(body="x", headers={"connection": "keep-alive"}),
    "hop-by-hop headers": described(
        body="x", headers={"keep-alive": "timeout=5", "te": "x", "upgrade": "y", "x-a": "1"}
    ),
    "a trailer header": described(body="x", headers={"trailer": "x-a"}),
    "content-encoding gzip of text": described(
        body="hello " * 50, headers={"content-encoding": "gzip"}
    ),
    "content-encoding br of text": described(
        body="hello " * 50, headers={"content-encoding": "br"}
    ),
    "content-encoding GZIP": described(body="hello " * 50, headers={"content-encoding": "GZIP"}),
    "content-encoding of a HEAD": described(
        "HEAD", body="hello", headers={"content-encoding": "gzip"}
    ),
    "content-encoding of no body": described(headers={"content-encoding": "gzip"}),
    "content-encoding of a 204": described(status=204, headers={"content-encoding": "gzip"}),
    "an unknown content-encoding": described(body="hello", headers={"content-encoding": "zstd"}),
    "content-encoding identity": described(body="hello", headers={"content-encoding": "identity"}),
    "content-encoding with a length": described(
        body="hello", headers={"content-encoding": "gzip", "content-length": "5"}
    ),
    "a header in UTF-8 out": described(body="x", headers={"x-city": "São Paulo"}),
    "a wide header out": described(body="x", headers={"x-name": "中文"}),
    "blanks around a header out": described(body="x", headers={"x-a": "  spaced\t"}),
    "a header of True": described(body="x", headers={"x-a": True}),
    "a header of a number": described(body="x", headers={"x-a": 1.5}),
    "a header with a line end": described(body="x", headers={"x-a": "1\r\nx-b: 2"}),
    "an invalid header name": described(body="x", headers={"x a": "1"}),
    "repeated headers": described(body="x", headers=[["x-a", "1"], ["x-a", "2"]]),
    "cookies": described(body="x", headers=[["set-cookie", "a=1"], ["Set-Cookie", "b=2"]]),
    "custom status text": described(body="x", statusText="Fine"),
    "a status that HTTP does not know": described(body="x", status=499),
    "status 399": described(body="x", status=399),
    "status 299": described(body="x", status=299),
    "status 199": described(body="x", status=199),
    "status 600": described(body="x", status=600),
    "a Worker's date": described(body="x", headers={"x-a": "1", "server": "mine"}),
    "a Worker's content-type": described(body="x", headers={"content-type": "text/csv"}),
    "a redirect to the client": described(status=302, headers={"location": "/näxt"}),
    **{f"{status} without a body": described(status=status) for status in NULL_BODY},
    **{f"{status} with an empty body": described(status=status, body="") for status in NULL_BODY},
    **{f"{status} with empty bytes": described(status=status, bytes=[]) for status in NULL_BODY},
    **{f"{status} with a body": described(status=status, body="x") for status in NULL_BODY},
}
FETCHES = {
    "a fetch": asked("/plain", show=["content-length", "content-type"]),
    "a fetched chunked body": asked("/chunked", show=["content-length", "transfer-encoding"]),
    "a fetched body to the end": asked("/until-close", show=["content-length"]),
    "a fetched gzip body": asked("/gzip", show=["content-encoding", "content-length"]),
    "a fetched 304": asked("/304", show=["etag"]),
    "a fetched 204": asked("/204"),
    "a fetched status text": asked("/teapot"),
    "a fetched status without a reason": asked("/no-reason"),
    "fetched repeated headers": asked("/cookies", show=["set-cookie", "x-twice"]),
    "a fetched header in UTF-8": asked("/utf-8", show=["x-city"]),
    "fetched hop-by-hop headers": asked("/hop", show=["keep-alive", "x-end"]),
    "a sent header in UTF-8": asked("/raw", headers={"x-kept": "Łódź"}),
    "a sent body": asked("/raw", method="POST", body="žluť"),
    "HEAD of the origin": asked("/plain", method="HEAD", show=["content-length"]),
    "a redirect": asked("/to/302"),
    "a redirect, manual": asked("/to/302", redirect="manual", show=["location"]),
    "a redirect, error": asked("/to/302", redirect="error"),
    "a redirect, follow": asked("/to/302", redirect="follow"),
    "a redirect mode that is none": asked("/to/302", redirect="sometimes"),
    "a redirect without a location": asked("/no-location"),
    "a relative redirect": asked("/relative/"),
    "a redirect with a fragment": asked("/fragment"),
    "a redirect loop": asked("/loop"),
    "a fragment in the URL": asked("/plain#here"),
    **{
        f"a POST that is redirected by {status}": asked(
            f"/to/{status}",
            method="POST",
            body="kept?",
            headers={"content-type": "text/x", "authorization": "secret"},
        )
        for status in (301, 302, 303, 307, 308)
    },
    **{
        f"a {method} that is redirected by {status}": asked(f"/to/{status}", method=method)
        for method in ("PUT", "HEAD", "DELETE")
        for status in (301, 303)
    },
    "status 300 is no redirect": asked("/to/300", show=["location"]),
    "an answer passed on": asked("/plain", **{"pass": "answer"}),
    "a chunked answer passed on": asked("/chunked", **{"pass": "answer"}),
    "a gzip answer passed on": asked("/gzip", **{"pass": "answer"}),
    "a body of a gzip answer passed on": asked("/gzip", **{"pass": "body"}),
    "a gzip answer with a new body": asked("/gzip", **{"pass": "init"}),
    "a 304 passed on": asked("/304", **{"pass": "answer"}),
    "the body of a 304 passed on": asked("/304", **{"pass": "body"}),
    "the body of a 204 passed on": asked("/204", **{"pass": "body"}),
    "a body with its length passed on": asked("/plain", **{"pass": "body"}),
    "a status text passed on": asked("/teapot", **{"pass": "answer"}),
    "cookies passed on": asked("/cookies", **{"pass": "answer"}),
    "a redirect passed on": asked("/to/302", redirect="manual", **{"pass": "answer"}),
}
BINDINGS = {
    "a binding": through("/echo", show=["content-type"]),
    "a body through a binding": through("/echo", method="POST", body="abc"),
    "a header in UTF-8 through a binding": through("/echo", headers={"x-city": "Łódź"}),
    "a redirect through a binding": through("/redirect/302"),
    "a manual redirect through a binding": through("/redirect/302", redirect="manual"),
    "a POST redirected by 307 through a binding": through(
        "/redirect/307", method="POST", body="abc"
    ),
    "a POST redirected by 303 through a binding": through(
        "/redirect/303", method="POST", body="abc"
    ),
    "HEAD through a binding": through("/echo", method="HEAD"),
    "a callee that throws": through("/throws"),
    "an answer of a binding passed on": through("/echo", **{"pass": "answer"}),
}
FORMS = {
    "a form": posted_form(MULTIPART),
    "a form with LF only": posted_form(MULTIPART.replace("\r\n", "\n")),
    "a file without a name": posted_form(MULTIPART.replace("x.txt", "")),
    "a percent-encoded name": posted_form(MULTIPART.replace('name="a"', 'name="a%22b%0Ac"')),
    "a percent-encoded file name": posted_form(MULTIPART.replace("x.txt", "x%20%22.txt")),
    "a form without an end": posted_form(MULTIPART.removesuffix("--b--\r\n")),
    "a form with a preamble": posted_form("before\r\n" + MULTIPART),
    "a form with an epilogue": posted_form(MULTIPART + "after\r\n"),
    "a part without a name": posted_form(MULTIPART.replace('; name="a"', "")),
    "a form of nothing": posted_form("--b--\r\n"),
    "names without quotes": posted_form(MULTIPART.replace('"a"', "a")),
    "an urlencoded form": raw(
        "/form",
        "POST",
        {"Content-Type": "application/x-www-form-urlencoded"},
        b"a=1&b=%C5%82+x&a=&c",
    ),
    "an escaped quote in a name": posted_form(MULTIPART.replace('"a"', '"a\\"b"')),
    "the file name first": posted_form(
        MULTIPART.replace('name="f"; filename="x.txt"', 'filename="x.txt"; name="f"')
    ),
    "a file without a type": posted_form(MULTIPART.replace("Content-Type: text/x\r\n", "")),
    "a part with other headers": posted_form(
        MULTIPART.replace("Content-Type", "X-Other: 1\r\ncontent-TYPE")
    ),
    "a name in UTF-8": posted_form(MULTIPART.replace('"a"', '"łódź"')),
    "a single-quoted name": posted_form(MULTIPART.replace('"a"', "'a'")),
    "a value of several lines": posted_form(MULTIPART.replace("1\r\n", "1\r\n\r\n2\n3\r\n", 1)),
    "no form": raw("/form", "POST", {"Content-Type": "text/plain"}, b"a=1"),
}
OPERATIONS = {
    f"operation {name}": raw(f"/operation/{name}")
    for name in (
        *("bodies", "reading_twice", "tee", "reading_nothing", "json", "statuses", "redirects"),
        *("header_lists", "header_errors", "headers_are_copies", "requests", "request_errors"),
        *("methods", "blobs", "forms"),
    )
}
CASES = OPERATIONS | REQUESTS | RESPONSES | FETCHES | BINDINGS | FORMS
