"""Behaviours asked from JavaScript: name, the body of a handler, the JSON that it returns.

``fails(call)`` returns [name, message] of the exception; ``env`` has B (R2), K (KV), Q (a queue),
SELF (the class Rpc), PY (a Worker in Python) and texts; ``text(stream)`` reads a stream.
"""

from tests.javascript.kv_cases import KV

SHA256_HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
MD5_HELLO = "5d41402abc4b2a76b9719d911017c592"
SHA1_HELLO = "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"
PART = 5 << 20

R2 = [
    ("put of text", 'return (await env.B.put("a1", "hällo")).size', 6),
    ("put of an ArrayBuffer", 'return (await env.B.put("a2", new ArrayBuffer(3))).size', 3),
    ("put of a view", 'return (await env.B.put("a3", new Uint8Array(9).subarray(2, 6))).size', 4),
    ("put of a Blob", 'return (await env.B.put("a4", new Blob(["ab", "c"]))).size', 3),
    ("put of null", 'return (await env.B.put("a5", null)).size', 0),
    ("put of a request's body", 'return (await env.B.put("a6", new Response("xy").body)).size', 2),
    ("put of a number", 'return (await fails(env.B.put("a7", 5)))[0]', "TypeError"),
    ("etag", 'return (await env.B.put("b1", "hello")).etag', MD5_HELLO),
    ("httpEtag", 'return (await env.B.put("b2", "hello")).httpEtag', f'"{MD5_HELLO}"'),
    (
        "sha1 that matches",
        f'return (await env.B.put("b3", "hello", {{ sha1: "{SHA1_HELLO}" }})).checksums.toJSON()',
        {"md5": MD5_HELLO, "sha1": SHA1_HELLO},
    ),
    (
        "md5 that does not match",
        (
            f'return (await fails(env.B.put("b4", "other", {{ md5: "{MD5_HELLO}" }})))[1]'
            '.includes("(10037)")'
        ),
        True,
    ),
    (
        "checksum as bytes",
        (
            'const md5 = await crypto.subtle.digest("MD5", new TextEncoder().encode("hello"));'
            'return (await env.B.put("b5", "hello", { md5 })).size'
        ),
        5,
    ),
    ("uploaded is a Date", 'return (await env.B.put("b6", "")).uploaded instanceof Date', True),
    (
        "customMetadata",
        (
            'await env.B.put("c1", "", { customMetadata: { a: "ä", n: 5 } });'
            'return (await env.B.head("c1")).customMetadata'
        ),
        {"a": "ä", "n": "5"},
    ),
    (
        "httpMetadata of an object",
        (
            'await env.B.put("c2", "", { httpMetadata: { contentType: "a", cacheControl: "x" } });'
            'return (await env.B.head("c2")).httpMetadata'
        ),
        {"contentType": "a", "cacheControl": "x"},
    ),
    (
        "httpMetadata of Headers",
        (
            'const headers = new Headers({ "content-type": "a/b", "content-language": "de" });'
            'await env.B.put("c3", "", { httpMetadata: headers });'
            'return (await env.B.head("c3")).httpMetadata'
        ),
        {"contentType": "a/b", "contentLanguage": "de"},
    ),
    (
        "storageClass",
        'return (await env.B.put("c4", "", { storageClass: "InfrequentAccess" })).storageClass',
        "InfrequentAccess",
    ),
    ("head of nothing", 'return env.B.head("none")', None),
    ("get of nothing", 'return env.B.get("none")', None),
    (
        "get as text",
        'await env.B.put("d1", "hällo"); return (await env.B.get("d1")).text()',
        "hällo",
    ),
    (
        "get as JSON",
        'await env.B.put("d2", \'{"a":[1]}\'); return (await env.B.get("d2")).json()',
        {"a": [1]},
    ),
    (
        "get as an ArrayBuffer",
        (
            'await env.B.put("d3", "ab");'
            'return [...new Uint8Array(await (await env.B.get("d3")).arrayBuffer())]'
        ),
        [97, 98],
    ),
    (
        "get as bytes",
        'await env.B.put("d4", "ab"); return [...await (await env.B.get("d4")).bytes()]',
        [97, 98],
    ),
    (
        "get as a Blob",
        (
            'await env.B.put("d5", "ab", { httpMetadata: { contentType: "a/b" } });'
            'const blob = await (await env.B.get("d5")).blob(); return [blob.size, blob.type]'
        ),
        [2, "a/b"],
    ),
    (
        "get as a stream",
        'await env.B.put("d6", "ab"); return text((await env.B.get("d6")).body)',
        "ab",
    ),
    (
        "bodyUsed",
        (
            'await env.B.put("d7", "ab"); const got = await env.B.get("d7");'
            "const before = got.bodyUsed; await got.text(); return [before, got.bodyUsed]"
        ),
        [False, True],
    ),
    (
        "the body is read once",
        (
            'await env.B.put("d8", "ab"); const got = await env.B.get("d8"); await got.text();'
            "return (await fails(got.text()))[0]"
        ),
        "TypeError",
    ),
    (
        "range with offset and length",
        (
            'await env.B.put("e1", "0123456789");'
            'return (await env.B.get("e1", { range: { offset: 2, length: 3 } })).text()'
        ),
        "234",
    ),
    (
        "range with a suffix",
        (
            'await env.B.put("e2", "0123456789");'
            'return (await env.B.get("e2", { range: { suffix: 2 } })).text()'
        ),
        "89",
    ),
    (
        "range of Headers",
        (
            'await env.B.put("e3", "0123456789");'
            'return (await env.B.get("e3", { range: new Headers({ range: "bytes=4-5" }) })).text()'
        ),
        "45",
    ),
    (
        "range below zero",
        (
            'await env.B.put("e4", "01");'
            'return fails(env.B.get("e4", { range: { offset: -1 } })).then(([name]) => name)'
        ),
        "RangeError",
    ),
    (
        "onlyIf etagMatches",
        (
            f'await env.B.put("f1", "hello"); const wanted = {{ etagMatches: "{MD5_HELLO}" }};'
            'return (await env.B.get("f1", { onlyIf: wanted })).text()'
        ),
        "hello",
    ),
    (
        "onlyIf that fails has no body",
        (
            'await env.B.put("f2", "hello");'
            'const got = await env.B.get("f2", { onlyIf: { etagMatches: "x" } });'
            "return [got.key, got.body === undefined]"
        ),
        ["f2", True],
    ),
    (
        "onlyIf of Headers",
        (
            f'await env.B.put("f3", "hello"); const etag = \'"{MD5_HELLO}"\';'
            'const got = await env.B.get("f3", { onlyIf: new Headers({ "if-none-match": etag }) });'
            "return got.body === undefined"
        ),
        True,
    ),
    (
        "onlyIf uploadedBefore",
        (
            'await env.B.put("f4", "a");'
            'const got = await env.B.get("f4", { onlyIf: { uploadedBefore: new Date(0) } });'
            "return got.body === undefined"
        ),
        True,
    ),
    (
        "put onlyIf",
        (
            'await env.B.put("f5", "a");'
            'return env.B.put("f5", "b", { onlyIf: { etagDoesNotMatch: "*" } })'
        ),
        None,
    ),
    (
        "a quoted etag is refused",
        "return (await fails(env.B.get('f5', { onlyIf: { etagMatches: '\"x\"' } })))[0]",
        "TypeError",
    ),
    (
        "delete of one",
        'await env.B.put("g1", "a"); await env.B.delete("g1"); return env.B.head("g1")',
        None,
    ),
    (
        "delete of many",
        (
            'await env.B.put("g2", "a"); await env.B.put("g3", "a");'
            'await env.B.delete(["g2", "g3", "none"]);'
            'return (await env.B.list({ prefix: "g" })).objects.length'
        ),
        0,
    ),
    (
        "list by prefix",
        (
            'for (const key of ["h/1", "h/2", "i"]) await env.B.put(key, "");'
            'return (await env.B.list({ prefix: "h/" })).objects.map((each) => each.key)'
        ),
        ["h/1", "h/2"],
    ),
    (
        "list with a limit and a cursor",
        (
            'for (const key of ["j1", "j2", "j3"]) await env.B.put(key, "");'
            'const one = await env.B.list({ prefix: "j", limit: 2 });'
            'const two = await env.B.list({ prefix: "j", cursor: one.cursor });'
            "return [one.truncated, one.objects.length, two.truncated, two.objects.length]"
        ),
        [True, 2, False, 1],
    ),
    (
        "list with a delimiter",
        (
            'for (const key of ["k/a/1", "k/a/2", "k/b"]) await env.B.put(key, "");'
            'const found = await env.B.list({ prefix: "k/", delimiter: "/" });'
            "return [found.objects.map((each) => each.key), found.delimitedPrefixes]"
        ),
        [["k/b"], ["k/a/"]],
    ),
    (
        "list startAfter",
        (
            'for (const key of ["l1", "l2"]) await env.B.put(key, "");'
            'const found = await env.B.list({ prefix: "l", startAfter: "l1" });'
            "return found.objects.map((each) => each.key)"
        ),
        ["l2"],
    ),
    (
        "list without include hides metadata",
        (
            'await env.B.put("m1", "", { customMetadata: { a: "1" } });'
            'const [found] = (await env.B.list({ prefix: "m1" })).objects;'
            "return [found.customMetadata === undefined, found.size]"
        ),
        [True, 0],
    ),
    (
        "writeHttpMetadata of a listed object without it",
        (
            'await env.B.put("m2", ""); const [one] = (await env.B.list({ prefix: "m2" })).objects;'
            "return (await fails((async () => one.writeHttpMetadata(new Headers()))()))[0]"
        ),
        "TypeError",
    ),
    ("a key that is too long", 'return (await fails(env.B.put("x".repeat(1025), "")))[0]', "Error"),
    (
        "parts too small",
        (
            'const upload = await env.B.createMultipartUpload("n1");'
            'const parts = [await upload.uploadPart(1, "a"), await upload.uploadPart(2, "b")];'
            'return (await fails(upload.complete(parts)))[1].includes("(10011)")'
        ),
        True,
    ),
    (
        "an aborted upload",
        (
            'const upload = await env.B.createMultipartUpload("n2"); await upload.abort();'
            'return (await fails(upload.uploadPart(1, "a")))[1].includes("(10024)")'
        ),
        True,
    ),
    (
        "etag of a multipart object",
        (
            'const upload = await env.B.createMultipartUpload("n3");'
            f"const parts = [await upload.uploadPart(1, new Uint8Array({PART}))];"
            "return (await upload.complete(parts)).etag.endsWith('-1')"
        ),
        True,
    ),
    (
        "sha256 as text, and head has it",
        (
            f'await env.B.put("o1", "hello", {{ sha256: "{SHA256_HELLO}" }});'
            'return (await env.B.head("o1")).checksums.toJSON().sha256'
        ),
        SHA256_HELLO,
    ),
    (
        "two checksums are refused",
        (
            f'const sums = {{ md5: "{MD5_HELLO}", sha1: "{SHA1_HELLO}" }};'
            'return (await fails(env.B.put("o2", "hello", sums)))[0]'
        ),
        "TypeError",
    ),
    (
        "onlyIf etagDoesNotMatch",
        (
            'const { etag } = await env.B.put("o3", "x");'
            "const get = (tag) => env.B.get('o3', { onlyIf: { etagDoesNotMatch: tag } });"
            "return [(await get(etag)).body === undefined, await (await get('other')).text()]"
        ),
        [True, "x"],
    ),
    (
        "onlyIf uploadedAfter",
        (
            'const { uploaded } = await env.B.put("o4", "x");'
            "const get = (ms) => env.B.get('o4', { onlyIf: { uploadedAfter: new Date(ms) } });"
            "const before = await get(uploaded.getTime() - 60_000);"
            "const after = await get(uploaded.getTime() + 60_000);"
            "return [await before.text(), after.body === undefined]"
        ),
        ["x", True],
    ),
    (
        "put only if there is no object",
        (
            "const onlyIf = new Headers({ 'if-none-match': '*' });"
            "const first = await env.B.put('o5', 'a', { onlyIf });"
            "const second = await env.B.put('o5', 'b', { onlyIf });"
            "return [first.size, second, await (await env.B.get('o5')).text()]"
        ),
        [1, None, "a"],
    ),
    (
        "range with an offset alone",
        (
            "await env.B.put('o6', 'abcdef'); "
            "const got = await env.B.get('o6', { range: { offset: 4 } });"
            "return [await got.text(), got.size]"
        ),
        ["ef", 6],
    ),
    (
        "range with a length alone",
        (
            "await env.B.put('o7', 'abcdef');"
            "return (await env.B.get('o7', { range: { length: 2 } })).text()"
        ),
        "ab",
    ),
    (
        "a suffix of Headers",
        (
            "await env.B.put('o8', 'abcdef'); const range = new Headers({ range: 'bytes=-2' });"
            "return (await env.B.get('o8', { range })).text()"
        ),
        "ef",
    ),
    (
        "httpMetadata is whole",
        (
            "const httpMetadata = { contentType: 'a/b', contentLanguage: 'de', contentEncoding: "
            "'x',"
            " contentDisposition: 'inline', cacheControl: 'no-store', cacheExpiry: new "
            "Date(1000) };"
            "await env.B.put('o9', '', { httpMetadata });"
            "const headers = new Headers(); const got = await env.B.head('o9');"
            "got.writeHttpMetadata(headers);"
            "return [got.httpMetadata.cacheExpiry instanceof Date, [...headers]]"
        ),
        [
            True,
            [
                ["cache-control", "no-store"],
                ["content-disposition", "inline"],
                ["content-encoding", "x"],
                ["content-language", "de"],
                ["content-type", "a/b"],
                ["expires", "Thu, 01 Jan 1970 00:00:01 GMT"],
            ],
        ],
    ),
    (
        "list includes what it is asked for",
        (
            "await env.B.put('p1', '', { customMetadata: { a: '1' }, httpMetadata: { "
            "contentType: 't/x' } });"
            "const { objects } = await env.B.list({ prefix: 'p1', include: ['customMetadata'] });"
            "return [objects[0].customMetadata, objects[0].httpMetadata ?? null]"
        ),
        [{"a": "1"}, None],
    ),
    (
        "put of a stream of known length",
        (
            "const { readable, writable } = new FixedLengthStream(6);"
            "const writer = writable.getWriter(); const wrote = (async () => {"
            " for (const part of ['ab', 'cd', 'ef']) await writer.write(new "
            "TextEncoder().encode(part));"
            " await writer.close(); })();"
            "const put = await env.B.put('p2', readable); await wrote;"
            "return [put.size, await (await env.B.get('p2')).text()]"
        ),
        [6, "abcdef"],
    ),
    (
        "a failed stream leaves no object",
        (
            "const { readable, writable } = new FixedLengthStream(6);"
            "const writer = writable.getWriter();"
            "writer.write(new TextEncoder().encode('ab')).then(() => writer.abort(new "
            "Error('no')));"
            "const failed = await fails(env.B.put('p3', readable));"
            "return [failed[0] !== 'nothing was thrown', await env.B.head('p3')]"
        ),
        [True, None],
    ),
    (
        "a part of a stream",
        (
            "const upload = await env.B.createMultipartUpload('p4', { httpMetadata: { "
            "contentType: 't/x' } });"
            "const part = await upload.uploadPart(1, new Response('streamed').body);"
            "const object = await upload.complete([part]);"
            "return [part.partNumber, typeof part.etag, object.size, "
            "object.httpMetadata.contentType,"
            " await (await env.B.get('p4')).text()]"
        ),
        [1, "string", 8, "t/x", "streamed"],
    ),
    (
        "complete with a wrong etag",
        (
            "const upload = await env.B.createMultipartUpload('p5'); "
            "await upload.uploadPart(1, 'a');"
            "return (await fails(upload.complete([{ partNumber: 1, etag: 'wrong' }])))[1]"
            ".includes('(10025)')"
        ),
        True,
    ),
    (
        "a part is replaced",
        (
            "const upload = await env.B.createMultipartUpload('p6'); "
            "await upload.uploadPart(1, 'old');"
            "await upload.complete([await upload.uploadPart(1, 'new')]);"
            "return (await env.B.get('p6')).text()"
        ),
        "new",
    ),
    (
        "part 0 is refused",
        (
            "const upload = await env.B.createMultipartUpload('p7');"
            "return (await fails(upload.uploadPart(0, 'a')))[0] !== 'nothing was thrown'"
        ),
        True,
    ),
    (
        "delete of what is not there",
        "return (await env.B.delete('p8')) === undefined",
        True,
    ),
    (
        "version differs with each put",
        (
            "const first = await env.B.put('p9', 'x'); const second = await env.B.put('p9', 'x');"
            "return [first.version !== second.version, first.etag === second.etag]"
        ),
        [True, True],
    ),
]

