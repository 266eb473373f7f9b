"""Worker that changes the standard library's state, reads that state, and uses the library honestly.

`/change/<name>` makes one change, `/look/<name>` returns the state that it affects,
`/honest/<name>` does what ordinary code does.  `/import/<name>` imports a module, and
`/later/<name>` uses it for the first time.
"""

import importlib
import json
import os

from workers import Response, WorkerEntrypoint

CHANGES = {}
HONEST = {}
LATER = {}


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        kind, _, name = request.url.split("/", 3)[3].partition("/")
        if kind == "pid":
            found = os.getpid()
        elif kind == "honest":
            found = HONEST[name]()
        elif kind == "import":
            found = importlib.import_module(LATER[name][1]).__name__
        elif kind == "later":
            found = LATER[name][0](importlib.import_module(LATER[name][1]))
        else:
            found = CHANGES[name][kind == "look"]()
        return Response(json.dumps(repr(found)))


def change(look):
    def keep(function):
        CHANGES[function.__name__] = (function, look)
        return function

    return keep


def honest(function):
    HONEST[function.__name__] = function
    return function


def later(module):
    def keep(function):
        LATER[function.__name__] = (function, module)
        return function

    return keep


def see(expression):
    """Return a function that evaluates a ``module:rest`` expression, importing the module first."""

    def look():
        module, _, rest = expression.partition(":")
        names = {}
        exec(f"import {module}", names)
        return eval(f"{module}.{rest}", names)

    return look


@change(see("logging:getLevelName(25)"))
def logging_level_name():
    import logging

    logging.addLevelName(25, "NOTICE")


@change(see("logging:getLogRecordFactory().__name__"))
def logging_record_factory():
    import logging

    logging.setLogRecordFactory(lambda *args, **kwargs: None)


@change(see("logging:getLoggerClass().__name__"))
def logging_logger_class():
    import logging

    class Mine(logging.Logger):
        pass

    logging.setLoggerClass(Mine)


@change(see("logging:Logger.manager.loggerClass"))
def logging_manager_class():
    import logging

    class Mine(logging.Logger):
        pass

    logging.Logger.manager.setLoggerClass(Mine)


@change(see("logging:lastResort.level"))
def logging_last_resort():
    import logging

    logging.lastResort.setLevel(logging.CRITICAL)


@change(see("logging:lastResort.filters"))
def logging_last_resort_filter():
    import logging

    logging.lastResort.addFilter(lambda record: False)


@change(see("logging:root.handlers"))
def logging_handler():
    import logging

    logging.basicConfig(format="mine: %(message)s")


@change(see("csv:list_dialects()"))
def csv_dialect():
    import csv

    csv.register_dialect("mine", delimiter="|")


@change(see("csv:field_size_limit()"))
def csv_limit():
    import csv

    csv.field_size_limit(5)


@change(see("sqlite3:adapters.keys()"))
def sqlite_adapter():
    import sqlite3

    sqlite3.register_adapter(complex, str)


@change(see("copyreg:dispatch_table.get(type(Ellipsis))"))
def copyreg_function():
    import copyreg

    copyreg.pickle(type(Ellipsis), lambda value: "Ellipsis")


@change(see("pickle:_Pickler.dispatch[int].__name__"))
def pickle_dispatch():
    import pickle

    pickle._Pickler.dispatch[int] = lambda *args: None


@change(see("copy:deepcopy(5)"))
def copy_dispatch():
    import copy

    copy._deepcopy_dispatch[int] = lambda value, memo: 7


def find_codec():
    import codecs

    try:
        return codecs.lookup("mine").name
    except LookupError:
        return None


def find_error_handler():
    import codecs

    try:
        return codecs.lookup_error("mine") is not None
    except LookupError:
        return None


@change(find_codec)
def codecs_search():
    import codecs

    codecs.register(lambda name: codecs.lookup("utf-8") if name == "mine" else None)


@change(find_error_handler)
def codecs_error_handler():
    import codecs

    codecs.register_error("mine", lambda error: ("", error.end))


@change(see("encodings.aliases:aliases.get('mine')"))
def codec_alias():
    import encodings.aliases

    encodings.aliases.aliases["mine"] = "utf_8"


