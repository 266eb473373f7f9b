"""edgesim's side of Cloudflare's Python SDK: what worker code gets by ``from workers import ...``.

Facts: the package workers-runtime-sdk 1.9.  Names, defaults and exceptions are its own; what is not
here raises an ImportError that says so.
"""

from typing import Any

from workers._bindings import CurrentEnv
from workers._entrypoint import WorkerEntrypoint, wait_until
from workers._http import FetchResponse, Request, Response, fetch

env = CurrentEnv()
waitUntil = wait_until

__all__ = [
    "FetchResponse",
    "Request",
    "Response",
    "WorkerEntrypoint",
    "env",
    "fetch",
    "waitUntil",
    "wait_until",
]

_ELSEWHERE = {
    "Blob",
    "BlobEnding",
    "BlobValue",
    "Body",
    "Context",
    "DurableObject",
    "FetchKwargs",
    "File",
    "FormData",
    "FormDataValue",
    "Headers",
    "JSBody",
    "RequestInitCfProperties",
    "WorkflowEntrypoint",
    "handler",
    "import_from_javascript",
    "patch_env",
    "python_from_rpc",
    "python_to_rpc",
}


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        raise ImportError(f"workers.{name} is in Cloudflare's SDK but not in edgesim")
    raise AttributeError(f"module 'workers' has no attribute {name!r}")
