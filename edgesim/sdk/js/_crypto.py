"""``crypto``: random values, digests, HMAC and PBKDF2.

Random values are the platform's, so a replay repeats them.  Algorithms that Python's standard
library lacks (AES, RSA, elliptic curves) raise NotImplementedError.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import Any

from pyodide._typed_arrays import DataView, Float32Array, Float64Array, JsTypedArray
from pyodide.ffi import JsArray, JsBuffer, JsException, JsProxy

from js._search_params import to_text

RANDOM_BYTES_MAX = 65_536
_HASHES = {"MD5": 16, "SHA-1": 20, "SHA-256": 32, "SHA-384": 48, "SHA-512": 64}
"""Name of a hash function -> bytes of its result."""
_BLOCKS = {"SHA-1": 64, "SHA-256": 64, "SHA-384": 128, "SHA-512": 128}
"""Name of a hash function of HMAC -> bytes of its blocks, the length of a generated key."""
_ELSEWHERE = (
    *("AES-CBC", "AES-CTR", "AES-GCM", "AES-KW", "ECDH", "ECDSA", "Ed25519", "HKDF", "X25519"),
    *("NODE-ED25519", "RSA-OAEP", "RSA-PSS", "RSASSA-PKCS1-v1_5"),
)
"""Algorithms that the platform has and edgesim has not."""
_NAMES = {each.upper(): each for each in (*_HASHES, "HMAC", "PBKDF2", *_ELSEWHERE)}
_USAGES = {"HMAC": {"sign", "verify"}, "PBKDF2": {"deriveBits", "deriveKey"}}


class CryptoKey(JsProxy):
    """A key; its bytes are read by ``exportKey`` only."""

    def __init__(
        self, algorithm: dict[str, Any], secret: bytes, extractable: bool, usages: set[str]
    ) -> None:
        order = ("sign", "verify", "deriveKey", "deriveBits")
        super().__init__(
            {
                "type": "secret",
                "extractable": extractable,
                "algorithm": algorithm,
                "usages": [each for each in order if each in usages],
            }
        )
        object.__setattr__(self, "_secret", secret)

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> CryptoKey:
        """Return the key itself: there is no matching Python type."""
        return self

    def _to_wire(self) -> Any:
        raise TypeError("a CryptoKey cannot be sent over RPC.")

    def __repr__(self) -> str:
        return "[object CryptoKey]"


class _SubtleCrypto(JsProxy):
    """``crypto.subtle``."""

    async def digest(self, algorithm: Any, data: Any) -> JsBuffer:
        """Return the digest of the bytes."""
        name = _parameters(algorithm)["name"]
        if name not in _HASHES:
            raise _unknown(name)
        import hashlib  # only here and below: few Workers need OpenSSL's library

        return JsBuffer(hashlib.new(_python_name(name), _bytes(data)).digest())

    async def importKey(
        self, format: str, keyData: Any, algorithm: Any, extractable: Any, keyUsages: Any
    ) -> CryptoKey:
        """Return a key of HMAC ("raw" or "jwk") or of PBKDF2 ("raw")."""
        given = _parameters(algorithm)
        usages = _usages(given["name"], keyUsages)
        if given["name"] == "PBKDF2":
            if extractable:
                raise JsException("SyntaxError", "PBKDF2 keys are not extractable")
            _check_format(format, "raw")
            return CryptoKey({"name": "PBKDF2"}, _bytes(keyData), False, usages)
        hash_name = _hash_of(given)
        if format == "jwk":
            secret = _from_jwk(keyData, hash_name)
        else:
            _check_format(format, "raw")
            secret = _bytes(keyData)
        if not secret:
            raise JsException("DataError", "Zero-length key is not supported")
        if given.get("length") not in {None, len(secret) * 8}:
            raise JsException("DataError", "Invalid key length")
        return _hmac_key(secret, hash_name, extractable, usages)

    async def generateKey(self, algorithm: Any, extractable: Any, keyUsages: Any) -> CryptoKey:
        """Return a random key of HMAC."""
        given = _parameters(algorithm)
        usages = _usages(given["name"], keyUsages)
        if given["name"] != "HMAC":
            raise JsException("NotSupportedError", f"{given['name']} has no generateKey")
        return _hmac_key(_random_key(given), _hash_of(given), extractable, usages)

    async def exportKey(self, format: str, key: Any) -> Any:
        """Return the bytes of a key ("raw"), or an object ("jwk")."""
        if not _checked_key(key)._value["extractable"]:
            raise JsException("InvalidAccessError", "key is not extractable")
        if format == "raw":
            return JsBuffer(key._secret)
        _check_format(format, "jwk")
        name = key._value["algorithm"]["hash"]["name"]
        text = base64.urlsafe_b64encode(key._secret).rstrip(b"=").decode()
        found = {"key_ops": list(key._value["usages"]), "ext": True, "kty": "oct", "k": text}
        return JsProxy({**found, "alg": f"HS{name.removeprefix('SHA-')}"})

    async def sign(self, algorithm: Any, key: Any, data: Any) -> JsBuffer:
        """Return the HMAC of the bytes."""
        return JsBuffer(_hmac(algorithm, key, "sign", data))

    async def verify(self, algorithm: Any, key: Any, signature: Any, data: Any) -> bool:
        """Return True if the bytes have this HMAC."""
        import hmac

        return hmac.compare_digest(_hmac(algorithm, key, "verify", data), _bytes(signature))

    async def deriveBits(self, algorithm: Any, baseKey: Any, length: Any = None) -> JsBuffer:
        """Return bits that PBKDF2 derives from a password."""
        return JsBuffer(_derived(algorithm, baseKey, "deriveBits", length))

    async def deriveKey(
        self,
        algorithm: Any,
        baseKey: Any,
        derivedKeyType: Any,
        extractable: Any,
        keyUsages: Any,
    ) -> CryptoKey:
        """Return a key of HMAC that PBKDF2 derives from a password."""
        wanted = _parameters(derivedKeyType)
        usages = _usages(wanted["name"], keyUsages)
        hash_name = _hash_of(wanted)
        bits = wanted.get("length") or _BLOCKS[hash_name] * 8
        secret = _derived(algorithm, baseKey, "deriveKey", bits)
        return _hmac_key(secret, hash_name, extractable, usages)

    def timingSafeEqual(self, one: Any, other: Any) -> bool:
        """Return True if the bytes are equal; JsException (a TypeError) for other lengths."""
        first, second = _bytes(one), _bytes(other)
        if len(first) != len(second):
            raise JsException("TypeError", "Input buffers must have the same byte length.")
        import hmac

        return hmac.compare_digest(first, second)

    def __getattr__(self, name: str) -> Any:
        if name in {"encrypt", "decrypt", "wrapKey", "unwrapKey"}:
            raise NotImplementedError(_absent(f"crypto.subtle.{name}"))
        return super().__getattr__(name)

    def __repr__(self) -> str:
        return "[object SubtleCrypto]"


class _Crypto(JsProxy):
    """``crypto``."""

    subtle = _SubtleCrypto({})

    def getRandomValues(self, array: Any) -> Any:
        """Fill a typed array of integers with random values; returns the array."""
        floats = Float32Array | Float64Array | DataView
        if not isinstance(array, JsTypedArray) or isinstance(array, floats):
            message = "The data argument must be an integer-type TypedArray"
            raise JsException("TypeMismatchError", message)
        view = array._view.cast("B")
        if len(view) > RANDOM_BYTES_MAX:
            raise JsException("QuotaExceededError", "The requested length exceeds 65,536 bytes")
        view[:] = os.urandom(len(view))
        return array

    def randomUUID(self) -> str:
        """Return a random UUID of version 4."""
        import uuid

        return str(uuid.UUID(bytes=os.urandom(16), version=4))

    def __repr__(self) -> str:
        return "[object Crypto]"


crypto = _Crypto({})


def _absent(subject: str) -> str:
    return f"{subject} is not in edgesim; vendor a package that has it, such as cryptography"


def _unknown(name: Any) -> Exception:
    if name in _ELSEWHERE:
        return NotImplementedError(_absent(f"{name} of crypto.subtle"))
    return JsException("NotSupportedError", f"Unrecognized algorithm name {name}")


def _parameters(algorithm: Any) -> dict[str, Any]:
    """Return an algorithm's name, in its usual spelling, and its other parameters."""
    if isinstance(algorithm, JsProxy) and isinstance(algorithm._value, dict):
        given: dict[str, Any] = {
            key: JsBuffer(value) if isinstance(value, bytes) else value
            for key, value in algorithm._value.items()
        }
    elif isinstance(algorithm, dict):
        given = {"length": len(algorithm)} | algorithm  # JavaScript sees the dict's length too
    else:
        given = {"name": to_text(algorithm)}
    if "name" not in given:
        raise JsException("TypeError", "an algorithm needs a name")
    name = to_text(given["name"])
    return given | {"name": _NAMES.get(name.upper(), name)}


