"""`edgesim kv`, beside a running project and on the state of a stopped one."""

import json
import textwrap

import pytest

from tests.processes import dev, edgesim

EXAMPLE = """
from workers import WorkerEntrypoint, Response


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.FOO.put("bar", "baz")
        bar = await self.env.FOO.get("bar")
        return Response(bar)  # returns "baz"
"""
WRANGLER = {
    "$schema": "node_modules/wrangler/config-schema.json",
    "name": "hello-python-bindings",
    "main": "src/entry.py",
    "compatibility_date": "2025-11-02",
    "compatibility_flags": ["python_workers"],
    "kv_namespaces": [{"binding": "FOO", "id": "<YOUR_KV_NAMESPACE_ID>"}],
}
"""The project that Cloudflare shows for a binding of a Python Worker."""


@pytest.fixture
def project(tmp_path):
    """A project of one wrangler file with one namespace."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "entry.py").write_text(textwrap.dedent(EXAMPLE))
    (folder / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    return folder


@pytest.fixture
def run(project):
    """Run an `edgesim kv` command on the project; return its exit code, output and error."""

    def run(*arguments):
        done = edgesim("kv", *arguments, "--project", project)
        return done.returncode, done.stdout, done.stderr

    return run


def test_entries_while_running_and_after(project, run, tmp_path):
    """ls, get, put and rm do the same on a running project and on its state; the example runs."""
    source, out = tmp_path / "source.bin", tmp_path / "out.bin"

    def check(key, size):
        source.write_bytes(bytes(range(256)) * (size >> 8))
        assert run("put", "FOO", key, "hällo", "--metadata", '{"a": 1}') == (
            0,
            f"stored {key}\n",
            "",
        )
        assert run("get", "FOO", key) == (0, "hällo", "")
        assert run("ls", "FOO", "--prefix", key) == (0, f'{key}\tnull\t{{"a": 1}}\n', "")
        assert run("put", "FOO", key, "--path", source, "--ttl", "86400")[0] == 0
        (listed,) = json.loads(run("ls", "FOO", "--prefix", key, "--json")[1])
        assert (listed["key"], listed["metadata"]) == (key, None)
        assert listed["expiration"].endswith("Z")
        assert run("get", "FOO", key, "--out", out) == (0, "", "")
        assert out.read_bytes() == source.read_bytes()
        assert run("rm", "<YOUR_KV_NAMESPACE_ID>", key) == (0, f"removed {key}\n", "")
        code, _, said = run("get", "FOO", key)
        assert (code, f"namespace 'FOO' has no key '{key}'" in said) == (2, True)

    with dev(project, project / ".edgesim", "--no-reload") as running:
        assert running.request("/", method="GET") == (200, b"baz")
        check("a/b c?&=", 25 << 20)  # the largest value
        assert running.stop() == 0
    check("stopped", 1 << 20)
    assert run("ls") == (0, "<YOUR_KV_NAMESPACE_ID>\tFOO\n", "")
    assert run("get", "FOO", "bar") == (0, "baz", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ls", "FOOO"), "no KV namespace 'FOOO'; did you mean 'FOO'?"),
        (("ls", "--prefix", "x"), "--prefix selects keys; name a namespace"),
        (("put", "FOO", "k"), "name one value; write it after the key, or its file with --path"),
        (("put", "FOO", "k", "v", "--path", "f"), "name one value"),
        (("put", "FOO", "k", "--path", "none"), "cannot read none: No such file"),
        (("put", "FOO", "k", "v", "--metadata", "{"), "--metadata is not JSON"),
        (("put", "FOO", "k", "v", "--ttl", "59"), "Expiration TTL must be at least 60."),
        (("put", "FOO", "x" * 513, "v"), "exceeds key length limit of 512."),
        (("rm", "FOO", "none"), "namespace 'FOO' has no key 'none'"),
        (("ls", "FOO", "--kv", "sqlit:x"), "did you mean sqlite:?"),
    ],
)
def test_refusals_are_one_line(run, arguments, expected):
    """An action that cannot be done is one line with the fix, and changes nothing."""
    code, shown, said = run(*arguments)
    assert code in {2, 3}
    assert shown == ""
    assert expected in said
    assert said.count("\n") == 1


def test_the_doctor_checks_the_store_of_namespaces(project, tmp_path):
    """A project with namespaces has one line for their store; another has none."""
    done = edgesim("doctor", project, "--kv", f"sqlite:{tmp_path}/kv.db")
    assert f"kv: sqlite:{tmp_path}/kv.db: a value was stored and read" in done.stdout
    (project / "wrangler.jsonc").write_text(json.dumps(WRANGLER | {"kv_namespaces": []}))
    assert "kv:" not in edgesim("doctor", project).stdout
    assert not (project / ".edgesim" / "kv.db").exists()
