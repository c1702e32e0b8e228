from __future__ import annotations

import time

import jwt
from qstash import Receiver

from waypost.core.signing import SigningKeys, sign

KEYS = SigningKeys("sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r", "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs")


def test_the_published_vector_holds() -> None:
    # The vector's iat is 1790000000; ours lies a second before the clock.
    token = sign(
        KEYS, url="https://example.com/hook", body=b'{"hello":"world"}', now_ms=1_790_000_001_000, jti="jwt_test"
    )
    assert token.split(".")[0] == "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
    assert token.split(".")[2] == "ewPQgwCcs46b-4ZSv7dHQPOpQ6cOcM3CKIe6KNVvCcg"


def test_an_empty_body_is_hashed_as_the_empty_string() -> None:
    token = sign(KEYS, url="https://example.com", body=b"", now_ms=1_790_000_001_000, jti="jwt_x")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["body"] == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="
    assert "aud" not in claims
    assert claims["exp"] == claims["iat"] + 300


def test_the_official_receiver_verifies_with_the_current_and_with_the_next_key() -> None:
    token = sign(KEYS, url="https://example.com/a", body=b"{}", now_ms=int(time.time() * 1000), jti="jwt_1")
    Receiver(KEYS.current, "sig_other" * 4).verify(signature=token, body="{}", url="https://example.com/a")
    Receiver("sig_other" * 4, KEYS.current).verify(signature=token, body="{}", url="https://example.com/a")
