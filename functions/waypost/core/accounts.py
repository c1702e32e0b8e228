"""Who may call, and with which keys an account's requests are signed."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from waypost.core.message import VERSION
from waypost.core.policy import SECOND
from waypost.core.ports import Absent, ConditionFailed, Item, Key, Ports, Put, Unavailable
from waypost.core.signing import SigningKeys

#: Keys are at most this old when a request is signed with them.
_KEYS_LIVE_MS = 10 * SECOND


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


class KeyStore:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._cached: dict[str, tuple[int, SigningKeys]] = {}

    async def open(self, account: Account) -> None:
        """Gives the account its first pair, unless it has one."""
        await self._put_if_absent(account.name, account.keys)

    async def keys(self, account: str) -> SigningKeys:
        now = self._ports.clock.monotonic_ms()
        read_ms, keys = self._cached.get(account, (0, None))
        if keys and now - read_ms < _KEYS_LIVE_MS:
            return keys
        item = await self._ports.table.get(_keys_of(account))
        if item is None:
            item = await self._first_pair(account)
        keys = SigningKeys(item["current"], item["next"])
        self._cached[account] = (now, keys)
        return keys

    async def _first_pair(self, account: str) -> Item:
        """Draws a pair for an account that has none, unless somebody else is quicker."""
        fresh = SigningKeys(f"sig_{self._ports.random(16).hex()}", f"sig_{self._ports.random(16).hex()}")
        return await self._put_if_absent(account, fresh)

    async def _put_if_absent(self, account: str, keys: SigningKeys) -> Item:
        """Returns what then stands."""
        pk, sk = _keys_of(account)
        item = {"pk": pk, "sk": sk, "v": VERSION, "current": keys.current, "next": keys.next}
        try:
            await self._ports.table.write(Put(item, when=Absent("current")))
        except ConditionFailed as lost:
            if lost.item is None:
                raise Unavailable(f"the signing keys of {account} can't be read") from lost
            return lost.item
        return item


def _keys_of(account: str) -> Key:
    return Key(f"{account}#keys", "signing")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
