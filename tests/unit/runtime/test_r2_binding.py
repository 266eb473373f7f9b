"""R2 in worker code: arguments and results of each call, in a real isolate over a real bucket.

In brackets: SDK is workers-runtime-sdk 1.9 (its conversions of JavaScript values),
WORKERD its R2 binding (src/workerd/api/r2-*), PORTABLE was observed on both.
"""

import textwrap
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edgesim.errors import RunError
from edgesim.isolates.host.inline import open_isolates
from edgesim.isolates.protocol.wire import Done, Invoke
from edgesim.model import BindingSpec, Stream, WorkerSpec
from edgesim.r2.limits import PART_BYTES_MIN
from edgesim.runtime.invocation import Invocation
from edgesim.runtime.r2_binding import R2Binding
from edgesim.runtime.trace import Trace
from tests.r2_world import NOW_MS, Store, World, chunks, text

pytestmark = pytest.mark.anyio

WORKER = """
from datetime import datetime, timedelta
from pyodide.ffi import JsException
from workers import Response, WorkerEntrypoint

class Headers:
    def __init__(self):
        self.pairs = {}
    def set(self, name, value):
        self.pairs[name] = value

async def thrown(call):
    try:
        await call
    except JsException as error:
        return str(error)
    raise AssertionError("nothing was thrown")

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        bucket = self.env.BUCKET
"""


