"""Short histories whose every port call is struck by every fault, and the drawing of long random ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable

from simulator.cloud import HOUR_S
from simulator.history import MODES, History, Script, Spec
from simulator.world import Ticks
from waypost.core.schedule import errand_of


async def together(*work: Awaitable[object]) -> None:
    await asyncio.gather(*work)


async def plain(history: History) -> None:
    await history.publish(Spec("a"))
    await asyncio.sleep(5)


async def large(history: History) -> None:
    told = await history.publish(Spec("a", size=20_000))
    await asyncio.sleep(5)
    if told:
        await history.look_up(told.message_id)


async def dedup(history: History) -> None:
    spec = Spec("d", dedup="d")
    await together(history.publish(spec), history.publish(spec))
    await history.publish(spec)
    await asyncio.sleep(5)


async def late_dedup(history: History) -> None:
    """The second publisher comes when the look has passed the first one's minute."""
    spec = Spec("d", delay_s=600, dedup="d")
    await history.publish(spec)
    await asyncio.sleep(400)
    await history.publish(spec)
    await asyncio.sleep(250)


async def retried(history: History) -> None:
    told = await history.publish(Spec("a", fails=2))
    if told:
        await history.watch(told.message_id, 7)


async def retried_after_the_look(history: History) -> None:
    told = await history.publish(Spec("a", delay_s=380, fails=3, retries=4))
    if told:
        await history.watch(told.message_id, 45)


async def exhausted(history: History) -> None:
    told = await history.publish(Spec("a", fails=9, retries=1))
    if told:
        await history.watch(told.message_id, 7)


async def cancelled_early(history: History) -> None:
    told = await history.publish(Spec("a", delay_s=30))
    if told:
        await asyncio.sleep(5)
        await history.cancel(told.message_id)
        await history.cancel(told.message_id)
        await asyncio.sleep(40)


async def cancelled_at_work(history: History) -> None:
    told = await history.publish(Spec("a", fails=1))
    if told:
        await history.cancel(told.message_id)
        await asyncio.sleep(20)


async def cancelled_between_retries(history: History) -> None:
    told = await history.publish(Spec("a", fails=2))
    if told:
        await asyncio.sleep(5)
        await history.cancel(told.message_id)
        await asyncio.sleep(20)


async def far_delay(history: History) -> None:
    """Beyond what a bell carries: the look and the reminders bring it."""
    await history.publish(Spec("a", delay_s=1200))
    await asyncio.sleep(1250)


async def farther_delay(history: History) -> None:
    """Due when the second look has passed too: the reminder alone brings it."""
    await history.publish(Spec("a", delay_s=2700))
    await asyncio.sleep(2750)


async def early_bell(history: History) -> None:
    """Bells by half a second and by ten too early."""
    told = await history.publish(Spec("a", delay_s=20))
    if told:
        ref = f"acct#{told.message_id}"
        await asyncio.sleep(10)
        history.world.bell_rings(ref, history.world.epoch)
        await asyncio.sleep(9.5)
        history.world.bell_rings(ref, history.world.epoch)


async def power_cut_before_the_look(history: History) -> None:
    """The power fails in the middle of an attempt; what has no reminder yet is found by the recovery alone."""
    await history.publish(Spec("a", delay_s=30))
    history.world.arm("sender.send", "kill_before")
    await history.publish(Spec("b"))
    await asyncio.sleep(40)


async def power_cut_at_work(history: History) -> None:
    """The power fails in the middle of an attempt, when the look has passed; what is struck then is the recovery."""
    await together(history.publish(Spec("a", delay_s=400)), history.publish(Spec("b", delay_s=399)))
    history.world.arm("sender.send", "kill_before" if history.world.machine else "freeze_before", skip=1)
    await asyncio.sleep(420)
    if not history.world.machine:
        await asyncio.sleep(400)


async def store_busy_at_the_settle(history: History) -> None:
    history.world.arm("_write_all", "busy")
    await history.publish(Spec("a"))
    await asyncio.sleep(5)


