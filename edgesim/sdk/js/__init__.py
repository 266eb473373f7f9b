"""Subset of JavaScript's global scope that portable Python needs, with JavaScript's names.

``console``, ``JSON``, ``Object``, and the web classes that the SDK wraps: Headers, Request,
Response, ReadableStream, FormData, Blob and File.  Any other name is an ImportError, which portable
code may catch (``Reflect`` and ``Array`` are left out on purpose, so that code below the SDK takes
its path without JavaScript here).
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
    # ImportError even for `js.X`: `from js import X` replaces an AttributeError by an ImportError
    # without the reason.
    raise ImportError(f"js.{name} is not in edgesim: Python code here runs without JavaScript")
