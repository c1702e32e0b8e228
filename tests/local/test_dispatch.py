from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from support import Desk, with_desk
from waypost.core.ports import Answer, Busy
from waypost.engines.embedded.doorbell import HeapDoorbell
from waypost.local.dispatch import Dispatcher


def test_attempts_are_given_back_together_and_one_that_fails_keeps_none(tmp_path: Path) -> None:
    count = 20

    async def test(desk: Desk) -> None:
        ids = [await desk.publish() for _ in range(count)]
        all_sent = asyncio.Barrier(count + 1)

        async def hang(request: object) -> Answer:
            await all_sent.wait()
            await asyncio.Event().wait()
            raise AssertionError

        desk.sender.send = hang  # type: ignore[assignment, method-assign]
        deliverer = desk.service.deliverer
        attempts = []
        for message_id in ids:
            message = await deliverer.find(f"one#{message_id}")
            assert message
            attempts.append(asyncio.create_task(deliverer.deliver(message)))
        await all_sent.wait()

        write, all_written, written = desk.table.write, asyncio.Barrier(count), 0

        async def together(*what: Any, **how: Any) -> Any:
            nonlocal written
            written += 1
            mine = written
            await all_written.wait()
            if mine == 1:
                raise Busy("full")
            return await write(*what, **how)

        desk.table.write = together  # type: ignore[method-assign]
        async with asyncio.timeout(5):
            await Dispatcher(deliverer, desk.service.errands, HeapDoorbell(desk.clock), count).let_go()
        for attempt in attempts:
            attempt.cancel()
        states = [(await desk.seen(message_id))["state"] for message_id in ids]
        assert sorted(states) == ["ACTIVE"] + ["RETRY"] * (count - 1)

    with_desk(tmp_path, test)
