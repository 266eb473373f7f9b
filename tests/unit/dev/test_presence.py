"""A state directory has one owner at a time and is closed to other users."""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import weakref
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgesim.dev import presence
from edgesim.dev.presence import FILE, own
from edgesim.errors import UsageError


@pytest.fixture(autouse=True)
def _usual_umask():
    """Set a umask under which new files are readable by others."""
    before = os.umask(0o022)
    yield
    assert os.umask(before) == 0o022


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_state_is_private(tmp_path):
    """A new state directory, and all files created while it is owned, are private to the user."""
    state = tmp_path / "a" / "state"
    with own(state):
        (state / "sub").mkdir()
        (state / "sub" / "file").write_text("x")
        os.system(f"touch {state}/of-a-child")
    assert {path.name: mode(path) for path in [state, *state.rglob("*")]} == {
        "state": 0o700,
        "owner.json": 0o600,
        "sub": 0o700,
        "file": 0o600,
        "of-a-child": 0o600,
    }


def test_an_older_state_is_closed(tmp_path):
    """Files that an earlier version left open are closed; links are not followed."""
    outside = tmp_path / "outside"
    outside.write_text("x")
    state = tmp_path / "state"
    (state / "r2").mkdir(parents=True)
    for name in ("owner.json", "queues.db", "r2/blob", "r2/run"):
        (state / name).write_text("")
    (state / "r2" / "run").chmod(0o755)
    (state / "link").symlink_to(outside)
    with own(state):
        modes = {path.name: mode(path) for path in state.rglob("*") if not path.is_symlink()}
    assert modes == {
        "owner.json": 0o600,
        "queues.db": 0o600,
        "r2": 0o700,
        "blob": 0o600,
        "run": 0o700,
    }
    assert mode(state) == 0o700
    assert mode(outside) == 0o644


@pytest.mark.parametrize("bits", [0o755, 0o1777])
def test_a_directory_with_other_things_is_left_as_it_is(tmp_path, bits, capsys):
    """A shared directory, or one with foreign files, keeps its modes; a warning is logged."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    if bits & 0o1000:
        (folder / "owner.json").write_text("")
    folder.chmod(bits)
    with own(folder):
        pass
    assert folder.stat().st_mode & 0o7777 == bits
    assert mode(folder / "notes.txt") == 0o644
    assert "state directory is open to other users" in capsys.readouterr().out


def test_a_second_owner_is_refused(tmp_path):
    """A second owner is refused; the error names the first one's process."""
    with own(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()}"), own(tmp_path):
        pass


def moved(state: Path, _stack: ExitStack) -> Path:
    return state.rename(state.with_name("moved"))


def linked(state: Path, _stack: ExitStack) -> Path:
    link = state.with_name("link")
    link.symlink_to(state)
    return link


def linked_above(state: Path, _stack: ExitStack) -> Path:
    above = state.parent / "above"
    above.symlink_to(state.parent)
    return above / state.name


def mounted(state: Path, stack: ExitStack) -> Path:
    mount = state.with_name("mount")
    mount.mkdir()
    bound = subprocess.run(["mount", "--bind", state, mount], check=False, capture_output=True)
    if bound.returncode:
        pytest.skip("a bind mount needs root")
    stack.callback(lambda: subprocess.run(["umount", "--lazy", mount], check=True))
    return mount


@pytest.mark.parametrize("has_file", [True, False])
@pytest.mark.parametrize("way", [moved, linked, linked_above, mounted])
def test_a_second_owner_is_refused_by_any_path(tmp_path, way, has_file):
    """A second owner is refused by any path to the directory, also without the owner's file."""
    state = tmp_path / "state"
    with ExitStack() as stack:
        with own(state):
            other = way(state, stack)
            if not has_file:
                (other / FILE).unlink()
            with pytest.raises(UsageError, match="is in use by"), own(other):
                pass
        with own(other):
            pass


def test_a_link_that_leads_elsewhere_is_still_taken(tmp_path):
    """If a link is redirected, both the link and its first target stay in use."""
    state, link = tmp_path / "state", tmp_path / "link"
    state.mkdir()
    link.symlink_to(state)
    with own(link.resolve(), link):
        link.unlink()
        link.symlink_to(tmp_path / "other")
        for resolved, name in ((link.resolve(), link), (state, state)):
            with pytest.raises(UsageError, match="is in use by"), own(resolved, name):
                pass


def taken_addresses() -> set[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()
    names = {line.rpartition(" ")[2] for line in lines}
    return {name for name in names if name.startswith("@edgesim-state-")}


def not_listening(_lock: socket.socket) -> str:
    return "another user"


def listening_as_another_user(lock: socket.socket) -> str:
    if os.geteuid():
        pytest.skip("to be another user needs root")
    os.seteuid(65_534)
    try:
        lock.listen()
    finally:
        os.seteuid(0)
    return "user 65534"


def listening_with_a_full_queue(lock: socket.socket) -> str:
    lock.listen(0)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(lock.getsockname())
    weakref.finalize(lock, waiting.close)
    return "another user"


@pytest.mark.skipif(sys.platform != "linux", reason="there are no abstract addresses")
@pytest.mark.parametrize(
    "how", [not_listening, listening_as_another_user, listening_with_a_full_queue]
)
def test_an_address_that_another_user_has_taken_stops_no_start(tmp_path, how, capsys):
    """The addresses are open to every user: one that is taken is a warning, not a refusal."""
    state = tmp_path / "state"
    before = taken_addresses()
    with own(state):
        names = taken_addresses() - before
    assert names
    with ExitStack() as stack:
        for name in names:
            squatter = stack.enter_context(socket.socket(socket.AF_UNIX))
            squatter.bind(f"\0{name[1:]}")
            who = how(squatter)
        with own(state):
            assert f"{who} has taken the address" in capsys.readouterr().out
            with pytest.raises(UsageError, match="is in use by"), own(state):
                pass


def test_a_lock_file_of_another_user_stops_no_start(tmp_path, monkeypatch, capsys):
    """Where the lock is a file in a shared folder, one that is another user's is a warning."""
    if os.geteuid():
        pytest.skip("to be another user needs root")
    monkeypatch.setattr(presence, "LINUX", False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir()
    state = tmp_path / "state"
    with own(state):
        (name,) = {each.name for each in (tmp_path / "shared").iterdir()}
        with pytest.raises(UsageError, match="is in use by"), own(state):
            pass
    lock = tmp_path / "shared" / name
    os.chown(lock, 65_534, 65_534)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with own(state):
            assert "belongs to user 65534" in capsys.readouterr().out
