"""Random changes to the objects of things.py and neighbour.py, and changes that come later."""

import asyncio
import builtins
import sys
import types
import weakref

import neighbour
import things

VALUES = (0, "changed", None, [9], {"new": 1}, (1,), int)


def _objects():
    """Return all objects of the two modules that can be changed, in a fixed order."""
    found, seen, stack = [], set(), [vars(neighbour), vars(things)]
    while stack:
        each = stack.pop()
        if id(each) in seen or isinstance(each, types.ModuleType | str | bytes):
            continue
        seen.add(id(each))
        if isinstance(each, type) and each.__module__ not in ("things", "neighbour"):
            continue
        if isinstance(each, types.FunctionType) and not _is_own(each):
            continue
        if type(each).__module__ == "typing":
            continue  # typing itself keeps the constructs that it has made, for all
        if each is vars(things).get("__builtins__"):
            continue
        found.append(each)
        stack += _parts(each)
    return found


def _is_own(function):
    """Return False for a method of a library class, which all invocations share."""
    return function.__globals__["__name__"] in ("things", "neighbour", "__create_fn__")


def _parts(each):
    if isinstance(each, dict):
        return list(each.values())
    if isinstance(each, list | tuple) or type(each).__name__ == "deque":
        return list(each)
    if isinstance(each, types.FunctionType):
        return [*(each.__closure__ or ()), each.__defaults__, each.__kwdefaults__, each.__dict__]
    if isinstance(each, types.CellType):
        try:
            return [each.cell_contents]
        except ValueError:  # it is empty
            return []
    if isinstance(each, types.MethodType):
        return [each.__func__, each.__self__]
    if isinstance(each, staticmethod | classmethod):
        return [each.__func__]
    if isinstance(each, property):
        return [each.fget]
    if isinstance(each, type):
        return [*vars(each).values(), type(each)]
    found = [getattr(each, name) for name in ("left",) if hasattr(type(each), name)]
    return [*found, *getattr(each, "__dict__", {}).values(), type(each)]


def change(random, times):
    """Make so many random changes; return the names of those made."""
    done = []
    while len(done) < times:
        try:
            each = random.choice(_objects())
        except Exception:  # what was changed before cannot be walked any more
            return done
        kind = next((kind for kind in CHANGES if isinstance(each, kind)), object)
        action = random.choice(CHANGES[kind])
        try:
            action(each, random.choice(VALUES))
        except Exception:  # it cannot be changed in this way
            continue
        done.append(f"{kind.__name__} {CHANGES[kind].index(action)}")
    return done


def _reorder(names, value):
    key = next(iter(names))
    names[key] = names.pop(key)


def _swap_keys(names, value):
    """Give a value another key at the same place."""
    key, kept = names.popitem()
    names[f"{key}'"] = kept


def _again(names, value):
    key = next(iter(names))
    names[key] = type(names[key])(names[key])


def _code(function, value):
    function.__code__ = (lambda *args, **kwargs: "evil").__code__


def _cell(cell, value):
    cell.cell_contents = value


def _pop_and_add(members, value):
    members.add(members.pop())


def _replace_dict(instance, value):
    instance.__dict__ = {**instance.__dict__, "evil": value}


def _other_class(instance, value):
    instance.__class__ = type("Other", (type(instance),), {"__module__": "changed"})


def _bases(kind, value):
    kind.__bases__ = (type("Between", kind.__bases__, {"__slots__": ()}),)


def _first(listed, value):
    listed[0] = value


