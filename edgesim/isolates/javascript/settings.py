"""workerd's configuration for one Worker, in the text form of Cap'n Proto."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgesim.isolates.javascript.inspector import SERVICE
from edgesim.model import BindingSpec

SOCKET, PLATFORM = "main", "platform"
"""Names of the socket that events come in by, and of the service that calls go out to."""
_LOADER = "loader.js"
_LOADER_DATE = "2026-07-01"
_VARIABLES = ("text", "json")
_KINDS = {"js": "esModule", "wasm": "wasm", "data": "data"}
_LOADED = {"js": "text", "wasm": "data", "data": "data"}
"""Kinds of the loader's bindings that hold a module of each kind; WebAssembly as its bytes."""
_LINES = ",\n    "
_CONFIGURATION = f"""using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  v8Flags = ["--max-heap-size={{heap}}"],
  services = [
    (name = "{SERVICE}", worker = .worker),
    (name = "internet", network = (allow = [])),
    (name = "{PLATFORM}", external = (http = (style = proxy, cfBlobHeader = "x-edgesim-cf"))),
  ],
  sockets = [
    (
      name = "{SOCKET}", service = "{SERVICE}",
      http = (style = proxy, cfBlobHeader = "x-edgesim-cf"),
    ),
  ],
);

const worker :Workerd.Worker = {{worker}};
"""


class Module(msgspec.Struct, frozen=True):
    """A module of the Worker: its name in imports, its kind, its file."""

    name: str
    kind: Literal["js", "wasm", "data"]
    file: str


class WorkerdSettings(msgspec.Struct, frozen=True):
    """Settings of one Worker's workerd; ``fresh``: an isolate for each invocation.

    ``guest``: the modules that run the Worker's own, the entry first.
    """

    guest: Sequence[Module]
    modules: Sequence[Module]
    bindings: Sequence[BindingSpec]
    date: str
    flags: Sequence[str]
    heap_bytes: int
    fresh: bool
    virtual: bool

    def write(self, folder: Path) -> Path:
        """Write the configuration, beside the modules that it embeds; return its file."""
        loader = files("edgesim.isolates.javascript").joinpath("guest", _LOADER)
        (folder / _LOADER).write_bytes(loader.read_bytes())
        file = folder / "workerd.capnp"
        worker = self._loader() if self.fresh else self._worker()
        text = _CONFIGURATION.format(heap=self.heap_bytes >> 20, worker=worker)
        file.write_text(text, "utf-8")
        return file

    @property
    def _all_modules(self) -> list[Module]:
        return [*self.guest, *self.modules]

    @property
    def _all_flags(self) -> list[str]:
        """The flags, with the one for the guest's own use of AsyncLocalStorage."""
        has_als = any(flag.startswith(("nodejs_als", "nodejs_compat")) for flag in self.flags)
        return [*self.flags, *([] if has_als else ["nodejs_als"])]

    @property
    def _variables(self) -> dict[str, Any]:
        """Variables by name, and the list of bindings, which the guest makes into objects."""
        made = [[each.name, each.kind] for each in self.bindings if each.kind not in _VARIABLES]
        given = {each.name: each.value for each in self.bindings if each.kind in _VARIABLES}
        return given | {"EDGESIM_BINDINGS": made, "EDGESIM_VIRTUAL": self.virtual}

    def _worker(self) -> str:
        """The Worker itself as workerd's main service."""
        variables = [
            f"(name = {_quoted(name)}, text = {_quoted(value)})"
            if isinstance(value, str)
            else f"(name = {_quoted(name)}, json = {_quoted(json.dumps(value))})"
            for name, value in self._variables.items()
        ]
        modules = [
            f"(name = {_quoted(each.name)}, {_KINDS[each.kind]} = embed {_quoted(each.file)})"
            for each in self._all_modules
        ]
        return _service(self.date, self._all_flags, modules, variables)

    def _loader(self) -> str:
        """A Worker that loads the Worker into a fresh isolate for every event."""
        modules = self._all_modules
        worker = {
            "date": self.date,
            "flags": self._all_flags,
            "main": modules[0].name,
            "modules": [[each.name, each.kind] for each in modules],
            "variables": self._variables,
        }
        bindings = [
            '(name = "LOADER", workerLoader = ())',
            f'(name = "WORKER", json = {_quoted(json.dumps(worker))})',
        ]
        for index, each in enumerate(modules):
            kind = _LOADED[each.kind]
            bindings.append(f'(name = "MODULE_{index}", {kind} = embed {_quoted(each.file)})')
        loader = f'(name = "{_LOADER}", esModule = embed "{_LOADER}")'
        return _service(_LOADER_DATE, ["experimental"], [loader], bindings)


def _service(
    date: str, flags: Sequence[str], modules: Sequence[str], bindings: Sequence[str]
) -> str:
    bindings = [f'(name = "EDGESIM_PLATFORM", service = "{PLATFORM}")', *bindings]
    return f"""(
  compatibilityDate = {_quoted(date)},
  compatibilityFlags = [{", ".join(map(_quoted, flags))}],
  globalOutbound = "{PLATFORM}",
  modules = [
    {_LINES.join(modules)}
  ],
  bindings = [
    {_LINES.join(bindings)}
  ],
)"""


def _quoted(text: str) -> str:
    """A string of Cap'n Proto's text form: C's escapes, bytes beyond ASCII in octal."""
    shown = []
    for byte in text.encode():
        character = chr(byte)
        if character in '"\\':
            shown.append(f"\\{character}")
        elif 0x20 <= byte < 0x7F:
            shown.append(character)
        else:
            shown.append(f"\\{byte:03o}")
    return f'"{"".join(shown)}"'