@change(see("email.charset:CHARSETS['utf-8']"))
def email_charset():
    import email.charset

    email.charset.add_charset("utf-8", email.charset.SHORTEST, None, "utf-8")


@change(see("mimetypes:guess_type('a.mine')"))
def mime_type():
    import mimetypes

    mimetypes.add_type("text/mine", ".mine")


@change(see("decimal:DefaultContext.prec"))
def decimal_default():
    import decimal

    decimal.DefaultContext.prec = 5


@change(see("decimal:getcontext().prec"))
def decimal_context():
    import decimal

    decimal.getcontext().prec = 5


@change(see("locale:setlocale(locale.LC_ALL)"))
def locale_default():
    import locale

    locale.setlocale(locale.LC_ALL, "C")


@change(see("urllib.parse:urljoin('mine://a/b', '../c')"))
def url_schemes():
    import urllib.parse

    urllib.parse.uses_relative.append("mine")
    urllib.parse.uses_netloc.append("mine")


@change(see("xml.etree.ElementTree:_namespace_map.get('http://mine')"))
def xml_namespace():
    import xml.etree.ElementTree

    xml.etree.ElementTree.register_namespace("mine", "http://mine")


@change(see("threading:current_thread().name"))
def thread_name():
    import threading

    threading.current_thread().name = "mine"


@change(see("threading:current_thread().__dict__.get('mine')"))
def thread_attribute():
    import threading

    threading.current_thread().mine = True


@change(see("json:dumps.__dict__"))
def function_attribute():
    json.dumps.calls = 1


@change(see("json:dumps([1])"))
def function_defaults():
    json.dumps.__kwdefaults__["separators"] = ("|", "|")


@change(see("textwrap:dedent(' a')"))
def function_code():
    import textwrap

    textwrap.dedent.__code__ = (lambda text: "mine").__code__


def is_registered():
    import collections.abc

    return isinstance(Ellipsis, collections.abc.Sized)


@change(is_registered)
def abstract_class():
    import collections.abc

    collections.abc.Sized.register(type(Ellipsis))


@change(see("numbers:Number.__instancecheck__(Ellipsis)"))
def abstract_number():
    import numbers

    numbers.Number.register(type(Ellipsis))


@change(see("zoneinfo:TZPATH"))
def zone_path():
    import zoneinfo

    zoneinfo.reset_tzpath(["/mine"])


@change(see("shutil:get_archive_formats()"))
def archive_format():
    import shutil

    shutil.register_archive_format("mine", lambda *args: None)


@change(see("shutil:get_unpack_formats()"))
def unpack_format():
    import shutil

    shutil.unregister_unpack_format("zip")


@change(see("gc:get_threshold()"))
def gc_threshold():
    import gc

    gc.set_threshold(5, 5, 5)


@change(see("gc:callbacks"))
def gc_callback():
    import gc

    gc.callbacks.append(lambda phase, info: None)


@change(see("reprlib:repr('a' * 100)"))
def repr_length():
    import reprlib

    reprlib.aRepr.maxstring = 5


@change(see("sys:get_int_max_str_digits()"))
def int_digits():
    import sys

    sys.set_int_max_str_digits(0)


@change(see("socket:getdefaulttimeout()"))
def socket_timeout():
    import socket

    socket.setdefaulttimeout(3)


@change(see("html:unescape('&mine;')"))
def html_entity():
    import html.entities

    html.entities.html5["mine;"] = "x"


@change(see("http.client:responses[200]"))
def http_reason():
    import http.client

    http.client.responses[200] = "mine"


@change(see("json.encoder:py_encode_basestring('a')"))
def json_escape():
    import json.encoder

    json.encoder.ESCAPE_DCT["a"] = "mine"


@change(see("calendar:firstweekday()"))
def calendar_week():
    import calendar

    calendar.setfirstweekday(3)


@change(see("warnings:filters"))
def warning_filter():
    import warnings

    warnings.simplefilter("error")


@change(see("tracemalloc:is_tracing()"))
def memory_tracing():
    import tracemalloc

    tracemalloc.start()


@change(see("string:Formatter().format('{}', 1)"))
def nothing_at_all():
    pass