async def store_busy_before_the_request(history: History) -> None:
    """The attempt is claimed and can't be made: it is put back."""
    history.world.arm("KeyStore.keys", "busy")
    await history.publish(Spec("a"))
    await asyncio.sleep(20)


async def frozen_beyond_the_lease(history: History) -> None:
    """A worker stops in the middle; its lease runs out and another takes over; then it goes on."""
    history.world.arm("sender.send", "freeze_after")
    told = await history.publish(Spec("a", delay_s=130, fails=1))
    if told:
        await history.watch(told.message_id, 30)


async def no_ticks_at_first(history: History) -> None:
    """When the first comes, both looks at these messages' minute are overdue. No bell carries the second one."""
    history.world.ticks = Ticks(missing_s=(0, HOUR_S))
    await together(history.publish(Spec("a", fails=1)), history.publish(Spec("b", delay_s=1200)))
    await asyncio.sleep(HOUR_S + 90)


async def no_ticks_after_the_look(history: History) -> None:
    """The message's time and its reminder's have long passed when the next one comes, which reads eventually."""
    history.world.ticks = Ticks(missing_s=(300, 300 + HOUR_S))
    history.world.arm("table.get_many", "items_absent")
    await history.publish(Spec("a", delay_s=1200))
    await asyncio.sleep(HOUR_S + 390)


async def ticks_far_apart(history: History) -> None:
    history.world.ticks = Ticks(apart_s=119)
    await retried_after_the_look(history)


async def ticks_twice(history: History) -> None:
    history.world.ticks = Ticks(at_once=2)
    await far_delay(history)


async def reads_that_find_nothing_yet(history: History) -> None:
    history.world.reads_nothing = True
    await far_delay(history)


async def slow_endpoint(history: History) -> None:
    """Its bells have a queue of their own; one that comes to the wrong queue goes there too."""
    told = await history.publish(Spec("a", delay_s=10, fails=1, timeout_s=120))
    if told:
        await asyncio.sleep(10)
        history.world.bell_rings(f"acct#{told.message_id}", history.world.epoch)
        await asyncio.sleep(20)


async def a_batch(history: History) -> None:
    """Bells that come together are handed over together, and die together."""
    await together(*(history.publish(Spec(tag, delay_s=10)) for tag in "abc"))
    await asyncio.sleep(20)


async def batched(history: History) -> None:
    """Four messages of which two are one. Whoever publishes them may die anywhere; a client that is not sure that all
    are accepted asks again."""
    specs = [Spec("a"), Spec("d", dedup="d"), Spec("e", dedup="e", delay_s=20, size=9_000), Spec("d", dedup="d")]
    while not await history.batch(*specs):
        await asyncio.sleep(1)
    await history.batch(*specs[1:])
    await asyncio.sleep(25)


async def batched_while_the_store_is_busy(history: History) -> None:
    """What is struck then are the writes one by one."""
    history.world.arm("_write_all", "busy")
    await batched(history)


async def batched_slowly(history: History) -> None:
    """For so long that the look may have passed: each message gets a reminder."""
    history.world.arm("_write_all", "freeze_before")
    await batched(history)


async def to_a_group(history: History) -> None:
    """Likewise for the messages to a group, which has one more endpoint by the second time."""
    await history.make_group("g", 2)
    spec = Spec("d", dedup="d")
    while not await history.publish_to_group("g", spec):
        await asyncio.sleep(1)
    await history.make_group("g", 3)
    await history.publish_to_group("g", spec)
    await asyncio.sleep(5)


async def called_back(history: History) -> None:
    told = await history.publish(Spec("a", fails=1, callbacks=True))
    if told:
        await asyncio.sleep(15)


async def called_back_about_the_end(history: History) -> None:
    """Its callbacks are given up too; the large body is told whole."""
    await history.publish(Spec("a", fails=9, retries=0, callbacks=True, callbacks_fail=9, size=9_000))
    await asyncio.sleep(20)


async def revived(history: History) -> None:
    """Two operators retry a dead letter at once."""
    told = await history.publish(Spec("a", fails=1, retries=0))
    if told:
        await asyncio.sleep(5)
        await history.revive(told, operators=2)
        await asyncio.sleep(5)


