"""Firing schedules: each occurrence makes its messages once, however many hear of it and wherever they die.

An occurrence is published under a deduplication name of its own, and only then does the schedule move on to the next:
whoever comes in between publishes the same again, and helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from waypost.core import limits
from waypost.core.accept import NotStored, Request
from waypost.core.body import BodyMissing, load_body, prolong_body
from waypost.core.cron import read_cron
from waypost.core.destination import is_group_name, read_destination
from waypost.core.errors import Refused, TooMuch
from waypost.core.groups import Groups, requests_to
from waypost.core.guard import Guard
from waypost.core.llm import Llm
from waypost.core.message import Via
from waypost.core.policy import DAY, SECOND
from waypost.core.ports import ConditionFailed, Ports, Unavailable
from waypost.core.publish import Accepted, Publisher
from waypost.core.schedule import BODY_LIVES_MS, BODY_RENEWED_MS, Firing, Schedule
from waypost.core.schedules import Schedules, next_after

#: For so long an occurrence is known to have been published, whatever the account's window is. Any message is kept for
#: longer.
_KNOWN_FOR_MS = 14 * DAY
#: A bell this early waits here.
_WAIT_HERE_MS = SECOND


class Firer:
    """As an errand: fires a schedule that is due."""

    def __init__(
        self, ports: Ports, schedules: Schedules, publisher: Publisher, groups: Groups, guard: Guard, llm: Llm
    ) -> None:
        self._ports = ports
        self._schedules = schedules
        self._publisher = publisher
        self._groups = groups
        self._guard = guard
        self._llm = llm

    async def wake_at(self, account: str, name: str) -> int | None:
        schedule = await self._schedules.find(account, name)
        return schedule.wake_ms if schedule else None

    async def run(self, account: str, name: str) -> str | None:
        while schedule := await self._schedules.find(account, name):
            now = self._ports.clock.now_ms()
            wake = schedule.wake_ms
            if wake is None or wake > now + _WAIT_HERE_MS:
                return None  # Whoever made it due later has rung, or its reminder will.
            if wake > now:
                # What stands then counts: it may be edited or paused meanwhile.
                await self._ports.clock.sleep_ms(wake - now)
            elif 0 < schedule.renew_ms <= now:
                await self._renew_body(schedule, now)
            else:
                return await self._fire(schedule, now)
        return None

    async def publish(self, schedule: Schedule, *, dedup: str = "") -> tuple[Sequence[Request], Sequence[Accepted]]:
        """Makes its messages now, under a deduplication name if one is given. Returns what was asked for with what
        became of it.

        Raises Refused for what the schedule can no longer be published as, BodyMissing, and Unavailable or Busy.
        """
        requests = await self._requests(schedule, self._ports.clock.now_ms(), dedup)
        accepted: list[Accepted] = []
        failed: list[NotStored] = []
        for one in await self._publisher.publish_all(requests):
            if isinstance(one, NotStored):
                failed.append(one)
            else:
                accepted.append(one)
        for one in failed:
            raise TooMuch(one.reason) if one.lasting else Unavailable(one.reason)
        return requests, accepted

    async def _fire(self, schedule: Schedule, now: int) -> str | None:
        occurrence = read_cron(schedule.cron).latest(schedule.next_ms, now)
        notes = []
        if occurrence > schedule.next_ms:
            notes.append(
                f"schedule {schedule.id} skipped its occurrences from {_shown(schedule.next_ms)} to before"
                f" {_shown(occurrence)}, which is fired now"
            )
        ids: Sequence[str] = ()
        error = ""
        try:
            _, accepted = await self.publish(schedule, dedup=f"schedule:{schedule.id}:{occurrence}")
            ids = [one.message_id for one in accepted]
        except (Refused, BodyMissing) as wrong:
            error = str(wrong)
            notes.append(f"schedule {schedule.id} was not fired at {_shown(occurrence)}: {error}")
        last = Firing(occurrence, tuple(ids[: limits.FIRED_MESSAGES]), error)
        try:
            await self._schedules.replace(
                schedule, replace(schedule, next_ms=next_after(schedule.cron, occurrence), last=last)
            )
        except ConditionFailed:
            return None  # Fired by somebody else too, or changed: whoever did that has armed it.
        return "; ".join(notes) or None

    async def _requests(self, schedule: Schedule, now: int, dedup: str) -> Sequence[Request]:
        request = Request(
            account=schedule.account,
            url="",
            terms=schedule.terms,
            body=await load_body(schedule.body, self._ports.blobs),
            asked_ms=now,
            due_ms=now + schedule.delay_ms,
            caller_ip=schedule.caller_ip,
            dedup=dedup,
            dedup_ms=_KNOWN_FOR_MS if dedup else 0,
            via=Via(schedule=schedule.id),
        )
        if is_group_name(schedule.destination):
            return requests_to(await self._groups.read(schedule.account, schedule.destination), request)
        url, _, api = read_destination(schedule.destination, "", self._guard, self._llm)
        return [replace(request, url=url, via=replace(request.via, api=api))]

    async def _renew_body(self, schedule: Schedule, now: int) -> None:
        try:
            body = await prolong_body(
                schedule.body,
                account=schedule.account,
                ttl_ms=now + BODY_LIVES_MS,
                now_ms=now,
                blobs=self._ports.blobs,
                random=self._ports.random,
            )
        except BodyMissing:
            body = schedule.body  # Its firing will say so.
        try:
            await self._schedules.replace(schedule, replace(schedule, body=body, renew_ms=now + BODY_RENEWED_MS))
        except ConditionFailed:
            return  # What stands now is read again.


def _shown(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
