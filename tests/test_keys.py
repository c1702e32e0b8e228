"""Rotating the signing keys: receivers hold the old pair or the new one, and deploy when they like."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from qstash import Receiver
from qstash.errors import SignatureError

from support import ONE, TWO, Desk, with_desk
from waypost.core.accounts import KeyStore
from waypost.core.ports import Key, Outgoing
from waypost.core.signing import SigningKeys


async def rotate(desk: Desk) -> SigningKeys:
    reply = await desk.call("POST", "/v2/keys/rotate")
    assert reply.status == 200
    return SigningKeys(reply.content["current"], reply.content["next"])


def verifies(pair: SigningKeys, sent: Outgoing) -> bool:
    try:
        # Expired long ago, as the tests' clock has it; that is not what is asked.
        claims_of(pair, sent)
    except SignatureError:
        return False
    return True


def claims_of(pair: SigningKeys, sent: Outgoing) -> None:
    signature = dict(sent.headers)["Upstash-Signature"]
    Receiver(*pair).verify(signature=signature, body=sent.body.decode(), url=sent.url)


@pytest.fixture(autouse=True)
def _at_the_tests_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver reads the time of day; what it says of times is tested elsewhere."""
    import jwt.api_jwt

    def nothing(*_: Any, **__: Any) -> None:
        pass

    for name in ("_validate_exp", "_validate_iat", "_validate_nbf"):
        monkeypatch.setattr(jwt.api_jwt.PyJWT, name, nothing)


def test_the_next_key_becomes_the_current_one(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        pair = await rotate(desk)
        assert pair.current == ONE.keys.next
        assert pair.next not in ONE.keys
        assert pair.next.startswith("sig_")
        assert (await desk.call("GET", "/v2/keys")).content == {"current": pair.current, "next": pair.next}
        theirs = await desk.call("GET", "/v2/keys", token=TWO.token)
        assert theirs.content == {"current": TWO.keys.current, "next": TWO.keys.next}

    with_desk(tmp_path, test)


def test_both_pairs_verify_what_is_sent_after_the_answer(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.publish()
        await desk.deliver()
        await desk.publish()
        pair = await rotate(desk)
        await desk.deliver()
        before, after = desk.sender.sent
        assert verifies(ONE.keys, before)
        assert verifies(ONE.keys, after)
        assert verifies(pair, after)
        assert not verifies(TWO.keys, after)

    with_desk(tmp_path, test)


def test_the_answer_waits_until_others_sign_with_the_key_of_both_pairs(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        other = KeyStore(desk.ports, alone=False)
        assert await other.keys("one") == ONE.keys
        desk.clock.ms += 1_000
        pair = await rotate(desk)
        assert await other.keys("one") == pair

    with_desk(tmp_path, test)


def test_keys_are_not_old_after_a_standstill_of_one_clock(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        other = KeyStore(desk.ports, alone=False)
        await other.keys("one")
        still = desk.clock.monotonic_ms()
        desk.clock.monotonic_ms = lambda: still  # type: ignore[method-assign]
        pair = await rotate(desk)
        desk.clock.ms += 60_000
        assert await other.keys("one") == pair

    with_desk(tmp_path, test)


def test_of_two_rotations_at_once_one_counts(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        get, both_read = desk.table.get, asyncio.Barrier(2)

        async def read_together(key: Key) -> Any:
            item = await get(key)
            await both_read.wait()
            return item

        desk.table.get = read_together  # type: ignore[method-assign]
        first, second = await asyncio.gather(rotate(desk), rotate(desk))
        assert first == second
        assert first.current == ONE.keys.next

    with_desk(tmp_path, test)
