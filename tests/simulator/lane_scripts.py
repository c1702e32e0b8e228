"""Short histories of lanes, whose every port call is struck by every fault, and the drawing of random ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from simulator.history import MODES, Spec, run
from simulator.lanes import Lanes
from simulator.scripts import drawn_faults, together

#: How many faults strike a drawn history.
_FAULTS = (0, 1, 2, 4)

LaneScript = Callable[[Lanes], Awaitable[None]]


async def in_turn(history: Lanes, *specs: Spec) -> None:
    for spec in specs:
        await history.publish(spec)


async def queued(history: Lanes) -> None:
    """One after the other, through a retry."""
    await in_turn(history, *(Spec(tag, queue="q", fails=int(tag == "b")) for tag in "abc"))
    await asyncio.sleep(20)


async def queued_with_callbacks(history: Lanes) -> None:
    """Each waits until those before it were told of; one of them ends badly."""
    specs = [Spec(tag, queue="q", callbacks=True, callbacks_fail=int(tag == "a")) for tag in "ab"]
    await in_turn(history, replace(specs[0], fails=1, retries=0), specs[1], Spec("c", queue="q"))
    await asyncio.sleep(40)


async def queued_two_at_once(history: Lanes) -> None:
    await history.operate("queue q", "upsert", "parallelism=2")
    await together(*(history.publish(Spec(tag, queue="q", takes_s=1)) for tag in "abcd"))
    await asyncio.sleep(10)


async def queued_for_later(history: Lanes) -> None:
    """It takes its place when it is due."""
    await in_turn(history, Spec("a", queue="q", delay_s=10), Spec("b", queue="q"))
    await asyncio.sleep(9)
    await history.publish(Spec("c", queue="q", takes_s=3))
    await asyncio.sleep(10)


async def keyed(history: Lanes) -> None:
    """Two at once, and each attempt takes its turn again."""
    spec = Spec("", key="k", limits="parallelism=2", takes_s=1)
    await together(*(history.publish(replace(spec, tag=tag, fails=int(tag == "b"))) for tag in "abcd"))
    await asyncio.sleep(20)


async def rated(history: Lanes) -> None:
    """Two in ten seconds."""
    spec = Spec("", key="k", limits="rate=2,period=10s")
    await together(*(history.publish(replace(spec, tag=tag, fails=int(tag == "a"))) for tag in "abcde"))
    await asyncio.sleep(60)


async def rated_and_few_at_once(history: Lanes) -> None:
    spec = Spec("", key="k", limits="parallelism=1,rate=2,period=5s", takes_s=1)
    await together(*(history.publish(replace(spec, tag=tag)) for tag in "abcd"))
    await asyncio.sleep(25)


async def paused(history: Lanes) -> None:
    """While one is out, and one was let in."""
    await history.operate("queue q", "upsert", "parallelism=1")
    await history.publish(Spec("a", queue="q", takes_s=2, fails=1))
    await together(history.operate("queue q", "pause"), history.publish(Spec("b", queue="q")))
    await asyncio.sleep(20)
    await history.operate("queue q", "resume")
    await asyncio.sleep(5)


async def deleted(history: Lanes) -> None:
    """While one is out, and two wait; then it is used again."""
    await in_turn(history, *(Spec(tag, queue="q", takes_s=2, fails=int(tag == "a")) for tag in "abc"))
    await history.operate("queue q", "delete")
    await history.publish(Spec("d", queue="q"))
    await asyncio.sleep(15)


async def cancelled_in_line(history: Lanes) -> None:
    """One that waits, and one that holds its queue's slot between two attempts."""
    told = [await history.publish(Spec(tag, queue="q", fails=int(tag == "a"))) for tag in "abc"]
    await asyncio.sleep(2)
    for one in told[:2]:
        if one:
            await history.cancel(one.message_id)
    await asyncio.sleep(10)


async def limits_changed(history: Lanes) -> None:
    """The newest message's become the key's, until they are pinned."""
    spec = Spec("", key="k", limits="parallelism=1", takes_s=1)
    await together(*(history.publish(replace(spec, tag=tag)) for tag in "abc"))
    await history.publish(replace(spec, tag="d", limits="parallelism=3"))
    await history.operate("key k", "pin", "parallelism=1")
    await together(*(history.publish(replace(spec, tag=tag, limits="parallelism=1")) for tag in "ef"))
    await asyncio.sleep(10)


async def limits_brought_early(history: Lanes) -> None:
    """By a message that is due later than newer ones, which bring others."""
    spec = Spec("", key="k", limits="parallelism=1", takes_s=1)
    await together(*(history.publish(replace(spec, tag=tag)) for tag in "ab"))
    await history.publish(replace(spec, tag="late", limits="parallelism=3", delay_s=8))
    await asyncio.sleep(1)
    await together(*(history.publish(replace(spec, tag=tag)) for tag in "cd"))
    await asyncio.sleep(8)
    await together(*(history.publish(replace(spec, tag=tag, limits="")) for tag in "efg"))
    await asyncio.sleep(10)


async def told_twice(history: Lanes) -> None:
    """Bells that come again while a request is out, and when its time is over."""
    spec = Spec("", key="k", limits="parallelism=1,rate=5,period=60s", takes_s=4)
    told = [await history.publish(replace(spec, tag=tag, fails=1)) for tag in "ab"]
    for _ in range(4):
        await asyncio.sleep(1.5)
        for one in told:
            if one:
                history.world.bell_rings(f"acct#{one.message_id}", history.world.epoch)
    await asyncio.sleep(60)


