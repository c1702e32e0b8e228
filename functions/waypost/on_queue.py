"""SQS hands bells over in batches: each is an attempt, all of a batch at once. What fails here rings again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from waypost.core.deliver import AGAIN_MS
from waypost.core.message import State, parse_ref
from waypost.core.ports import Bell, Busy, Unavailable
from waypost.on_aws import Function, function

#: An attempt is begun only if the function lives on for the message's timeout and this, to claim and to settle.
_MARGIN_MS = 10_000
#: Events wait for others of their batch, with which they are one item, but no longer than this.
_LOG_EVERY_S = 2


def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    return function().run(deliver_batch(function(), event, context.get_remaining_time_in_millis))


async def deliver_batch(here: Function, event: Mapping[str, Any], left_ms: Any) -> dict[str, Any]:
    """Names what SQS shall hand over once more. `left_ms` tells how long the function still has."""
    records = event["Records"]
    settled: Counter[str] = Counter()
    await _read_orders(here, records)
    writing = asyncio.create_task(_write_log(here))
    done = await asyncio.gather(*(_deliver(here, record["body"], left_ms, settled) for record in records))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await here.write_log()
    here.sender.drop_idle()
    if settled:
        here.count(settled)
    failed = [record["messageId"] for record, well in zip(records, done, strict=True) if not well]
    return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}


async def _read_orders(here: Function, records: Sequence[Mapping[str, Any]]) -> None:
    """Once for all of the batch. An environment may have stood still since its last one, and its clock too."""
    for account in {parse_ref(record["body"])[0] for record in records}:
        here.service.orders.forget(account)
        with contextlib.suppress(Busy, Unavailable):  # then each attempt asks for itself
            await here.service.orders.read(account)


async def _write_log(here: Function) -> None:
    """While the batch lasts, which may be long for one slow endpoint."""
    while True:
        await asyncio.sleep(_LOG_EVERY_S)
        await here.write_log()


async def _deliver(here: Function, ref: str, left_ms: Any, settled: Counter[str]) -> bool:
    """Whether the bell has done its work. What its attempt came to is added to `settled`."""
    again = Bell(ref, AGAIN_MS)
    try:
        if here.service.errands.know(ref):
            if note := await here.service.errands.run(ref):
                here.log.warning("errand", extra={"ref": ref, "reason": note})
            return True
        message = await here.service.deliverer.find(ref)
        if message is None:
            here.log.info("bell without a message", extra={"ref": ref[:200]})
            return True
        again = Bell(ref, AGAIN_MS, message.terms.timeout_ms)
        if left_ms() >= message.terms.timeout_ms + _MARGIN_MS:
            state = await here.service.deliverer.deliver(message)
            if state:
                settled[state.phase.value.capitalize()] += 1
                _tell(here, message.id, state)
            return True
    except (Busy, Unavailable) as failed:
        here.log.warning("delivery waits for the store", extra={"ref": ref, "reason": str(failed)})
    except Exception:  # one bell's error must not cost the others their attempt
        here.log.exception("delivery failed", extra={"ref": ref})
        return False
    return await here.ports.doorbell.ring([again]) == 0


def _tell(here: Function, message_id: str, state: State) -> None:
    last = state.last or {}
    here.log.info(
        "attempt",
        extra={
            "message_id": message_id,
            "state": state.phase.value,
            "retried": state.retried,
            "status": last.get("status"),
            "ms": last.get("ms"),
            "next_at_ms": state.due_ms or None,
        },
    )
