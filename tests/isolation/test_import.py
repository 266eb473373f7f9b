"""Forbidden module-level code is refused with one line, and leaves nothing behind."""

from pathlib import Path

import anyio
import pytest

from edgesim.check.loading import check_loading
from edgesim.config.wrangler import WorkerConfig, WranglerFile
from edgesim.errors import WorkerLoadError
from edgesim.isolates.host import zygotes
from tests.isolation.world import open_world

pytestmark = pytest.mark.anyio

HONEST = """
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("fine")
"""
CONTROL = "int(__import__('sys').argv[1])"
FORGED = f"""
import os
from edgesim.isolates.protocol.wire import Forked, one
os.write({CONTROL}, one(Forked(1, os.getppid())))
"""
WRONG_FRAMES = f"""
import os
from edgesim.isolates.protocol.wire import Done, one
os.write({CONTROL}, one(Done()))
"""
REFUSED = {
    "fork": ("import os; os.fork()", "global scope"),
    "thread": ("import threading; threading.Thread(target=print).start()", "thread"),
    "socket": ("import socket; socket.create_connection(('127.0.0.1', 80))", "global scope"),
    "dns": ("import socket; socket.gethostbyname('example.com')", "global scope"),
    "subprocess": ("import subprocess; subprocess.run(['/bin/true'])", "global scope"),
    "system": ("import os; os.system('true')", "global scope"),
    "kill": ("import os; os.kill(os.getppid(), 9)", "global scope"),
    "ctypes": ("import ctypes; ctypes.string_at(0)", "global scope"),
    "read": ("open('/etc/passwd')", "PermissionError"),
    "write": ("open('/var/tmp/evil', 'w')", "PermissionError"),
    "random": ("import random; random.random()", "global scope"),
    "sleep": ("import time; time.sleep(1)", "global scope"),
    "memory": ("x = bytearray(1 << 30)", "MemoryError"),
    "memory in many": ("x = []\nwhile True: x.append(bytes(100_000))", "MemoryError"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "exit": ("import sys; sys.exit(0)", "SystemExit"),
    "os._exit": ("import os; os._exit(0)", "ended its process"),
    "loop": ("while True: pass", "was not imported within"),
    "garbage": (f"import os; os.write({CONTROL}, b'garbage, and more')", "wrote"),
    "frame of 2 GB": (f"import os; os.write({CONTROL}, b'\\x7f\\xff\\xff\\xff')", "wrote"),
    "closed": ("import os; os.closerange(0, 1 << 16)", "ended its process"),
    "wrong frames": (WRONG_FRAMES, "wrote"),
    "another's death": (FORGED, "wrote"),
}


BY_THE_KERNEL = ("thread", "read", "write")


@pytest.mark.parametrize(
    "name",
    [
        *(each for each in REFUSED if each not in BY_THE_KERNEL),
        *(pytest.param(each, marks=pytest.mark.linux) for each in BY_THE_KERNEL),
    ],
)
async def test_import_is_refused(name, tmp_path, monkeypatch):
    """The Worker does not load, with the reason in one line; its next version loads."""
    source, why = REFUSED[name]
    if name == "loop":
        monkeypatch.setattr(zygotes, "BOOT_SECONDS", 1.0)
    main = tmp_path / "entry.py"
    main.write_text(f"{HONEST}\n{source}\n")
    with pytest.raises(WorkerLoadError) as caught:
        async with open_world("process", main):
            pass
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    main.write_text(HONEST)
    async with open_world("process", main) as world:
        assert (await world.fetch("")).body == b"fine"


LATER = {
    "signal": "import signal; signal.signal(signal.SIGALRM, later); "
    "signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)",
    "collector": "import gc; gc.callbacks.append(later)",
    "destructor": "class Late:\n  def __del__(self): later()\nl = Late(); l.me = l; del l",
}


@pytest.mark.parametrize("name", LATER)
async def test_what_runs_in_the_zygote_later_is_refused_too(name, tmp_path):
    """Code that the import left behind in the zygote cannot fork or start a program there."""
    main = tmp_path / "entry.py"
    main.write_text(
        f"""
import os, sys
found = []
def later(*_):
    for harm in (os.fork, lambda: os.system("true"), lambda: os.kill(os.getppid(), 9)):
        try:
            found.append(harm())
        except Exception:
            found.append("refused")
{LATER[name]}
{HONEST}
        return Response(" ".join(map(str, dict.fromkeys(found))))
""".replace('        return Response("fine")\n', "")
    )
    async with open_world("process", main) as world:
        await anyio.sleep(0.3)
        await world.fetch("")
        answer = await world.fetch("")
        assert answer.body in {b"refused", b""}, answer.done
        children = Path(f"/proc/{world.isolates._forks._zygote}/task").iterdir()  # type: ignore[attr-defined]
        born = [each for task in children for each in (task / "children").read_text().split()]
        assert len(born) <= 16


PACKAGE = "import uuid\nkey = str(uuid.uuid4())\n"
DRAWS = """
import os{allow}
from drawing import key
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(key)
"""
ALLOW = "PYTHON_WORKERS_ALLOW_TOP_LEVEL_ENTROPY"
ALLOWED = f'\nos.environ["{ALLOW}"] = "1"'


@pytest.mark.parametrize("level", ["process", "warm", "inline"])
@pytest.mark.parametrize("folder", ["python_modules", "."])
async def test_what_an_import_draws_is_repeatable(level, folder, tmp_path, monkeypatch):
    """A package, or a module that the platform's variable allows it, draws the same each time."""
    monkeypatch.setenv(ALLOW, "")  # restored after the inline level, which has this environment
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "drawing.py").write_text(PACKAGE)
    main = tmp_path / "entry.py"
    main.write_text(DRAWS.format(allow=ALLOWED if folder == "." else ""))
    keys = set()
    for _ in range(2):
        async with open_world(level, main) as world:
            keys |= {(await world.fetch("")).body for _ in range(2)}
    assert len(keys) == 1


async def test_check_warns_of_a_package_that_draws(tmp_path):
    """The warning names the package and the platform's variable."""
    (tmp_path / "python_modules").mkdir()
    (tmp_path / "python_modules" / "drawing.py").write_text(PACKAGE)
    (tmp_path / "entry.py").write_text(DRAWS.format(allow=""))
    settings = WranglerFile("w", "entry.py")
    worker = WorkerConfig(tmp_path / "wrangler.toml", tmp_path / "entry.py", settings)
    found = next(each for each in check_loading(worker, tmp_path) if each.rule == "loading")
    assert found.level == "warning"
    assert "package drawing draws random values" in found.problem
    assert ALLOW in found.cure