async def hurried(history: History) -> None:
    """A delayed message, and one between its attempts, are made due at once."""
    told = await history.publish(Spec("a", delay_s=700, fails=1))
    if told:
        await history.hurry(told.message_id)
        await asyncio.sleep(5)
        await history.hurry(told.message_id)
        await asyncio.sleep(5)


async def all_cancelled(history: History) -> None:
    """What waits, what waits for a retry, and what is published meanwhile."""
    await together(history.publish(Spec("a", delay_s=20)), history.publish(Spec("b", fails=2)))
    await asyncio.sleep(3)
    await together(history.cancel_all(), history.publish(Spec("c", fails=1)))
    await asyncio.sleep(25)


async def all_cancelled_at_work(history: History) -> None:
    await together(*(history.publish(Spec(tag, fails=1)) for tag in "ab"), history.cancel_all())
    await asyncio.sleep(15)


async def all_cancelled_long_after(history: History) -> None:
    """The look has passed: reminders alone tell what is unfinished."""
    await together(history.publish(Spec("a", delay_s=420)), history.publish(Spec("b", delay_s=2000)))
    await asyncio.sleep(400)
    await history.cancel_all()
    await asyncio.sleep(30)


async def ordered_off(history: History) -> None:
    """The order gets no further, and its bell is lost: those who are about to send know of it all the same."""
    await history.publish(Spec("a"))
    for delay_s in (2, 3, 4, 30):
        await history.publish(Spec(f"b{delay_s}", delay_s=delay_s))
    await asyncio.sleep(1)
    history.world.arm("api in_minute", "busy")
    history.world.arm("Canceller._leave doorbell", "bells_lost")
    await history.cancel_all()
    await asyncio.sleep(40)


#: Histories begin with an occurrence of what fires each five minutes, less what it took to start.
_FIRST_S = 300


async def scheduled(history: History) -> None:
    """Two firings, and time for whoever is held up."""
    await history.schedule("s", "a")
    await asyncio.sleep(3 * _FIRST_S - 5)
    await history.unschedule("s")


async def scheduled_to_a_group(history: History) -> None:
    await history.make_group("g", 2)
    await history.schedule("s", "a", "g")
    await asyncio.sleep(2 * _FIRST_S - 5)
    await history.unschedule("s")


async def schedules_changed_as_they_fire(history: History) -> None:
    """Half a second before, while bells that came early wait for the time, and in the same moment."""
    names = ("edited", "paused", "deleted")
    await together(*(history.schedule(name, "a") for name in names))
    await at(history, _FIRST_S - 0.95)
    for name in names:
        history.world.bell_rings(f"acct#{errand_of(name)}", history.world.epoch)
    await at(history, _FIRST_S - 0.5)
    await history.schedule("edited", "b")
    await at(history, _FIRST_S)
    await together(history.schedule("edited", "c"), history.pause("paused"), history.unschedule("deleted"))
    await at(history, 2 * _FIRST_S - 0.5)
    await together(history.schedule("edited", "d"), history.resume("paused", "a"), history.schedule("deleted", "e"))
    await at(history, 3 * _FIRST_S - 5)
    await together(*(history.unschedule(name) for name in names))


async def resumed_as_the_tick_looks(history: History) -> None:
    """The reminder from before the pause is about to be looked at."""
    await history.schedule("s", "a")
    await history.pause("s")
    for second in (179, 239, 299):
        await at(history, second + 0.99)
        await history.resume("s", "a")
        await history.pause("s")
    await history.resume("s", "a")
    await at(history, 3 * _FIRST_S - 5)
    await history.unschedule("s")


async def an_outage_over_schedules(history: History) -> None:
    """No tick, and no bell: when both are back, the most recent occurrence comes, and then those that follow."""
    history.world.ticks = Ticks(missing_s=(100, HOUR_S / 2))
    history.world.arm("Schedules.ring doorbell", "bells_lost")
    await history.schedule("s", "a")
    await at(history, HOUR_S / 2 + 2 * _FIRST_S - 5)
    await history.unschedule("s")


