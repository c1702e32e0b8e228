"""What clients do with queues and flow-control keys in a simulated world, and the check of what came of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulator.history import History, Spec, Told
from simulator.lane_watch import LaneWatch
from simulator.world import EPOCH_MS, HARMLESS, Arrival

#: After this a slot of which nothing is heard was asked after, and a tick has come.
_LATE_MS = 900_000
#: From the last look at the clock to the request, and if that is held up.
_SENT_MS = 500
_SENT_LATE_MS = 6_000
_KILLS = {"kill_before", "kill_after"}
_DELAYS = {"bells_lost", "bells_late", "not_taken", "items_absent", "items_old", "half_written"}


@dataclass
class Operated:
    """What an operator did to a lane, until it was answered."""

    lane: str
    what: str
    asked_ms: int
    answered_ms: int = 0


@dataclass
class Lanes(History):
    operated: list[Operated] = field(default_factory=list)
    #: By lane: what its parallelism and its rate may be from then on; 0: any.
    limits: defaultdict[str, list[tuple[int, dict[str, int]]]] = field(default_factory=lambda: defaultdict(list))
    #: By message: the windows that its attempts counted in.
    windows: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = LaneWatch(self.world)
        watching = self.watch.watch(lambda: self.limits, self._has_ended)
        self.world.tasks.append(self.world.loop.create_task(watching))

    def _has_ended(self) -> bool:
        return not self.world.faults_armed and all(one.message_id in self.final for one in self.told)

    async def publish(self, spec: Spec) -> Told | None:
        if spec.queue and spec.lane not in self.limits:
            self._limit(spec.lane, "parallelism=1")
        if spec.limits and not any(one.what == "pin" and one.lane == spec.lane for one in self.operated):
            self._limit(spec.lane, spec.limits)
        return await super().publish(spec)

    async def operate(self, lane: str, what: str, values: str = "") -> None:
        """By an operator who asks until he is answered."""
        kind, name = lane.split()
        operated = Operated(lane, what, self.world.clock.monotonic_ms())
        self.operated.append(operated)
        if values:
            self._limit(lane, values)
        while True:
            reply = await self.world.ask(*self._request(kind, name, what, values))
            if reply and reply.status == 404:
                self.operated.remove(operated)  # whoever makes the lane has not come so far
                return
            if reply and reply.status < 300:
                operated.answered_ms = self.world.clock.monotonic_ms()
                return
            self._refused(f"{what} of {lane}", reply)
            await asyncio.sleep(1)

    def _request(self, kind: str, name: str, what: str, values: str) -> tuple[str, str, dict[str, str], bytes]:
        if what == "upsert":
            body = {"queueName": name, "parallelism": int(values.partition("=")[2]), "paused": False}
            return "POST", "/v2/queues", {}, json.dumps(body).encode()
        if what == "delete":
            return "DELETE", f"/v2/queues/{name}", {}, b""
        path = f"/v2/{'queues' if kind == 'queue' else 'flowControl'}/{name}/{what}"
        query = re.sub(r"(\d)s\b", r"\1", values.replace(",", "&"))
        return "POST", f"{path}?{query}" if query else path, {}, b""

    def _limit(self, lane: str, values: str) -> None:
        found = dict(re.findall(r"(\w+)=(\d+)", values))
        limits = {"parallelism": 0, "rate": 0, "period": 1} | {name: int(value) for name, value in found.items()}
        self.limits[lane].append((self.world.clock.monotonic_ms(), limits))

    def was_deleted(self, told: Told) -> bool:
        return any(one.what == "delete" and one.lane == told.spec.lane for one in self.operated)

    async def settle(self) -> None:
        for lane in sorted({one.lane for one in self.operated}):
            if lane in self.limits:
                await self.operate(lane, "resume") if self._is_paused(lane) else None
        await super().settle()
        for told in self.told:
            if told.spec.key:
                reply = await self.world.ask("GET", f"/v2/messages/{told.message_id}")
                if reply and reply.status == 200:
                    self.windows[told.message_id] = reply.content.get("rateWindows", [])

    def _is_paused(self, lane: str) -> bool:
        done = [one.what for one in self.operated if one.lane == lane and one.what in ("pause", "resume", "upsert")]
        return bool(done) and done[-1] == "pause"

    # The check --------------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        wrong = []
        struck = [fault for _, fault in self.world.injected.elements()]
        stepped = any(fault.startswith("clock") for fault in struck)
        # Nothing has lost a bell for long, or made one late: a machine that starts again rings for all that it finds.
        harmless = (HARMLESS - _DELAYS) | (_KILLS if self.world.machine else set())
        keeps_bells = harmless.issuperset(struck) and not any(self.world.ticks.missing_s)
        for lane in self.limits:
            told = [one for one in self.told if one.spec.lane == lane]
            ids = {one.message_id for one in told}
            arrivals = [a for a in self.world.arrivals if a.message_id in ids]
            if not stepped:
                wrong += self._check_parallelism(lane, arrivals, bool(struck))
                wrong += self._check_rate(lane, arrivals)
            if lane.startswith("queue"):
                wrong += self._check_order(lane, told)
            wrong += self._check_paused(lane, arrivals)
            wrong += self._check_deleted(lane, told)
            if keeps_bells:
                wrong += self.watch.objections(lane)
        return sorted({*wrong, *super().check()})

    def _allowed(self, lane: str, name: str, at_ms: int, since_ms: int) -> int:
        """The most that a limit was while somebody may have been let in who starts then; 0: any number."""
        history = self.limits[lane]
        before = [limits[name] for asked_ms, limits in history if asked_ms <= since_ms][-1:]
        during = [limits[name] for asked_ms, limits in history if since_ms < asked_ms <= at_ms]
        found = before + during or [0]
        return 0 if 0 in found else max(found)

    def _check_parallelism(self, lane: str, arrivals: Sequence[Arrival], struck: bool) -> list[str]:
        wrong = []
        kept = [a for a in arrivals if not a.strayed]
        for one in kept:
            slack_ms = _LATE_MS if struck else 1_000
            allowed = self._allowed(lane, "parallelism", one.at_ms, one.at_ms - slack_ms)
            at_once = sum(1 for a in kept if a.at_ms <= one.at_ms < a.ends_ms)
            if allowed and at_once > allowed:
                wrong.append(f"{lane}: {at_once} at once at {one.at_ms}, {allowed} allowed")
        return wrong

    def _check_rate(self, lane: str, arrivals: Sequence[Arrival]) -> list[str]:
        wrong = []
        rates = [limits["rate"] for _, limits in self.limits[lane]]
        if 0 in rates or len({limits["period"] for _, limits in self.limits[lane]}) > 1:
            return []
        period_ms = self.limits[lane][0][1]["period"] * 1000
        resets = sum(one.lane == lane and one.what in ("resetRate", "pin") for one in self.operated)
        ids = {told.message_id for told in self.told if told.spec.lane == lane}
        for window, count in Counter(one for name in ids for one in self.windows.get(name, ())).items():
            if count > max(rates):
                wrong.append(f"{lane}: {count} starts in the window {window - EPOCH_MS}, {max(rates)} allowed")
        sent_ms = _SENT_LATE_MS if self.world.injected else _SENT_MS
        for name in ids:
            mine = [a for a in arrivals if a.message_id == name]
            windows = self.windows.get(name, [])
            if len(mine) != len(windows):
                continue  # not every attempt came back
            for arrival, window in zip(mine, windows, strict=True):
                if not arrival.strayed and arrival.at_ms + EPOCH_MS > window + period_ms + sent_ms:
                    wrong.append(f"{lane}: {arrival.tag} began when its window was over, at {arrival.at_ms}")
        kept = [a.at_ms for a in arrivals if not a.strayed]
        for at_ms in kept:
            count = sum(1 for other in kept if at_ms <= other < at_ms + period_ms)
            if count > (2 + resets) * max(rates):
                wrong.append(f"{lane}: {count} starts from {at_ms}, {max(rates)} a period allowed")
        return wrong

    def _check_order(self, lane: str, told: Sequence[Told]) -> list[str]:
        """At parallelism 1 nobody starts before whoever was accepted earlier has ended, and its callbacks have."""
        if any(limits["parallelism"] != 1 for _, limits in self.limits[lane]):
            return []
        wrong = []
        # A queue that is deleted, and used again, is another one.
        deleted_ms = [done.asked_ms for done in self.operated if done.lane == lane and done.what == "delete"]
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for arrival in self.world.arrivals:
            if not arrival.strayed:
                first.setdefault(arrival.message_id, arrival.at_ms)
                whom = arrival.about or arrival.message_id
                last[whom] = max(last.get(whom, 0), arrival.at_ms)
        for one, other in itertools.permutations(told, 2):
            follows = one.answered_ms < other.asked_ms and not one.spec.delay_s and not other.spec.delay_s
            follows = follows and not any(one.asked_ms < at_ms < other.answered_ms for at_ms in deleted_ms)
            if not follows or one.message_id == other.message_id:
                continue
            if one.message_id in last and other.message_id in first and first[other.message_id] < last[one.message_id]:
                wrong.append(f"{lane}: {other.spec.tag} began before {one.spec.tag} had ended")
        return wrong

    def _check_paused(self, lane: str, arrivals: Sequence[Arrival]) -> list[str]:
        wrong = []
        mine = [
            one for one in self.operated if one.lane == lane and one.what in ("pause", "resume", "upsert", "delete")
        ]
        for one, following in itertools.pairwise([*mine, None]):
            if one is None or one.what != "pause":
                continue
            until_ms = following.asked_ms if following else 1 << 60
            late = [a for a in arrivals if one.answered_ms + 1_000 < a.at_ms < until_ms and not a.strayed]
            wrong += [f"{lane} was paused at {one.answered_ms}, and {a.tag} began at {a.at_ms}" for a in late]
        return wrong

    def _check_deleted(self, lane: str, told: Sequence[Told]) -> list[str]:
        wrong = []
        for deleted in (one for one in self.operated if one.lane == lane and one.what == "delete"):
            for one in told:
                if one.answered_ms >= deleted.asked_ms or one.spec.delay_s:
                    continue
                mine = [a for a in self.world.arrivals if a.message_id == one.message_id]
                if any(a.at_ms > deleted.answered_ms + 1_000 and not a.strayed for a in mine):
                    wrong.append(f"{lane} was deleted, and {one.spec.tag} was sent afterwards")
                if not mine and self.final.get(one.message_id) not in ("CANCELED", None):
                    wrong.append(f"{lane} was deleted, and {one.spec.tag} is {self.final.get(one.message_id)}")
        return wrong
