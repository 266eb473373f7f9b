"""New copies of a Worker's own modules for each invocation of a process that serves many.

Each module of a Namespace has its own ``__builtins__``, whose ``__import__`` searches the Worker's
modules first and returns views of library modules.  A value that worker code sets on a view
(``json.dumps = mine``) is visible to its own invocation only.  ``sys.modules`` contains stand-ins
(stand_ins.py), so two Workers that both have an ``event.py`` do not conflict.  Vendored packages
count as library modules: many have C extensions, which a process can load only once.

Tried and dropped: swapping ``sys.modules`` around an import (imports inside functions run later,
when other Workers run); shallow copies of library modules (they miss names that the library sets
later, and copying ``os`` for one name is slow).
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, Protocol

from edgesim.isolates.guest.import_order import is_library, is_own_folder
from edgesim.isolates.guest.packages import FOLDER
from edgesim.isolates.guest.sealed import opaque
from edgesim.isolates.guest.stand_ins import OwnLoader, StandIn, remove_stand_ins, stand_in_for
from edgesim.isolates.guest.worker_import import SDK

HIDDEN = "edgesim"
"""The package that worker code cannot import: the platform's own."""


class Code(NamedTuple):
    """A compiled module of the Worker; ``folder`` is None unless it is a package.

    ``file`` is None for a package without ``__init__.py``.
    """

    file: str | None
    code: CodeType
    folder: str | None


class CodeCache:
    """Compiled sources of one Worker version, shared by its Namespaces."""

    def __init__(self, folder: Path) -> None:
        """``folder`` contains the Worker's own modules."""
        self.library: dict[tuple[str, tuple[str, ...]], ModuleType] = {}
        """Results of import statements of library modules, by name and fromlist."""
        self._folder = folder
        self._others = [Path(SDK), folder / FOLDER, folder.parent / FOLDER]
        self._codes: dict[str, Code | None] = {}

    def imported(self, name: str, fromlist: tuple[str, ...]) -> ModuleType | None:
        """Return the result of an earlier import statement of a library module, or None."""
        return self.library.get((name, fromlist))

    def keep(self, name: str, fromlist: tuple[str, ...]) -> ModuleType:
        """Store and return the result of an import statement of an imported library module."""
        # Read here, not passed by the caller: other invocations get the same object.
        found = sys.modules[name if fromlist else name.partition(".")[0]]
        return self.library.setdefault((name, fromlist), found)

    def find(self, name: str) -> Code | None:
        """Return the module ``name``; None if the Worker has no module that an import finds."""
        try:
            return self._codes[name]
        except KeyError:
            return self._codes.setdefault(name, self._compile(name))

    def _compile(self, name: str) -> Code | None:
        if is_library(name):
            return None
        package = self._folder.joinpath(*name.split("."))
        for file in (package / "__init__.py", package.parent / f"{package.name}.py"):
            if file.is_file():
                code = compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
                return Code(str(file), code, str(package) if file.parent == package else None)
        others = [] if "." in name else self._others
        if is_own_folder(package.parent, package.name, others):
            return Code(None, compile("", str(package), "exec"), str(package))
        return None


class LibraryWatch(Protocol):
    """Observer of worker code's use of library modules, if invocations share them."""

    def begin_import(self) -> None:
        """Called before an import of a library module."""

    def end_import(self, name: str) -> None:
        """Called when the library module ``name`` has been imported."""

    def looked_up(self, function: FunctionType) -> None:
        """Called when worker code has looked up this function of a library."""


class _NoWatch:
    """Observer that does nothing, for a process that does not compare library state."""

    def begin_import(self) -> None:
        pass

    def end_import(self, name: str) -> None:
        pass

    def looked_up(self, function: FunctionType) -> None:
        pass


_NO_WATCH = _NoWatch()


class Sources(NamedTuple):
    """Functions from which the Namespaces of a Worker get their modules.

    They are functions so that they can be sealed: worker code can reach its Namespace, which must
    not lead to objects shared with other invocations.
    """

    find: Callable[[str], Code | None]
    imported: Callable[[str, tuple[str, ...]], ModuleType | None]
    begin_import: Callable[[], None]
    end_import: Callable[[str], None]
    keep: Callable[[str, tuple[str, ...]], ModuleType]
    looked_up: Callable[[FunctionType], None]
    build_class: Callable[..., Any] = builtins.__build_class__


