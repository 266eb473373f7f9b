"""Calls between Workers: service bindings, routes, environments, cf, schedules.

Sections are those of the platform's facts: the Python API (1), runtime semantics (6), wrangler's
configuration (7).
"""

import gc
import json

import anyio
import anyio.lowlevel
import pytest
import structlog

from edgesim.clock import Clock
from edgesim.config.wrangler import load_worker
from edgesim.errors import ConfigError
from edgesim.model import HttpRequest, HttpResponse, read_all
from edgesim.r2.bucket import R2ObjectBody
from tests.loops import on_both_loops  # noqa: F401 (every test here runs on both loops)
from tests.simulated import ask, settle, simulated, write_worker

pytestmark = pytest.mark.anyio

NAMED = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(self.env.ME + " " + request.url)
"""
FETCHER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        answer = await fetch(request.headers["x-target"])
        return Response(await answer.text(), status=answer.status)
"""


def named(folder, name, **settings):
    write_worker(folder, name, NAMED, **({"vars": {"ME": name}} | settings))


# --- service bindings ---


async def test_fetch_by_service_binding(tmp_path):
    """Section 1.5: the URL's host is arbitrary; the callee receives method, URL and body."""
    write_worker(
        tmp_path,
        "main",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                answer = await self.env.B.fetch("http://any/p?q=1", method="PUT", body="text")
                return Response(await answer.text(), status=answer.status)
        """,
        services=[{"binding": "B", "service": "b"}],
    )
    write_worker(
        tmp_path,
        "b",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(f"{request.method} {request.url} {await request.text()}", 201)
        """,
    )
    async with simulated(tmp_path, "main", "b") as simulator:
        assert await ask(simulator) == (201, b"PUT http://any/p?q=1 text")


RPC = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        try:
            return Response(str(await self.env.B.{call}))
        except Exception as error:
            return Response(f"{{type(error).__name__}}: {{error}}")
"""
CALLEE = """
class Default(WorkerEntrypoint):
    async def add(self, a, b):
        return a + b
    async def fail(self):
        raise ValueError("bad luck")
    async def size(self, data):
        return len(bytes(data))
    async def large(self):
        return b"x" * (33 << 20)
    async def again(self, depth):
        return await self.env.B.again(depth + 1) if depth < 100 else depth
"""


async def call(folder, expression):
    binding = [{"binding": "B", "service": "b"}]
    write_worker(folder, "main", RPC.format(call=expression), services=binding)
    write_worker(folder, "b", CALLEE, services=binding)
    async with simulated(folder, "main", "b") as simulator:
        return (await ask(simulator))[1].decode()


async def test_rpc(tmp_path):
    """Section 1.5: a public method of the callee is called with copies of the arguments."""
    assert await call(tmp_path, "add([1], [2])") == "[1, 2]"


async def test_rpc_raises_at_the_caller(tmp_path):
    """Section 1.5: the callee's exception is raised at the caller."""
    assert "ValueError: bad luck" in await call(tmp_path, "fail()")


async def test_rpc_of_a_method_that_is_not_there(tmp_path):
    """Section 1.5: the platform's own TypeError."""
    said = await call(tmp_path, "nothing()")
    assert "Method nothing does not exist" in said


@pytest.mark.parametrize("expression", ["size(b'x' * (33 << 20))", "large()"])
async def test_rpc_is_limited_to_32_mib(tmp_path, expression):
    """Section 1.5: larger arguments or results are refused with their size."""
    said = await call(tmp_path, expression)
    assert "limited to 32MiB, but the size of this value was: 3460" in said


async def test_rpc_below_the_limit(tmp_path):
    """Section 1.5: 31 MiB are accepted."""
    assert await call(tmp_path, "size(b'x' * (31 << 20))") == str(31 << 20)


async def test_rpc_that_calls_itself_ends(tmp_path):
    """Section 6: a call chain of more than 16 Workers is refused, error 1019."""
    assert "1019" in await call(tmp_path, "again(0)")


LEVELS = ["process", "warm", "inline"]
ADMIN = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("default")
    async def who(self):
        return "default"

class Named(WorkerEntrypoint):
    async def who(self):
        return f"{{type(self).__name__}} of {{self.env.ME}}"

class {name}(Named):
    async def fetch(self, request):
        return Response(f"{name} {{request.method}}")