# --- ordinary use of the library ---


@honest
def import_csv():
    import csv
    import io

    return list(csv.reader(io.StringIO("a,b")))


@honest
def encode_idna():
    return "münchen.example".encode("idna")


@honest
def guess_a_type():
    import mimetypes

    return mimetypes.guess_type("a.png"), mimetypes.guess_extension("text/html")


@honest
def parse_a_time():
    import datetime

    return datetime.datetime.strptime("2026-01-02", "%Y-%m-%d")


@honest
def log():
    import logging

    logging.warning("by the root logger")
    logging.getLogger("mine").info("by one of its own")


@honest
def make_ids():
    import secrets
    import uuid

    return len(str(uuid.uuid4()) + str(uuid.uuid5(uuid.NAMESPACE_DNS, "x")) + secrets.token_hex(2))


@honest
def write_a_mail():
    import email.message

    message = email.message.EmailMessage()
    message["Subject"] = "hé"
    message.set_content("text")
    return message.as_string()


@honest
def read_xml():
    import xml.etree.ElementTree as tree

    return tree.tostring(tree.fromstring("<a xmlns:x='u'><x:b/></a>"))


@honest
def compute_decimals():
    import decimal

    with decimal.localcontext() as context:
        context.prec = 3
        return decimal.Decimal(1) / 3


@honest
def split_urls():
    import urllib.parse

    return urllib.parse.urlsplit("http://a/b?c#d"), urllib.parse.parse_qs("a=1")


@honest
def use_sqlite():
    import sqlite3

    return sqlite3.connect(":memory:").execute("SELECT 1").fetchall()


@honest
def dispatch_by_type():
    import abc
    import functools

    @functools.singledispatch
    def name(value):
        return "any"

    @name.register
    def _(value: int):
        return "int"

    class Mine(abc.ABC):  # noqa: B024 (its subclasses are registered)
        pass

    Mine.register(int)
    return name(1), name(""), isinstance(1, Mine)


@honest
def copy_and_pickle():
    import copy
    import pickle

    return copy.deepcopy({"a": [1]}), pickle.loads(pickle.dumps({"a": 1}))


@honest
def use_regular_expressions():
    import fnmatch
    import re

    return re.sub("a+(?P<x>b)", "c", "aab"), fnmatch.fnmatch("a.py", "*.py")


@honest
def mock():
    import unittest.mock

    return unittest.mock.Mock(return_value=1)()


@honest
def set_cookies():
    import http.cookies

    cookies = http.cookies.SimpleCookie()
    cookies["a"] = "b"
    return cookies.output()


# --- first uses, in another invocation than the import ---


@later("urllib.parse")
def guess_a_type_of_a_url(parse):
    import mimetypes

    return mimetypes.guess_type("http://a/b.png"), parse.unquote_to_bytes("%20")


@later("urllib.parse")
def prepare_a_request(parse):
    import urllib.request

    request = urllib.request.Request("http://user@host:80/path")
    return request.host, request.selector, urllib.request.parse_http_list("a, b")


@later("base64")
def encode_in_all_bases(base64):
    names = ("b16", "b32", "b32hex", "b64", "a85", "b85")
    encoded = [getattr(base64, f"{name}encode")(b"some bytes") for name in names]
    return [getattr(base64, f"{name}decode")(text) for name, text in zip(names, encoded)]


@later("ipaddress")
def format_an_address(ipaddress):
    return f"{ipaddress.IPv4Address('10.0.0.1'):#x} {ipaddress.IPv6Address('::1'):x}"


@later("pkgutil")
def resolve_a_name(pkgutil):
    return pkgutil.resolve_name("json.decoder:JSONDecoder").__name__


@later("posixpath")
def expand_a_path(posixpath):
    return posixpath.expandvars("$NONE/x"), posixpath.expandvars(b"$NONE/x")


@later("zipfile")
def read_an_encrypted_archive(zipfile):
    import io

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a", "text")
    with zipfile.ZipFile(archive) as read:
        read.setpassword(b"password")
        read.getinfo("a").flag_bits |= 1
        try:
            return read.read("a")
        except (RuntimeError, zipfile.BadZipFile) as error:
            return type(error).__name__