def open_sources(cache: CodeCache) -> Sources:
    """Return the sources of a process that does not compare library state."""
    return Sources(
        cache.find,
        cache.imported,
        _NO_WATCH.begin_import,
        _NO_WATCH.end_import,
        cache.keep,
        _NO_WATCH.looked_up,
    )


def sealed_sources(
    cache: CodeCache,
    watch: LibraryWatch,
    build_class: Callable[..., Any],
    end_if_tampered: Callable[[], None],
    frames_shut: Callable[[], AbstractContextManager[None]],
) -> Sources:
    """Return sources that do not expose the cache and the observer.

    Worker code calls them, so each calls ``end_if_tampered`` first and converts its arguments to
    plain types: a class of worker code could define how to hash them.
    """

    def closed(function: Callable[..., Any]) -> Any:
        return opaque(end_if_tampered, partial(_with_exact, function))

    def keep(name: str, fromlist: tuple[str, ...]) -> ModuleType:
        with frames_shut():  # hashing a key of ``sys.modules`` may run worker code
            return cache.keep(name, fromlist)

    return Sources(
        closed(cache.find),
        closed(cache.imported),
        closed(watch.begin_import),
        closed(watch.end_import),
        closed(keep),
        closed(watch.looked_up),
        build_class,
    )


def _with_exact(function: Callable[..., Any], *args: Any) -> Any:
    return function(*map(_exact, args))


def _exact(value: Any) -> Any:
    """Return a name, names or function unchanged, with subclasses of str as plain str."""
    kind = type(value)
    if kind is str or kind is FunctionType:
        return value
    if kind is tuple:
        return tuple(map(_exact, value))
    if issubclass(kind, str):
        return str.__str__(value)
    raise TypeError("the name of a module must be text")


class Namespace:
    """One invocation's modules."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.modules: dict[str, ModuleType] = {}
        self._views: dict[int, ModuleType] = {}
        self._builtins = vars(builtins) | {
            "__import__": self._import,
            "__build_class__": sources.build_class,
            "breakpoint": _breakpoint,
        }

    def load(self, name: str) -> ModuleType:
        """Return the module, executed at its first use; ImportError if the Worker lacks it."""
        if name in self.modules:
            return self.modules[name]
        found = self._sources.find(name)
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = ModuleType(name)
        names = module.__dict__
        spec = names["__spec__"] = _spec(name, found)
        names["__loader__"] = spec.loader
        names["__file__"] = found.file
        names["__builtins__"] = self._builtins
        if found.folder is None:
            names["__package__"] = name.rpartition(".")[0]
        else:
            names["__path__"] = [found.folder]
            names["__package__"] = name
        self.modules[name] = module
        stand_in_for(name, found.file)
        try:
            exec(found.code, names)  # noqa: S102 (running worker code is what this is for)
        except BaseException:
            self.modules.pop(name, None)
            raise
        return self.modules.get(name, module)  # the module may have replaced itself

    def own(self, name: str) -> ModuleType | None:
        """Return the module of that name, loaded if necessary; None if the Worker lacks it."""
        if name in self.modules:
            return self.modules[name]
        return None if self._sources.find(name) is None else self._load_chain(name)

    def growing(self) -> tuple[dict[Any, Any], ...]:
        """Return the dicts to which a late import adds an entry."""
        return self.modules, self._views

    def spec_of(self, name: str) -> ModuleSpec | None:
        """Return the spec of the Worker's module of that name, or None."""
        found = self._sources.find(name)
        return None if found is None else _spec(name, found)

    # Runs for every import statement of every invocation, so the common case comes first.
    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 (the names of __import__)
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level:
            package = str((globals or {}).get("__package__") or "")
            name = importlib.util.resolve_name("." * level + name, package)
        top = name.partition(".")[0]
        if self._sources.find(top) is None:
            return self._import_library(name, tuple(fromlist or ()))
        module = self.modules.get(name) or self._load_chain(name)
        if not fromlist:
            return self.modules[top] if not level else module
        if "__path__" in module.__dict__:
            for wanted in fromlist:
                submodule = f"{name}.{wanted}"
                if not hasattr(module, wanted) and self._sources.find(submodule) is not None:
                    self._load_chain(submodule)
        return module

    def _import_library(self, name: str, fromlist: tuple[str, ...]) -> ModuleType:
        if name.partition(".")[0] == HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        found = self._sources.imported(name, fromlist)
        if found is None:
            name, fromlist = _exact(name), _exact(fromlist)  # become keys of ``sys.modules``
            remove_stand_ins(name)
            self._sources.begin_import()
            # Called in this frame: a vendored package can inspect the frames below its import.
            builtins.__import__(name, None, None, fromlist, 0)
            self._sources.end_import(name)
            found = self._sources.keep(name, fromlist)
        view = self.view(found)
        if fromlist and fromlist[0] == "*" and not hasattr(found, "__all__"):
            for public in vars(found):
                if not public.startswith("_"):
                    setattr(view, public, getattr(view, public))
        return view

    def view(self, module: ModuleType) -> ModuleType:
        """Return this Namespace's view of a library module."""
        view = self._views.get(id(module))
        if view is None:
            if module is builtins:
                view = _BuiltinsView(self._builtins)
            else:
                view = _View.__new__(_View)  # not initialised: its names are the module's
                _MODULE.__set__(view, module)
                _NAMESPACE.__set__(view, self)
            self._views[id(module)] = view
        return view

    def seen(self, module: ModuleType, name: str) -> Any:
        """Return the value that a view shows for a name that was not set on it."""
        if module is sys and name == "modules":
            return _SeenModules(self)
        if module is importlib and name == "import_module":
            return self._import_module
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            return self.view(value)
        if type(value) is FunctionType:
            self._sources.looked_up(value)
        return value

    def seen_modules(self) -> dict[str, ModuleType]:
        """Return the modules that worker code may see, its own included."""
        library = {
            key: self.view(each)
            for key, each in list(sys.modules.items())
            if type(each) is not StandIn and key.partition(".")[0] not in {HIDDEN, "__main__"}
        }
        return library | self.modules

    def _import_module(self, name: str, package: str | None = None) -> ModuleType:
        absolute = importlib.util.resolve_name(name, package)
        return self._import(absolute, None, None, ("__name__",))

    def _load_chain(self, name: str) -> ModuleType:
        if "." not in name:
            return self.load(name)
        parent: ModuleType | None = None
        module: ModuleType | None = None
        for end, part in enumerate(name.split("."), 1):
            module = self.load(".".join(name.split(".")[:end]))
            if parent is not None:
                setattr(parent, part, module)
            parent = module
        assert module is not None
        return module


