"""Files of worker code: `/tmp` in memory, one for each invocation, the same at every level."""

import gc
import json
import os
from pathlib import Path

import pytest

from tests.conformance.test_isolates import LEVELS, Level, Recorder

pytestmark = pytest.mark.anyio

IMPORTED = """
import errno, glob, os, shutil, tempfile, zipfile
from pathlib import Path

def outcome(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
"""


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, tmp_path: Path) -> Level:
    return Level(request.param, tmp_path)


async def results(level, source, invocations=1):
    """Return what the handler's body in ``source`` puts into ``found``, for each invocation."""
    body = "".join(f"                {line}\n" for line in source.strip().splitlines())
    handler = f"""
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                found = []
{body}
                return Response(json.dumps(found))
    """
    host = Recorder(level.clock)
    async with level.load(IMPORTED_AT_TOP + handler) as isolates:
        for _ in range(invocations):
            done = await isolates.invoke(level.request(), host)
            assert done.exceptions == []
    return [json.loads(each.body) for each in host.responses]


IMPORTED_AT_TOP = "\n".join(f"        {line}" for line in IMPORTED.splitlines()) + "\n"


async def test_no_file_reaches_another_invocation_or_the_machine(level):
    """Each invocation finds `/tmp` empty, and writes to no file of the machine."""
    name = f"edgesim-files-{os.getpid()}-{level.name}"
    source = f"""
found.append(os.listdir("/tmp"))
found.append(os.path.exists("/tmp/{name}"))
open("/tmp/{name}", "w").write("mine")
os.mkdir("/tmp/{name}.d")
found.append(sorted(os.listdir("/tmp")))
"""
    expected = [[], False, [name, f"{name}.d"]]
    assert await results(level, source, invocations=3) == [expected] * 3
    assert not os.path.lexists(f"/tmp/{name}")


async def test_the_current_folder_holds_nothing_of_the_machine(level):
    """A relative path does not lead to the folder in which edgesim was started."""
    source = """
import pathlib
found.append([os.listdir(), os.listdir("/"), os.listdir(b"./")[0].decode()])
found.append([str(each) for each in pathlib.Path("/").iterdir()])
"""
    (found,) = await results(level, source, invocations=1)
    assert found == [[["tmp"], ["tmp"], "tmp"], ["/tmp"]]


async def test_files_of_the_machine_are_not_visible(level):
    """A file in the machine's `/tmp` does not exist for a Worker."""
    name = Path(f"/tmp/edgesim-visible-{os.getpid()}-{level.name}")
    name.write_text("the machine's")
    try:
        (found,) = await results(
            level,
            f"""
found.append(os.path.exists("{name}"))
found.append("{name.name}" in os.listdir("/tmp"))
found.append(outcome(lambda: open("{name}").read()))
open("{name}", "a").write("the Worker's")
found.append(open("{name}").read())
""",
        )
        assert found[:2] == [False, False]
        assert found[2].startswith("FileNotFoundError: [Errno 2]")
        assert found[3] == "the Worker's"
        assert name.read_text() == "the machine's"
    finally:
        name.unlink()


async def test_own_files_stay_readable(level):
    """A data file beside the module is readable, also in a project below `/tmp`."""
    (level._folder / "data.txt").write_text("beside")
    (found,) = await results(
        level,
        """
beside = Path(__file__).with_name("data.txt")
found.append(beside.read_text())
found.append(beside.resolve() == beside and beside.exists())
found.append(outcome(lambda: beside.write_text("changed"))[:15])
""",
    )
    assert found == ["beside", True, "PermissionError"]
    assert (level._folder / "data.txt").read_text() == "beside"


