"""Making, changing and reading schedules.

Whoever makes one due, or due earlier, writes its reminder first, then the schedule, then rings: so whatever dies in
between, it is looked at in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from waypost.core import limits
from waypost.core.body import store_body
from waypost.core.cron import read_cron
from waypost.core.errors import NotFound, TooMuch, shown
from waypost.core.ids import random_name
from waypost.core.message import Phase
from waypost.core.optimistic import change_item
from waypost.core.pending import named
from waypost.core.policy import Policy
from waypost.core.ports import (
    LONGEST_BELL_MS,
    Absent,
    Bell,
    ConditionFailed,
    Delete,
    Equals,
    Item,
    Ports,
    Present,
    Put,
    TooLarge,
)
from waypost.core.query import END_OF_TIME
from waypost.core.reminder import LOOK_AFTER_MS, Stopwatch, remind
from waypost.core.schedule import (
    BODY_LIVES_MS,
    BODY_RENEWED_MS,
    Schedule,
    errand_of,
    schedule_key,
    schedules_partition,
)
from waypost.core.settings import Scheduled

_STATES = {Phase.DELIVERED: "SUCCESS", Phase.FAILED: "FAIL", Phase.CANCELLED: "FAIL"}


class Schedules:
    def __init__(self, ports: Ports, policy: Policy) -> None:
        self._ports = ports
        self._policy = policy

    async def create(self, wanted: Scheduled, destination: str) -> str:
        """Makes the schedule, or puts the whole definition in the place of the one with that id. Returns the id.

        What an operator has paused stays so, and an occurrence that is due is fired, as the new definition has it.
        """
        request, now = wanted.request, self._ports.clock.now_ms()
        schedule_id = wanted.id or f"scd_{random_name(self._ports.random)}"
        body = await store_body(
            request.body,
            account=request.account,
            ttl_ms=now + BODY_LIVES_MS,
            now_ms=now,
            compress_from=self._policy.compress_from,
            blobs=self._ports.blobs,
            random=self._ports.random,
        )
        made = Schedule(
            id=schedule_id,
            account=request.account,
            destination=destination,
            cron=wanted.cron,
            terms=request.terms,
            delay_ms=request.due_ms - request.asked_ms,
            body=body,
            created_ms=now,
            caller_ip=request.caller_ip,
            next_ms=0,
            renew_ms=now + BODY_RENEWED_MS if "blob" in body else 0,
        )

        def change(standing: Schedule | None, now_ms: int) -> Schedule:
            following = next_after(made.cron, now_ms)
            if standing is None:
                return replace(made, next_ms=following)
            is_due = not standing.paused and standing.next_ms <= now_ms
            return replace(
                made,
                created_ms=standing.created_ms,
                paused=standing.paused,
                last=standing.last,
                next_ms=standing.next_ms if is_due else following,
                version=standing.version,
            )

        await self._change(request.account, schedule_id, change)
        return schedule_id

    async def pause(self, account: str, schedule_id: str) -> None:
        """Occurrences are skipped from now on. Raises NotFound."""
        await self._change(account, schedule_id, _of_known(schedule_id, lambda one, _: replace(one, paused=True)))

    async def resume(self, account: str, schedule_id: str) -> None:
        """Goes on with the next occurrence. Raises NotFound."""

        def change(one: Schedule, now_ms: int) -> Schedule:
            return replace(one, paused=False, next_ms=next_after(one.cron, now_ms)) if one.paused else one

        await self._change(account, schedule_id, _of_known(schedule_id, change))

    async def delete(self, account: str, schedule_id: str) -> None:
        """Messages that it has made are delivered all the same. Raises NotFound."""
        try:
            await self._ports.table.write(Delete(schedule_key(account, errand_of(schedule_id)), when=Present("id")))
        except ConditionFailed:
            raise unknown(schedule_id) from None

    async def read(self, account: str, schedule_id: str) -> Schedule:
        """Raises NotFound."""
        schedule = await self.find(account, errand_of(schedule_id))
        if schedule is None:
            raise unknown(schedule_id)
        return schedule

    async def find(self, account: str, errand: str) -> Schedule | None:
        return Schedule.from_item(account, await self._ports.table.get(schedule_key(account, errand)))

    async def list_all(self, account: str) -> list[Schedule]:
        """In order of their making."""
        found: list[Schedule] = []
        after: str | None = None
        while True:
            page = await self._ports.table.query(schedules_partition(account), after=after)
            found += [one for item in page.items if (one := Schedule.from_item(account, item))]
            if page.next is None:
                return sorted(found, key=lambda one: (one.created_ms, one.id))
            after = page.next

    async def last_states(self, schedules: Sequence[Schedule]) -> Mapping[str, str]:
        """Of the messages of their last firings, by id; those kept no longer are left out."""
        refs = [f"{one.account}#{id_}" for one in schedules if one.last for id_ in one.last.message_ids]
        found = await named(self._ports, refs) if refs else ()
        return {message.id: _STATES.get(state.phase, "IN_PROGRESS") for message, state in found if message}

    async def arm(self, schedule: Schedule) -> None:
        """Before it is stored: durable when this returns, whoever dies then. The reminder is far enough ahead that the
        tick can't find it before the schedule is stored, and take it for an old one."""
        wake, now = schedule.wake_ms, self._ports.clock.now_ms()
        if wake is not None:
            await remind(self._ports, schedule.ref, max(wake, now + LOOK_AFTER_MS), self._policy.shards)

    async def ring(self, schedule: Schedule) -> None:
        """After it was stored."""
        wake, now = schedule.wake_ms, self._ports.clock.now_ms()
        if wake is not None and wake - now <= LONGEST_BELL_MS:
            await self._ports.doorbell.ring([Bell(schedule.ref, max(0, wake - now))])

    async def replace(self, standing: Schedule | None, wanted: Schedule) -> Schedule:
        """Stores `wanted` in the place of `standing`, armed and rung for; returns it as it then stands. Raises
        ConditionFailed if something else stands there."""
        watch = Stopwatch(self._ports.clock, self._ports.clock.now_ms())
        new = replace(wanted, version=random_name(self._ports.random))
        await self.arm(new)
        unchanged = Equals("version", standing.version) if standing else Absent("version")
        await self._ports.table.write(Put(new.to_item(), when=unchanged))
        if watch.late(self._ports.clock.now_ms()):
            await self.arm(new)
        await self.ring(new)
        return new

    async def _change(self, account: str, schedule_id: str, change: Callable[[Schedule | None, int], Schedule]) -> None:
        """Makes of a schedule what `change` makes of it at that time."""

        async def once(item: Item | None) -> None:
            standing = Schedule.from_item(account, item)
            wanted = change(standing, self._ports.clock.now_ms())
            if wanted == standing:
                return
            try:
                await self.replace(standing, wanted)
            except TooLarge:
                raise TooMuch(
                    f"schedule {shown(schedule_id)} is too large to be stored: its destination and headers have more"
                    f" than {limits.ITEM // 1024} KB together; put data into the body"
                ) from None

        key = schedule_key(account, errand_of(schedule_id))
        await change_item(self._ports, key, once, f"the schedule {schedule_id}")


def next_after(cron: str, ms: int) -> int:
    """The first occurrence later than that, of an expression that was accepted."""
    following = read_cron(cron).after(ms)
    return END_OF_TIME if following is None else following


def _of_known(
    schedule_id: str, change: Callable[[Schedule, int], Schedule]
) -> Callable[[Schedule | None, int], Schedule]:
    def of_known(schedule: Schedule | None, now_ms: int) -> Schedule:
        if schedule is None:
            raise unknown(schedule_id)
        return change(schedule, now_ms)

    return of_known


def unknown(schedule_id: str) -> NotFound:
    return NotFound(f"schedule {shown(schedule_id)} not found: POST /v2/schedules/<destination> makes one")