QUEUES = [
    ("send returns metrics", "return Object.keys(await env.Q.send(1))", ["metadata"]),
    (
        "backlog",
        "const { metadata } = await env.Q.send(1);return typeof metadata.metrics.backlogCount",
        "number",
    ),
    (
        "oldest message is a Date",
        (
            "const { metadata } = await env.Q.send(1);"
            "return metadata.metrics.oldestMessageTimestamp instanceof Date"
        ),
        True,
    ),
    ("send of undefined", "return (await fails(env.Q.send(undefined)))[0]", "TypeError"),
    ("send of a function", "return (await fails(env.Q.send(() => 1)))[0]", "TypeError"),
    (
        "text of a number",
        'return (await fails(env.Q.send(5, { contentType: "text" })))[0]',
        "TypeError",
    ),
    (
        "bytes of a text",
        'return (await fails(env.Q.send("x", { contentType: "bytes" })))[0]',
        "TypeError",
    ),
    (
        "an unknown content type",
        'return (await fails(env.Q.send("x", { contentType: "xml" })))[1]',
        "Unsupported queue message content type: xml",
    ),
    (
        "too large",
        'return (await fails(env.Q.send("x".repeat(200_000))))[0].includes("Error")',
        True,
    ),
    ("delay too long", "return (await fails(env.Q.send(1, { delaySeconds: 90_000 })))[0]", "Error"),
    ("delay", "return Object.keys(await env.Q.send(1, { delaySeconds: 5 }))", ["metadata"]),
    (
        "sendBatch of an iterable",
        "return Object.keys(await env.Q.sendBatch(new Set([{ body: 1 }, { body: 2 }])))",
        ["metadata"],
    ),
    ("sendBatch of nothing", "return (await fails(env.Q.sendBatch([])))[0]", "TypeError"),
    (
        "sendBatch of 101",
        "return (await fails(env.Q.sendBatch(Array(101).fill({ body: 1 }))))[0]",
        "Error",
    ),
    (
        "sendBatch of no message",
        "return (await fails(env.Q.sendBatch([5])))[0]",
        "TypeError",
    ),
    ("metrics", "return Object.keys(await env.Q.metrics()).includes('backlogBytes')", True),
]