def _hash_of(given: dict[str, Any]) -> str:
    if given["name"] != "HMAC":
        raise _unknown(given["name"])
    if given.get("hash") is None:
        raise JsException("TypeError", "HMAC needs the parameter hash")
    name: str = _parameters(JsProxy(h) if isinstance(h := given["hash"], dict) else h)["name"]
    if name not in _BLOCKS:
        raise JsException("NotSupportedError", f"{name} is no hash function of HMAC")
    return name


def _usages(name: str, wanted: Any) -> set[str]:
    """Return the usages of a key; JsException (a SyntaxError) for wrong ones or none."""
    if name not in _USAGES:
        raise _unknown(name)
    found = set(_texts(wanted))
    if not found <= _USAGES[name] or not found:
        raise JsException("SyntaxError", f"Unsupported key usage for a key of {name}")
    return found


def _texts(values: Iterable[Any]) -> Iterable[str]:
    return map(str, values._value if isinstance(values, JsArray) else values)


def _check_format(given: Any, *known: str) -> None:
    if given in known:
        return
    if given in {"raw", "jwk", "spki", "pkcs8"}:
        raise JsException("NotSupportedError", f"Unable to use a key of the format {given}")
    raise JsException("TypeError", f"{given!r} is no format of a key")


def _hmac_key(secret: bytes, hash_name: str, extractable: Any, usages: set[str]) -> CryptoKey:
    algorithm = {"name": "HMAC", "hash": {"name": hash_name}, "length": len(secret) * 8}
    return CryptoKey(algorithm, secret, bool(extractable), usages)


