"""Probes of imports: own modules that have the name of a library module, and others."""

import importlib
from urllib.parse import urlsplit

from workers import Response, WorkerEntrypoint

NAMES = (
    *("calendar", "ipaddress", "queue", "statistics", "cgi", "curses", "pwd", "asgi", "shapes"),
    "parts.inner",
)


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response.json(globals()[urlsplit(request.url).path.strip("/")]())


def whose(name):
    return getattr(importlib.import_module(name), "WHERE", "the library's")


WHEN_IMPORTED = {name: whose(name) for name in NAMES}


def at_import():
    return WHEN_IMPORTED


def in_a_handler():
    return {name: whose(name) for name in NAMES}


def by_statement():
    import calendar
    import curses
    import queue

    return [getattr(each, "WHERE", "the library's") for each in (calendar, curses, queue)]


def a_name_that_only_the_own_module_has():
    try:
        from statistics import WHERE
    except ImportError as error:
        return [type(error).__name__, error.name]
    return WHERE


def a_library_module_that_imports_one():
    from http.cookiejar import timegm  # from calendar

    return timegm((1970, 1, 2, 0, 0, 0))
