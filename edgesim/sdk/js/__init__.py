"""Subset of JavaScript's global scope that portable Python needs, with JavaScript's names.

``console``, ``JSON``, ``Object``, ``Date``, ``crypto``, URL and URLSearchParams, TextEncoder and
TextDecoder, streams, the web classes that the SDK wraps (Headers, Request, Response, FormData, Blob
and File), ArrayBuffer, the typed arrays, and DataView.  Names in ``_absent`` are importable, and an
error when used.  Any other name is an ImportError, which portable code may catch: ``Reflect`` and
``Array`` are left out on purpose, so that code below the SDK takes its path without JavaScript.
"""

from typing import Any

from pyodide._proxies import JsBuffer as ArrayBuffer
from pyodide._typed_arrays import (
    BigInt64Array,
    BigUint64Array,
    DataView,
    Float32Array,
    Float64Array,
    Int8Array,
    Int16Array,
    Int32Array,
    Uint8Array,
    Uint8ClampedArray,
    Uint16Array,
    Uint32Array,
)

from js._absent import ABSENT
from js._blob import Blob, File
from js._console import console
from js._crypto import CryptoKey, crypto
from js._date import Date
from js._encoding import TextDecoder, TextEncoder
from js._formdata import FormData
from js._headers import Headers
from js._http import Request, Response, fetch
from js._json import JSON, Object
from js._search_params import URLSearchParams
from js._stream import ReadableStream
from js._transform import IdentityTransformStream, TransformStream, WritableStream
from js._url import URL

__all__ = [
    "JSON",
    "URL",
    "ArrayBuffer",
    "BigInt64Array",
    "BigUint64Array",
    "Blob",
    "CryptoKey",
    "DataView",
    "Date",
    "File",
    "Float32Array",
    "Float64Array",
    "FormData",
    "Headers",
    "IdentityTransformStream",
    "Int8Array",
    "Int16Array",
    "Int32Array",
    "Object",
    "ReadableStream",
    "Request",
    "Response",
    "TextDecoder",
    "TextEncoder",
    "TransformStream",
    "URLSearchParams",
    "Uint8Array",
    "Uint8ClampedArray",
    "Uint16Array",
    "Uint32Array",
    "WritableStream",
    "console",
    "crypto",
    "fetch",
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    # ImportError even for `js.X`: `from js import X` replaces an AttributeError by an ImportError
    # without the reason.
    if name in ABSENT:
        return ABSENT[name]
    raise ImportError(f"js.{name} is not in edgesim: Python code here runs without JavaScript")
