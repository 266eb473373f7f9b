"""Subset of JavaScript's global scope that portable Python needs, with JavaScript's names.

``console``, ``JSON``, ``Object``, the web classes that the SDK wraps (Headers, Request, Response,
ReadableStream, FormData, Blob and File), ArrayBuffer, the typed arrays, and DataView.  Any other
name is an ImportError, which portable code may catch (``Reflect`` and ``Array`` are left out on
purpose, so that code below the SDK takes its path without JavaScript here).
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

from js._blob import Blob, File
from js._console import console
from js._formdata import FormData
from js._headers import Headers
from js._http import Request, Response, fetch
from js._json import JSON, Object
from js._stream import ReadableStream

__all__ = [
    "JSON",
    "ArrayBuffer",
    "BigInt64Array",
    "BigUint64Array",
    "Blob",
    "DataView",
    "File",
    "Float32Array",
    "Float64Array",
    "FormData",
    "Headers",
    "Int8Array",
    "Int16Array",
    "Int32Array",
    "Object",
    "ReadableStream",
    "Request",
    "Response",
    "Uint8Array",
    "Uint8ClampedArray",
    "Uint16Array",
    "Uint32Array",
    "console",
    "fetch",
]


_ELSEWHERE = {
    "WebSocket": "it has no WebSockets",
    "WebSocketPair": "it has no WebSockets",
    "WebSocketRequestResponsePair": "it has no WebSockets",
}


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    # ImportError even for `js.X`: `from js import X` replaces an AttributeError by an ImportError
    # without the reason.
    reason = _ELSEWHERE.get(name, "Python code here runs without JavaScript")
    raise ImportError(f"js.{name} is not in edgesim: {reason}")