class Probe:
    """Runs the body of a fetch handler that has ``bucket`` and ``request``."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self._main = folder / "entry.py"

    async def invoke(self, code: str, body: Stream | bytes = b"") -> Done:
        body_of_handler = textwrap.dedent(code) + "return Response('ok')\n"
        self._main.write_text(WORKER + textwrap.indent(body_of_handler, " " * 8))
        clock = self.world.clock
        invocation = Invocation(
            "w",
            {"BUCKET": R2Binding(self.world.bucket)},
            _no_network,
            Trace("w", {}, clock.now_ms()),
            clock,
        )
        spec = WorkerSpec("w", str(self._main), [BindingSpec("BUCKET", "r2")])
        event: dict[str, Any] = {
            "method": "PUT",
            "url": "http://w/",
            "headers": [],
            "body": await invocation.give_body(body),
            "cf": {},
        }
        async with open_isolates(spec, clock) as isolates:
            done = await isolates.invoke(Invoke("fetch", event, clock.now()), invocation)
        await invocation.close()
        return done

    async def run(self, code: str, body: Stream | bytes = b"") -> None:
        """Run the code; its assertions must hold."""
        done = await self.invoke(code, body)
        assert done.exceptions == []


async def _no_network(*_: object) -> Any:
    raise AssertionError("the bucket is no network")


@pytest.fixture
async def probe(tmp_path):
    """Worker code over an empty bucket."""
    async with Store.memory().open() as world:
        yield Probe(world, tmp_path)


# --- objects --------------------------------------------------------------------------------------


async def test_a_wrapped_object_has_python_s_values(probe):
    """An object has attributes and items, a naive datetime and dicts for metadata [SDK]."""
    await probe.run(
        f"""
        put = await bucket.put("a", "hello", httpMetadata={{"contentType": "text/x"}},
                               customMetadata={{"k": "v"}})
        for found in (put, await bucket.head("a"), await bucket.get("a")):
            assert found.key == found["key"] == "a"
            assert (found.size, found.etag) == (5, "5d41402abc4b2a76b9719d911017c592")
            assert found.httpEtag == '"5d41402abc4b2a76b9719d911017c592"'
            assert found.uploaded == datetime(1970, 1, 1) + timedelta(milliseconds={NOW_MS})
            assert found.uploaded.tzinfo is None
            assert found.httpMetadata == {{"contentType": "text/x"}}
            assert found.httpMetadata.contentType == "text/x"
            assert found.customMetadata == {{"k": "v"}}
            assert found.storageClass == "Standard"
            assert found.ssecKeyMd5 is None
            assert len(found.version) == 32
            assert not hasattr(found, "no_such_thing")
        """
    )


async def test_a_missing_object_is_none(probe):
    """get and head of a missing object return None, neither jsnull nor an exception [SDK]."""
    await probe.run(
        """
        assert await bucket.get("missing") is None
        assert await bucket.head("missing") is None
        """
    )


async def test_a_body_is_read_once_in_any_form(probe):
    """A body is read once, as text, json, or a memoryview by bytes and arrayBuffer [SDK]."""
    await probe.run(
        """
        async def get():
            return await bucket.get("a")
        await bucket.put("a", '{"n": 1.0, "big": 9007199254740993, "none": null}')
        assert (await (await get()).text()).startswith('{"n"')
        parsed = await (await get()).json()
        assert parsed == {"n": 1, "big": 9007199254740992, "none": None}
        assert type(parsed.n) is int and type(parsed["big"]) is float
        for read in (await (await get()).bytes(), await (await get()).arrayBuffer()):
            assert type(read) is memoryview and bytes(read)[:4] == b'{"n"'
        found = await get()
        assert not found.bodyUsed
        await found.text()
        assert found.bodyUsed
        for again in (found.text(), found.json(), found.bytes(), found.arrayBuffer()):
            assert (await thrown(again)).startswith("TypeError: Body has already been used.")
        await bucket.put("a", "no json")
        assert (await thrown((await get()).json())).startswith("SyntaxError: ")
        """
    )


async def test_without_a_body_there_is_no_body(probe):
    """If onlyIf is not met, get returns an object without a body and put None [PORTABLE]."""
    await probe.run(
        """
        put = await bucket.put("a", "x")
        found = await bucket.get("a", onlyIf={"etagDoesNotMatch": put.etag})
        assert found.etag == put.etag and not hasattr(found, "body")
        assert await bucket.put("a", "y", {"onlyIf": {"etagMatches": "other"}}) is None
        met = await bucket.get("a", {"onlyIf": {"uploadedAfter": datetime(2020, 1, 1)}})
        assert await met.text() == "x"
        """
    )


async def test_a_range_is_asked_and_told(probe):
    """A range is offset, length or suffix; the object has the served range [WORKERD]."""
    await probe.run(
        """
        await bucket.put("a", b"0123456789")
        found = await bucket.get("a", range={"offset": 2, "length": 3})
        assert found.range == {"offset": 2, "length": 3}
        assert (found.size, await found.text()) == (10, "234")
        assert await (await bucket.get("a", range={"suffix": 4})).text() == "6789"
        assert (await thrown(bucket.get("a", range={"suffix": 1, "offset": 1}))) == (
            "TypeError: Suffix is incompatible with offset.")
        assert (await thrown(bucket.get("a", range={"offset": 10}))) == (
            "Error: get: The requested range is not satisfiable (10039)")
        """
    )


async def test_checksums_are_buffers(probe):
    """Stored checksums are buffers; toJSON returns hex [WORKERD]."""
    await probe.run(
        """
        import hashlib
        digest = hashlib.sha256(b"x")
        put = await bucket.put("a", b"x", sha256=digest.digest())
        assert bytes(put.checksums.sha256) == digest.digest()
        assert bytes(put.checksums.md5) == hashlib.md5(b"x").digest()
        assert put.checksums.sha1 is None and not hasattr(put.checksums, "crc32")
        assert put.checksums.toJSON() == {
            "md5": hashlib.md5(b"x").hexdigest(), "sha256": digest.hexdigest()}
        assert "(10037)" in await thrown(bucket.put("a", b"y", sha256=digest.hexdigest()))
        """
    )


async def test_http_metadata_is_written_to_headers(probe):
    """writeHttpMetadata sets each field's header, the date in HTTP format [WORKERD]."""
    await probe.run(
        """
        http = {"contentType": "text/x", "contentLanguage": "de", "contentDisposition": "inline",
                "contentEncoding": "gzip", "cacheControl": "no-store",
                "cacheExpiry": datetime(2026, 11, 23, 12)}
        await bucket.put("a", "x", httpMetadata=http)
        found = await bucket.head("a")
        assert found.httpMetadata == http
        headers = Headers()
        found.writeHttpMetadata(headers)
        assert headers.pairs == {
            "content-type": "text/x", "content-language": "de", "content-disposition": "inline",
            "content-encoding": "gzip", "cache-control": "no-store",
            "expires": "Mon, 23 Nov 2026 12:00:00 GMT"}
        try:
            found.writeHttpMetadata({})
        except JsException as error:
            assert "parameter 1 is not of type 'Headers'" in str(error)
        else:
            raise AssertionError
        """
    )


# --- stored values --------------------------------------------------------------------------------


