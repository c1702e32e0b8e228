"""The whole service in one process: the embedded engine, the door, the worker and the tick."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from waypost.core.accounts import Tokens
from waypost.core.guard import Guard
from waypost.core.ids import random_name
from waypost.core.ports import Busy, Ports, Unavailable
from waypost.core.signing import SigningKeys
from waypost.engines.embedded.blobs import FolderBlobs
from waypost.engines.embedded.doorbell import HeapDoorbell
from waypost.engines.embedded.sqlite import SqliteStore
from waypost.engines.embedded.table import EmbeddedTable
from waypost.engines.system import SystemClock, SystemRandomness
from waypost.engines.transport import HttpSender
from waypost.local.dispatch import Dispatcher
from waypost.local.door import Door
from waypost.local.settings import LocalSettings
from waypost.wiring import Service, assemble

_log = logging.getLogger("waypost")
_TICK_S = 60
#: A tick that had more to ring than it may is followed by the next after this.
_TICK_AGAIN_S = 1
_EXPIRE_S = 3600
_LOG_EVERY_S = 1
#: Requests being answered at a stop may take this long.
_ANSWERS_S = 2
#: Attempts under way at a stop may take this long; those that do not end are made again after the next start.
_STOP_S = 8


def listen(settings: LocalSettings) -> socket.socket:
    """Raises OSError if the address can't be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=2048)


async def serve(
    settings: LocalSettings, listener: socket.socket, store: SqliteStore, introduce: Callable[[SigningKeys], None]
) -> None:
    """Serves until SIGTERM or SIGINT, then ends within ten seconds. `introduce` is told the keys once all is open."""
    clock = SystemClock()
    table, doorbell = EmbeddedTable(store), HeapDoorbell(clock)
    blobs = FolderBlobs(settings.data / "blobs")
    guard = Guard(settings.allowed_networks)
    sender = HttpSender(guard, ca_file=settings.ca_file)
    ports = Ports(table, doorbell, blobs, sender, clock, SystemRandomness())
    policy = replace(settings.policy, boot=random_name(os.urandom))
    tokens = Tokens({account.token: account.name for account in settings.accounts})
    service = assemble(ports, policy, tokens, guard)
    await service.look.open()
    for account in settings.accounts:
        await service.keys.open(account)
    introduce(await service.keys.keys(settings.accounts[0].name))

    dispatcher = Dispatcher(service.deliverer, service.errands, doorbell, policy.max_in_flight)
    door = Door(service.api, policy, settings.base_path)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    work = [
        asyncio.create_task(dispatcher.run()),
        asyncio.create_task(_tick(service, doorbell, policy.rings_per_tick)),
        asyncio.create_task(_expire(table, blobs)),
        asyncio.create_task(_write_log(service)),
    ]
    try:
        await door.open(listener)
        await stop.wait()
    finally:
        await door.close(_ANSWERS_S)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        try:
            await asyncio.wait_for(dispatcher.drain(), _STOP_S - 2)
        except TimeoutError:
            await dispatcher.let_go()
        await service.log.flush()
        await table.close()
        await sender.close()


async def _tick(service: Service, doorbell: HeapDoorbell, rings: int) -> None:
    """Recovers what the process before left, then ticks like a clock."""
    recovered = False
    while True:
        pause: float = _TICK_S
        try:
            if not recovered:
                await service.look.recover()
                recovered = True
            if await service.look.tick():
                pause = _TICK_AGAIN_S
        except (Busy, Unavailable) as failed:
            _log.warning("the tick waits for the store: %s", failed)
            pause = _TICK_AGAIN_S
        except Exception:  # noqa: BLE001 - the next tick may do better
            _log.exception("the tick failed")
        await asyncio.sleep(pause)
        while pause == _TICK_AGAIN_S and await doorbell.backlog() > rings // 2:
            await asyncio.sleep(_TICK_AGAIN_S)


async def _write_log(service: Service) -> None:
    while True:
        await asyncio.sleep(_LOG_EVERY_S)
        if left := await service.log.flush():
            _log.warning("events wait to be logged: %s", left)


async def _expire(table: EmbeddedTable, blobs: FolderBlobs) -> None:
    while True:
        now = datetime.now(UTC)
        try:
            while await table.expire(int(now.timestamp())):
                await asyncio.sleep(0)
            await blobs.expire(now.date())
        except Exception:  # noqa: BLE001 - nothing relies on it
            _log.exception("dropping what is expired failed")
        await asyncio.sleep(_EXPIRE_S)
