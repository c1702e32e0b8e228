"""The dead letter queue: what a failed message leaves there, and reading, deleting and retrying it.

An entry holds what filters ask for, so that looking for entries reads nothing else. It lies in one of a few partitions
by the digits of its id, in order of time; readers merge them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from waypost.core import limits
from waypost.core.accept import Acceptor, Request
from waypost.core.body import BodyMissing, load_body
from waypost.core.ids import Place, place_of
from waypost.core.lanes import Lanes
from waypost.core.letter_filter import Wanted, cursor_at
from waypost.core.message import VERSION, Message, Phase, State, message_key, state_key
from waypost.core.policy import Policy
from waypost.core.ports import (
    Answer,
    Busy,
    ConditionFailed,
    Delete,
    Item,
    Key,
    NoAnswer,
    Ports,
    Present,
    Put,
    Table,
    Unavailable,
)
from waypost.core.reminder import Stopwatch
from waypost.core.terms import Terms

_SHARDS = 16
#: How many entries of a partition are read at a time.
_AT_A_TIME = 32
#: The store may be busy because somebody else is retrying the same entry.
_TRIES = 4
_PAUSE_MS = 100
#: Two numbers of up to 15 digits, without leading zeros: one entry has one id.
_ID = re.compile(r"(0|[1-9][0-9]{0,14})-(0|[1-9][0-9]{0,14})")

#: The terms with what a retry changes about them, and when the message is due if it is retried at that time.
Changed = Callable[[Terms, int], tuple[Terms, int]]


class Letter(Struct, frozen=True):
    """An entry of the dead letter queue."""

    id: str
    account: str
    message_id: str
    key: Key
    #: Of the last attempt; 0: no answer came.
    status: int
    error: str
    #: The last answer's, cut short; None: there was none.
    headers: Sequence[tuple[str, str]] | None
    body: bytes | None

    @property
    def position(self) -> str:
        """The cursor that goes on after it."""
        return cursor_at(self.key.sk)


class Found(Struct, frozen=True):
    letters: Sequence[Letter]
    #: Goes on after what was looked at; None: there is no more.
    cursor: str | None


class DeadLetters:
    def __init__(self, ports: Ports, policy: Policy, acceptor: Acceptor, lanes: Lanes) -> None:
        self._ports = ports
        self._policy = policy
        self._acceptor = acceptor
        self._lanes = lanes

    async def read(self, account: str, dlq_id: str) -> Letter | None:
        """None for what is unknown, another account's, or older than the retention."""
        key = _key(account, dlq_id)
        entry = await self._ports.table.get(key) if key else None
        return _letter(account, entry) if entry and self._is_kept(entry) else None

    async def find(self, account: str, wanted: Wanted) -> Found:
        """At most `count` of what is wanted. The work is bounded, however few match: then there is a cursor."""
        entries = await self._entries(account, wanted)
        letters: list[Letter] = []
        looked, last = 0, ""
        while entry := await entries.take():
            if len(letters) >= wanted.count or looked >= limits.LETTERS_LOOKED_AT:
                return Found(letters, cursor_at(last))
            looked += 1 + len(entry.get("answer", b"")) // 4_096
            last = entry["sk"]
            if self._is_kept(entry) and wanted.matches(entry):
                letters.append(_letter(account, entry))
        return Found(letters, None)

    async def with_messages(self, letters: Sequence[Letter]) -> Sequence[tuple[Letter, Message]]:
        """In their order. A letter without its message is as good as gone."""
        now = self._ports.clock.now_ms()
        items = await self._read_all([_message_key(letter) for letter in letters])
        messages = [Message.from_item(item, now) for item in items]
        return [(letter, message) for letter, message in zip(letters, messages, strict=True) if message]

    async def delete(self, letter: Letter) -> bool:
        """False: it is gone already."""
        try:
            await self._ports.table.write(_removal(letter))
        except ConditionFailed:
            return False
        return True

    async def delete_all(self, letters: Sequence[Letter]) -> int:
        return sum([await self.delete(letter) for letter in letters])

    async def retry(self, letter: Letter, message: Message, changed: Changed) -> str | None:
        """Makes a new message of it, in whose place the letter goes. Returns its id; None: somebody else was quicker.

        Raises BodyMissing. When the store fails, the message may stand all the same, and the letter be gone.
        """
        now = self._ports.clock.now_ms()
        watch = Stopwatch(self._ports.clock, now)
        terms, due_ms = changed(message.terms, now)
        made = await self._acceptor.make(
            Request(
                account=message.account,
                url=message.url,
                terms=terms,
                body=await load_body(message.body, self._ports.blobs),
                asked_ms=now,
                due_ms=due_ms,
                caller_ip=message.caller_ip,
                via=message.via,
            )
        )
        [again] = await self._lanes.placed([made])
        try:
            ours = await self._exchange(letter, again)
        except (Busy, Unavailable):
            # What may stand now, and has no letter any more, must not be missed by the look. Nor must it hold up a
            # line in which it may not stand.
            await self._acceptor.announce(made, watch)
            raise
        if not ours:
            await self._lanes.forget_place(again)
            return None
        await self._acceptor.announce(again, watch)
        return again.id

    async def retry_all(self, letters: Sequence[Letter], changed: Changed) -> Sequence[str]:
        """The new messages' ids. What can't be retried, because its body or itself is gone, is left out. What `changed`
        refuses for one of them it refuses before any is retried."""
        made = []
        found = await self.with_messages(letters)
        for _, message in found:
            changed(message.terms, self._ports.clock.now_ms())
        for letter, message in found:
            try:
                message_id = await self.retry(letter, message, changed)
            except BodyMissing:
                continue
            if message_id:
                made.append(message_id)
        return made

    async def _exchange(self, letter: Letter, message: Message) -> bool:
        """False: somebody else has taken the letter."""
        for tried in range(_TRIES):
            try:
                await self._ports.table.write_together([_removal(letter), Put(message.to_item())])
            except ConditionFailed:
                # It may have been an earlier try of ours, whose answer was lost.
                return tried > 0 and await self._ports.table.get(message.key) is not None
            except Busy:
                if tried == _TRIES - 1:
                    raise
                await self._ports.clock.sleep_ms(_PAUSE_MS << tried)
            else:
                return True
        raise AssertionError("unreachable")

    # Reading ---------------------------------------------------------------------------------------------------------

    def _is_kept(self, entry: Item) -> bool:
        now = self._ports.clock.now_ms()
        return bool(entry["failed"] + self._policy.dlq_retention_ms > now and entry["ttl"] * 1000 > now)

    async def _entries(self, account: str, wanted: Wanted) -> _Merged:
        """The entries that may match, in the order that is wanted."""
        if wanted.ids is not None:
            keys = [key for one in wanted.ids if (key := _key(account, one))]
            return _Merged([_Named(entry) for entry in await self._read_all(keys) if entry], wanted)
        from_ms, to_ms = await self._span(account, wanted)
        first, last = f"{from_ms:015d}", f"{to_ms:015d}~"
        if wanted.after and wanted.newest_first:
            last = min(last, wanted.after)
        else:
            first = max(first, wanted.after)
        shards = [
            _Shard(self._ports.table, _partition(account, number), first, last, wanted.newest_first)
            for number in (range(_SHARDS) if first <= last else ())
        ]
        for shard in shards:
            await shard.advance()
        return _Merged(shards, wanted)

    async def _span(self, account: str, wanted: Wanted) -> tuple[int, int]:
        """When the entries that are wanted failed. A message's own state says when it did."""
        kept_from = self._ports.clock.now_ms() - self._policy.dlq_retention_ms + 1
        from_ms, to_ms = max(wanted.from_ms, kept_from, 0), wanted.to_ms
        if "id" in wanted.values:
            places = [(one, place) for one in wanted.values["id"] if (place := place_of(one))]
            items = await self._read_all([state_key(account, one, place) for one, place in places])
            states = [State.from_item(item) for item in items]
            ends = [state.ended_ms for state in states if state.phase is Phase.FAILED] or [-1]
            from_ms, to_ms = max(from_ms, min(ends)), min(to_ms, max(ends))
        return from_ms, max(to_ms, 0)

    async def _read_all(self, keys: Sequence[Key]) -> Sequence[Item | None]:
        """In order. What an eventual read did not find is asked for again."""
        table = self._ports.table
        items = await table.get_many(keys) if keys else []
        return [await table.get(key) if item is None else item for key, item in zip(keys, items, strict=True)]


