"""DeleteObjects: up to 1,000 objects in one request."""

from __future__ import annotations

from edgesim.dev.s3_api.call import S3Call, xml_response
from edgesim.dev.s3_api.documents import read_document
from edgesim.dev.s3_api.refusals import malformed_xml, of_binding
from edgesim.errors import PlatformError
from edgesim.model import HttpResponse
from edgesim.r2 import limits


async def delete_objects(call: S3Call) -> HttpResponse:
    """Remove the objects that the body names; keys that no object can have get an error each."""
    bucket = call.bucket
    wanted = await read_document(aiter(call.payload().stream()), "Delete", "Object")
    quiet = wanted.fields.get("Quiet", "false")
    keys = [item.get("Key") for item in wanted.items]
    if quiet not in {"true", "false"} or not 0 < len(keys) <= limits.KEYS_MAX:
        raise malformed_xml()
    legal: list[str] = []
    errors: list[dict[str, str]] = []
    above = call.request.above
    for key in keys:
        if key is None:
            raise malformed_xml()
        try:
            limits.check_key("delete", key.removeprefix(above))
        except PlatformError as error:
            refused = of_binding(error)
            errors.append({"Key": key, "Code": refused.code, "Message": str(refused)})
        else:
            legal.append(key)
    await bucket.delete([key.removeprefix(above) for key in legal])
    deleted = [] if quiet == "true" else [{"Key": key} for key in legal]
    return xml_response("DeleteResult", {"Deleted": deleted, "Error": errors})
