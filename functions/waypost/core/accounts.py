"""Who may call, and with which keys an account's requests are signed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from waypost.core.message import VERSION
from waypost.core.policy import SECOND
from waypost.core.ports import Absent, Change, ConditionFailed, Equals, Item, Key, Ports, Put, Unavailable
from waypost.core.signing import SigningKeys

#: Keys are at most this old when a request is signed with them, and so long does a rotation take.
_KEYS_LIVE_MS = 5 * SECOND


@dataclass(frozen=True, slots=True)
class Account:
    """An account's name is ours, never a caller's, and holds no `#`."""

    name: str
    token: str
    #: The pair to start with; what is stored wins.
    keys: SigningKeys


class Tokens:
    """The tokens of this deployment. Kept as digests, so that a comparison tells nothing about a token."""

    def __init__(self, accounts: Mapping[str, str]) -> None:
        self.accept(accounts)

    def accept(self, accounts: Mapping[str, str]) -> None:
        """From now on these and no others. `accounts` maps a token to its account's name."""
        self._accounts = {_digest(token): name for token, name in accounts.items()}

    def account(self, token: str) -> str | None:
        wanted, found = _digest(token), None
        for known, name in self._accounts.items():
            if hmac.compare_digest(known, wanted):
                found = name
        return found


class _Read(NamedTuple):
    #: Monotonic and wall-clock time: a function's environment may stand still, and the first of them with it.
    began: tuple[int, int]
    keys: SigningKeys

    def is_fresh(self, now: tuple[int, int]) -> bool:
        return all(0 <= then_to_now < _KEYS_LIVE_MS for then_to_now in (now[0] - self.began[0], now[1] - self.began[1]))


class KeyStore:
    """The signing keys. Several processes sign with what they read a while ago, unless one does all (`alone`)."""

    def __init__(self, ports: Ports, *, alone: bool) -> None:
        self._ports = ports
        self._alone = alone
        self._cached: dict[str, _Read] = {}

    async def open(self, account: Account) -> None:
        """Gives the account its first pair, unless it has one."""
        await self._put_if_absent(account.name, account.keys)

    async def keys(self, account: str) -> SigningKeys:
        began = self._now()
        cached = self._cached.get(account)
        if cached and cached.is_fresh(began):
            return cached.keys
        item = await self._ports.table.get(_keys_of(account))
        if item is None:
            item = await self._first_pair(account)
        keys = SigningKeys(item["current"], item["next"])
        if self._cached.get(account) is cached:  # else somebody has rotated them meanwhile
            self._cached[account] = _Read(began, keys)
        return keys

    async def rotate(self, account: str) -> SigningKeys:
        """The next key becomes the current one, and a fresh one the next. Of several rotations at once one counts.

        Once this returns, everybody signs with the key that both pairs have, the old one and the new one.
        """
        table = self._ports.table
        standing = await table.get(_keys_of(account)) or await self._first_pair(account)
        fresh = self._fresh_key()
        change = Change(
            _keys_of(account),
            set={"current": standing["next"], "next": fresh},
            when=Equals("current", standing["current"]),
        )
        try:
            await table.write(change)
            keys = SigningKeys(standing["next"], fresh)
        except ConditionFailed as lost:
            standing = _standing(account, lost)
            keys = SigningKeys(standing["current"], standing["next"])
        self._cached[account] = _Read(self._now(), keys)
        if not self._alone:
            await self._ports.clock.sleep_ms(_KEYS_LIVE_MS)
        return keys

    def _now(self) -> tuple[int, int]:
        return self._ports.clock.monotonic_ms(), self._ports.clock.now_ms()

    def _fresh_key(self) -> str:
        return f"sig_{self._ports.random(16).hex()}"

    async def _first_pair(self, account: str) -> Item:
        """Draws a pair for an account that has none, unless somebody else is quicker."""
        return await self._put_if_absent(account, SigningKeys(self._fresh_key(), self._fresh_key()))

    async def _put_if_absent(self, account: str, keys: SigningKeys) -> Item:
        """Returns what then stands."""
        pk, sk = _keys_of(account)
        item = {"pk": pk, "sk": sk, "v": VERSION, "current": keys.current, "next": keys.next}
        try:
            await self._ports.table.write(Put(item, when=Absent("current")))
        except ConditionFailed as lost:
            return _standing(account, lost)
        return item


def _standing(account: str, lost: ConditionFailed) -> Item:
    if lost.item is None:
        raise Unavailable(f"the signing keys of {account} can't be read") from lost
    return lost.item


def _keys_of(account: str) -> Key:
    return Key(f"{account}#keys", "signing")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