class _Shard:
    """The entries of one partition in order, read some at a time. `head` is the next one."""

    def __init__(self, table: Table, pk: str, first: str, last: str, newest_first: bool) -> None:
        self._table = table
        self._pk, self._first, self._last = pk, first, last
        self._newest_first = newest_first
        self._after: str | None = None
        self._ended = False
        #: The next ones in reverse.
        self._read: list[Item] = []
        self.head: Item | None = None

    async def advance(self) -> None:
        while not self._read and not self._ended:
            page = await self._table.query(
                self._pk,
                first=self._first,
                last=self._last,
                limit=_AT_A_TIME,
                newest_first=self._newest_first,
                after=self._after,
            )
            self._read = [*reversed(page.items)]
            self._after, self._ended = page.next, page.next is None
        self.head = self._read.pop() if self._read else None


class _Named:
    """One entry that was asked for by its id."""

    def __init__(self, entry: Item) -> None:
        self.head: Item | None = entry

    async def advance(self) -> None:
        self.head = None


class _Merged:
    """Several in one order, from where the caller goes on."""

    def __init__(self, parts: Sequence[_Shard | _Named], wanted: Wanted) -> None:
        self._parts = parts
        self._pick = max if wanted.newest_first else min
        self._wanted = wanted

    async def take(self) -> Item | None:
        while waiting := [(part.head["sk"], number) for number, part in enumerate(self._parts) if part.head]:
            part = self._parts[self._pick(waiting)[1]]
            entry = part.head
            await part.advance()
            if entry and self._wanted.comes_after(entry["sk"]):
                return entry
        return None


