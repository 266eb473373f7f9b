"""The native programs of workerd and esbuild: where they are looked for, and what installs them.

npm's own commands of these names are scripts for Node; the native files beside them need none.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

from edgesim import foreign
from edgesim.errors import UsageError

_PROCESSORS = {"x86_64": "64", "amd64": "64", "aarch64": "arm64", "arm64": "arm64"}
_NATIVE = {
    "workerd": ("@cloudflare", "workerd-{system}-{processor}", "bin/workerd"),
    "esbuild": ("@esbuild", "{system}-{x64}", "bin/esbuild"),
}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_SCRIPT = b"#!"
INSTALL = "npm install --save-dev workerd esbuild"


def find_program(name: str, given: str | None, folder: Path) -> Path:
    """Return the native program: ``given``, else in a node_modules, else on PATH.

    ``folder`` is the Worker's: node_modules is looked for there and in the folders above.
    UsageError if it is nowhere.
    """
    variable = f"EDGESIM_{name.upper()}"
    if given:
        path = Path(given)
        if not path.is_file():
            raise UsageError(f"{variable}: there is no file {given!r}")
        return _behind(name, path)
    for place in (folder, *folder.parents):
        for found in _native(name, place / "node_modules"):
            return found
    on_path = shutil.which(name)
    if on_path is not None:
        return _behind(name, Path(on_path))
    raise UsageError(
        f"JavaScript Workers need {name}, and no node_modules of {folder} or above it has it, "
        f"nor PATH; install it with: {INSTALL}, or name it in {variable}"
    )


def _native(name: str, modules: Path) -> Iterator[Path]:
    """The program in a node_modules, as npm, or as pnpm lays it out."""
    scope, package, inside = _NATIVE[name]
    processor = _PROCESSORS.get(platform.machine().lower(), platform.machine())
    package = package.format(
        system=platform.system().lower(),
        processor=processor,
        x64="x64" if processor == "64" else processor,
    )
    program = modules / scope / package / inside
    if program.is_file():
        yield program.resolve()
    pattern = f".pnpm/{scope}+{package}@*/node_modules/{scope}/{package}/{inside}"
    yield from (each.resolve() for each in sorted(modules.glob(pattern), reverse=True))


def _behind(name: str, command: Path) -> Path:
    """The native program behind a command, which may be npm's script for Node."""
    real = command.resolve()
    with real.open("rb") as file:
        if file.read(len(_SCRIPT)) != _SCRIPT:
            return real
    for folder in real.parents:
        if folder.name == "node_modules":
            for found in _native(name, folder):
                return found
    raise UsageError(f"{command} is a script, not {name}'s native program; {INSTALL} brings that")


async def run_program(
    command: Sequence[str],
    *,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | None = None,
) -> int:
    """Run a program to its end; return its exit status.  UsageError if it cannot be run."""
    try:
        process = await foreign.start(
            command, pass_fds=[], env={}, stdout=stdout, stderr=stderr, cwd=cwd
        )
    except OSError as error:
        raise UsageError(f"cannot run {command[0]}: {error.strerror}") from error
    async with aclosing(process):
        return await process.wait()


async def newest_date(workerd: Path, folder: Path) -> str:
    """Return the date of workerd's version, as its compatibility date; ``folder`` is for files."""
    output = folder / "version"
    with output.open("wb") as file:
        await run_program([str(workerd), "--version"], stdout=file.fileno())
    found = _DATE.search(output.read_text("utf-8", "replace"))
    if found is None:
        raise UsageError(f"{workerd} does not name its version; is it workerd?")
    return found[0]
