"""Builds a Worker's modules with esbuild, with the options that wrangler gives it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import msgspec

from edgesim import foreign
from edgesim.errors import ConfigError, WorkerLoadError
from edgesim.isolates.javascript.inputs import check_inputs
from edgesim.isolates.javascript.settings import Module
from edgesim.isolates.javascript.tools import run_program
from edgesim.model import JavaScript, WorkerSpec

MAIN = "worker"
"""Name of the module that is the Worker's bundle."""
_FOLDER = "bundle"
_NODE = ("nodejs_compat", "nodejs_compat_v2")
_BUILTINS = (
    "assert", "assert/strict", "async_hooks", "buffer", "child_process", "cluster", "console",
    "constants", "crypto", "dgram", "diagnostics_channel", "dns", "dns/promises", "domain",
    "events", "fs", "fs/promises", "http", "http2", "https", "inspector", "inspector/promises",
    "module", "net", "os", "path", "path/posix", "path/win32", "perf_hooks", "process", "punycode",
    "querystring", "readline", "readline/promises", "repl", "stream", "stream/consumers",
    "stream/promises", "stream/web", "string_decoder", "sys", "timers", "timers/promises", "tls",
    "trace_events", "tty", "url", "util", "util/types", "v8", "vm", "wasi", "worker_threads",
    "zlib",
)  # fmt: skip
"""Node's own modules, which ``nodejs_compat`` also gives by their old names."""
_TIMERS = {
    "timers": "edgesim/node_timers.js",
    "timers/promises": "edgesim/node_timers_promises.js",
}
"""Modules of the guest for those whose timers would be real where time is virtual."""
_LOADERS = {
    ".js": "jsx", ".mjs": "jsx", ".cjs": "jsx",
    ".txt": "text", ".html": "text", ".sql": "text",
    ".bin": "copy", ".wasm": "copy",
}  # fmt: skip
_GUEST = "edgesim/main.js"
_GUEST_OPTIONS = (
    "--bundle", "--splitting", "--format=esm", "--target=es2024",
    "--external:cloudflare:*", "--external:node:*", "--log-level=error", "--color=false",
)  # fmt: skip
_RULE_LOADERS = {"Text": "text", "Data": "copy", "CompiledWasm": "copy"}
_EXTENSION = re.compile(r"\*\*/\*(\.[\w.]+)")
_ERROR = re.compile(r"\[ERROR\] (.+)\n(?:\n +(\S+:\d+:\d+):)?")
_PACKAGE = re.compile(r'Could not resolve "([^"./][^"]*)"')


class Bundle(msgspec.Struct, frozen=True):
    """The built modules, relative to the folder given; ``source_map`` is that of the bundle."""

    modules: list[Module]
    source_map: Path


async def build(spec: WorkerSpec, javascript: JavaScript, esbuild: Path, folder: Path) -> Bundle:
    """Bundle the Worker into ``folder``; WorkerLoadError with file and line of the first error."""
    output = folder / _FOLDER
    metafile = folder / "inputs.json"
    command = [str(esbuild), spec.main, *_options(javascript, output), f"--metafile={metafile}"]
    text = await _run(command, folder, javascript.folder)
    if text is not None:
        raise WorkerLoadError(f"worker {spec.name}: {_problem(text, javascript)}")
    check_inputs(spec.name, metafile, Path(javascript.folder), Path(spec.main))
    bundled = output / f"{MAIN}.js"
    modules = [Module(MAIN, "js", f"{_FOLDER}/{MAIN}.js")]
    modules += _others(javascript, output)
    return Bundle(modules, bundled.with_suffix(".js.map"))


async def build_guest(esbuild: Path, folder: Path) -> list[Module]:
    """Bundle the modules that run beside the Worker's own, in ``folder``; the entry is the first.

    They are one module, since worker code can import any by its name; where time is virtual, the
    timers that worker code imports are others.
    """
    entries = [_GUEST, *(_TIMERS.values() if foreign.stops_the_world() else ())]
    with as_file(files("edgesim.isolates.javascript").joinpath("guest")) as guest:
        sources = [str(guest / Path(each).name) for each in entries]
        options = (*_GUEST_OPTIONS, f"--outdir={folder / Path(_GUEST).parent}")
        text = await _run([str(esbuild), *sources, *options], folder, str(guest))
    if text is not None:
        raise WorkerLoadError(f"{esbuild} failed: {' '.join(text.split())[:300]}")
    built = {str(each.relative_to(folder)) for each in (folder / _GUEST).parent.iterdir()}
    return [Module(each, "js", each) for each in (_GUEST, *sorted(built - {_GUEST}))]


