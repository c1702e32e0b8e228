"""The signature that every request to a destination carries: a JWT that the official receivers verify."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import NamedTuple

_LIFE_S = 300
#: Receivers reject an `iat` after their own clock, without tolerance.
_CLOCK_MARGIN_S = 1
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")


class SigningKeys(NamedTuple):
    """The pair that receivers hold. Requests are signed with `current`."""

    current: str
    next: str


def sign(keys: SigningKeys, *, url: str, body: bytes, now_ms: int, jti: str) -> str:
    """The compact form of the token. Put together here, because a JWT library examines the key anew at each call, which
    takes several times as long as the signature; the tests verify it with PyJWT and with both official receivers."""
    issued = now_ms // 1000 - _CLOCK_MARGIN_S
    claims = {
        "iss": "Upstash",
        "sub": url,
        "exp": issued + _LIFE_S,
        "nbf": 0,
        "iat": issued,
        "jti": jti,
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
    }
    payload = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(b"=")
    signed = _HEADER + b"." + payload
    signature = base64.urlsafe_b64encode(hmac.digest(keys.current.encode(), signed, "sha256")).rstrip(b"=")
    return (signed + b"." + signature).decode()
