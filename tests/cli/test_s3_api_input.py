"""Bad input to the S3 API: documents, metadata, keys and parameters."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import Dev, dev
from tests.s3_clients import OWN, Signer, code_of, s3_project, signed

BOMB = """<?xml version="1.0"?>
<!DOCTYPE Delete [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<Delete><Object><Key>&b;</Key></Object></Delete>"""
OUTSIDE = """<!DOCTYPE Delete [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<Delete><Object><Key>&a;</Key></Object></Delete>"""
MANY = "<Delete>" + "<Object><Key>k</Key></Object>" * 1001 + "</Delete>"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("s3")
    with dev(s3_project(folder / "project"), folder / "state", "--no-reload") as server:
        yield server
        assert server.stop() == 0


def ask(
    running: Dev, method: str, path: str, body: bytes | None = None, **headers: Any
) -> tuple[int, str]:
    """Status and code of a request of the operator."""
    status, _, found = signed(running.url, method, path, body, signer=Signer(OWN), **headers)
    return status, code_of(found)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"no xml",
        b"<Delete>",
        b"<Delete></Delete>",
        b"<Other><Object><Key>k</Key></Object></Other>",
        b"<Delete><Object></Object></Delete>",
        b"<Delete><Object><Key>k</Key></Object><Quiet>maybe</Quiet></Delete>",
        b"<Delete><Object><Key>" + b"<a>" * 10_000,
        b"<Delete><Object><Key>" + b"k" * 100_000 + b"</Key></Object></Delete>",
        b'<?xml version="1.0" encoding="none"?><Delete><Object><Key>k</Key></Object></Delete>',
        b"<Delete><Object><Key>\xff</Key></Object></Delete>",
        BOMB.encode(),
        OUTSIDE.encode(),
        MANY.encode(),
        b"<Delete>" + b"<Object><Key>k</Key></Object>" * 400_000,
    ],
    ids=lambda document: document[:40].decode("latin-1"),
)
def test_malformed_documents(running, document):
    """No document but the operation's own is read; entities are never expanded."""
    ask(running, "PUT", "/open/k", b"kept")
    assert ask(running, "POST", "/open?delete=", document) == (400, "MalformedXML")
    assert ask(running, "HEAD", "/open/k") == (200, "")


def test_documents_with_and_without_namespace(running):
    """Prefixes, namespaces and references to characters are read as XML has them."""
    for key, document in (
        ("a<b", "<Delete><Object><Key>a&lt;b</Key></Object></Delete>"),
        ("a", ('<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
         "<Object><Key>&#97;</Key></Object></Delete>")),
        ("b", '<x:Delete xmlns:x="urn:x"><x:Object><x:Key>b</x:Key></x:Object></x:Delete>'),
        ("c", "<Delete><Object><Key><![CDATA[c]]></Key></Object></Delete>"),
    ):  # fmt: skip
        path = "/open/" + key.replace("<", "%3C")
        ask(running, "PUT", path, b"x")
        assert ask(running, "POST", "/open?delete=", document.encode()) == (200, "")
        assert ask(running, "HEAD", path)[0] == 404


def test_limits_of_objects(running):
    """Metadata over 8,192 bytes, a key over 1,024 and an unknown storage class are refused."""
    half = {f"x_amz_meta_{n}": "v" * 4000 for n in range(3)}
    assert ask(running, "PUT", "/open/k", b"x", **half) == (400, "MetadataTooLarge")
    assert ask(running, "PUT", "/open/" + "k" * 1025, b"x") == (400, "InvalidObjectName")
    assert ask(running, "PUT", "/open/" + "k" * 1024, b"x") == (200, "")
    wrong = {"x_amz_storage_class": "GLACIER"}
    assert ask(running, "PUT", "/open/k", b"x", **wrong) == (400, "InvalidStorageClass")
    assert ask(running, "GET", "/open/%FF") == (400, "InvalidURI")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-amz-tagging", "a=b"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-acl", "no-such-acl"),
        ("x-amz-expected-bucket-owner", "me"),
        ("x-amz-website-redirect-location", "/"),
    ],
)
def test_headers_that_r2_does_not_have(running, header, value):
    """They are named in the error, and nothing is stored."""
    given = {header.replace("-", "_"): value}
    assert ask(running, "PUT", "/open/none", b"x", **given) == (501, "NotImplemented")
    assert ask(running, "HEAD", "/open/none")[0] == 404


def test_harmless_headers(running):
    """A canned ACL and AES256 change nothing, as on R2."""
    given = {"x_amz_acl": "public-read", "x_amz_server_side_encryption": "AES256"}
    assert ask(running, "PUT", "/open/k", b"x", **given) == (200, "")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/open?max-keys=x", (400, "InvalidMaxKeys")),
        ("GET", f"/open?max-keys={'9' * 5000}", (400, "InvalidMaxKeys")),
        ("GET", "/open?list-type=3", (501, "NotImplemented")),
        ("GET", "/open?encoding-type=hex", (501, "NotImplemented")),
        ("GET", "/open?color=red", (501, "NotImplemented")),
        ("GET", "/open?continuation-token=x&list-type=2", (400, "InvalidArgument")),
        ("GET", "/open?versions=", (501, "NotImplemented")),
        ("PUT", "/open?cors=", (501, "NotImplemented")),
        ("PUT", "/open?color=red", (400, "InvalidArgument")),
        ("DELETE", "/open?tagging=", (501, "NotImplemented")),
        ("PUT", "/open/k?tagging=", (501, "NotImplemented")),
        ("PATCH", "/open/k", (404, "RouteNotFound")),
        ("PUT", "", (404, "RouteNotFound")),
        ("POST", "/open", (501, "NotImplemented")),
    ],
)
def test_wrong_requests(running, method, path, expected):
    """Each gets R2's code."""
    assert ask(running, method, path, b"" if method == "POST" else None) == expected
