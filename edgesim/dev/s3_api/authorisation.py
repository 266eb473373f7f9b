"""Decides which buckets a request may use.

A signature with the credentials that a wrangler file gives a bucket
(``local_dev.experimental_s3_credentials``) opens that bucket, from anywhere, as a token would.
Every other request is the operator's, by the rules of the admin endpoints; it may be signed with
OWN, a key pair that is no secret and only lets ordinary clients sign.  Web pages of other origins
are refused in any case: no bucket has a CORS rule here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec
from starlette.datastructures import Headers

from edgesim.config import Project
from edgesim.dev.access import Access, page_problem
from edgesim.dev.edge import Edge
from edgesim.dev.s3_api.refusals import (
    S3ApiError,
    access_denied,
    invalid_argument,
    unauthorized,
)
from edgesim.dev.s3_api.request import S3Request
from edgesim.dev.s3_api.signature import ChunkSigner, Claim, read_claim, verify
from edgesim.runtime.lineage import HEADER as LINEAGE

SESSION_TOKEN = "x-amz-security-token"  # noqa: S105 (the name of a header)


class KeyPair(msgspec.Struct, frozen=True):
    """An access key and its secret."""

    access_key: str
    secret: str


OWN = KeyPair("edgesim", "edgesim")


class Caller(msgspec.Struct, frozen=True):
    """The sender of a request that may use the API.

    ``pair`` None: the operator, who may use every bucket.
    """

    pairs: Mapping[str, Collection[KeyPair]]
    pair: KeyPair | None = None
    claim: Claim | None = None
    signer: ChunkSigner | None = None

    def may_use(self, bucket: str) -> bool:
        """True if the bucket is open to this caller."""
        return self.pair is None or self.pair in self.pairs.get(bucket, ())


def key_pairs(project: Project) -> dict[str, set[KeyPair]]:
    """The configured key pairs, by bucket."""
    found: dict[str, set[KeyPair]] = {}
    for worker in project.workers.values():
        for bucket in worker.settings.r2_buckets:
            given = bucket.local_dev and bucket.local_dev.experimental_s3_credentials
            if given:
                pair = KeyPair(given.access_key_id, given.secret_access_key)
                found.setdefault(bucket.bucket_name, set()).add(pair)
    return found


class Authorisation:
    """The rules of one run, for one listener."""

    def __init__(self, access: Access, pairs: Mapping[str, Collection[KeyPair]]) -> None:
        self._access = access
        self._pairs = pairs

    def caller(self, request: S3Request, edge: Edge, now: float) -> Caller:
        """The caller; S3ApiError if the request is refused.  ``now`` is in Unix seconds."""
        problem = page_problem(Headers(scope=request.scope))
        if problem is not None:
            raise access_denied(problem)
        claim = read_claim(request, now)
        if claim is None:
            self._check_operator(request, edge)
            self._check_unsigned(request)
            return Caller(self._pairs)
        for pair in self._candidates(request.bucket):
            if pair.access_key == claim.scope.access_key:
                signer = verify(request, claim, pair.secret)
                return Caller(self._pairs, pair, claim, signer)
        if claim.scope.access_key != OWN.access_key:
            raise unauthorized()
        self._check_operator(request, edge)
        return Caller(self._pairs, None, claim, verify(request, claim, OWN.secret))

    def _candidates(self, bucket: str) -> Collection[KeyPair]:
        """The key pairs that may sign a request for this bucket, or for the list of buckets."""
        if bucket:
            return self._pairs.get(bucket, ())
        return {pair for pairs in self._pairs.values() for pair in pairs}

    def _check_operator(self, request: S3Request, edge: Edge) -> None:
        token = request.header(SESSION_TOKEN) or request.parameter("X-Amz-Security-Token")
        if self._access.is_admin(token) and request.header(LINEAGE) is None:
            return
        refusal = self._access.refusal(request.scope, edge)
        if refusal is not None:
            raise access_denied(refusal)

    def _check_unsigned(self, request: S3Request) -> None:
        """Refuse an unsigned request to a bucket with credentials, except with a token."""
        if request.bucket in self._pairs and request.header("authorization") is None:
            raise _missing_signature()


def _missing_signature() -> S3ApiError:
    return invalid_argument("Authorization")
