"""Attacks that leave something of theirs where the platform or the next invocation looks."""

import asyncio
import gc
import json
import logging
import os
import re
import sys

ATTACKS = {}


def attack(function):
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


def real(name):
    """Return the names of a library module itself, past the view of it."""
    return os.walk.__globals__["sys"].modules[name].__dict__


class Equal(str):
    """Text that calls itself equal to any other."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = str.__hash__


@attack
def equal_to_anything(worker, request):
    sys.path[0] = Equal(sys.path[0])


@attack
def equal_level(worker, request):
    logging.root.__dict__["level"] = Equal("evil")


@attack
def names_of_os(worker, request):
    real("os")["getcwd"] = lambda: "evil"


@attack
def names_of_sys(worker, request):
    real("sys")["intern"] = lambda text: "evil"


@attack
def names_of_the_scheduler(worker, request):
    """Replace what the scheduler looks up, by what reads the scheduler off its frame."""
    clock = real("time")["thread_time"]

    def spy():
        frame = sys._getframe(1)
        for number in list(getattr(frame.f_locals.get("self"), "_live", ())):
            real("json")["evil"] = number
        return clock()

    real("time")["thread_time"] = spy
    real("gc")["get_count"] = spy


@attack
def names_of_builtins(worker, request):
    """Replace a builtin that the audit hook uses, by what reads the hook off its frame."""
    found = real("builtins")["getattr"]

    def spy(*args):
        hook = sys._getframe(1).f_locals.get("self")
        if hasattr(hook, "shared"):
            hook.shared = False
        return found(*args)

    real("builtins")["getattr"] = spy
    try:
        raise ValueError
    except ValueError as error:
        error.__traceback__.tb_frame.f_back  # noqa: B018 (the hook judges this)
    return len(gc.get_objects())


@attack
def asyncgen_hooks(worker, request):
    sys.set_asyncgen_hooks(firstiter=lambda generator: None)


@attack
def traced(worker, request):
    sys.settrace(lambda *_: None)


@attack
def profiled(worker, request):
    sys.setprofile(lambda *_: None)


@attack
def finder_patched(worker, request):
    sys.meta_path[0].find_spec = lambda *args: None


@attack
def path_finders(worker, request):
    class Finder:
        def find_spec(self, name, target=None):
            return None

    sys.path_importer_cache[sys.path[-1]] = Finder()


@attack
def loggers_patched(worker, request):
    logging.root.info = lambda *args: "evil"
    logging.getLogger("planted").info = lambda *args: "evil"


@attack
def cache_poisoned(worker, request):
    re.match("never", "always")
    for key in list(re._cache):
        re._cache[key] = re.compile("", key[-1])
    if hasattr(re, "_cache2"):
        re._cache2.clear()


def seen():
    """Return what an attack may have left."""
    hook = sys.get_asyncgen_hooks().firstiter
    return {
        "planted path": type(sys.path[0]).__name__,
        "planted level": type(logging.root.level).__name__,
        "planted names": [os.getcwd() == "evil", sys.intern("a"), real("json").get("evil")],
        "planted finder": "find_spec" in getattr(sys.meta_path[0], "__dict__", {}),
        "planted tracer": [sys.gettrace() is None, sys.getprofile() is None],
        "planted hook": getattr(hook, "__name__", None),
        "planted finders": [
            type(each).__name__
            for each in sys.path_importer_cache.values()
            if "locals" in repr(each)
        ],
        "planted loggers": [logging.root.info("x"), logging.getLogger("planted").info("x")],
        "planted cache": re.match("never", "always") is None,
        "planted loop": asyncio.get_running_loop().get_debug(),
        "planted json": json.dumps({}),
    }
