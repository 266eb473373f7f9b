"""Probes of JavaScript's global scope: URLs, dates, text, crypto; each path runs one function."""

import math
from urllib.parse import urlsplit

import js
import streams_probe
from js import (
    JSON,
    URL,
    Date,
    Float32Array,
    Int16Array,
    Object,
    TextDecoder,
    TextEncoder,
    Uint8Array,
    URLSearchParams,
    crypto,
)
from pyodide.ffi import JsException, to_js

from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = urlsplit(request.url).path.strip("/")
        probe = globals().get(name) or getattr(streams_probe, name)
        return Response.json(await probe())


def plain(value):
    """Return the value as JSON has it, with the type of what JSON cannot tell."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


async def failing(call):
    """Return the names of the exception of the call, or of its result when it is awaited."""
    try:
        result = call()
        if hasattr(result, "__await__"):
            await result
    except JsException as error:
        return ["JsException", error.name]
    except Exception as error:
        return type(error).__name__
    return "nothing"


def js_object(**items):
    return to_js(items, dict_converter=Object.fromEntries)


PARTS = (
    *("href", "origin", "protocol", "username", "password", "host", "hostname", "port"),
    *("pathname", "search", "hash"),
)


async def parts_of_a_url():
    found = {}
    for text, base in (
        ("https://u:p@Ex.com:8443/a b/../c?x=1&y=é#h|", None),
        ("../d?z", "http://h:80/a/b/c"),
        ("//other/x", "https://h/a"),
        ("?only", "http://h/a/b?q"),
        ("file:///C:/x/../y", None),
        ("mailto:a@b.c?subject=x", None),
        ("http://127.1/", None),
        ("http://[::0:1]:81", None),
        ("http://BÜCHER.de/", None),
        (" \thttp:\\\\h\\a\\b\n", None),
        ("foo:///a//b/", None),
    ):
        url = URL.new(text, base) if base else URL.new(text)
        found[text] = [getattr(url, name) for name in PARTS]
    return found


async def set_parts_of_a_url():
    found = []
    for name, value in (
        ("href", "http://x/y"),
        ("protocol", "https"),
        ("protocol", "mailto:"),
        ("username", "n@me"),
        ("password", "p:w"),
        ("host", "other:81"),
        ("host", "bad host"),
        ("hostname", "only"),
        ("port", "80"),
        ("port", "99999"),
        ("pathname", "new path?"),
        ("search", "a=b c"),
        ("search", ""),
        ("hash", "part 2"),
    ):
        url = URL.new("http://u:p@h:8080/a?q#f")
        setattr(url, name, value)
        found.append([name, value, url.href])
    return found


async def urls():
    url = URL.new("http://h/?a=1&b=2&a=3")
    copy = URL.new(url)
    url.searchParams.append("c", "x y")
    url.searchParams.delete("b")
    before = url.href
    url.search = "?z=9"
    return [
        str(url),
        repr(url),
        before,
        copy.href,
        [url.searchParams.get("z"), url.searchParams.has("a")],
        url.searchParams == url.searchParams,
        url.toJSON(),
        JSON.stringify(url),
        URL.canParse("x"),
        URL.canParse("x", "http://h"),
        str(URL.parse("nope")),
        URL.parse("y", "http://h").href,
        await failing(lambda: URL.new("nope")),
        await failing(lambda: URL.new("http://h:99999")),
        await failing(lambda: setattr(url, "href", "nope")),
        await failing(lambda: url.nothing),
    ]


async def search_params():
    params = URLSearchParams.new("?a=1&b=x+y&a=%C3%A9&c")
    found = [
        str(params),
        params.toString(),
        params.size,
        len(params),
        params.get("a"),
        str(params.get("z")),
        list(params.getAll("a")),
        [
            params.has("b"),
            params.has("b", "x y"),
            params.has("b", "z"),
            "b" in params,
            "z" in params,
        ],
        list(params),
        list(params.keys()),
        list(params.values()),
        [list(each) for each in params.entries()],
        dict(params),
        list(params.items()),
        params["a"],
        str(params["z"]),
        bool(URLSearchParams.new()),
    ]
    params.append("n", 5)
    params.append("t", True)
    params["b"] = "new"
    params.set("a", "one")
    found += [str(params), await failing(lambda: params.__delitem__("n")), str(params)]
    params.delete("t", "false")
    params.sort()
    seen = []
    params.forEach(lambda value, name, *_: seen.append([name, value]))
    return [*found, str(params), seen]


async def search_params_as_bodies():
    params = URLSearchParams.new("a=x y&b=é")
    request = js.Request.new(URL.new("http://h/p?q#f"), method="POST", body=params)
    form = await js.Response.new(params).formData()
    return [
        request.url,
        request.headers.get("content-type"),
        await request.text(),
        [form.get("a"), form.get("b")],
        await Response(params).text(),
    ]


async def search_params_of_values():
    return [
        str(URLSearchParams.new([["a", "1"], ("b", 2)])),
        str(URLSearchParams.new({"a": "1", "b": "~!*'()é&"}.items())),
        str(URLSearchParams.new(a="1", b=2)),
        str(URLSearchParams.new(js_object(a="x y"))),
        str(URLSearchParams.new(to_js([["a", 1.0]]))),
        str(URLSearchParams.new(URLSearchParams.new("q=1"))),
        await failing(lambda: URLSearchParams.new({"abc": "1"})),
        await failing(lambda: URLSearchParams.new([["a"]])),
    ]


async def dates():
    date = Date.new(1_790_000_000_123)
    date_only = Date.new("2026-01-02")
    return [
        Date.now(),
        Date.new().getTime(),
        type(Date()).__name__,
        str(date),
        date.toISOString(),
        date.toJSON(),
        JSON.stringify(date),
        date.toUTCString(),
        date.toDateString(),
        date.toTimeString(),
        date.toLocaleString(),
        date.toLocaleDateString(),
        date.toLocaleTimeString(),
        [date.getTime(), date.valueOf(), date.getTimezoneOffset()],
        [date.getFullYear(), date.getMonth(), date.getDate(), date.getDay()],
        [date.getHours(), date.getMinutes(), date.getSeconds(), date.getMilliseconds()],
        [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDay(), date.getUTCHours()],
        [date_only < date, date > date_only, date_only == Date.new("2026-01-02")],
        Date.new(date).getTime(),
        type(date.to_py()).__name__ != "datetime",
    ]


async def dates_of_values():
    texts = (
        *(
            "2026-01-02",
            "2026-01-02T03:04",
            "2026-01-02T03:04:05.678Z",
            "2026-01-02T03:04:05+02:30",
        ),
        *("Wed, 21 Oct 2015 07:28:00 GMT", "Jan 2, 2026", "1/2/2026", "2026-02-31", "2026-13-01"),
        *("nonsense", "", "-000001-01-01T00:00:00Z", "+010000-01-01T00:00:00Z"),
    )
    invalid = Date.new("nonsense")
    return [
        {text: plain(Date.parse(text)) for text in texts},
        [plain(Date.new(text).getTime()) for text in texts],
        Date.new(2026, 13, 32, 25, 61, 61, 1001).toISOString(),
        Date.new(99, 0).getFullYear(),
        [plain(Date.UTC(2026)), Date.UTC(2026, 1, 3)],
        [plain(Date.new(8.64e15).getTime()), plain(Date.new(8.65e15).getTime())],
        plain(Date.new(None).getTime()),
        Date.new(1.9).getTime(),
        [str(invalid), str(invalid.toJSON()), plain(invalid.getDay()), plain(invalid.getHours())],
        await failing(invalid.toISOString),
    ]


async def changed_dates():
    date = Date.new(1_790_000_000_123)
    return [
        date.setHours(1, 2),
        date.setUTCDate(0),
        date.setMonth(14),
        date.setFullYear(2024, 1, 29),
        date.setMinutes(-1),
        date.setSeconds(70, 5),
        date.setMilliseconds(1),
        date.toISOString(),
        date.setTime(0),
        str(date),
    ]


async def text_encoder():
    encoder, room = TextEncoder.new(), Uint8Array.new(3)
    return [
        encoder.encoding,
        str(encoder),
        plain(encoder.encode("aé€😀\ud800").to_bytes()),
        type(encoder.encode("a")).__name__ == type(Uint8Array.new(1)).__name__,
        plain(encoder.encode().to_bytes()),
        plain(encoder.encode(5).to_bytes()),
        encoder.encodeInto("aéb", room).to_py(),
        plain(room.to_bytes()),
        encoder.encodeInto("€€", room).to_py(),
        await failing(lambda: encoder.encodeInto("a", Int16Array.new(2))),
    ]


async def text_decoder():
    decoder, parts = TextDecoder.new(), TextDecoder.new()
    strict = TextDecoder.new("utf-8", fatal=True, ignoreBOM=True)
    return [
        [decoder.encoding, decoder.fatal, decoder.ignoreBOM, str(decoder)],
        [strict.encoding, strict.fatal, strict.ignoreBOM],
        decoder.decode(to_js(b"\xef\xbb\xbfa\xff\xc3")),
        strict.decode(to_js(b"\xef\xbb\xbfa")),
        decoder.decode(),
        decoder.decode(to_js(b"abc").buffer),
        await failing(lambda: strict.decode(to_js(b"\xff"))),
        strict.decode(to_js(b"after")),
        [parts.decode(to_js(each), stream=True) for each in (b"\xf0\x9f", b"\x98\x80\xc3")],
        [parts.decode(), parts.decode(to_js(b"again"))],
        TextDecoder.new("latin1").decode(to_js(b"\x80\x81\xe9")),
        TextDecoder.new("utf-16").decode(to_js("aé".encode("utf-16-le"))),
        TextDecoder.new("shift_jis").decode(to_js(b"\x82\xa0")),
        [TextDecoder.new(name).encoding for name in (" UTF8 ", "ascii", "ucs-2", "sjis", "gb2312")],
        await failing(lambda: TextDecoder.new("nope")),
        await failing(lambda: decoder.decode(b"abc")),
        await failing(lambda: decoder.decode("abc")),
    ]


async def random_values():
    numbers = Uint8Array.new(16)
    filled = crypto.getRandomValues(numbers)
    uuid = crypto.randomUUID()
    return [
        filled == numbers,
        len(filled),
        len({crypto.randomUUID() for _ in range(9)}),
        [len(part) for part in uuid.split("-")],
        [uuid[14], uuid[19] in "89ab"],
        len(crypto.getRandomValues(Int16Array.new(4))),
        [str(crypto), str(crypto.subtle)],
        await failing(lambda: crypto.getRandomValues(Float32Array.new(4))),
        await failing(lambda: crypto.getRandomValues(Uint8Array.new(65_537))),
        await failing(lambda: crypto.getRandomValues(bytearray(4))),
    ]


async def digests():
    data = to_js(b"abc")
    names = ("SHA-1", "sha-256", "SHA-384", "SHA-512")
    return [
        [plain((await crypto.subtle.digest(name, data)).to_bytes()) for name in names],
        plain((await crypto.subtle.digest(js_object(name="SHA-256"), data.buffer)).to_bytes()),
        plain((await crypto.subtle.digest({"name": "SHA-256"}, data)).to_bytes()),
        str(await crypto.subtle.digest("SHA-1", data)),
        await failing(lambda: crypto.subtle.digest("SHA256", data)),
        await failing(lambda: crypto.subtle.digest("SHA-256", b"abc")),
        await failing(lambda: crypto.subtle.digest("SHA-256", "abc")),
        await failing(lambda: crypto.subtle.digest(None, data)),
    ]


async def keys_of_hmac():
    subtle, data = crypto.subtle, to_js(b"data")
    sha256, sha512 = js_object(name="HMAC", hash="SHA-256"), js_object(name="HMAC", hash="SHA-512")
    key = await subtle.importKey("raw", to_js(b"key"), sha256, False, to_js(["sign", "verify"]))
    sign = await subtle.sign("HMAC", key, data)
    open_key = await subtle.importKey("raw", to_js(b"key"), sha512, True, ["verify"])
    jwk = await subtle.exportKey("jwk", open_key)
    made = await subtle.generateKey(sha256, True, ["sign"])
    return [
        [str(key), key.type, key.extractable, key.algorithm.to_py(), key.usages.to_py()],
        plain(sign.to_bytes()),
        await subtle.verify("HMAC", key, sign, data),
        await subtle.verify("HMAC", key, sign, to_js(b"other")),
        plain((await subtle.exportKey("raw", open_key)).to_bytes()),
        sorted(jwk.to_py().items(), key=str),
        (await subtle.importKey("jwk", jwk, sha512, True, ["verify"])).algorithm.hash.name,
        (await subtle.exportKey("raw", made)).byteLength,
        await failing(lambda: subtle.importKey("jwk", jwk, sha256, True, ["verify"])),
        await failing(lambda: subtle.sign("HMAC", open_key, data)),
        await failing(lambda: subtle.importKey("raw", to_js(b"key"), "HMAC", False, ["sign"])),
        await failing(lambda: subtle.importKey("raw", to_js(b"key"), sha256, False, ["encrypt"])),
        await failing(lambda: subtle.importKey("raw", to_js(b""), sha256, False, ["sign"])),
        await failing(lambda: subtle.importKey("raw", to_js(b"key"), sha256, False, [])),
        await failing(lambda: subtle.importKey("rawx", to_js(b"key"), sha256, False, ["sign"])),
        await failing(lambda: subtle.importKey("raw", to_js(b"key"), "NOPE", False, ["sign"])),
        await failing(lambda: subtle.sign("HMAC", "no key", data)),
    ]


async def derived_keys():
    subtle, salt = crypto.subtle, to_js(b"salt")
    key = await subtle.importKey("raw", to_js(b"pw"), "PBKDF2", False, ["deriveBits", "deriveKey"])

    def parameters(iterations=2):
        return js_object(name="PBKDF2", salt=salt, iterations=iterations, hash="SHA-256")

    bits = await subtle.deriveBits(parameters(), key, 256)
    hmac = js_object(name="HMAC", hash="SHA-256", length=256)
    derived = await subtle.deriveKey(parameters(), key, hmac, True, ["sign"])
    return [
        key.algorithm.to_py(),
        plain(bits.to_bytes()),
        derived.algorithm.to_py(),
        plain((await subtle.exportKey("raw", derived)).to_bytes()),
        await failing(lambda: subtle.deriveBits(parameters(), key, 7)),
        await failing(lambda: subtle.deriveBits(parameters(0), key, 256)),
        await failing(lambda: subtle.importKey("raw", salt, "PBKDF2", True, ["deriveBits"])),
    ]


async def a_name_for_another_path():
    return hasattr(js, "WebSocket")
