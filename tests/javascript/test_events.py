"""JavaScript Workers: handlers, bindings, traces; the same at both levels.

Each level runs on one of the event loops: the loop runs the platform's side of a connection, which
is the same for both levels; a level decides only what workerd does with it.
"""

import json
from typing import Any

import anyio
import pytest

from edgesim.model import HttpRequest, Stream, read_all
from edgesim.r2.bucket import R2ObjectBody
from tests.javascript_world import running, write_javascript
from tests.simulated import ask, settle, write_worker

pytestmark = pytest.mark.anyio

PLACES = [("process", "asyncio"), ("warm", "uvloop")]


@pytest.fixture(params=PLACES, ids="-".join)
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    level, loop = request.param
    return level, loop


@pytest.fixture
def level(place: tuple[str, str]) -> str:
    return place[0]


@pytest.fixture(name="anyio_backend")
def loop_of_the_place(place: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": place[1] == "uvloop"}


async def content(simulator, bucket, key):
    """Return the bytes of an object."""
    found = await simulator.primitives.bucket(bucket).get(key)
    assert isinstance(found, R2ObjectBody)
    return await read_all(found.body)


async def answer(folder, body, level="warm", headers=None, **settings):
    """Run the body of a fetch handler, and return the JSON that it returns."""
    source = f"""
    export default {{
      async fetch(request, env, ctx) {{
        return Response.json(await (async () => {{ {body} }})() ?? null);
      }},
    }};
    """
    write_javascript(folder, "main", source, **settings)
    async with running(folder, "main", isolation=level) as simulator:
        status, text = await ask(simulator, headers=headers)
    assert status == 200, text
    return json.loads(text)


# --- fetch ---


async def test_a_request_arrives_whole(tmp_path, level):
    """Method, URL, headers, cf and body reach the handler; status and headers come back."""
    write_javascript(
        tmp_path,
        "main",
        """
        export default {
          async fetch(request) {
            const got = [request.method, request.url, request.headers.get("x-a"),
              [...request.headers.keys()], request.cf.colo, await request.text()];
            return new Response(JSON.stringify(got), {
              status: 201, statusText: "Made", headers: { "x-b": "c" } });
          },
        };
        """,
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        request = HttpRequest("PUT", "https://x/p?q=1", [("x-a", "b")], b"body", {"colo": "AMS"})
        response = await simulator.fetch(request)
        assert (response.status, response.status_text) == (201, "Made")
        assert response.header("x-b") == "c"
        assert json.loads(await read_all(response.body)) == [
            *("PUT", "https://x/p?q=1", "b", ["content-length", "x-a"], "AMS", "body")
        ]


async def test_bodies_stream_both_ways(tmp_path, level):
    """A large body crosses in both directions without being held in memory as one piece."""
    write_javascript(
        tmp_path,
        "main",
        "export default { fetch: (request) => new Response(request.body) };",
    )
    size = 20 << 20

    async def chunks():
        for _ in range(size >> 16):
            yield b"x" * (1 << 16)

    async with running(tmp_path, "main", isolation=level) as simulator:
        request = HttpRequest("POST", "http://x/", [], Stream(chunks(), size))
        response = await simulator.fetch(request)
        assert isinstance(response.body, Stream)
        received = 0
        async for chunk in response.body:
            received += len(chunk)
        assert received == size


async def test_variables_are_what_the_file_says(tmp_path, level):
    """Text with any character, JSON of any depth, secrets; also by the global env."""
    given = {"TEXT": 'ä"\n\\', "DATA": {"a": [1, {"b": None}]}}
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / ".dev.vars").write_text("SECRET=s\n")
    write_javascript(
        tmp_path,
        "main",
        """
        import { env as everywhere } from "cloudflare:workers";
        const early = everywhere.TEXT;
        export default {
          fetch: (request, env) => Response.json([env, Object.keys(everywhere).sort(), early]),
        };
        """,
        vars=given,
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        env, names, early = json.loads((await ask(simulator))[1])
        assert env == given | {"SECRET": "s"}
        assert names == ["DATA", "SECRET", "TEXT"]
        assert early == given["TEXT"]


async def test_isolates_are_fresh_or_shared(tmp_path, level):
    """Module state lives on at the level warm, and is new for each invocation at process."""
    write_javascript(
        tmp_path, "main", "let n = 0; export default { fetch: () => new Response(String(++n)) };"
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        seen = [(await ask(simulator))[1] for _ in range(3)]
    assert seen == ([b"1"] * 3 if level == "process" else [b"1", b"2", b"3"])


# --- traces ---


async def trace(folder, body, level, imports="", **settings):
    """Run the body of a fetch handler, and return the trace that a Tail Worker received."""
    write_javascript(
        folder,
        "main",
        f"{imports}export default {{ async fetch(request, env, ctx) {{\n{body}\n}} }};",
        main="src/index.ts",
        tail_consumers=[{"service": "seen"}],
        **settings,
    )
    write_javascript(
        folder,
        "seen",
        """
        export default {
          async tail(items, env) {
            for (const item of items) await env.B.put("trace", JSON.stringify(item));
          },
        };
        """,
        r2_buckets=[{"binding": "B", "bucket_name": "seen"}],
    )
    async with running(folder, "main", "seen", isolation=level) as simulator:
        await ask(simulator)
        await settle(simulator)
        found = await content(simulator, "seen", "trace")
        return json.loads(found)


async def test_console_calls_are_in_the_trace_in_order(tmp_path, level):
    """Levels, order and values: JSON for data, text for other objects."""
    item = await trace(
        tmp_path,
        """
        console.log("a", 1, null, undefined, true, 10n, NaN);
        console.warn({ a: 1, u: undefined }, [1, undefined], new Date(0));
        console.error(new TypeError("t"), new Map(), /x/, Symbol("s"), () => 1);
        console.debug("%s", "b"); console.info();
        return new Response("ok");
        """,
        level,
    )
    assert [(log["level"], log["message"]) for log in item["logs"]] == [
        ("log", ["a", 1, None, None, True, "10", None]),
        ("warn", [{"a": 1}, [1, None], "1970-01-01T00:00:00.000Z"]),
        ("error", ["TypeError: t", "[object Map]", "/x/", {}, "() => 1"]),
        ("debug", ["%s", "b"]),
        ("info", []),
    ]
    assert (item["outcome"], item["scriptName"]) == ("ok", "main")
    assert item["event"]["response"] == {"status": 200}


async def test_an_exception_names_its_place_in_the_source(tmp_path, level):
    """Name, message, and a stack of the files that were written, not of the bundle."""
    item = await trace(tmp_path, "const no: any = null;\nreturn no.thing;", level)
    (found,) = item["exceptions"]
    assert item["outcome"] == "exception"
    assert found["name"] == "TypeError"
    assert "thing" in found["message"]
    assert found["stack"] == "    at Object.fetch (src/index.ts:3:11)"


async def test_a_trace_has_every_field_of_the_platforms(tmp_path, level):
    """Also the messages of diagnostics channels, in order; times are whole milliseconds."""
    item = await trace(
        tmp_path,
        """
        const orders = channel("orders");
        orders.publish({ number: 7, at: new Date(0) });
        channel("other").publish("text");
        return new Response("ok");
        """,
        level,
        'import { channel } from "node:diagnostics_channel"; ',
        compatibility_flags=["nodejs_compat"],
    )
    assert [(each["channel"], each["message"]) for each in item["diagnosticsChannelEvents"]] == [
        ("orders", {"number": 7, "at": "1970-01-01T00:00:00.000Z"}),
        ("other", "text"),
    ]
    assert all(each["timestamp"] > 1_700_000_000_000 for each in item["diagnosticsChannelEvents"])
    assert len(item["scriptVersion"]["id"]) == 36
    assert (item["executionModel"], item["truncated"]) == ("stateless", False)
    assert isinstance(item["cpuTime"], int)
    assert isinstance(item["wallTime"], int)


async def test_diagnostics_beyond_the_budget_truncate_the_trace(tmp_path, level):
    """Messages that fit are there, and the trace says that something is missing."""
    item = await trace(
        tmp_path,
        """
        for (let count = 0; count < 50; count++) channel("c").publish("x".repeat(10_000));
        return new Response("ok");
        """,
        level,
        'import { channel } from "node:diagnostics_channel"; ',
        compatibility_flags=["nodejs_compat"],
    )
    assert 20 <= len(item["diagnosticsChannelEvents"]) < 28
    assert item["truncated"] is True


async def test_waituntil_work_is_part_of_the_invocation(tmp_path, level):
    """Its logs come before the trace, and its exception is the invocation's."""
    item = await trace(
        tmp_path,
        """
        ctx.waitUntil((async () => {
          await scheduler.wait(20); console.log("late"); throw new RangeError("no");
        })());
        return new Response("ok");
        """,
        level,
    )
    assert [log["message"] for log in item["logs"]] == [["late"]]
    assert [(each["name"], each["message"]) for each in item["exceptions"]] == [
        ("RangeError", "no")
    ]
    assert item["outcome"] == "exception"
    assert item["event"]["response"] == {"status": 200}


async def test_a_promise_that_never_resolves_is_the_platforms_exception(tmp_path, level):
    """workerd notices that the handler waits for nothing; the trace has its text."""
    item = await trace(tmp_path, "await new Promise(() => {});", level)
    assert item["outcome"] == "exception"
    assert "your Worker's code had hung" in item["exceptions"][0]["message"]


# --- queues, crons ---


async def test_a_queue_carries_values_from_producer_to_consumer(tmp_path, level):
    """Content types, ids, attempts and decisions: ack, retry with a delay, the batch's rest."""
    write_javascript(
        tmp_path,
        "main",
        """
        export default {
          async fetch(request, env) {
            await env.Q.send({ at: new Date(0), n: 1, u: undefined });
            await env.Q.send("text", { contentType: "text" });
            await env.Q.send(new Uint8Array([1, 2]), { contentType: "bytes" });
            await env.Q.sendBatch([{ body: [1] }, { body: new Date(5), contentType: "v8" }]);
            return new Response("sent");
          },
          async queue(batch, env) {
            for (const { id, body, attempts, timestamp, ...message } of batch.messages) {
              const bytes = body instanceof ArrayBuffer ? [...new Uint8Array(body)] : body;
              await env.B.put(id, JSON.stringify([batch.queue, bytes, body instanceof Date,
                timestamp instanceof Date, id.length, attempts]));
            }
            batch.messages[0].retry({ delaySeconds: 0 });
            if (batch.messages.length === 1) batch.messages[0].ack();
          },
        };
        """,
        queues={
            "producers": [{"binding": "Q", "queue": "q"}],
            "consumers": [{"queue": "q", "max_batch_size": 5, "max_batch_timeout": 1}],
        },
        r2_buckets=[{"binding": "B", "bucket_name": "seen"}],
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        assert (await ask(simulator))[1] == b"sent"
        await settle(simulator)
        seen = []
        async for found in simulator.primitives.objects("seen", ""):
            got = await content(simulator, "seen", found.key)
            seen.append(json.loads(got))
        bodies = [json.dumps(each[1]) for each in seen]
        assert sorted(bodies) == sorted(
            map(
                json.dumps,
                [
                    {"at": "1970-01-01T00:00:00.000Z", "n": 1},
                    "text",
                    [1, 2],
                    [1],
                    "1970-01-01T00:00:00.005Z",
                ],
            )
        )
        assert all(each[0] == "q" and each[3:5] == [True, 32] for each in seen)
        assert [each[2] for each in seen if each[1] == "1970-01-01T00:00:00.005Z"] == [True]
        assert {each[5] for each in seen} >= {1}


async def test_a_scheduled_handler_gets_its_controller(tmp_path, level):
    """cron and scheduledTime are the trigger's."""
    write_javascript(
        tmp_path,
        "main",
        """
        export default {
          fetch: () => new Response(),
          async scheduled(controller, env) {
            controller.noRetry();
            await env.B.put("seen", JSON.stringify(controller));
          },
        };
        """,
        triggers={"crons": ["0 3 * * *"]},
        r2_buckets=[{"binding": "B", "bucket_name": "seen"}],
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        assert await simulator.scheduled("main", "0 3 * * *", 60_000) == "ok"
        found = await content(simulator, "seen", "seen")
        got = json.loads(found)
        assert got == {"cron": "0 3 * * *", "scheduledTime": 60_000}


# --- R2 ---


async def test_an_object_comes_back_as_it_was_put(tmp_path, level):
    """Bytes, metadata, checksums, ranges, conditions, listings and deletes."""
    found = await answer(
        tmp_path,
        """
        const expiry = new Date(86_400_000);
        const put = await env.B.put("k", "hello", {
          httpMetadata: { contentType: "text/x", cacheExpiry: expiry },
          customMetadata: { a: "1" },
        });
        const got = await env.B.get("k");
        const headers = new Headers();
        got.writeHttpMetadata(headers);
        const part = await env.B.get("k", { range: { offset: 1, length: 3 } });
        const missed = await env.B.get("k", { onlyIf: { etagMatches: "none" } });
        const listed = await env.B.list({ include: ["httpMetadata", "customMetadata"] });
        const result = [put.key, put.size, put.etag, put.httpEtag, put.uploaded instanceof Date,
          await got.text(), [...headers], got.customMetadata,
          new Uint8Array(got.checksums.md5).length, JSON.stringify(got.checksums),
          await part.text(), part.range, missed.body === undefined, missed.size,
          listed.objects.map((each) => [each.key, each.customMetadata]), listed.truncated,
          await env.B.head("none"), await env.B.get("none")];
        await env.B.delete("k");
        return [...result, await env.B.head("k")];
        """,
        level,
        r2_buckets=[{"binding": "B", "bucket_name": "bucket"}],
    )
    md5 = "5d41402abc4b2a76b9719d911017c592"
    assert found == [
        *("k", 5, md5, f'"{md5}"', True, "hello"),
        [["content-type", "text/x"], ["expires", "Fri, 02 Jan 1970 00:00:00 GMT"]],
        *({"a": "1"}, 16, json.dumps({"md5": md5}, separators=(",", ":"))),
        *("ell", {"offset": 1, "length": 3}, True, 5),
        *([["k", {"a": "1"}]], False, None, None, None),
    ]


async def test_a_multipart_upload_makes_one_object(tmp_path, level):
    """Parts of 5 MiB and the rest, completed in order."""
    size = await answer(
        tmp_path,
        """
        const upload = await env.B.createMultipartUpload("k", { customMetadata: { a: "1" } });
        const again = env.B.resumeMultipartUpload(upload.key, upload.uploadId);
        const parts = [await again.uploadPart(1, new Uint8Array(5 << 20)),
          await again.uploadPart(2, "rest")];
        const object = await upload.complete(parts);
        return [object.size, object.customMetadata.a];
        """,
        level,
        r2_buckets=[{"binding": "B", "bucket_name": "bucket"}],
    )
    assert size == [(5 << 20) + 4, "1"]


async def test_a_stream_of_unknown_length_is_no_body_for_r2(tmp_path, level):
    """The platform's TypeError; a FixedLengthStream and a request's body are taken."""
    said = await answer(
        tmp_path,
        """
        const stream = () => new ReadableStream({ start(c) {
          c.enqueue(new TextEncoder().encode("abc")); c.close(); } });
        const fixed = new FixedLengthStream(3);
        const [, put] = await Promise.all([
          stream().pipeTo(fixed.writable), env.B.put("k", fixed.readable)]);
        try { await env.B.put("k", stream()); } catch (error) {
          return [put.size, error.name, error.message];
        }
        """,
        level,
        r2_buckets=[{"binding": "B", "bucket_name": "bucket"}],
    )
    assert said[:2] == [3, "TypeError"]
    assert said[2].startswith("Provided readable stream must have a known length")


# --- services ---

CALLER = """
export default {
  async fetch(request, env) {
    const reply = await env.B.fetch("http://any/p", { method: "POST", body: "text" });
    const failed = await env.B.fail().catch((error) => [error.name, error.message]);
    const result = await env.B.echo({ n: 1, list: [null, true], at: new Date(5) }, "x");
    return Response.json([reply.status, await reply.text(), failed, result]);
  },
};
"""
CALLEE = """
import { WorkerEntrypoint } from "cloudflare:workers";
export default class extends WorkerEntrypoint {
  async fetch(request) {
    const { method, url } = request;
    return new Response(`${method} ${url} ${await request.text()}`, { status: 201 });
  }
  async fail() { throw new RangeError("bad luck"); }
  async echo(value, text) { return { value, text, year: value.at.getUTCFullYear() }; }
}
"""
PYTHON_CALLEE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        text = await request.text()
        return Response(f"{request.method} {request.url} {text}", status=201)
    async def fail(self):
        raise RangeError("bad luck")
    async def echo(self, value, text):
        return {"value": value, "text": text, "year": value["at"].year}
"""
PYTHON_CALLER = """
from datetime import datetime
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        reply = await self.env.B.fetch("http://any/p", method="POST", body="text")
        try:
            await self.env.B.fail()
        except Exception as error:
            failed = str(error)
        result = await self.env.B.echo({"n": 1, "at": datetime(1970, 1, 1)}, "x")
        return Response(json.dumps([reply.status, await reply.text(), failed, result["year"]]))
"""


async def test_a_service_of_javascript_is_called_by_fetch_and_rpc(tmp_path, level):
    """Requests, arguments, results and exceptions cross between two JavaScript Workers."""
    write_javascript(tmp_path, "main", CALLER, services=[{"binding": "B", "service": "b"}])
    write_javascript(tmp_path, "b", CALLEE)
    async with running(tmp_path, "main", "b", isolation=level) as simulator:
        status, text, failed, result = json.loads((await ask(simulator))[1])
    assert (status, text) == (201, "POST http://any/p text")
    assert failed == ["RangeError", "bad luck"]
    at = "1970-01-01T00:00:00.005Z"
    value = {"n": 1, "list": [None, True], "at": at}
    assert result == {"value": value, "text": "x", "year": 1970}


async def test_javascript_calls_python(tmp_path, level):
    """The same calls, to a Worker in Python."""
    write_javascript(tmp_path, "main", CALLER, services=[{"binding": "B", "service": "b"}])
    write_worker(tmp_path, "b", PYTHON_CALLEE)
    async with running(tmp_path, "main", "b", isolation=level) as simulator:
        status, text, failed, result = json.loads((await ask(simulator))[1])
    assert (status, text) == (201, "POST http://any/p text")
    assert failed[1].startswith("NameError")
    assert (result["text"], result["year"]) == ("x", 1970)


async def test_python_calls_javascript(tmp_path, level):
    """The same calls, from a Worker in Python."""
    write_worker(tmp_path, "main", PYTHON_CALLER, services=[{"binding": "B", "service": "b"}])
    write_javascript(tmp_path, "b", CALLEE)
    async with running(tmp_path, "main", "b", isolation=level) as simulator:
        status, text, failed, year = json.loads((await ask(simulator))[1])
    assert (status, text, year) == (201, "POST http://any/p text", 1970)
    assert "bad luck" in failed


async def test_a_named_entrypoint_and_its_private_methods(tmp_path, level):
    """A binding reaches the class that it names; what the class does not define is refused."""
    write_javascript(
        tmp_path,
        "main",
        """
        import { WorkerEntrypoint } from "cloudflare:workers";
        export class Admin extends WorkerEntrypoint {
          who() { return [this.env.ME, typeof this.ctx.waitUntil]; }
        }
        export default {
          async fetch(request, env) {
            const said = async (call) => call().catch((error) => error.message);
            return Response.json([await env.SELF.who(), await said(() => env.SELF.none()),
              await said(() => env.SELF.constructor())]);
          },
        };
        """,
        vars={"ME": "me"},
        services=[{"binding": "SELF", "service": "main", "entrypoint": "Admin"}],
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        who, none, constructor = json.loads((await ask(simulator))[1])
    assert who == ["me", "function"]
    assert none == 'The RPC receiver does not implement the method "none".'
    assert "constructor" in constructor


async def test_fetch_goes_through_the_platform(tmp_path, level):
    """Another Worker by its host; redirects are followed; a failure is an exception."""
    write_javascript(
        tmp_path,
        "main",
        """
        export default {
          async fetch(request) {
            const url = new URL(request.url);
            if (url.pathname === "/here") return new Response("here " + request.headers.get("x-a"));
            if (url.pathname === "/there") return Response.redirect("http://main.localhost/here");
            const reply = await fetch("http://main.localhost/there", { headers: { "x-a": "b" } });
            const failed = await fetch("http://no-such-host.invalid/").catch((e) => e.message);
            return Response.json([await reply.text(), reply.url, reply.redirected,
              failed.includes("Network connection lost")]);
          },
        };
        """,
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        assert json.loads((await ask(simulator))[1]) == [
            *("here b", "http://main.localhost/here", True, True)
        ]


async def test_a_pipeline_takes_records(tmp_path, level):
    """PIPELINE.send returns when the records are safe; what is no array is refused."""
    write_javascript(
        tmp_path,
        "main",
        """
        export default {
          async fetch(request, env) {
            await env.P.send([{ a: 1 }, { b: [null] }]);
            return new Response(await env.P.send("x").catch((error) => error.name));
          },
        };
        """,
        pipelines=[{"binding": "P", "stream": "events"}],
    )
    account = '[pipelines.events]\nbucket = "events"\nmax_seconds = 300\ncompression = "none"\n'
    async with running(tmp_path, "main", isolation=level, account=account) as simulator:
        assert "Error" in (await ask(simulator))[1].decode()
        await settle(simulator)
        lines = []
        async for found in simulator.primitives.objects("events", ""):
            got = await content(simulator, "events", found.key)
            lines += [json.loads(each) for each in (got).splitlines()]
        assert lines == [{"a": 1}, {"b": [None]}]


async def test_many_invocations_at_a_time_keep_apart(tmp_path, level):
    """Each of 40 simultaneous requests has its own logs, calls and response."""
    write_javascript(
        tmp_path,
        "main",
        """
        export default {
          async fetch(request, env) {
            const name = new URL(request.url).searchParams.get("n");
            await env.B.put(name, name);
            await scheduler.wait(5);
            return new Response(await (await env.B.get(name)).text());
          },
        };
        """,
        r2_buckets=[{"binding": "B", "bucket_name": "bucket"}],
    )
    async with running(tmp_path, "main", isolation=level) as simulator:
        seen = {}

        async def one(number):
            seen[number] = (await ask(simulator, f"http://x/?n={number}"))[1]

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(one, number)
        assert seen == {number: str(number).encode() for number in range(40)}
