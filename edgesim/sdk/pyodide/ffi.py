"""Python replacements for Pyodide's proxies of JavaScript values.

As on the platform, a raw JavaScript value has attributes and no ``[]``, null is ``jsnull`` and
undefined is None.  Internally, a proxy holds the value in wire form (None is null), and
``UNDEFINED`` for JavaScript's undefined.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Any

from pyodide._proxies import (
    IN_BROWSER,
    SAFE_INTEGER_MAX,
    UNDEFINED,
    ConversionError,
    JsArray,
    JsBuffer,
    JsDate,
    JsException,
    JsNull,
    JsProxy,
    jsnull,
    shown,
    to_proxy,
    to_raw,
    whole,
)
from pyodide._typed_arrays import JsTypedArray, copy_of

__all__ = [
    "IN_BROWSER",
    "SAFE_INTEGER_MAX",
    "UNDEFINED",
    "ConversionError",
    "JsArray",
    "JsBuffer",
    "JsDate",
    "JsException",
    "JsNull",
    "JsProxy",
    "JsTypedArray",
    "create_once_callable",
    "create_proxy",
    "destroy_proxies",
    "jsnull",
    "to_js",
    "to_proxy",
    "whole",
]

# Worker code and traces see the name of the module that they import from, as on the platform.
for _public in (ConversionError, JsArray, JsBuffer, JsDate, JsException, JsNull, JsProxy):
    _public.__module__ = __name__


def to_js(
    obj: Any,
    /,
    *,
    depth: int = -1,
    pyproxies: Any = None,
    create_pyproxies: bool = True,
    dict_converter: Callable[[Iterable[tuple[str, Any]]], Any] | None = None,
    default_converter: Callable[..., Any] | None = None,
    eager_converter: Callable[..., Any] | None = None,
) -> Any:
    """Convert a value to JavaScript.  None becomes undefined, so a key with it is dropped.

    A dict becomes an object, as in Pyodide from 314 on (before that: a Map, unless
    ``dict_converter`` is set).  Bytes become a Uint8Array, and arrays the
    typed array of their format.
    """
    if isinstance(obj, JsBuffer):
        return obj
    if isinstance(obj, bytes | bytearray | memoryview | array):
        return copy_of(obj)
    return shown(to_raw(obj, dict_converter, default_converter))


def create_proxy(obj: Any, /, *, capture_this: bool = False, roundtrip: bool = True) -> Any:
    """Return the object itself: there is no JavaScript heap to keep it alive on."""
    return obj


def create_once_callable(obj: Any, /, *, _may_syncify: bool = False) -> Any:
    """Return the function itself."""
    return obj


def destroy_proxies(pyproxies: Any, /) -> None:
    """Do nothing: there are no proxies to destroy."""


_IN_PYODIDE_ONLY = {
    "JsAsyncGenerator",
    "JsAsyncIterable",
    "JsAsyncIterator",
    "JsCallable",
    "JsCallableDoubleProxy",
    "JsDomElement",
    "JsDoubleProxy",
    "JsFetchResponse",
    "JsGenerator",
    "JsIterable",
    "JsIterator",
    "JsMap",
    "JsMutableMap",
    "JsOnceCallable",
    "JsPromise",
    "JsWeakRef",
    "ToJsConverter",
    "register_js_module",
    "run_sync",
    "unregister_js_module",
}


def __getattr__(name: str) -> Any:
    if name in _IN_PYODIDE_ONLY:
        raise ImportError(f"pyodide.ffi.{name} is in Pyodide but not in edgesim")
    raise AttributeError(f"module 'pyodide.ffi' has no attribute {name!r}")
