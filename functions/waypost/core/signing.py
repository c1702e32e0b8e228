"""The signature that every request to a destination carries: a JWT that the official receivers verify."""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

import jwt

_LIFE_S = 300
#: Receivers reject an `iat` after their own clock, without tolerance.
_CLOCK_MARGIN_S = 1


class SigningKeys(NamedTuple):
    """The pair that receivers hold. Requests are signed with `current`."""

    current: str
    next: str


def sign(keys: SigningKeys, *, url: str, body: bytes, now_ms: int, jti: str) -> str:
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
    return jwt.encode(claims, keys.current, algorithm="HS256")