def _spec(name: str, found: Code) -> ModuleSpec:
    loader = OwnLoader(name, found.file or f"{found.folder}/__init__.py")
    spec = ModuleSpec(name, loader, origin=found.file, is_package=found.folder is not None)
    if found.folder is not None:
        spec.submodule_search_locations = [found.folder]
    spec.has_location = found.file is not None
    return spec


class _SeenModules(dict[str, ModuleType]):
    """``sys.modules`` of one Namespace; a module set here becomes the Namespace's own."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace.seen_modules())
        self._modules = namespace.modules

    def __setitem__(self, name: str, module: ModuleType) -> None:
        super().__setitem__(name, module)
        self._modules[name] = module

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._modules.pop(name, None)


class _View(ModuleType):
    """A view of a library module, with the attributes that one invocation has set on it."""

    __slots__ = ("_module", "_namespace")

    def __getattr__(self, name: str) -> Any:
        return _NAMESPACE.__get__(self).seen(_MODULE.__get__(self), name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(_MODULE.__get__(self)), *self.__dict__})


# The slots are removed from the class: no attribute of a view leads to the module behind it.
_MODULE, _NAMESPACE = vars(_View)["_module"], vars(_View)["_namespace"]
delattr(_View, "_module")
delattr(_View, "_namespace")
VIEW = _View
"""The class of views, which has two slots that its names do not show."""


class _BuiltinsView(ModuleType):
    """``builtins`` of one Namespace."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__("builtins")
        object.__setattr__(self, "_names", names)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_names"][name]
        except KeyError:
            raise AttributeError(f"module 'builtins' has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__["_names"][name] = value

    def __delattr__(self, name: str) -> None:
        del self.__dict__["_names"][name]


def _breakpoint(*args: Any, **kwargs: Any) -> None:
    """Start the debugger on the real terminal, since stdout is the Worker's log."""
    import pdb  # noqa: T100 (for the inline level; isolates would share its memory for nothing)

    pdb.Pdb(stdout=sys.__stdout__, nosigint=True).set_trace(sys._getframe(1))  # noqa: SLF001