async def frozen_at_work(history: Lanes) -> None:
    """A worker stops before it knows whether it is its turn; its lease runs out, and others go on; then it wakes."""
    history.world.arm("LaneStore.read table.get", "freeze_before", skip=3)
    spec = Spec("", key="k", limits="parallelism=1", takes_s=1)
    await together(*(history.publish(replace(spec, tag=tag)) for tag in "abc"))
    await asyncio.sleep(400)


async def arriving_as_others_leave(history: Lanes) -> None:
    """Each second one comes in the milliseconds in which the one before it gives back its slot; nobody comes after."""
    spec = Spec("", key="k", limits="parallelism=1", takes_s=0.05)
    for number in range(40):
        await history.publish(replace(spec, tag=f"a{number}"))
        await asyncio.sleep(0.03 + number * 0.001)
        await history.publish(replace(spec, tag=f"b{number}"))
        await asyncio.sleep(10)


LANE_SCRIPTS: dict[str, LaneScript] = {
    script.__name__: script
    for script in (
        queued,
        queued_with_callbacks,
        queued_two_at_once,
        queued_for_later,
        keyed,
        rated,
        rated_and_few_at_once,
        paused,
        deleted,
        cancelled_in_line,
        limits_changed,
        limits_brought_early,
        told_twice,
        frozen_at_work,
    )
}


def drawn_in_lanes(seed: int, messages: int = 12) -> LaneScript:
    """Messages to a strict queue, a wide one and two keys, some seconds long, with operators at work meanwhile."""
    rng = random.Random(f"lanes {seed}")
    lanes = rng.sample(("strict", "wide", "few", "rate", "both"), rng.choice((1, 1, 2)))
    limits = {"few": "parallelism=2", "rate": "rate=3,period=4s", "both": "parallelism=2,rate=3,period=3s"}

    def spec(number: int) -> Spec:
        lane = rng.choice(lanes)
        is_queue = lane in ("strict", "wide")
        return Spec(
            f"m{number}",
            delay_s=rng.choice((0, 0, 0, 0, 3, 8)),
            retries=rng.randrange(3),
            fails=rng.choice((0, 0, 0, 1, 4)),
            dedup=rng.choice(("", "", "", f"d{number}")),
            callbacks=is_queue and rng.random() < 0.3,
            queue=lane if is_queue else "",
            key="" if is_queue else lane,
            limits=limits.get(lane, ""),
            takes_s=rng.choice((0, 0, 0.5, 2)),
        )

    def operations(lane: str) -> Sequence[tuple[str, str]]:
        if lane == "strict":
            return [("pause", ""), ("resume", ""), ("delete", "")]
        if lane == "wide":
            return [("pause", ""), ("upsert", "parallelism=3"), ("upsert", "parallelism=1"), ("delete", "")]
        pins = {"few": "parallelism=1", "rate": "rate=2,period=4s", "both": "parallelism=3,rate=3,period=3s"}
        return [("pause", ""), ("resume", ""), ("pin", pins[lane]), ("resetRate", "")]

    specs = [spec(number) for number in range(messages)]
    times = sorted(rng.choice((0, rng.uniform(0, 10))) for _ in specs)
    cancelled = {number: rng.choice((0, 0.05, 2, 12)) for number in range(messages) if rng.random() < 0.15}
    # Of who is hurried and cancelled nobody outside knows whether the attempt was under way.
    hurried = {n: rng.uniform(0, 12) for n in range(messages) if rng.random() < 0.15 and n not in cancelled}
    chosen = [
        (rng.uniform(0, 15), lane, *rng.choice(operations(lane))) for lane in lanes for _ in range(rng.randrange(4))
    ]

    async def script(history: Lanes) -> None:
        history.world.ticks = rng.choice(history.world.ticks_drawn[:3])
        if "wide" in lanes:
            await history.operate("queue wide", "upsert", "parallelism=3")

        async def publish(number: int) -> None:
            await asyncio.sleep(times[number])
            told = await history.publish(specs[number])
            if told and number in hurried:
                await asyncio.sleep(hurried[number])
                await history.hurry(told.message_id)
            if told and number in cancelled:
                await asyncio.sleep(cancelled[number])
                await history.cancel(told.message_id)

        async def operate(at_s: float, lane: str, what: str, values: str) -> None:
            await asyncio.sleep(at_s)
            name = f"{'queue' if lane in ('strict', 'wide') else 'key'} {lane}"
            if name in history.limits:
                await history.operate(name, what, values)

        async def one_lane(lane: str) -> None:
            # One operator to a lane: what stands between two of his wishes is known.
            for at_s, _, what, values in sorted(one for one in chosen if one[1] == lane):
                await operate(max(0, begun_s + at_s - history.world.loop.time()), lane, what, values)

        begun_s = history.world.loop.time()
        await together(*(publish(number) for number in range(messages)), *(one_lane(lane) for lane in lanes))
        await asyncio.sleep(5)

    return script


def run_in_lanes(seed: int) -> Lanes:
    """A drawn history, unstruck or struck by some faults."""
    mode = list(MODES)[seed % len(MODES)]
    count = _FAULTS[seed // len(MODES) % len(_FAULTS)]
    plan = drawn_faults(seed, mode, count) if count else None
    return run(seed, drawn_in_lanes(seed), mode=mode, plan=plan, kind=Lanes)
