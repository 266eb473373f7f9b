"""AWS Signature Version 4, in the Authorization header and in presigned URLs.

All ``x-amz-*`` headers must be signed, but for a few that change nothing: otherwise the holder of a
presigned URL could turn its PUT into a copy of another object.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from edgesim.dev.s3_api.refusals import (
    S3ApiError,
    access_denied,
    invalid_argument,
    invalid_request,
    unauthorized,
)
from edgesim.dev.s3_api.request import S3Request

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EXPIRES_SECONDS_MAX = 604_800
SKEW_SECONDS = 15 * 60
CONTENT_HASH = "x-amz-content-sha256"
_PARAMETERS = ("Algorithm", "Signature", "Date", "SignedHeaders", "Expires")
_MAY_BE_UNSIGNED = {
    *(b"x-amz-content-sha256", b"x-amz-date", b"x-amz-security-token", b"x-amz-user-agent"),
}
_EMPTY_HASH = hashlib.sha256().hexdigest()
_SPACES = re.compile(rb" +")


class Scope(msgspec.Struct, frozen=True):
    """The credential scope of a signature."""

    access_key: str
    date: str
    region: str

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/s3/aws4_request"


class Claim(msgspec.Struct, frozen=True):
    """A signature as a request carries it, not checked yet."""

    scope: Scope
    time: str
    signed_headers: tuple[str, ...]
    signature: str
    payload: str
    """The signed hash of the body, or the name of the way in which it is signed."""
    presigned: bool = False


class ChunkSigner:
    """Computes the signatures of a body's chunks, each with the one before it."""

    def __init__(self, key: bytes, claim: Claim) -> None:
        self._key = key
        self._claim = claim
        self._previous = claim.signature

    def chunk(self, digest: str) -> str:
        """The signature of the next chunk, by its SHA-256 in hex."""
        return self._next("AWS4-HMAC-SHA256-PAYLOAD", _EMPTY_HASH, digest)

    def trailer(self, digest: str) -> str:
        """The signature of the trailers, by their SHA-256 in hex."""
        return self._next("AWS4-HMAC-SHA256-TRAILER", digest)

    def _next(self, kind: str, *digests: str) -> str:
        parts = (kind, self._claim.time, str(self._claim.scope), self._previous, *digests)
        self._previous = _hmac(self._key, "\n".join(parts)).hex()
        return self._previous


def read_claim(request: S3Request, now: float) -> Claim | None:
    """The request's signature; None if it has none.

    S3ApiError if it is malformed or out of its time; ``now`` is in Unix seconds.
    """
    authorization = request.header("authorization")
    if authorization is not None:
        if authorization.partition(" ")[0].lower() == "bearer":
            return None
        return _of_header(request, authorization, now)
    return _of_query(request, now) if request.has("X-Amz-Credential") else None


def _of_header(request: S3Request, authorization: str, now: float) -> Claim:
    payload = request.header(CONTENT_HASH)
    if payload is None:
        raise invalid_request(f"Missing {CONTENT_HASH}")
    name = "x-amz-date" if request.header("x-amz-date") is not None else "date"
    time = request.header(name)
    if time is None:
        raise invalid_argument("No date provided in x-amz-date nor date header")
    _check_skew(_seconds(time, f"'{name}' header") - now, both=True)
    fields: dict[str, str] = {}
    if authorization.startswith(f"{ALGORITHM} "):
        for each in authorization.removeprefix(ALGORITHM).split(","):
            field, _, value = each.partition("=")
            fields[field.strip()] = value.strip()
    try:
        credential, headers = fields["Credential"], fields["SignedHeaders"]
        signature = fields["Signature"]
    except KeyError:
        raise invalid_request(f"Please use {ALGORITHM}") from None
    return Claim(_scope(credential, time), time, _signed(headers), signature, payload)


def _of_query(request: S3Request, now: float) -> Claim:
    given = {name: request.parameter(f"X-Amz-{name}") for name in _PARAMETERS}
    missing = [f"X-Amz-{name}" for name, value in given.items() if value is None]
    if missing:
        plural = "s" if missing[1:] else ""
        raise invalid_argument(f"Required search parameter{plural} {',  '.join(missing)} missing")
    values = {name: value or "" for name, value in given.items()}
    if values["Algorithm"] != ALGORITHM:
        raise invalid_request(f"Please use {ALGORITHM}")
    time = values["Date"]
    begin = _seconds(time, "X-Amz-Date")
    scope = _scope(request.parameter("X-Amz-Credential") or "", time)
    expires = values["Expires"]
    if not re.fullmatch("-?[0-9]{1,9}", expires):
        raise invalid_argument("X-Amz-Expires should be a number")
    if int(expires) > EXPIRES_SECONDS_MAX:
        raise invalid_argument(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires "
            f"must be less than {EXPIRES_SECONDS_MAX} seconds"
        )
    _check_skew(begin - now, both=False)
    if int(expires) < 1 or now > begin + int(expires):
        raise S3ApiError(403, "ExpiredRequest", "Request has expired")
    payload = request.parameter("X-Amz-Content-Sha256") or UNSIGNED
    headers = _signed(values["SignedHeaders"])
    return Claim(scope, time, headers, values["Signature"], payload, presigned=True)