HTTP = [
    (
        "URL of fetch",
        'return (await fetch("http://main.localhost/echo?a=1")).url',
        "http://main.localhost/echo?a=1",
    ),
    (
        "method and body of fetch",
        (
            'const init = { method: "PUT", body: "x" };'
            'return (await fetch("http://main.localhost/echo", init)).json()'
        ),
        ["PUT", "x", None],
    ),
    (
        "a Request object",
        (
            'const headers = { "x-a": "b" };'
            'const request = new Request("http://main.localhost/echo", { headers });'
            "return (await fetch(request)).json()"
        ),
        ["GET", "", "b"],
    ),
    (
        "a stream as body",
        (
            'const init = { method: "POST", body: new Response("s").body };'
            'return (await fetch("http://main.localhost/echo", init)).json()'
        ),
        ["POST", "s", None],
    ),
    (
        "FormData",
        (
            'const body = new FormData(); body.set("a", "b");'
            'const init = { method: "POST", body };'
            'const reply = await fetch("http://main.localhost/echo", init);'
            'return (await reply.json())[1].includes("b")'
        ),
        True,
    ),
    ("status of fetch", 'return (await fetch("http://main.localhost/418")).status', 418),
    ("ok of fetch", 'return (await fetch("http://main.localhost/418")).ok', False),
    ("204 has no body", 'return (await fetch("http://main.localhost/204")).text()', ""),
    ("HEAD", 'return (await fetch("http://main.localhost/echo", { method: "HEAD" })).text()', ""),
    (
        "redirect is followed",
        (
            'const reply = await fetch("http://main.localhost/302");'
            " return [reply.redirected, reply.url]"
        ),
        [True, "http://main.localhost/echo"],
    ),
    (
        "redirect manual",
        (
            'const init = { redirect: "manual" };'
            'return (await fetch("http://main.localhost/302", init)).status'
        ),
        302,
    ),
    (
        "an invalid URL",
        'return (await fails(fetch("nonsense")))[0]',
        "TypeError",
    ),
    (
        "an exception is an error page",
        (
            'const reply = await fetch("http://main.localhost/throw");'
            "return [reply.status, await reply.text()]"
        ),
        [500, "error code: 1101"],
    ),
    (
        "set-cookie stays apart",
        'return (await fetch("http://main.localhost/cookies")).headers.getSetCookie()',
        ["a=1", "b=2"],
    ),
    (
        "a header of the platform cannot be set",
        (
            'const headers = { "x-edgesim-id": "1", "x-edgesim-control": "done" };'
            'return (await fetch("http://main.localhost/echo", { headers })).json()'
        ),
        ["GET", "", None],
    ),
    (
        "an aborted fetch",
        (
            "const signal = AbortSignal.abort();"
            'return (await fails(fetch("http://main.localhost/echo", { signal })))[0]'
        ),
        "AbortError",
    ),
    (
        "a response from a stream",
        'return text((await fetch("http://main.localhost/stream")).body)',
        "part0part1part2",
    ),
    (
        "a gzip response",
        'return (await fetch("http://main.localhost/echo", { method: "POST", body: "z" })).json()',
        ["POST", "z", None],
    ),
]

