"""edgesim's implementation of Cloudflare's Python SDK, imported with ``from workers import ...``.

Facts: the package workers-runtime-sdk 1.9.  Names, defaults and exceptions are the same; a name
that is not implemented raises an ImportError with the reason.
"""

from typing import Any

from workers._bindings import CurrentEnv
from workers._blob import Blob, BlobEnding, File
from workers._convert import python_from_rpc, python_to_rpc
from workers._entrypoint import WorkerEntrypoint, wait_until
from workers._formdata import FormData
from workers._http import FetchResponse, Request, Response, fetch
from workers._legacy import handler, import_from_javascript, patch_env
from workers._types import (
    BlobValue,
    Body,
    Context,
    FetchKwargs,
    FormDataValue,
    Headers,
    JSBody,
    RequestInitCfProperties,
)

env = CurrentEnv()
waitUntil = wait_until

__all__ = [
    "Blob",
    "BlobEnding",
    "BlobValue",
    "Body",
    "Context",
    "FetchKwargs",
    "FetchResponse",
    "File",
    "FormData",
    "FormDataValue",
    "Headers",
    "JSBody",
    "Request",
    "RequestInitCfProperties",
    "Response",
    "WorkerEntrypoint",
    "env",
    "fetch",
    "handler",
    "import_from_javascript",
    "patch_env",
    "python_from_rpc",
    "python_to_rpc",
    "waitUntil",
    "wait_until",
]

_ELSEWHERE = {
    "DurableObject": "edgesim runs pipelines of stateless Workers",
    "WorkflowEntrypoint": "edgesim runs pipelines of stateless Workers",
    "wsgi": "use workers.asgi, or fetch(self, request)",
    "workflows": "edgesim runs pipelines of stateless Workers",
}


def not_here(name: str) -> ImportError:
    """Return the ImportError for a name that edgesim does not implement."""
    reason = _ELSEWHERE[name]
    return ImportError(f"workers.{name} is in Cloudflare's SDK but not in edgesim: {reason}")


def __getattr__(name: str) -> Any:
    if name == "asgi":
        from importlib import import_module  # not a name of the SDK's

        return import_module("workers.asgi")
    if name in _ELSEWHERE:
        raise not_here(name)
    raise AttributeError(f"module 'workers' has no attribute {name!r}")
