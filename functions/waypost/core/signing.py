"""The signature that every request to a destination carries: a JWT that the official receivers verify."""

from __future__ import annotations

import binascii
import functools
import hashlib
import hmac
import json
from typing import NamedTuple

from waypost.core.remembered import remembered

_LIFE_S = 300
#: Receivers reject an `iat` after their own clock, without tolerance.
_CLOCK_MARGIN_S = 1
_quoted = remembered(longest=1024)(json.dumps)
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
#: `{"alg":"HS256","typ":"JWT"}`
_HEADER = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"


class SigningKeys(NamedTuple):
    """The pair that receivers hold. Requests are signed with `current`."""

    current: str
    next: str


def sign(keys: SigningKeys, *, url: str, body: bytes, now_ms: int, jti: str) -> str:
    """The compact form of the token; `jti` is a name of ours. Put together here, because a JWT library examines the key
    anew at each call, which takes several times as long as the signature; the tests verify it with PyJWT and with both
    official receivers."""
    issued = now_ms // 1000 - _CLOCK_MARGIN_S
    digest = _base64url(hashlib.sha256(body).digest()).decode()
    claims = (
        f'{{"iss":"Upstash","sub":{_quoted(url)},"exp":{issued + _LIFE_S},"nbf":0,"iat":{issued},'
        f'"jti":"{jti}","body":"{digest}"}}'
    )
    payload = _base64url(claims.encode()).rstrip(b"=")
    signed = _HEADER + b"." + payload
    code = _keyed(keys.current).copy()
    code.update(signed)
    return (signed + b"." + _base64url(code.digest()).rstrip(b"=")).decode()


@functools.lru_cache(maxsize=64)
def _keyed(key: str) -> hmac.HMAC:
    """A code that has taken in its key, to be copied for each message: setting one up takes several times as long."""
    return hmac.new(key.encode(), digestmod="sha256")


def _base64url(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE)
