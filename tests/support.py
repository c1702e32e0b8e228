"""The rules over the embedded table in memory, with a clock that tests move and a sender that they write."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from waypost.call import Call, Limit, ReadBody, Reply
from waypost.core.accounts import Account, Tokens
from waypost.core.guard import Guard
from waypost.core.llm import NO_LLM, Llm
from waypost.core.policy import Policy
from waypost.core.ports import (
    Answer,
    Bell,
    Busy,
    Delete,
    Item,
    NoAnswer,
    Outgoing,
    Ports,
    Put,
    Write,
)
from waypost.core.signing import SigningKeys
from waypost.engines.embedded.blobs import FolderBlobs
from waypost.engines.embedded.sqlite import SqliteStore
from waypost.engines.embedded.table import EmbeddedTable
from waypost.wiring import assemble

T = TypeVar("T")
PUBLISH = "/v2/publish/https://example.com/in"
NOW_MS = 1_790_000_000_000
ONE = Account("one", "token-one", SigningKeys("sig_" + "a" * 32, "sig_" + "b" * 32))
TWO = Account("two", "token-two", SigningKeys("sig_" + "c" * 32, "sig_" + "d" * 32))


class FakeClock:
    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms

    async def sleep_ms(self, ms: int) -> None:
        self.ms += ms


class Rung:
    """A doorbell that keeps what was rung."""

    def __init__(self) -> None:
        self.bells: list[Bell] = []

    async def ring(self, bells: Sequence[Bell]) -> int:
        self.bells += bells
        return 0

    async def backlog(self) -> int:
        return 0


class FailingTable(EmbeddedTable):
    """What `busy` says of a write can't be written."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store, strict=True)
        self.busy: Callable[[Write], bool] = lambda one: False
        #: How many items were written.
        self.written = 0

    async def write(self, one: Write, *, relaxed: bool = False) -> Item | None:
        if self.busy(one):
            raise Busy("simulated")
        self.written += 1
        return await super().write(one, relaxed=relaxed)

    async def write_many(self, writes: Sequence[Put | Delete]) -> None:
        """As DynamoDB does it: the others are written."""
        whole = [one for one in writes if not self.busy(one)]
        self.written += len(whole)
        await super().write_many(whole)
        if len(whole) < len(writes):
            raise Busy("simulated: a part is left undone")


class FakeSender:
    """Answers with what `answers` gives, in turn, then 200; keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.answers: list[Answer | NoAnswer] = []

    async def send(self, request: Outgoing) -> Answer | NoAnswer:
        self.sent.append(request)
        return self.answers.pop(0) if self.answers else Answer(200, (), b"")


def given_body(body: bytes) -> ReadBody:
    async def read(limit: Limit | None = None) -> bytes:
        return body

    return read


class Desk:
    """One service and its surroundings."""

    def __init__(
        self, folder: Path, policy: Policy | None = None, guard: Guard | None = None, llm: Llm = NO_LLM
    ) -> None:
        self.store = SqliteStore(folder / "waypost.db")
        self.clock, self.rung, self.sender = FakeClock(), Rung(), FakeSender()
        self.blobs = FolderBlobs(folder / "blobs")
        self.table = FailingTable(self.store)
        self.ports = Ports(self.table, self.rung, self.blobs, self.sender, self.clock, random.Random(1).randbytes)
        self.policy = policy or Policy()
        self._guard, self._llm = guard or Guard(), llm
        self._assemble()

    def _assemble(self) -> None:
        tokens = Tokens({one.token: one.name for one in (ONE, TWO)})
        self.service = assemble(self.ports, self.policy, tokens, self._guard, self._llm)

    async def restart(self) -> None:
        """As after a crash: bells and memory are gone, the store stands."""
        self.rung.bells.clear()
        self.policy = dataclasses.replace(self.policy, boot=self.policy.boot + "again")
        self._assemble()
        await self.open()
        await self.service.look.recover()

    async def open(self) -> Desk:
        await self.service.look.open()
        for account in (ONE, TWO):
            await self.service.keys.open(account)
        return self

    async def call(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        query: str = "",
        token: str | None = ONE.token,
    ) -> Reply:
        given = list((headers or {}).items())
        if token:
            given.append(("Authorization", f"Bearer {token}"))
        return await self.service.api.answer(Call(method, path, query, given, given_body(body), "192.0.2.7"))

    async def publish(self, headers: dict[str, str] | None = None, body: bytes = b"x", **how: Any) -> str:
        reply = await self.call("POST", PUBLISH, headers, body, **how)
        assert reply.status in (201, 202), reply
        return str(reply.content["messageId"])

    async def deliver(self) -> int:
        """Answers every bell once, in order, its delay passing on the clock; returns how many it had."""
        bells, self.rung.bells = self.rung.bells, []
        for ref, delay_ms, _ in bells:
            self.clock.ms += delay_ms
            if self.service.errands.know(ref):
                await self.service.errands.run(ref)
            elif message := await self.service.deliverer.find(ref):
                await self.service.deliverer.deliver(message)
        return len(bells)

    async def seen(self, message_id: str, token: str = ONE.token) -> dict[str, Any]:
        reply = await self.call("GET", f"/v2/messages/{message_id}", token=token)
        assert reply.status == 200, reply
        return dict(reply.content)


def with_desk(folder: Path, test: Callable[[Desk], Coroutine[Any, Any, T]], **how: Any) -> T:
    desk = Desk(folder, **how)

    async def run() -> T:
        return await test(await desk.open())

    try:
        return asyncio.run(run())
    finally:
        desk.store.close()