"""
ASKING = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        said = []
        for call in (lambda: self.env.B.fetch("http://b/", method="PUT"), lambda: self.env.B.who()):
            try:
                answer = await call()
                said.append(answer if isinstance(answer, str) else await answer.text())
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        return Response(" | ".join(said))
"""


def bound_to(service, entrypoint):
    return {"services": [{"binding": "B", "service": service, "entrypoint": entrypoint}]}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("entrypoint", "said"),
    [
        ("Admin", b"Admin PUT | Admin of b"),
        ("Default", b"default | default"),
        ("default", b"default | default"),
    ],
)
async def test_named_entrypoint(tmp_path, level, entrypoint, said):
    """Section 7: fetch and RPC reach the class that the binding names, with the callee's env."""
    write_worker(tmp_path, "a", ASKING, **bound_to("b", entrypoint))
    write_worker(tmp_path, "b", ADMIN.format(name="Admin"), vars={"ME": "b"})
    async with simulated(tmp_path, "a", "b", isolation=level) as simulator:
        assert await ask(simulator) == (200, said)


@pytest.mark.parametrize("level", LEVELS)
async def test_named_entrypoint_of_the_worker_itself(tmp_path, level):
    """Section 7: a Worker may bind a class of its own."""
    source = ASKING + ADMIN.format(name="Admin").partition("\n\n")[2]
    write_worker(tmp_path, "a", source, vars={"ME": "a"}, **bound_to("a", "Admin"))
    async with simulated(tmp_path, "a", isolation=level) as simulator:
        assert await ask(simulator) == (200, b"Admin PUT | Admin of a")


@pytest.mark.parametrize("level", LEVELS)
async def test_entrypoint_that_is_not_there_is_refused_at_the_start(tmp_path, level):
    """Section 7: said with file, key and the classes that the callee has."""
    write_worker(tmp_path, "a", ASKING, **bound_to("b", "Admn"))
    write_worker(tmp_path, "b", ADMIN.format(name="Admin"))
    problem = r"a/wrangler.json: services\[0\]\.entrypoint: .* no class Admn.*Admin, Default, Named"
    with pytest.raises(ConfigError, match=problem):
        async with simulated(tmp_path, "a", "b", isolation=level):
            pass


async def test_entrypoint_that_a_reload_takes_away(tmp_path):
    """Calls raise where the callee runs in a version without the class; a new caller is refused."""
    write_worker(tmp_path, "a", ASKING, **bound_to("b", "Admin"))
    write_worker(tmp_path, "b", ADMIN.format(name="Admin"), vars={"ME": "b"})
    async with simulated(tmp_path, "a", "b") as simulator:
        write_worker(tmp_path, "b", ADMIN.format(name="Root"), vars={"ME": "b"})
        await simulator.workers.start(load_worker(tmp_path / "b"))
        missing = 'The Worker "b" has no entrypoint "Admin".'
        status, said = await ask(simulator)
        assert (status, said.decode().count(missing)) == (200, 2)
        with pytest.raises(ConfigError, match="it has: Default, Named, Root"):
            await simulator.workers.start(load_worker(tmp_path / "a"))