async def _run(command: list[str], folder: Path, cwd: str) -> str | None:
    """Run esbuild; return its error output if it fails."""
    errors = folder / "esbuild.log"
    with errors.open("wb") as log:
        status = await run_program(command, stdout=subprocess.DEVNULL, stderr=log.fileno(), cwd=cwd)
    return None if status == 0 else errors.read_text("utf-8", "replace")


def _options(javascript: JavaScript, output: Path) -> Iterator[str]:
    yield from (
        "--bundle",
        "--format=esm",
        "--target=es2024",
        "--conditions=workerd,worker,browser",
        # A debugger reads the map in the module itself, and finds the files by their paths.
        f"--sourcemap={'both' if javascript.inspected else 'external'}",
        f"--source-root=file://{output}/",
        "--log-level=error",
        "--color=false",
        f"--outdir={output}",
        f"--entry-names={MAIN}",
        "--external:cloudflare:*",
        "--external:workerd:*",
        '--define:process.env.NODE_ENV="development"',
        '--define:navigator.userAgent="Cloudflare-Workers"',
    )
    if javascript.keep_names:
        yield "--keep-names"
    if javascript.minify:
        yield "--minify"
    for name in ("tsconfig", "jsx_factory", "jsx_fragment"):
        value = getattr(javascript, name)
        if value is not None:
            yield f"--{name.replace('_', '-')}={value}"
    for name, value in javascript.define.items():
        yield f"--define:{name}={value}"
    for name, value in javascript.alias.items():
        yield f"--alias:{name}={value}"
    for extension, loader in _loaders(javascript).items():
        yield f"--loader:{extension}={loader}"
    yield from _node_options(javascript.compatibility_flags)


def _node_options(flags: list[str]) -> Iterator[str]:
    if any(flag in _NODE for flag in flags):
        yield "--external:node:*"
        names = {name: f"node:{name}" for name in _BUILTINS}
        if foreign.stops_the_world():
            names |= {given: module for name, module in _TIMERS.items() for given in _both(name)}
            yield from (f"--external:{module}" for module in _TIMERS.values())
        yield from (f"--alias:{name}={module}" for name, module in names.items())
    elif "nodejs_als" in flags:
        yield "--external:node:async_hooks"


def _both(name: str) -> tuple[str, str]:
    """Both names of a module of Node's."""
    return name, f"node:{name}"


def _loaders(javascript: JavaScript) -> dict[str, str]:
    return _LOADERS | {
        extension: _RULE_LOADERS[kind] for extension, kind in _ruled(javascript).items()
    }


def _ruled(javascript: JavaScript) -> dict[str, str]:
    """Kind of module by extension, from ``rules``; ConfigError for a rule that has no such form."""
    found: dict[str, str] = {}
    for index, rule in enumerate(javascript.rules):
        if rule.type not in _RULE_LOADERS:
            continue  # modules of JavaScript are part of the bundle
        for glob in rule.globs:
            match = _EXTENSION.fullmatch(glob)
            if match is None:
                problem = f"edgesim takes globs such as **/*.md here, not {glob!r}"
                raise ConfigError(javascript.file, f"rules[{index}].globs", problem)
            found.setdefault(match[1], rule.type)
    return found


def _others(javascript: JavaScript, output: Path) -> Iterator[Module]:
    """The files that the bundle imports as modules of their own: WebAssembly and data."""
    ruled = _ruled(javascript)
    for file in sorted(output.iterdir()):
        if file.name not in {f"{MAIN}.js", f"{MAIN}.js.map"}:
            default = "CompiledWasm" if file.suffix == ".wasm" else "Data"
            is_wasm = ruled.get(file.suffix, default) == "CompiledWasm"
            yield Module(file.name, "wasm" if is_wasm else "data", f"{_FOLDER}/{file.name}")


def _problem(text: str, javascript: JavaScript) -> str:
    """The first error of esbuild in one line: the place, the error, the cure if it is known."""
    found = _ERROR.search(text)
    if found is None:
        return f"esbuild failed: {' '.join(text.split())[:300] or 'without a message'}"
    problem, place = found.groups()
    package = _PACKAGE.search(problem)
    if package is not None and package[1].startswith("node:"):
        problem += "; add the compatibility flag nodejs_compat"
    elif package is not None:
        problem += f"; install it: npm install {_package_of(package[1])}, in {javascript.folder}"
    return f"{place}: {problem}" if place else problem


def _package_of(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[: 2 if path.startswith("@") else 1])
