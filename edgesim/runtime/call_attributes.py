"""Names and attributes of the spans of a Worker's calls, as Cloudflare Workers names them.

Source: https://developers.cloudflare.com/workers/observability/traces/spans-and-attributes/, and
workerd for values.  Pipelines are not in that list: their names are edgesim's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from edgesim.isolates.protocol.wire import Call
from edgesim.model import BindingKind
from edgesim.runtime.redaction import redact_url
from edgesim.tracing import TEXT_CHARS_MAX, Attributes, Kind

KEYS_MAX = 100
"""Keys of one call that are shown."""
_OPERATIONS = {
    "head": "HeadObject",
    "get": "GetObject",
    "put": "PutObject",
    "delete": "DeleteObject",
    "list": "ListObjects",
    "createMultipartUpload": "CreateMultipartUpload",
    "uploadPart": "UploadPart",
    "completeMultipartUpload": "CompleteMultipartUpload",
    "abortMultipartUpload": "AbortMultipartUpload",
}
_R2_OBJECT = ("etag", "size", "uploaded")
_R2_HTTP = {
    "contentType": "content_type",
    "contentEncoding": "content_encoding",
    "contentDisposition": "content_disposition",
    "contentLanguage": "content_language",
    "cacheControl": "cache_control",
    "cacheExpiry": "cache_expiry",
}
_R2_LIST = {
    "limit": "limit",
    "prefix": "prefix",
    "cursor": "cursor",
    "delimiter": "delimiter",
    "startAfter": "start_after",
}
_KV_OPTIONS = {
    "type": "type",
    "cacheTtl": "cache_ttl",
    "expiration": "expiration",
    "expirationTtl": "expiration_ttl",
    "prefix": "prefix",
    "limit": "limit",
    "cursor": "cursor",
}
_FETCH_HEADERS = ("content-type", "content-length", "accept", "accept-encoding")

Resource = tuple[BindingKind, str]
"""Kind of a binding, and the name of what it is bound to."""


def name_of(call: Call, resource: Resource | None) -> str:
    """The span's name; "" for a call that is none of the platform's operations."""
    if call.binding == "":
        return "fetch" if call.method == "fetch" else ""
    match resource:
        case ("r2", _):
            return f"r2_{call.method}"
        case ("kv", _):
            return "kv_get" if call.method == "getBulk" else f"kv_{call.method}"
        case ("queue", _):
            return f"queue_{call.method}"
        case ("analytics", _):
            return f"wae_{call.method}"
        case ("pipeline", _):
            return f"pipeline_{call.method}"
        case ("service", _):
            return "fetch" if call.method == "fetch" else "jsRpcSession"
    return ""


def kind_of(name: str) -> Kind:
    """The span's kind."""
    return "producer" if name.startswith(("queue_send", "pipeline_send")) else "client"


def before(call: Call, resource: Resource | None) -> Attributes:
    """Attributes that are known when the call begins."""
    kind, target = resource or ("", "")
    found: Attributes = {}
    if call.binding:
        found["cloudflare.binding.name"] = call.binding
        found["cloudflare.binding.type"] = "KV" if kind == "kv" else kind
    if call.method == "fetch" and kind in {"", "service"}:
        found |= _request(call.args)
        if target:
            found["edgesim.service.name"] = target
        return found
    match kind:
        case "r2":
            found |= {
                "cloudflare.r2.bucket": target,
                "cloudflare.r2.operation": _OPERATIONS.get(call.method, call.method),
            }
            found |= _r2_request(call)
        case "kv":
            found |= {"db.system.name": "cloudflare-kv", "db.operation.name": call.method}
            found |= _kv_query(call)
        case "queue":
            found["cloudflare.queue.name"] = target
            if call.method == "sendBatch" and isinstance(_first(call.args), list):
                found["cloudflare.queue.batch_size"] = len(call.args[0])
        case "analytics":
            found |= {"db.namespace": target, "db.operation.name": call.method}
        case "pipeline":
            found["edgesim.pipeline.name"] = target
            if isinstance(_first(call.args), list):
                found["edgesim.pipeline.records"] = len(call.args[0])
        case "service":
            found |= {"cloudflare.jsrpc.method": _text(call.method), "edgesim.service.name": target}
    return found


def after(call: Call, resource: Resource | None, result: Any) -> Attributes:
    """Attributes that the result adds."""
    kind = resource[0] if resource else ""
    if call.method == "fetch" and kind in {"", "service"} and isinstance(result, dict):
        found: Attributes = {"http.response.status_code": result["status"]}
        if isinstance(result.get("body"), bytes):
            found["http.response.body.size"] = len(result["body"])
        return found
    if kind == "r2":
        return {"cloudflare.r2.response.success": True} | _r2_response(call.method, result)
    if kind == "kv" and isinstance(result, dict):
        return _kv_response(call.method, result)
    return {}