@pytest.mark.parametrize(
    "call",
    [
        "open('/var/new.txt', 'w')",
        "open('new.txt', 'x')",
        "os.open('/var/new.txt', os.O_WRONLY | os.O_CREAT)",
        "os.mkdir('/var/new')",
        "os.remove(__file__)",
        "os.rename(__file__, '/var/moved')",
        "Path('new.txt').touch()",
        "tempfile.mkstemp(dir='/var')",
    ],
)
async def test_files_elsewhere_cannot_be_written(level, call):
    """The exception of a write elsewhere says where files can be written."""
    (found,) = await results(level, f"found.append(outcome(lambda: {call}))")
    assert found[0].startswith("PermissionError: [Errno 13] Permission denied: ")
    assert "only in /tmp, in memory; or use io.BytesIO, R2" in found[0]


async def test_files_are_limited(level):
    """The files of an invocation are limited together; removed ones count no more."""
    (found,) = await results(
        level,
        """
def fill(name, size):
    with open(name, "wb") as file:
        file.truncate(size)

found.append(outcome(lambda: fill("/tmp/all", 1 << 40)))
found.append(outcome(lambda: fill("/tmp/all", 129 << 20)))
for number in range(20):
    fill("/tmp/part", 10 << 20)
    os.remove("/tmp/part")
    with tempfile.TemporaryFile() as file:
        file.truncate(10 << 20)
found.append(sorted(os.listdir("/tmp")))
""",
    )
    assert [each.partition(":")[0] for each in found[:2]] == ["OSError", "OSError"]
    assert "No space left on device" in found[0]
    assert found[2] == ["all"]


async def test_what_an_import_writes_is_dropped(level):
    """A module may write a file while it is imported; the handler does not find it."""
    source = """
        import os
        with open("/tmp/of-the-import", "w") as file:
            file.write("x")
        size = os.stat("/tmp/of-the-import").st_size

        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(json.dumps([size, os.path.exists("/tmp/of-the-import")]))
    """
    done, host = await level.fetch(source)
    assert done.exceptions == []
    assert json.loads(host.responses[0].body) == [1, False]


async def test_names_follow_the_seed(level):
    """Names of temporary files repeat with the invocation's seed."""
    source = """
        import tempfile

        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                with tempfile.NamedTemporaryFile(prefix="a-", suffix=".b") as file:
                    return Response(file.name)
    """
    host = Recorder(level.clock)
    async with level.load(source) as isolates:
        for seed in (5, 5, 6):
            request = level.request()
            request.seed = seed
            assert (await isolates.invoke(request, host)).exceptions == []
    first, second, third = [each.body.decode() for each in host.responses]
    assert first == second != third
    assert first.startswith("/tmp/a-")
    assert first.endswith(".b")


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up")
async def test_garbage_of_temporary_files(level):
    """Temporary files and folders that are left open are removed with the invocation."""
    source = """
keep = [tempfile.NamedTemporaryFile(), tempfile.TemporaryDirectory(ignore_cleanup_errors=True)]
keep.append(keep)
found.append(len(os.listdir("/tmp")))
"""
    assert await results(level, source, invocations=3) == [[2]] * 3
    gc.collect()  # at `inline` it is garbage of this process


async def test_paths_of_every_form(level):
    """Bytes, path objects, dots, descriptors of folders and relative ones lead to the same file."""
    (found,) = await results(
        level,
        """
os.makedirs("/tmp/a/b")
open("/var/../tmp//a/./b/../c", "w").write("c")
found.append(open(b"/tmp/a/c").read())
found.append([os.fsdecode(each) for each in sorted(os.listdir(b"/tmp/a"))])
found.append([type(each.path).__name__ for each in os.scandir(b"/tmp/a")])
folder = os.open("/tmp/a", os.O_RDONLY)
found.append([os.stat("c", dir_fd=folder).st_size, sorted(os.listdir(folder))])
os.unlink("c", dir_fd=folder)
os.close(folder)
found.append(os.listdir("/tmp/a"))
found.append(outcome(lambda: os.fstat(folder))[:20])
shutil.rmtree("/tmp/a")
found.append(glob.glob("/tmp/*"))
""",
    )
    assert found == [
        *("c", ["b", "c"], ["bytes", "bytes"], [1, ["b", "c"]], ["b"]),
        *("OSError: [Errno 9] B", []),
    ]