def _check_skew(ahead: float, *, both: bool) -> None:
    if ahead > SKEW_SECONDS or (both and -ahead > SKEW_SECONDS):
        raise S3ApiError(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the server's time is too large.",
        )


def _seconds(time: str, place: str) -> float:
    try:
        if not re.fullmatch("[0-9]{8}T[0-9]{6}Z", time):
            raise ValueError
        return datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        text = f"Date provided in {place} ({time}) didn't parse successfully"
        raise invalid_argument(text) from None


def _scope(credential: str, time: str) -> Scope:
    parts = credential.split("/")
    if len(parts) < 5:
        raise invalid_argument(
            "Credential sigv4 header should have at least 5 slash-separated parts, "
            f"not {len(parts)}"
        )
    *key, date, region, service, end = parts
    if service != "s3":
        raise invalid_argument(f"Credential service should be s3, not {service}")
    if end != "aws4_request":
        text = f"Credential termination string should be aws4_request, not {end}"
        raise invalid_argument(text)
    if date != time[:8]:
        raise invalid_argument(
            f"Credential signed date {date} does not match {time[:8]} from 'x-amz-date' header"
        )
    return Scope("/".join(key), date, region)


def _signed(names: str) -> tuple[str, ...]:
    signed = tuple(name.strip().lower() for name in names.split(";"))
    if "host" not in signed:
        raise unauthorized()
    return signed


def verify(request: S3Request, claim: Claim, secret: str) -> ChunkSigner:
    """Check the signature; returns the signer of the body's chunks."""
    _check_headers(request, claim)
    key = f"AWS4{secret}".encode()
    for part in (claim.scope.date, claim.scope.region, "s3", "aws4_request"):
        key = _hmac(key, part)
    texts = [_string_to_sign(claim, each) for each in _canonical_requests(request, claim)]
    matches = [
        hmac.compare_digest(_hmac(key, text).hex().encode(), claim.signature.encode())
        for text in texts
    ]
    if not any(matches):
        raise signature_does_not_match(texts[0], claim.signature)
    return ChunkSigner(key, claim)


def _check_headers(request: S3Request, claim: Claim) -> None:
    signed = {name.encode() for name in claim.signed_headers} | _MAY_BE_UNSIGNED
    unsigned = sorted(
        name.decode("latin-1")
        for name, _ in request.fields
        if name.startswith(b"x-amz-") and name not in signed
    )
    if unsigned:
        raise access_denied(
            f"There were headers present in the request which were not signed: {unsigned[0]}"
        )


def _canonical_requests(request: S3Request, claim: Claim) -> list[bytes]:
    """The canonical request with the path as it was sent, and as S3 encodes it."""
    headers = b"".join(
        name.encode() + b":" + _canonical_header(request, name) + b"\n"
        for name in claim.signed_headers
    )
    names = ";".join(claim.signed_headers).encode()
    encoded = quote_from_bytes(unquote_to_bytes(request.path), safe="/-_.~").encode()
    return [
        b"\n".join(
            (
                request.method.encode(),
                path,
                _canonical_query(request, presigned=claim.presigned),
                headers,
                names,
                claim.payload.encode(),
            )
        )
        for path in dict.fromkeys((request.path, encoded))
    ]


def _canonical_query(request: S3Request, *, presigned: bool) -> bytes:
    pairs = sorted(
        (encode(name), encode(value))
        for name, value in request.query
        if not (presigned and name == "X-Amz-Signature")
    )
    return "&".join(f"{name}={value}" for name, value in pairs).encode()


def _canonical_header(request: S3Request, name: str) -> bytes:
    values = [value for each, value in request.fields if each == name.encode()]
    return b",".join(_SPACES.sub(b" ", value) for value in values)


def _string_to_sign(claim: Claim, canonical: bytes) -> str:
    digest = hashlib.sha256(canonical).hexdigest()
    return "\n".join((ALGORITHM, claim.time, str(claim.scope), digest))


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def encode(text: str, also_safe: str = "") -> str:
    """Percent-encode all but unreserved characters; lists of keys keep "/" too, as in S3."""
    return quote_from_bytes(text.encode(), safe=f"-_.~{also_safe}")


def signature_does_not_match(string_to_sign: str = "", provided: str = "") -> S3ApiError:
    """A signature by another secret, or of another request."""
    text = (
        "The request signature we calculated does not match the signature you provided. "
        "Check your secret access key and signing method."
    )
    details = {"StringToSign": string_to_sign, "SignatureProvided": provided}
    return S3ApiError(403, "SignatureDoesNotMatch", text, details if provided else None)