async def test_put_takes_text_bytes_nothing_and_streams(probe):
    """put accepts text, bytes, None and streams; other values are a TypeError [WORKERD]."""
    await probe.run(
        """
        for value, size in (("é", 2), (b"xyz", 3), (memoryview(b"xy")[1:], 1), (None, 0), ("", 0)):
            assert (await bucket.put("a", value)).size == size
        for wrong in (5, {"a": 1}, ["x"]):
            assert "parameter 2 is not of type" in await thrown(bucket.put("b", wrong))
        assert await bucket.head("b") is None
        await bucket.put("b", (await bucket.get("a")).body)
        assert (await bucket.head("b")).size == 0
        """
    )


async def test_a_large_body_passes_through_as_a_stream(probe):
    """A large request body, or an object's body, can be stored as a stream [PORTABLE]."""
    data = bytes(range(256)) * 20_000
    await probe.run(
        """
        put = await bucket.put("a", request.body)
        found = await bucket.get("a")
        copy = await bucket.put("b", found.body)
        assert put.etag == copy.etag and found.bodyUsed
        """,
        Stream(chunks(data[:100_000], data[100_000:]), len(data)),
    )
    assert await text(await probe.world.bucket.get("b")) == data


async def test_a_stream_of_unknown_length_is_refused(probe):
    """A stream of unknown length is refused, as on the platform [PORTABLE]."""
    await probe.run(
        """
        assert "must have a known length" in await thrown(bucket.put("a", request.body))
        """,
        Stream(chunks(b"x" * 2_000_000)),
    )


async def test_keys_are_turned_into_text(probe):
    """A number as a key is converted to text; delete accepts a list of keys [WORKERD]."""
    await probe.run(
        """
        await bucket.put(5, "x")
        assert (await bucket.head("5")).key == "5"
        await bucket.put("b", "x")
        assert await bucket.delete(["5", "b", "missing"]) is None
        assert (await bucket.list()).objects == []
        assert "(10022)" in await thrown(bucket.delete([str(n) for n in range(1001)]))
        """
    )


async def test_conditions_and_list_options_are_not_turned_into_text(probe):
    """A number in a condition or list option for text is a TypeError [WORKERD]."""
    await probe.run(
        """
        for call in (bucket.put("a", "x", onlyIf={"etagMatches": 5}), bucket.list(prefix=5),
                     bucket.list(startAfter=5)):
            assert "is not of type 'string'" in await thrown(call)
        """
    )


async def test_objects_are_not_encrypted_behind_one_s_back(probe):
    """ssecKey is refused, because objects are stored unencrypted [EDGESIM]."""
    await probe.run(
        """
        for call in (bucket.put("a", "x", ssecKey="00" * 32), bucket.get("a", ssecKey="00" * 32),
                     bucket.createMultipartUpload("a", ssecKey="00" * 32)):
            assert "leave out ssecKey" in await thrown(call)
        assert await bucket.head("a") is None
        """
    )


# --- listings -------------------------------------------------------------------------------------


async def test_a_listing_is_a_dict_of_raw_objects(probe):
    """Listed objects have attributes, no items, and JavaScript's dates [SDK]."""
    await probe.run(
        f"""
        await bucket.put("a/1", "x", customMetadata={{"k": "v"}})
        await bucket.put("b", "xy")
        listing = await bucket.list()
        assert listing.objects is listing["objects"] and listing["truncated"] is False
        assert not hasattr(listing, "cursor") and listing.delimitedPrefixes == []
        first, second = listing.objects
        assert (first.key, first.size, second.key) == ("a/1", 1, "b")
        assert first.httpEtag == f'"{{first.etag}}"'
        assert first.uploaded.getTime() == {NOW_MS}
        assert first.uploaded.toISOString().endswith("Z")
        assert first.checksums.md5.to_bytes().hex() == first.etag
        assert first.checksums.toJSON().md5 == first.etag
        assert first.checksums.sha1 is None and first.range is None
        try:
            first["key"]
        except TypeError:
            pass
        else:
            raise AssertionError
        assert not hasattr(first, "body") and not hasattr(first, "no_such_thing")
        """
    )


