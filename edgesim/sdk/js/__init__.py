"""The part of JavaScript's global scope that portable Python needs, by JavaScript's own names.

``console``, ``JSON``, ``Object``, and the classes of the web that the SDK wraps: Headers, Request,
Response, ReadableStream, FormData, Blob and File.  Anything else is an ImportError, which portable
code may catch (``Reflect`` and ``Array`` are left out on purpose: code that reaches below the SDK
takes its way without JavaScript here).
"""

from typing import Any

from js._blob import Blob, File
from js._console import console
from js._formdata import FormData
from js._headers import Headers
from js._http import Request, Response, fetch
from js._json import JSON, Object
from js._stream import ReadableStream

__all__ = [
    "JSON",
    "Blob",
    "File",
    "FormData",
    "Headers",
    "Object",
    "ReadableStream",
    "Request",
    "Response",
    "console",
    "fetch",
]


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    # An ImportError even for `js.X`: `from js import X` would turn any other into one without a
    # reason.
    raise ImportError(f"js.{name} is not in edgesim: Python code here runs without JavaScript")