def _request(args: Sequence[Any]) -> Attributes:
    asked = _first(args)
    url = asked.get("url") if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or not isinstance(url, str):
        return {}
    found = of_url(redact_url(url))
    found["http.request.method"] = _text(asked.get("method"))
    headers = asked.get("headers")
    for pair in headers if isinstance(headers, list) else ():
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            continue
        name = str(pair[0]).lower()
        if name in _FETCH_HEADERS:
            found[f"http.request.header.{name}"] = _text(pair[1])
        elif name == "user-agent":
            found["user_agent.original"] = _text(pair[1])
    if isinstance(asked.get("body"), bytes):
        found["http.request.body.size"] = len(asked["body"])
    return found


def of_url(url: str) -> Attributes:
    """Attributes of a URL; only the whole text if it cannot be read."""
    found: Attributes = {"url.full": _text(url)}
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return found
    found |= {"url.scheme": parts.scheme, "url.path": _text(parts.path or "/")}
    if parts.query:
        found["url.query"] = _text(parts.query)
    if host:
        found["server.address"] = host
        found["server.port"] = port or (443 if parts.scheme == "https" else 80)
    return found


def _r2_request(call: Call) -> Attributes:
    args, options = call.args, call.options
    prefix = "cloudflare.r2.request"
    if call.method == "list":
        return {
            f"{prefix}.{name}": _plain(options[option])
            for option, name in _R2_LIST.items()
            if options.get(option) is not None
        }
    if call.method == "delete":
        return {f"{prefix}.keys": _keys(_first(args))}
    found: Attributes = {f"{prefix}.key": _text(_first(args))}
    match call.method:
        case "put":
            if len(args) > 1 and isinstance(args[1], bytes | str):
                found[f"{prefix}.size"] = len(args[1])
            metadata = options.get("httpMetadata")
            for name, value in metadata.items() if isinstance(metadata, dict) else ():
                if name in _R2_HTTP and value is not None:
                    found[f"{prefix}.http_metadata.{_R2_HTTP[name]}"] = _plain(value)
        case "uploadPart":
            found[f"{prefix}.upload_id"] = _text(args[1] if len(args) > 1 else None)
            found[f"{prefix}.part_number"] = _plain(args[2] if len(args) > 2 else None)
        case "completeMultipartUpload":
            found[f"{prefix}.upload_id"] = _text(args[1] if len(args) > 1 else None)
            if len(args) > 2 and isinstance(args[2], list):
                found[f"{prefix}.uploaded_parts"] = len(args[2])
        case "abortMultipartUpload":
            found[f"{prefix}.upload_id"] = _text(args[1] if len(args) > 1 else None)
    return found


def _r2_response(method: str, result: Any) -> Attributes:
    if not isinstance(result, dict):
        return {}
    prefix = "cloudflare.r2.response"
    if method == "list":
        return {
            f"{prefix}.returned_objects": len(result["objects"]),
            f"{prefix}.delimited_prefixes": _keys(result["delimitedPrefixes"]),
            f"{prefix}.truncated": result["truncated"],
        }
    if method == "createMultipartUpload":
        return {f"{prefix}.upload_id": result["uploadId"]}
    found = {f"{prefix}.{name}": result[name] for name in _R2_OBJECT if name in result}
    if "storageClass" in result:
        found[f"{prefix}.storage_class"] = result["storageClass"]
    metadata: Mapping[str, Any] = result.get("httpMetadata") or {}
    for name, value in metadata.items():
        if name in _R2_HTTP and value is not None:
            found[f"{prefix}.{_R2_HTTP[name]}"] = _plain(value)
    return found


def _kv_query(call: Call) -> Attributes:
    prefix = "cloudflare.kv.query"
    found: Attributes = {
        f"{prefix}.{name}": _plain(call.options[option])
        for option, name in _KV_OPTIONS.items()
        if call.options.get(option) is not None
    }
    if call.method == "list":
        return found
    keys = _keys(_first(call.args))
    found |= {f"{prefix}.keys": keys, f"{prefix}.keys.count": len(keys)}
    if call.method == "put" and len(call.args) > 1 and isinstance(call.args[1], bytes | str):
        found[f"{prefix}.payload.size"] = len(call.args[1])
    if call.method == "put":
        found[f"{prefix}.metadata"] = call.options.get("metadata") is not None
    return found


def _kv_response(method: str, result: Mapping[str, Any]) -> Attributes:
    prefix = "cloudflare.kv.response"
    if method == "list":
        found: Attributes = {f"{prefix}.list_complete": bool(result.get("list_complete"))}
        if isinstance(result.get("keys"), list):
            found[f"{prefix}.returned_rows"] = len(result["keys"])
        return found
    found = {}
    if isinstance(result.get("body"), bytes):
        found[f"{prefix}.size"] = len(result["body"])
    if "metadata" in result:
        found[f"{prefix}.metadata"] = result["metadata"] is not None
    return found


def _first(args: Sequence[Any]) -> Any:
    return args[0] if args else None


def _keys(value: Any) -> list[str]:
    given = value if isinstance(value, list) else [value]
    return [_text(key) for key in given[:KEYS_MAX]]


def _plain(value: Any) -> str | bool | int | float:
    return value if isinstance(value, bool | int | float) else _text(value)


def _text(value: Any) -> str:
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) else f"{value!r:.{TEXT_CHARS_MAX}}"
