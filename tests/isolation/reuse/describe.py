"""A description of an object and of all that it refers to, without addresses."""

import types

PLAIN = (str, int, float, bytes, bool, type(None), range)
HIDDEN = {
    "__weakref__",
    "__dict__",
    "__builtins__",
    "__spec__",
    "__loader__",
    "__abstractmethods__",
}
OF_FUNCTIONS = ("__name__", "__qualname__", "__doc__", "__module__", "__defaults__")
OF_FUNCTIONS += ("__kwdefaults__", "__dict__", "__annotations__")


def describe(value, seen=None):
    seen = {} if seen is None else seen
    kind = type(value)
    if kind in PLAIN:
        return repr(value)
    if id(value) in seen:
        return f"seen {seen[id(value)]}"
    seen[id(value)] = len(seen)
    parts = [kind.__name__]
    if isinstance(value, types.ModuleType):
        return parts
    if isinstance(value, type):
        return [*parts, *_of_class(value, seen)]
    if isinstance(value, dict):
        parts += [[describe(k, seen), describe(v, seen)] for k, v in dict.items(value)]
        if kind.__name__ == "OrderedDict":
            parts.append(list(value))
        parts.append(repr(getattr(value, "default_factory", None)))
    elif isinstance(value, set | frozenset):
        parts += sorted(str(describe(each, seen)) for each in value)
        parts.append(repr(list(value)))
    elif isinstance(value, list | tuple) or kind.__name__ == "deque":
        parts += [describe(each, seen) for each in value]
    elif kind is types.FunctionType:
        parts += [describe(getattr(value, name), seen) for name in OF_FUNCTIONS]
        parts.append(value.__code__.co_name + value.__code__.co_code.hex())
        parts += [describe(_content(cell), seen) for cell in value.__closure__ or ()]
    elif kind is types.MethodType:
        parts += [describe(value.__func__, seen), describe(value.__self__, seen)]
    elif kind in (staticmethod, classmethod):
        parts += [describe(value.__func__, seen), describe(vars(value), seen)]
    elif kind is property:
        parts += [describe(each, seen) for each in (value.fget, value.fset, value.fdel)]
    elif kind.__name__ == "partial":
        parts += [describe(each, seen) for each in (value.args, value.keywords, vars(value))]
    elif kind.__name__ in ("bytearray", "array", "Text", "Level"):
        parts.append(
            bytes(value).hex()
            if kind.__name__ == "bytearray"
            else repr(list(value))
            if kind.__name__ == "array"
            else str(value)
        )
    elif kind.__name__ == "lock":
        parts.append(repr(value.locked()))
    names = getattr(value, "__dict__", None)
    if names is not None and kind not in (types.FunctionType, staticmethod, classmethod):
        parts.append([[name, describe(each, seen)] for name, each in names.items()])
    parts += [
        [name, describe(getattr(value, name, "unset"), seen)]
        for each in kind.__mro__
        for name in vars(each).get("__slots__", ())
        if each.__module__ == "things" and name != "__weakref__"
    ]
    return parts


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _of_class(kind, seen):
    if kind.__module__ not in ("things", "neighbour", "changes", "worker", "changed"):
        return [kind.__name__]
    return [
        kind.__name__,
        kind.__qualname__,
        [describe(each, seen) for each in (type(kind), *kind.__bases__)],
        [[name, describe(each, seen)] for name, each in vars(kind).items() if name not in HIDDEN],
    ]