# Entries -------------------------------------------------------------------------------------------------------------


def dead_letter(message: Message, state: State, now_ms: int, outcome: Answer | NoAnswer | None, policy: Policy) -> Put:
    """The entry that a failed message leaves. Its id sorts by time and is made of digits."""
    number = _number(message, state)
    key = _key_at(message.account, now_ms, number)
    entry: dict[str, Any] = {
        "pk": key.pk,
        "sk": key.sk,
        "v": VERSION,
        "id": message.id,
        "dlq": _id_at(now_ms, number),
        "failed": now_ms,
        "url": message.url,
        "ip": message.caller_ip,
        **message.via.to_item(),
        "status": 0,
        # What it refers to outlives it.
        "ttl": min(now_ms + policy.dlq_retention_ms, message.ttl_ms) // 1000,
    }
    if message.terms.labels:
        entry["labels"] = list(message.terms.labels)
    if message.terms.lane:
        entry["queue" if message.terms.queue else "flow"] = message.terms.lane.name
    if state.last:
        entry |= {"status": state.last["status"], "error": state.last["error"]}
    if isinstance(outcome, Answer):
        entry |= {
            "headers": capped_headers(outcome.headers, limits.LETTER_ANSWER_HEADERS),
            "answer": cut(outcome.body, limits.LETTER_ANSWER),
        }
    return Put(entry)


def letter_id(message: Message, state: State, now_ms: int) -> str:
    return _id_at(now_ms, _number(message, state))


def cut(text: bytes, most: int) -> bytes:
    """Its beginning, of at most so many bytes; no letter of UTF-8 is cut in two."""
    if len(text) <= most:
        return text
    end = most
    while most - end < 3 and end and text[end] & 0xC0 == 0x80:
        end -= 1
    return text[:end]


def capped_headers(headers: Sequence[tuple[str, str]], most: int) -> list[list[str]]:
    """The first ones, as many as have so many characters together."""
    kept, size = [], 0
    for name, value in headers:
        size += len(name) + len(value)
        if size > most:
            break
        kept.append([name, value])
    return kept


def _letter(account: str, entry: Item) -> Letter:
    headers = entry.get("headers")
    return Letter(
        id=entry["dlq"],
        account=account,
        message_id=entry["id"],
        key=Key(entry["pk"], entry["sk"]),
        status=entry["status"],
        error=entry.get("error", ""),
        headers=None if headers is None else [(name, value) for name, value in headers],
        body=entry.get("answer"),
    )


def _number(message: Message, state: State) -> int:
    return int.from_bytes(hashlib.sha256(f"{message.id}#{state.token}".encode()).digest()[:6], "big")


def _id_at(failed_ms: int, number: int) -> str:
    return f"{failed_ms}-{number}"


def _key_at(account: str, failed_ms: int, number: int) -> Key:
    return Key(_partition(account, number % _SHARDS), f"{failed_ms:015d}-{number}")


def _key(account: str, dlq_id: str) -> Key | None:
    """Where the entry of that id lies. None: it is no id of ours."""
    match = _ID.fullmatch(dlq_id)
    return _key_at(account, int(match[1]), int(match[2])) if match else None


def _partition(account: str, shard: int) -> str:
    return f"{account}#dlq#{shard}"


def _message_key(letter: Letter) -> Key:
    return message_key(letter.account, letter.message_id, place_of(letter.message_id) or Place(0, 0))


def _removal(letter: Letter) -> Delete:
    return Delete(letter.key, when=Present("dlq"))