SERVICES = [
    ("a method", "return env.SELF.add(1, 2)", 3),
    ("a method that is async", "return env.SELF.later('x')", "x"),
    (
        "an object",
        "return env.SELF.echo({ a: [1, null, { b: true }] })",
        {"a": [1, None, {"b": True}]},
    ),
    ("a field named as a tag", 'return env.SELF.echo({ $: "date", v: 1 })', {"$": "date", "v": 1}),
    ("a Date", "return (await env.SELF.echo(new Date(5))).getTime()", 5),
    (
        "bytes",
        "return [...new Uint8Array(await env.SELF.echo(new Uint8Array([1, 255])))]",
        [1, 255],
    ),
    ("NaN", "return Number.isNaN(await env.SELF.echo(NaN))", True),
    ("Infinity", "return (await env.SELF.echo(-Infinity)) === -Infinity", True),
    ("undefined", "return (await env.SELF.echo(undefined)) === null", True),
    (
        "an undefined field",
        "return Object.keys(await env.SELF.echo({ a: undefined, b: 1 }))",
        ["b"],
    ),
    ("a function", "return (await fails(env.SELF.echo(() => 1)))[0]", "DataCloneError"),
    ("a Map", "return (await fails(env.SELF.echo(new Map())))[0]", "DataCloneError"),
    (
        "a class instance",
        "return (await fails(env.SELF.echo(new (class A {})())))[0]",
        "DataCloneError",
    ),
    ("an exception", "return fails(env.SELF.fail())", ["RangeError", "bad luck"]),
    ("a missing method", "return (await fails(env.SELF.nothing()))[0]", "TypeError"),
    ("a private method", "return (await fails(env.SELF.fetch2()))[0]", "TypeError"),
    ("a handler is no method", "return (await fails(env.SELF.queue({})))[0]", "TypeError"),
    ("this.env", "return env.SELF.variable('TEXT')", "text"),
    ("of Python", "return env.PY.twice(21)", 42),
    ("None of Python", "return env.PY.nothing()", None),
    ("bytes of Python", "return [...new Uint8Array(await env.PY.data())]", [0, 255]),
    ("a date of Python", "return (await env.PY.date()).toISOString()", "1970-01-01T00:00:05.000Z"),
    ("a failure of Python", "return (await fails(env.PY.fail()))[1]", "ValueError: no"),
]

