"""A data folder as it looks after months: messages delivered long ago, others delayed by a week, the look past all."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from waypost.core.event import ACTIVE, CREATED, DELIVERED, RANKS, Told, segments, source_of
from waypost.core.ids import Place, make_message_id
from waypost.core.message import STATE_OUTLIVES_MS, Message, Phase, partition_of
from waypost.core.policy import DAY, MINUTE, SECOND
from waypost.core.ports import Delete, Put
from waypost.core.reminder import reminder
from waypost.core.terms import Terms
from waypost.engines.embedded.sqlite import SqliteStore
from waypost.engines.embedded.table import EmbeddedTable
from waypost.local.settings import DEVELOPMENT_ACCOUNTS

_A_MINUTE = 1_000
_LOG_RETENTION_MS = 14 * DAY
#: The label of the first message.
OLDEST = "oldest"
_BATCH = 2_000


async def _fill(table: EmbeddedTable, delivered: int, delayed: int) -> None:
    now = time.time_ns() // 1_000_000
    first = now // MINUTE - 10 - (delivered + delayed) // _A_MINUTE
    puts: list[Put | Delete] = []
    told: list[Told] = []
    for number in range(delivered + delayed):
        minute = first + number // _A_MINUTE
        late = number >= delivered
        place = Place(minute, 0)
        created_ms = minute * MINUTE + number % _A_MINUTE * (MINUTE // _A_MINUTE)
        message = Message(
            id=make_message_id(place, created_ms, os.urandom),
            pk=partition_of(place),
            account=DEVELOPMENT_ACCOUNTS[0].name,
            url="http://127.0.0.1:9/in",
            terms=Terms(
                "POST",
                (("Content-Type", "application/json"),),
                retries=3,
                timeout_ms=60_000,
                labels=() if number else (OLDEST,),
            ),
            created_ms=created_ms,
            due_ms=now + 7 * DAY if late else created_ms,
            caller_ip="127.0.0.1",
            body={"raw": b"x" * 256},
            ttl_ms=now + 30 * DAY,
        )
        puts.append(Put(message.to_item()))
        if late:
            puts.append(reminder(message.ref, message.due_ms, 1))
        else:
            pk, sk = message.state_key
            state = {"state": Phase.DELIVERED.value, "ended": message.created_ms, "retried": 0}
            ttl = (message.ttl_ms + STATE_OUTLIVES_MS) // 1000
            puts.append(Put({"pk": pk, "sk": sk, "v": 1, "ttl": ttl, **state}))
        told += _told(message, delivered=not late)
        if number % _A_MINUTE == _A_MINUTE - 1 or number == delivered + delayed - 1:
            puts += _logged(told)
            told.clear()
        if len(puts) >= _BATCH:
            await table.write_many(puts)
            puts.clear()
    await table.write_many(puts)
    await table.write(Put({"pk": "cursor", "sk": "look", "v": 1, "minute": now // MINUTE - 3}))


def _told(message: Message, *, delivered: bool) -> list[Told]:
    source = source_of(message)
    states = (CREATED, ACTIVE, DELIVERED) if delivered else (CREATED,)
    return [(message.created_ms + RANKS[one], message.account, source, RANKS[one], 0, None) for one in states]


def _logged(told: list[Told]) -> list[Put]:
    """As the look writes a minute's creations, and a server each second what befell messages meanwhile."""
    created = [one for one in told if one[3] == RANKS[CREATED]]
    puts = list(segments(created, _LOG_RETENTION_MS, lambda number: f"look-{number}"))
    attempts: dict[int, list[Told]] = {}
    for one in told:
        if one[3] != RANKS[CREATED]:
            attempts.setdefault(one[0] // SECOND, []).append(one)
    for some in attempts.values():
        puts += segments(some, _LOG_RETENTION_MS, lambda number: f"{os.urandom(12).hex()}")
    return puts


def fill(folder: Path, *, delivered: int, delayed: int) -> None:
    store = SqliteStore(folder / "waypost.db")
    try:
        asyncio.run(_fill(EmbeddedTable(store), delivered, delayed))
    finally:
        store.close()