async def test_a_listing_has_the_metadata_that_was_included(probe):
    """Metadata that was not included is None; writeHttpMetadata raises a hint [WORKERD]."""
    await probe.run(
        """
        await bucket.put("a", "x", customMetadata={"k": "v"}, httpMetadata={"contentType": "t/x"})
        (bare,) = (await bucket.list()).objects
        assert bare.customMetadata is None and bare.httpMetadata is None
        try:
            bare.writeHttpMetadata(Headers())
        except JsException as error:
            assert str(error) == (
                "TypeError: HTTP metadata unknown for key `a`. Did you forget to add "
                "'httpMetadata' to `include` when listing?")
        else:
            raise AssertionError
        (full,) = (await bucket.list(include=["customMetadata", "httpMetadata"])).objects
        assert full.customMetadata.k == "v" and full.customMetadata.to_py() == {"k": "v"}
        assert full.httpMetadata.contentType == "t/x"
        headers = Headers()
        full.writeHttpMetadata(headers)
        assert headers.pairs == {"content-type": "t/x"}
        assert "RangeError: Unsupported include value x" == (
            await thrown(bucket.list(include=["x"])))
        """
    )


async def test_a_listing_goes_on_at_its_cursor(probe):
    """Options are keywords or one dict; the cursor continues a truncated listing [PORTABLE]."""
    await probe.run(
        """
        for key in ("a/1", "a/2", "b", "c"):
            await bucket.put(key, "x")
        page = await bucket.list({"limit": 2})
        assert [o.key for o in page.objects] == ["a/1", "a/2"] and page.truncated
        page = await bucket.list(limit=2, cursor=page.cursor)
        assert [o.key for o in page.objects] == ["b", "c"] and not page.truncated
        folded = await bucket.list(delimiter="/", startAfter="a/")
        assert (folded.delimitedPrefixes, [o.key for o in folded.objects]) == (["a/"], ["b", "c"])
        """
    )


# --- multipart uploads ----------------------------------------------------------------------------


async def test_an_upload_in_parts(probe):
    """An upload is created, resumed without a check, and completed with its parts [WORKERD]."""
    await probe.run(
        f"""
        upload = await bucket.createMultipartUpload("a", customMetadata={{"k": "v"}})
        assert upload.key == upload["key"] == "a" and type(upload["uploadId"]) is str
        first = await upload.uploadPart(1, b"x" * {PART_BYTES_MIN})
        assert first.partNumber == first["partNumber"] == 1 and len(first.etag) == 32
        again = bucket.resumeMultipartUpload("a", upload.uploadId)
        last = await again.uploadPart(2, "end")
        found = await again.complete([first, {{"partNumber": 2, "etag": last.etag}}])
        assert (found.key, found.size) == ("a", {PART_BYTES_MIN} + 3)
        assert found.etag.endswith("-2") and found.checksums.toJSON() == {{}}
        assert found.customMetadata == {{"k": "v"}} and not hasattr(found, "body")
        """
    )


async def test_an_upload_that_is_refused(probe):
    """Errors have the action's name and the JavaScript class [WORKERD]."""
    await probe.run(
        """
        upload = bucket.resumeMultipartUpload("a", "no such id")
        assert "Error: uploadPart: The specified multipart upload does not exist. (10024)" == (
            await thrown(upload.uploadPart(1, "x")))
        assert (await thrown(upload.complete([]))).startswith("Error: completeMultipartUpload: ")
        assert (await thrown(upload.abort())).startswith("Error: abortMultipartUpload: ")
        assert (await thrown(upload.uploadPart(0, "x"))).startswith("TypeError: Part number must")
        assert "on 'R2MultipartUpload'" in await thrown(upload.uploadPart(1, {}))
        assert "'Array'" in await thrown(upload.complete("x"))
        assert "'etag' field" in await thrown(upload.complete([{"partNumber": 1}]))
        live = await bucket.createMultipartUpload("a")
        assert await live.abort() is None
        """
    )


# --- faults ---------------------------------------------------------------------------------------


async def test_a_store_that_fails_is_an_internal_error_of_r2(probe, monkeypatch):
    """A failing store is R2's internal error for the Worker; the log has the reason [MINIFLARE]."""

    async def fail(*_: object) -> None:
        raise RunError("r2 store /x: No space left on device")

    monkeypatch.setattr(probe.world.driver, "put", fail)
    with capture_logs() as logs:
        await probe.run(
            """
            assert "Error: put: We encountered an internal error. Please try again. (10001)" == (
                await thrown(bucket.put("a", "x")))
            """
        )
    (line,) = [one for one in logs if one["event"] == "r2 store failed"]
    assert line["error"] == "r2 store /x: No space left on device"
    assert (line["bucket"], line["call"]) == ("events", "put")


async def test_a_method_that_r2_does_not_have(probe):
    """A method that R2 does not have is an AttributeError without a call [SDK]."""
    await probe.run("assert not hasattr(bucket, 'copy')\n")