CHANGES = {
    dict: [
        lambda each, value: each.update(evil=value),
        lambda each, value: each.popitem(),
        lambda each, value: each.__setitem__(next(iter(each)), value),
        _reorder,
        _swap_keys,
        _again,
    ],
    list: [
        lambda each, value: each.append(value),
        lambda each, value: each.pop(),
        lambda each, value: each.reverse(),
        _first,
    ],
    set: [
        lambda each, value: each.add(str(value)),
        lambda each, value: each.pop(),
        _pop_and_add,
    ],
    bytearray: [lambda each, value: each.append(1), lambda each, value: each.reverse()],
    types.FunctionType: [
        _code,
        lambda each, value: setattr(each, "__defaults__", (value,)),
        lambda each, value: setattr(each, "__kwdefaults__", {"c": value}),
        lambda each, value: setattr(each, "evil", value),
        lambda each, value: each.__annotations__.update(evil=value),
        lambda each, value: setattr(each, "__doc__", value),
        lambda each, value: setattr(each, "__name__", "evil"),
        lambda each, value: setattr(each, "__qualname__", "evil"),
        lambda each, value: setattr(each, "__module__", "evil"),
    ],
    types.CellType: [_cell, lambda each, value: each.__delattr__("cell_contents")],
    type: [
        lambda each, value: setattr(each, "evil", value),
        lambda each, value: setattr(each, "method", lambda self: value),
        lambda each, value: setattr(each, "__name__", "Evil"),
        lambda each, value: setattr(each, "__qualname__", "Evil"),
        lambda each, value: setattr(each, "__doc__", "Evil"),
        lambda each, value: delattr(each, next(name for name in vars(each) if name[0] != "_")),
        _bases,
    ],
    property: [lambda each, value: each.__init__(lambda self: value)],
    staticmethod: [lambda each, value: setattr(each, "evil", value)],
    classmethod: [lambda each, value: setattr(each, "evil", value)],
    type(things.partial): [
        lambda each, value: setattr(each, "evil", value),
        lambda each, value: each.__setstate__((sorted, (), {}, {"evil": 1})),
    ],
    type(things.queued): [
        lambda each, value: each.rotate(1),
        lambda each, value: each.append(value),
    ],
    type(things.numbers): [lambda each, value: each.append(1), lambda each, value: each.pop()],
    type(things.lock): [lambda each, value: each.acquire(blocking=False)],
    object: [
        lambda each, value: setattr(each, "evil", value),
        lambda each, value: setattr(each, "left", value),
        lambda each, value: delattr(each, "left"),
        lambda each, value: each.__dict__.clear(),
        _replace_dict,
        _other_class,
    ],
}


# --- what is left behind ---


def _evil():
    things.listed.append("evil")
    things.Base.shared.append("evil")
    neighbour.names["evil"] = 1


def leave_nothing():
    """Only garbage that runs no code and refers to no module."""
    cycle = []
    cycle.append(cycle)


def leave_partial():
    """Another state of a partial function."""
    things.partial.__setstate__((sorted, (), {}, {"evil": 1}))


class _Finalizer:
    def __init__(self):
        self.cycle = self

    def __del__(self):
        _evil()


def leave_finalizer():
    """Garbage with a destructor, which runs when garbage is collected."""
    _Finalizer()


def leave_foreign_finalizer():
    """The same, by code whose globals are not a module's."""
    target = weakref.ref(things.Base)
    names = {"__builtins__": {"__build_class__": __build_class__, "__name__": "x"}, "r": target}
    source = "class F:\n  def __del__(self):\n    r().shared.append('evil')\n"
    exec(source, names)  # noqa: S102
    made = names.pop("F")()
    made.cycle = made


def leave_generator():
    """A suspended generator in a cycle, which ends when garbage is collected."""

    def generator():
        try:
            yield
        finally:
            _evil()

    running = generator()
    next(running)
    cycle = [running]
    cycle.append(cycle)


def leave_task():
    """A task that never ends, with a block that runs when it is closed."""

    async def forever():
        try:
            await asyncio.sleep(1e6)
        finally:
            _evil()

    asyncio.ensure_future(forever())


def leave_callback():
    """A timer that is due after the end."""
    asyncio.get_running_loop().call_later(0.001, _evil)


def leave_weakref_callback():
    """A weak reference whose callback runs when its object dies."""

    class Target:
        pass

    target = Target()
    target.cycle = target
    target.reference = weakref.ref(things.Child, lambda _: _evil())
    things.Child.keep = None
    del things.Child.keep


def leave_reference():
    """A weak reference to a class, with a message for whoever asks for it."""
    cycle = [weakref.ref(things.Base, lambda _: _evil())]
    cycle.append(cycle)


def leave_exception():
    """An exception whose frames hold an object with a destructor."""
    try:
        made = _Finalizer()
        raise ValueError(made)
    except ValueError as error:
        made.cycle = error


def leave_subclass():
    """A class derived from a module's class, and an object of it with a destructor."""

    class Derived(things.Child):
        def __del__(self):
            _evil()

    made = Derived()
    made.own["cycle"] = made


def leave_builtin():
    """A builtin, by both ways in which a module has it."""
    builtins.evil = 1
    builtins.len = lambda _: -1


def leave_view():
    """A name set on a view of a library module, from a function's import."""
    import json

    json.dumps = lambda *_: "evil"


def leave_module():
    """A module of the Worker's own replaced in ``sys.modules``."""
    sys.modules["neighbour"] = types.ModuleType("neighbour")
    sys.modules["things"].listed = ["evil"]


def leave_lazy_name():
    """A name that a module makes when it is asked for."""
    neighbour.lazy.append("evil")


def leave_late_module():
    """A module that is imported late and changed."""
    import late

    late.seen.append("evil")
