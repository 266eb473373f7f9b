"""Behaviours of KV asked from JavaScript; see ``cases``.  Miniflare gives the same answers."""

from typing import Any

KV_REFUSED = "Failed to execute '{}' on 'KvNamespace': parameter {} is not of type '{}'."
KV: list[tuple[str, str, Any]] = [
    (
        "KV put and get",
        'return [await env.K.put("a", "hällo") ?? null, await env.K.get("a")]',
        [None, "hällo"],
    ),
    ("KV get of nothing", 'return env.K.get("none")', None),
    (
        "KV get of JSON",
        'await env.K.put("b", \'{"a":[1.5]}\'); return env.K.get("b", "json")',
        {"a": [1.5]},
    ),
    (
        "KV get of JSON by an option",
        'await env.K.put("c", "[1]"); return env.K.get("c", { type: "json" })',
        [1],
    ),
    (
        "KV get of what is no JSON",
        'await env.K.put("d", "hello"); return fails(env.K.get("d", "json"))',
        ["SyntaxError", "Unexpected token 'h', \"hello\" is not valid JSON"],
    ),
    (
        "KV bytes",
        (
            'await env.K.put("e", new Uint8Array([0, 255]).buffer);'
            'return [...new Uint8Array(await env.K.get("e", "arrayBuffer"))]'
        ),
        [0, 255],
    ),
    (
        "KV view",
        (
            'await env.K.put("f", new Uint8Array([1, 2, 3]).subarray(1));'
            'return [...new Uint8Array(await env.K.get("f", { type: "arrayBuffer" }))]'
        ),
        [2, 3],
    ),
    (
        "KV streams",
        (
            'await env.K.put("g", new Response("streamed").body);'
            'return text(await env.K.get("g", "stream"))'
        ),
        "streamed",
    ),
    (
        "KV empty value",
        (
            'await env.K.put("h", ""); const stream = await env.K.get("h", "stream");'
            'return [await env.K.get("h"), await text(stream)]'
        ),
        ["", ""],
    ),
    (
        "KV large value",
        (
            'await env.K.put("i", new Uint8Array(3 << 20));'
            'return (await env.K.get("i", "arrayBuffer")).byteLength'
        ),
        3 << 20,
    ),
    (
        "KV invalid UTF-8 and a byte order mark",
        (
            'await env.K.put("j", new Uint8Array([0xef, 0xbb, 0xbf, 65, 0xff]));'
            'return [...(await env.K.get("j"))].map((each) => each.charCodeAt(0))'
        ),
        [65279, 65, 65533],
    ),
    (
        "KV plain values",
        (
            "const found = [];"
            "for (const value of [5, null, true, undefined]) {"
            '  await env.K.put("k", value); found.push(await env.K.get("k"));'
            "} return found"
        ),
        ["5", "null", "true", "undefined"],
    ),
    (
        "KV put of an object",
        'return fails(env.K.put("l", {}))',
        [
            "TypeError",
            (
                "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and "
                "ReadableStreams as values."
            ),
        ],
    ),
    (
        "KV put without a value",
        'return fails(env.K.put("l"))',
        ["TypeError", KV_REFUSED.format("put", 2, "string or Object")],
    ),
    (
        "KV get without a key",
        "return fails(env.K.get())",
        ["TypeError", KV_REFUSED.format("get", 1, "string or Array")],
    ),
    (
        "KV delete without a key",
        "return fails(env.K.delete())",
        ["TypeError", KV_REFUSED.format("delete", 1, "string")],
    ),
    (
        "KV type that is none",
        'await env.K.put("m", "1"); return fails(env.K.get("m", "blob"))',
        [
            "TypeError",
            (
                'Unknown response type. Possible types are "text", "arrayBuffer", "json", and '
                '"stream".'
            ),
        ],
    ),
    ("KV empty key", 'return fails(env.K.get(""))', ["TypeError", "Key name cannot be empty."]),
    (
        "KV key that is a number",
        'await env.K.put(7, "seven"); return [await env.K.get("7"), await env.K.get(7)]',
        ["seven", "seven"],
    ),
    (
        "KV key with any characters",
        'await env.K.put("a/b c?d#e%20&\\0\\n", "odd"); return env.K.get("a/b c?d#e%20&\\0\\n")',
        "odd",
    ),
    (
        "KV metadata",
        (
            'await env.K.put("n", "v", { metadata: { a: [1, "ä"], at: new Date(5) } });'
            'return env.K.getWithMetadata("n")'
        ),
        {
            "value": "v",
            "metadata": {"a": [1, "ä"], "at": "1970-01-01T00:00:00.005Z"},
            "cacheStatus": None,
        },
    ),
    (
        "KV metadata that is false",
        (
            'await env.K.put("o", "v", { metadata: false });'
            'return (await env.K.getWithMetadata("o", "text")).metadata'
        ),
        False,
    ),
    (
        "KV getWithMetadata of nothing",
        'return env.K.getWithMetadata("none")',
        {"value": None, "metadata": None, "cacheStatus": None},
    ),
    (
        "KV metadata over 1,024 bytes",
        'return fails(env.K.put("p", "v", { metadata: "é".repeat(512) }))',
        ["Error", "KV PUT failed: 413 Metadata length of 1026 exceeds limit of 1024."],
    ),
    (
        "KV several keys",
        (
            'await env.K.put("q1", "1"); await env.K.put("q2", "2", { metadata: 5 });'
            'const found = await env.K.get(["q2", "none", "q1"]);'
            "return [found instanceof Map, [...found]]"
        ),
        [True, [["q2", "2"], ["none", None], ["q1", "1"]]],
    ),
    (
        "KV several keys as JSON",
        'await env.K.put("r", "[1]"); return [...await env.K.get(["r", "none"], "json")]',
        [["r", [1]], ["none", None]],
    ),
    (
        "KV several keys with metadata",
        (
            'await env.K.put("s", "2", { metadata: 5 });'
            'return [...await env.K.getWithMetadata(["s", "none"])]'
        ),
        [["s", {"value": "2", "metadata": 5}], ["none", None]],
    ),
    (
        "KV several keys as streams",
        'return fails(env.K.get(["a"], "stream"))',
        ["Error", 'KV GET_BULK failed: 400 "stream" is not a valid type. Use "json" or "text"'],
    ),
    (
        "KV expirationTtl under a minute",
        'return fails(env.K.put("t", "v", { expirationTtl: 59.9 }))',
        [
            "Error",
            (
                "KV PUT failed: 400 Invalid expiration_ttl of 59. Expiration TTL must be at least "
                "60."
            ),
        ],
    ),
    (
        "KV expiration beyond 32 bits",
        'return fails(env.K.put("t", "v", { expiration: 4e9 }))',
        [
            "TypeError",
            "Value out of range. Must be between -2147483648 and 2147483647 (inclusive).",
        ],
    ),
    (
        "KV expiration that is no number",
        'return fails(env.K.put("t", "v", { expirationTtl: "x" }))',
        [
            "Error",
            (
                "KV PUT failed: 400 Invalid expiration_ttl of 0. Please specify integer greater "
                "than 0."
            ),
        ],
    ),
    (
        "KV cacheTtl",
        'return fails(env.K.get("t", { cacheTtl: 29 }))',
        ["Error", "KV GET failed: 400 Invalid cache_ttl of 29. Cache TTL must be at least 30."],
    ),
    (
        "KV delete",
        (
            'await env.K.put("u", "v"); await env.K.delete("u"); await env.K.delete("u");'
            'return env.K.get("u")'
        ),
        None,
    ),
    (
        "KV list",
        (
            'for (const name of ["z", "Z", "é", "😀"]) await env.K.put(`v/${name}`, "");'
            'await env.K.put("v/a", "", { expiration: 2e9, metadata: { b: 1 } });'
            'return env.K.list({ prefix: "v/" })'
        ),
        {
            "keys": [
                {"name": "v/Z"},
                {"name": "v/a", "expiration": 2_000_000_000, "metadata": {"b": 1}},
                {"name": "v/z"},
                {"name": "v/é"},
                {"name": "v/😀"},
            ],
            "list_complete": True,
            "cacheStatus": None,
        },
    ),
    (
        "KV list in pages",
        (
            'for (const name of ["1", "2", "3"]) await env.K.put(`w/${name}`, "");'
            'const { cursor, list_complete, keys } = await env.K.list({ prefix: "w/", limit: 2 });'
            'const rest = await env.K.list({ prefix: "w/", cursor });'
            "return [list_complete, keys.length, rest.keys, rest.cursor ?? null]"
        ),
        [False, 2, [{"name": "w/3"}], None],
    ),
    (
        "KV list of too many",
        "return fails(env.K.list({ limit: 1001 }))",
        [
            "Error",
            (
                "KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer "
                "less than 1000."
            ),
        ],
    ),
    (
        "KV value over 25 MiB",
        'return fails(env.K.put("x", new Uint8Array((25 << 20) + 1)))',
        ["Error", "KV PUT failed: 413 Value length of 26214401 exceeds limit of 26214400."],
    ),
    (
        "KV stream over 25 MiB",
        'return fails(env.K.put("x", new Blob([new Uint8Array(30 << 20)]).stream()))',
        ["Error", "KV PUT failed: 413 Value length of 31457280 exceeds limit of 26214400."],
    ),
    (
        "KV large value with an empty key",
        'return fails(env.K.put("", new Uint8Array(20 << 20)))',
        ["TypeError", "Key name cannot be empty."],
    ),
]