def _random_key(given: dict[str, Any]) -> bytes:
    bits = given.get("length") or _BLOCKS[_hash_of(given)] * 8
    return os.urandom(int(bits) // 8)


def _from_jwk(key: Any, hash_name: str) -> bytes:
    given = key._value if isinstance(key, JsProxy) else key
    if not isinstance(given, dict) or given.get("kty") != "oct" or "k" not in given:
        raise JsException("DataError", 'a JWK of HMAC has the "kty" "oct" and a "k"')
    if given.get("alg") not in {None, f"HS{hash_name.removeprefix('SHA-')}"}:
        raise JsException("DataError", 'JWK "alg" does not match the requested algorithm')
    text = str(given["k"])
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _checked_key(key: Any) -> CryptoKey:
    if not isinstance(key, CryptoKey):
        raise JsException("TypeError", "the key must be a CryptoKey")
    return key


def _used(algorithm: Any, key: Any, usage: str) -> dict[str, Any]:
    """Return the parameters; JsException (an InvalidAccessError) if the key is not for this use."""
    given = _parameters(algorithm)
    if given["name"] in _ELSEWHERE or given["name"] not in _NAMES.values():
        raise _unknown(given["name"])
    about = _checked_key(key)._value
    if about["algorithm"]["name"] != given["name"] or usage not in about["usages"]:
        raise JsException("InvalidAccessError", f"Unable to use this key to {usage}")
    return given


def _hmac(algorithm: Any, key: Any, usage: str, data: Any) -> bytes:
    import hmac

    _used(algorithm, key, usage)
    name = key._value["algorithm"]["hash"]["name"]
    return hmac.digest(key._secret, _bytes(data), _python_name(name))


def _derived(algorithm: Any, key: Any, usage: str, length: Any) -> bytes:
    import hashlib

    given = _used(algorithm, key, usage)
    if length is None or int(length) % 8:
        raise JsException("OperationError", "length must be a multiple of 8")
    hash_name = _parameters(given.get("hash"))["name"]
    if hash_name not in _BLOCKS:
        raise _unknown(hash_name)
    iterations = int(given.get("iterations") or 0)
    if iterations < 1:
        raise JsException("OperationError", "iterations cannot be zero")
    salt = _bytes(given.get("salt"))
    if not length:
        return b""
    name = _python_name(hash_name)
    return hashlib.pbkdf2_hmac(name, key._secret, salt, iterations, int(length) // 8)


def _python_name(hash_name: str) -> str:
    return hash_name.replace("-", "").lower()


def _bytes(data: Any) -> bytes:
    if not isinstance(data, JsBuffer):
        raise JsException("TypeError", "bytes must be an ArrayBuffer or a view of one; use to_js")
    return data.to_bytes()
