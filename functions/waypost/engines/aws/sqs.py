"""Bells as messages of two queues: slow deliveries wait in their own, so that they hold up no others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from waypost.core.ports import LONGEST_BELL_MS, Bell, Unavailable
from waypost.engines.aws.clients import call

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

#: SQS's limit. Ten refs are far from its other one, a megabyte.
_BATCH = 10

_log = logging.getLogger(__name__)


class SqsDoorbell:
    """ports.Doorbell. A bell whose destination may take longer than `fast_limit_ms` goes to the slow queue."""

    def __init__(
        self, client: SQSClient, fast: str, slow: str, threads: Executor, *, fast_limit_ms: int = 60_000
    ) -> None:
        self._client = client
        self._fast = fast
        self._slow = slow
        self._threads = threads
        self._fast_limit_ms = fast_limit_ms

    async def ring(self, bells: Sequence[Bell]) -> int:
        queues: dict[str, list[Bell]] = {self._fast: [], self._slow: []}
        for bell in bells:
            # SQS takes no longer delay, and a bell cut down to it would ring for nothing.
            if bell.delay_ms <= LONGEST_BELL_MS:
                queues[self._slow if bell.timeout_ms > self._fast_limit_ms else self._fast].append(bell)
        sent = [
            self._send(queue, some[at : at + _BATCH])
            for queue, some in queues.items()
            for at in range(0, len(some), _BATCH)
        ]
        return len(bells) - sum(await asyncio.gather(*sent))

    async def backlog(self) -> int:
        try:
            return await self._visible(self._fast) + await self._visible(self._slow)
        except (BotoCoreError, ClientError, Unavailable):
            # The tick asks, to ring less when bells are late. A tick not made is worse than one that rings in full.
            _log.warning("the queues cannot be counted", exc_info=True)
            return 0

    async def _send(self, queue: str, bells: Sequence[Bell]) -> int:
        """Returns how many were taken."""
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            # Rounded up: a bell that comes early finds nothing due and would have to be rung again.
            {"Id": str(n), "MessageBody": bell.ref, "DelaySeconds": max(0, -(-bell.delay_ms // 1000))}
            for n, bell in enumerate(bells)
        ]
        try:
            answer = await call(self._threads, self._client.send_message_batch, QueueUrl=queue, Entries=entries)
        except Exception:  # noqa: BLE001 - a bell is a hint: whatever went wrong, the table still holds what is due
            _log.warning("bells were not taken", exc_info=True, extra={"queue": queue, "bells": len(bells)})
            return 0
        failed = answer.get("Failed", [])
        if failed:
            _log.warning("bells were not taken", extra={"queue": queue, "failed": failed})
        return len(bells) - len(failed)

    async def _visible(self, queue: str) -> int:
        """Neither those that are not due yet, nor those being looked at."""
        answer = await call(
            self._threads,
            self._client.get_queue_attributes,
            QueueUrl=queue,
            AttributeNames=["ApproximateNumberOfMessages"],
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])