GLOBALS = [
    ("text variable", "return env.TEXT", "text"),
    ("JSON variable", "return env.DATA", {"a": [1]}),
    ("env everywhere", "return everywhere.TEXT", "text"),
    (
        "no name of edgesim on env",
        "return Object.keys(env).filter((name) => name.startsWith('EDGESIM'))",
        [],
    ),
    ("navigator", "return navigator.userAgent", "Cloudflare-Workers"),
    ("crypto.randomUUID", "return crypto.randomUUID().length", 36),
    ("structuredClone", "return structuredClone({ a: new Date(5) }).a.getTime()", 5),
    ("atob", 'return atob("aGk=")', "hi"),
    ("URLPattern", 'return new URLPattern({ pathname: "/:a" }).test("http://x/b")', True),
    ("setTimeout", "return new Promise((resolve) => setTimeout(resolve, 1, 5))", 5),
    ("queueMicrotask", "return new Promise((resolve) => queueMicrotask(() => resolve(1)))", 1),
    ("request.cf", "return typeof request.cf", "object"),
    ("GET has no body", "return request.body", None),
    ("ctx.waitUntil returns nothing", "return ctx.waitUntil(null) === undefined", True),
    ("eval is refused", 'return (await fails((async () => eval("1"))()))[0]', "EvalError"),
]

CASES = [*R2, *KV, *QUEUES, *HTTP, *SERVICES, *GLOBALS]