async def at(history: History, second: float) -> None:
    """Waits for that second of the history, by its wall clock's even minutes."""
    begun = history.start_ms // 1000
    await asyncio.sleep(max(0, begun + second - history.world.loop.time()))


def _named(*scripts: Script) -> dict[str, Script]:
    return {script.__name__: script for script in scripts}


_CLOUD = _named(
    no_ticks_at_first,
    no_ticks_after_the_look,
    ticks_far_apart,
    ticks_twice,
    reads_that_find_nothing_yet,
    slow_endpoint,
    a_batch,
)
_ALL = _named(
    plain,
    large,
    dedup,
    late_dedup,
    retried,
    retried_after_the_look,
    exhausted,
    cancelled_early,
    cancelled_at_work,
    cancelled_between_retries,
    far_delay,
    farther_delay,
    early_bell,
    power_cut_before_the_look,
    power_cut_at_work,
    store_busy_at_the_settle,
    store_busy_before_the_request,
    frozen_beyond_the_lease,
    batched,
    batched_while_the_store_is_busy,
    batched_slowly,
    to_a_group,
    called_back,
    called_back_about_the_end,
    revived,
    hurried,
    all_cancelled,
    all_cancelled_at_work,
    all_cancelled_long_after,
    ordered_off,
    scheduled,
    scheduled_to_a_group,
    schedules_changed_as_they_fire,
    resumed_as_the_tick_looks,
    an_outage_over_schedules,
)
#: By mode.
SCRIPTS: dict[str, dict[str, Script]] = {"machine": _ALL, "fleet": _ALL, "cloud": _ALL | _CLOUD}


def drawn(seed: int, messages: int = 20) -> Script:
    """A history of that many messages over some minutes, drawn from the seed."""
    rng = random.Random(f"script {seed}")

    async def one(history: History, number: int) -> None:
        await asyncio.sleep(rng_times[number])
        spec, kind = specs[number], kinds[number]
        told = await history.publish(spec)
        if told is None and spec.dedup:
            told = await history.publish(spec)
        if told and kind == "cancel":
            await asyncio.sleep(waits[number])
            await history.cancel(told.message_id)
        elif told and kind == "watch":
            await history.watch(told.message_id, 15)

    rng_times = [rng.uniform(0, 200) for _ in range(messages)]
    waits = [rng.choice((0, 0.05, 5, 60)) for _ in range(messages)]
    kinds = [rng.choice(("leave", "watch", "watch", "cancel")) for _ in range(messages)]
    specs = []
    for number in range(messages):
        name = rng.choice(("", "", "", f"dedup{number % 3}"))
        specs.append(
            Spec(
                name or f"m{number}",
                delay_s=0 if name else rng.choice((0, 0, 0, 2, 40, 300, 1000)),
                retries=1 if name else rng.randrange(4),
                fails=0 if name else rng.choice((0, 0, 1, 2, 5)),
                dedup=name,
                size=rng.choice((0, 0, 0, 12_000)),
                callbacks=name == "dedup1" if name else rng.choice((False, False, False, True)),
            )
        )

    async def cancel_all(history: History) -> None:
        if ordered_s:
            await asyncio.sleep(ordered_s)
            await history.cancel_all()

    async def batch(history: History) -> None:
        if batched_s:
            await asyncio.sleep(batched_s)
            await history.batch(Spec("b1"), Spec("dedup0", dedup="dedup0"), Spec("b2", delay_s=40, size=12_000))

    ordered_s = rng.choice((0, 0, 0, rng.uniform(1, 200)))
    batched_s = rng.choice((0, rng.uniform(1, 200)))

    async def script(history: History) -> None:
        history.world.ticks = rng.choice(history.world.ticks_drawn)
        await together(*(one(history, number) for number in range(messages)), cancel_all(history), batch(history))

    return script


def drawn_faults(seed: int, mode: str, count: int, calls: int = 350) -> dict[int, str]:
    rng = random.Random(f"faults {seed}")
    # Without those of the blobs: not every history has one.
    kinds = [kind for port, own in MODES[mode].faults.items() if port != "blobs" for kind in own]
    return {number: rng.choice(kinds) for number in rng.sample(range(10, calls), count)}