async def test_trace_names_the_entrypoint(tmp_path):
    """Section 6: a trace has the class that was called; the default one has no name."""
    write_worker(tmp_path, "a", ASKING, **bound_to("b", "Admin"), tail_consumers=[{"service": "t"}])
    write_worker(
        tmp_path,
        "b",
        ADMIN.format(name="Admin"),
        vars={"ME": "b"},
        tail_consumers=[{"service": "t"}],
    )
    write_worker(
        tmp_path,
        "t",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response("")
            async def tail(self, events, env=None, ctx=None):
                for each in events:
                    method = getattr(each.event, "rpcMethod", None)
                    key = f"{each.scriptName} {each.entrypoint} {method}"
                    await self.env.BUCKET.put(key, "")
        """,
        r2_buckets=[{"binding": "BUCKET", "bucket_name": "seen"}],
    )
    async with simulated(tmp_path, "a", "b", "t") as simulator:
        await ask(simulator)
        await settle(simulator)
        keys = [each.key async for each in simulator.primitives.objects("seen", "")]
        assert keys == ["a None None", "b Admin None", "b Admin who"]


CRON = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        try:
            result = await self.env.B.scheduled({options})
            return Response(f"{{result.outcome}} {{result.noRetry}}")
        except Exception as error:
            return Response(str(error))
"""
TIMED = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("")
    async def scheduled(self, controller, env=None, ctx=None):
        assert (controller.cron, int(controller.scheduledTime)) == ("0 5 * * *", 7000)
        controller.noRetry()
"""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("scheduledTime=7000, cron='0 5 * * *'", b"ok True"),
        ("{'scheduledTime': 7000, 'cron': '0 5 * * *'}", b"ok True"),
        ("cron='other'", b"exception False"),
        ("scheduledTime='soon'", b"scheduledTime is not a Date"),
    ],
)
async def test_scheduled_by_service_binding(tmp_path, level, options, said):
    """With the flag a caller runs the callee's scheduled handler, and is told of its outcome."""
    settings = {"compatibility_flags": ["service_binding_extra_handlers"]}
    bound = bound_to("b", "Default")["services"]
    write_worker(tmp_path, "a", CRON.format(options=options), services=bound, **settings)
    write_worker(tmp_path, "b", TIMED)
    async with simulated(tmp_path, "a", "b", isolation=level) as simulator:
        status, answer = await ask(simulator)
        assert status == 200
        assert said in answer


async def test_scheduled_without_the_flag_is_a_method(tmp_path):
    """Without it the name means an RPC method, which gets what the caller gave."""
    write_worker(tmp_path, "a", CRON.format(options="cron='x'"), **bound_to("b", "Default"))
    write_worker(
        tmp_path,
        "b",
        """
        class Default(WorkerEntrypoint):
            async def scheduled(self, options):
                return {"outcome": options["cron"], "noRetry": "method"}
        """,
    )
    async with simulated(tmp_path, "a", "b") as simulator:
        assert (await ask(simulator))[1] == b"x method"


async def test_gateway_has_no_entrypoints(tmp_path):
    """A class cannot be named in a binding to the ClickHouse gateway."""
    write_worker(tmp_path, "a", NAMED, **bound_to("clickhouse", "Admin"))
    with pytest.raises(
        ConfigError, match=r"services\[0\]\.entrypoint: is not for the ClickHouse gateway"
    ):
        async with simulated(tmp_path, "a"):
            pass


# --- URLs ---


async def test_a_fetch_of_a_route_goes_to_its_worker(tmp_path):
    """Section 6: a URL that another zone's route matches is served by that Worker."""
    write_worker(tmp_path, "main", FETCHER)
    named(tmp_path, "api", routes=["api.example.com/v1/*"])
    async with simulated(tmp_path, "main", "api") as simulator:
        answer = await ask(simulator, headers={"x-target": "https://api.example.com/v1/x"})
    assert answer == (200, b"api https://api.example.com/v1/x")


async def test_the_most_specific_route_counts(tmp_path):
    """Section 7: of several matching routes the most specific one applies."""
    write_worker(tmp_path, "main", FETCHER)
    named(tmp_path, "wide", route="*example.com/*")
    named(tmp_path, "narrow", routes=[{"pattern": "example.com/a/*", "zone_name": "example.com"}])
    async with simulated(tmp_path, "main", "wide", "narrow") as simulator:
        for path, worker in (("a/b", b"narrow"), ("b", b"wide")):
            target = f"http://example.com/{path}"
            _, body = await ask(simulator, headers={"x-target": target})
            assert body == worker + b" " + target.encode()


@pytest.mark.parametrize(
    ("flags", "warned"), [([], True), (["global_fetch_strictly_public"], False)]
)
async def test_another_worker_of_the_zone(tmp_path, flags, warned):
    """Section 6: it responds; without the flag the log warns of the platform's error 1042."""
    write_worker(tmp_path, "main", FETCHER, compatibility_flags=flags)
    named(tmp_path, "b")
    with structlog.testing.capture_logs() as logs:
        async with simulated(tmp_path, "main", "b") as simulator:
            status, body = await ask(simulator, headers={"x-target": "https://b.me.workers.dev/"})
    assert (status, body[:2]) == (200, b"b ")
    assert any("1042" in entry["event"] for entry in logs) is warned


async def test_a_custom_domain_may_be_fetched_in_its_zone(tmp_path):
    """Section 6: custom domains, unlike routes, are fetched in their own zone without a warning."""
    write_worker(tmp_path, "main", FETCHER, route="www.example.com/*")
    named(tmp_path, "app", routes=[{"pattern": "app.example.com", "custom_domain": True}])
    named(tmp_path, "old", routes=["old.example.com/*"])
    async with simulated(tmp_path, "main", "app", "old") as simulator:
        for host, warned in (("app", False), ("old", True)):
            with structlog.testing.capture_logs() as logs:
                status, _ = await ask(
                    simulator, headers={"x-target": f"http://{host}.example.com/"}
                )
            assert status == 200
            assert any("1042" in entry["event"] for entry in logs) is warned


async def test_a_worker_that_fetches_itself_ends(tmp_path):
    """Section 6: after a chain of 16 Workers the response is error 1019."""
    write_worker(
        tmp_path,
        "main",
        FETCHER.replace(
            'request.headers["x-target"])', "request.url, headers=dict(request.headers))"
        ),
    )
    async with simulated(tmp_path, "main") as simulator:
        assert await ask(simulator, "http://main.localhost/") == (500, b"error code: 1019")
        await settle(simulator)
        assert simulator.workers["main"].outcomes == {"ok": 17}


# --- configuration ---


async def test_an_environment_is_another_worker(tmp_path):
    """Section 7: <name>-<env>; bindings and vars are its own, routes and limits are inherited."""
    named(
        tmp_path,
        "main",
        route="example.com/*",
        limits={"subrequests": 7},
        vars={"ME": "top", "ONLY": "top"},
        env={"staging": {"vars": {"ME": "staged"}}},
    )
    async with simulated(tmp_path, "main", environment="staging") as simulator:
        assert list(simulator.workers) == ["main-staging"]
        assert await ask(simulator) == (200, b"staged http://x/")
        config = simulator.project.workers["main-staging"]
        assert config.settings.vars == {"ME": "staged"}
        assert config.settings.limits.subrequests == 7
        assert [route.host for route in config.routes] == ["example.com"]


async def test_what_an_environment_does_not_inherit_is_said(tmp_path):
    """Section 7: a warning names each binding that is at the top level only."""
    named(tmp_path, "main", env={"staging": {}})
    async with simulated(tmp_path, "main", environment="staging") as simulator:
        [warning] = simulator.project.workers["main-staging"].warnings
    assert warning.startswith("vars is at the top level but not in env.staging")


async def test_an_environment_that_is_not_there(tmp_path):
    """Section 7: an error if the file has other environments, else the top level applies."""
    named(tmp_path, "main", env={"production": {}})
    with pytest.raises(ConfigError, match=r"no env\.staging; known: production"):
        async with simulated(tmp_path, "main", environment="staging"):
            pass
    named(tmp_path, "main")
    async with simulated(tmp_path, "main", environment="staging") as simulator:
        assert await ask(simulator) == (200, b"main http://x/")


async def test_environments_reach_each_other_by_whole_names(tmp_path):
    """Section 7: services use <name>-<env>; tail_consumers may name the environment separately."""
    write_worker(
        tmp_path,
        "main",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return await self.env.B.fetch("http://b/")
        """,
        env={
            "x": {
                "services": [{"binding": "B", "service": "b-x"}],
                "tail_consumers": [{"service": "t", "environment": "x"}],
            }
        },
    )
    named(tmp_path, "b")
    write_worker(
        tmp_path,
        "t",
        """
        class Default(WorkerEntrypoint):
            async def tail(self, events, env=None, ctx=None):
                pass
        """,
    )
    async with simulated(tmp_path, "main", "b", "t", environment="x") as simulator:
        assert await ask(simulator) == (200, b"b http://b/")
        await settle(simulator)
        assert simulator.workers["t-x"].outcomes == {"ok": 1}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "var"),
        ({".env": "A=dotenv"}, "dotenv"),
        ({".env": "A=dotenv", ".dev.vars": "A=secret"}, "secret"),
        ({".dev.vars": "A=secret", ".dev.vars.x": "A=of x"}, "of x"),
        ({".dev.vars.other": "A=of another"}, "var"),
        ({".env": "A=dotenv", ".env.x": "A=dotenv of x"}, "dotenv of x"),
    ],
)
async def test_secrets_over_vars(tmp_path, files, expected):
    """Section 7: .dev.vars.<env>, else .dev.vars, else .env; each overrides vars."""
    write_worker(
        tmp_path,
        "main",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(self.env.A)
        """,
        env={"x": {"vars": {"A": "var"}}},
    )
    for name, text in files.items():
        (tmp_path / "main" / name).write_text(text)
    async with simulated(tmp_path, "main", environment="x") as simulator:
        assert await ask(simulator) == (200, expected.encode())


CF = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        cf = request.cf
        return Response(json.dumps([cf.country, cf.colo, cf.asn, getattr(cf, "botScore", None)]))
"""


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        ("", ["PT", "LIS", 64496, None]),
        ('[cf]\ncountry = "JP"\nbotScore = 3\n', ["JP", "LIS", 64496, 3]),
    ],
)
async def test_request_cf(tmp_path, account, expected):
    """Section 1.5: cf has plausible values, and edgesim.toml can set each field."""
    write_worker(tmp_path, "main", CF)
    async with simulated(tmp_path, "main", account=account) as simulator:
        assert json.loads((await ask(simulator))[1]) == expected


SCHEDULED = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
    async def scheduled(self, controller, env=None, ctx=None):
        await self.env.SEEN.put(controller.cron, str(controller.scheduledTime))
"""


class NearTheMinute(Clock):
    """The real clock, shifted to 1.5 s before a full minute."""

    def __init__(self) -> None:
        super().__init__()
        self._set_by = 58.5 - super().now() % 60

    def now(self) -> float:
        return super().now() + self._set_by


async def test_scheduled_handlers_run_on_their_own(tmp_path):
    """Section 7: triggers.crons in UTC; scheduledTime is the minute."""
    bucket = [{"binding": "SEEN", "bucket_name": "seen"}]
    crons = {"crons": ["* * * * *", "0 0 30 2 *"]}
    write_worker(tmp_path, "main", SCHEDULED, r2_buckets=bucket, triggers=crons)
    async with simulated(tmp_path, "main", clock=NearTheMinute()) as simulator:
        with anyio.fail_after(100):  # if the start took longer, the next minute follows
            while not simulator.workers["main"].outcomes["ok"]:
                await anyio.lowlevel.checkpoint()
        listing = await simulator.primitives.bucket("seen").list()
        assert [each.key for each in listing.objects] == ["* * * * *"]
        stored = await simulator.primitives.bucket("seen").get("* * * * *")
        assert isinstance(stored, R2ObjectBody)
        assert int(await read_all(stored.body)) % 60_000 == 0


async def test_a_wrong_cron_is_refused_at_the_start(tmp_path):
    """Section 7: the error names file, key and fault."""
    write_worker(tmp_path, "main", SCHEDULED, triggers={"crons": ["0 25 * * *"]})
    with pytest.raises(ConfigError, match=r"triggers\.crons\[0\].*'25' is not from 0 to 23"):
        async with simulated(tmp_path, "main"):
            pass


# --- memory ---


@pytest.mark.parametrize("level", ["process", "warm", "inline"])
async def test_bodies_are_gone_with_their_request(tmp_path, level):
    """Bodies are freed without the garbage collector, which may run much later."""
    write_worker(
        tmp_path,
        "main",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(await request.bytes())
        """,
    )
    size = 3_000_000
    async with simulated(tmp_path, "main", isolation=level) as simulator:
        gc.collect()
        gc.disable()
        try:
            request = HttpRequest("POST", "http://main.localhost/", [], bytes(size))
            assert len(await read_all((await simulator.fetch(request)).body)) == size
            del request
            await settle(simulator)
            everything = gc.get_objects()
            bodies = [
                each.body for each in everything if isinstance(each, HttpRequest | HttpResponse)
            ]
            assert [body for body in bodies if isinstance(body, bytes) and len(body) == size] == []
        finally:
            gc.enable()


# --- imports ---


async def test_an_import_that_fails_in_a_handler(tmp_path):
    """The log line of the exception names the package and the commands that vendor it."""
    write_worker(
        tmp_path,
        "main",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                import yaml.loader
        """,
    )
    with structlog.testing.capture_logs() as logs:
        async with simulated(tmp_path, "main", isolation="process") as simulator:
            assert (await ask(simulator))[0] == 500
    (cure,) = [each["cure"] for each in logs if each["event"] == "uncaught exception"]
    assert "'PyYAML'" in cure
    assert "`uv run pywrangler sync`" in cure
    assert str(tmp_path / "main") in cure
