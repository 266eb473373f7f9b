"""R2 binding: translates a Call to the bucket's method, and the result back."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from edgesim.errors import RunError
from edgesim.isolates.protocol.wire import StreamRef
from edgesim.model import R2Object
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.limits import INTERNAL_ERROR, refusal
from edgesim.runtime.arguments import argument
from edgesim.runtime.bindings import no_method
from edgesim.runtime.invocation import Invocation
from edgesim.runtime.r2_options import (
    body_of,
    get_arguments,
    keys_of,
    list_arguments,
    multipart_arguments,
    part_number,
    part_options,
    parts_of,
    put_arguments,
)
from edgesim.runtime.r2_values import text

log = structlog.get_logger()


class R2Binding:
    """Binding to one bucket.

    It keeps no state of multipart uploads: the Worker sends the key and upload id with each call.
    """

    counts_as_connection = True
    counts_as_subrequest = True

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Run a method of R2Bucket, or of R2MultipartUpload (first arguments: key, upload id)."""
        try:
            return await self._call(method, args, options, invocation)
        except RunError as error:
            log.error("r2 store failed", bucket=self._bucket.name, call=method, error=str(error))
            raise refusal(method, INTERNAL_ERROR) from error

    async def _call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        match method:
            case "head":
                found = await self._bucket.head(text(argument(args, 0, method)))
                return None if found is None else _shown(found)
            case "get":
                return await self._get(text(argument(args, 0, method)), options, invocation)
            case "put":
                body = body_of(_content(argument(args, 1, method), invocation))
                stored = await self._bucket.put(
                    text(argument(args, 0, method)), body, **put_arguments(options)
                )
                return None if stored is None else _shown(stored)
            case "delete":
                return await self._bucket.delete(keys_of(argument(args, 0, method)))
            case "list":
                return await self._list(options)
            case "createMultipartUpload":
                upload = await self._bucket.create_multipart_upload(
                    text(argument(args, 0, method)), **multipart_arguments(options)
                )
                return {"key": upload.key, "uploadId": upload.upload_id}
        return await self._call_upload(method, args, options, invocation)

    async def _call_upload(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        if method not in {"uploadPart", "completeMultipartUpload", "abortMultipartUpload"}:
            raise no_method("R2Bucket", method)
        upload = self._bucket.resume_multipart_upload(
            text(argument(args, 0, method)), text(argument(args, 1, method))
        )
        match method:
            case "uploadPart":
                body = body_of(
                    _content(argument(args, 3, method), invocation),
                    "uploadPart",
                    "R2MultipartUpload",
                )
                part_options(options)
                part = await upload.upload_part(part_number(argument(args, 2, method)), body)
                return {"partNumber": part.number, "etag": part.etag}
            case "completeMultipartUpload":
                return _shown(await upload.complete(parts_of(argument(args, 2, method))))
            case _:
                return await upload.abort()

    async def _get(self, key: str, options: dict[str, Any], invocation: Invocation) -> Any:
        found = await self._bucket.get(key, **get_arguments(options))
        if not isinstance(found, R2ObjectBody):
            return None if found is None else _shown(found)
        shown = _shown(found.object)
        shown["range"] = {"offset": found.range.offset, "length": found.range.length}
        shown["body"] = await invocation.give_body(found.body)
        return shown

    async def _list(self, options: dict[str, Any]) -> dict[str, Any]:
        arguments = list_arguments(options)
        listing = await self._bucket.list(**arguments)
        hidden = {"httpMetadata", "customMetadata"} - set(arguments["include"])
        shown = {
            "objects": [_shown(each, hidden) for each in listing.objects],
            "truncated": listing.truncated,
            "delimitedPrefixes": listing.delimited_prefixes,
        }
        return shown | ({"cursor": listing.cursor} if listing.truncated else {})


def _content(value: Any, invocation: Invocation) -> Any:
    return invocation.take_body(value) if isinstance(value, StreamRef) else value


def _shown(found: R2Object, hidden: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return an object's metadata with the platform's field names; times in Unix milliseconds."""
    wire: dict[str, Any] = msgspec.to_builtins(found)
    wire["httpEtag"] = f'"{found.etag}"'
    return {name: value for name, value in wire.items() if name not in hidden}
