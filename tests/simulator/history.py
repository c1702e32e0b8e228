"""What clients do in a simulated world, and the check of what came of it.

The check uses what the endpoint received and what clients were answered, nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import jwt

from simulator.cloud import Cloud
from simulator.world import CRASHES, EPOCH_MS, HARMLESS, Arrival, Machine, World
from waypost.call import Reply

#: One machine that dies whole; processes that die one by one; functions, with AWS's faults.
MODES: dict[str, type[World]] = {"machine": Machine, "fleet": World, "cloud": Cloud}

_IN = "http://127.0.0.1:9/in"
_FINAL = ("DELIVERED", "FAILED", "CANCELED")
#: Virtual time after which everything accepted must have ended.
_PATIENCE_S = 4 * 3600
#: The waits before retries, as documented, and the longest that the endpoint takes.
_WAITS_MS = (10_000, 30_000, 60_000, 120_000, 240_000)
_ATTEMPT_MS = 250
#: A reminder is visited by the next tick, with this to spare.
_LATE_MS = 5_000
#: When schedules fire here: further apart than anybody is held up.
_CRON, _APART_MS = "*/5 * * * *", 300_000
#: A bell of whole seconds, and others of its batch.
_PUNCTUAL_MS = 3_500
#: The look comes two minutes after the end of the minute in which a message was accepted, with the next tick.
_LOOK_MS = 185_000


@dataclass(frozen=True)
class Spec:
    """What a client wants done. `fails`: how many attempts the endpoint answers with 500."""

    tag: str
    delay_s: int = 0
    retries: int = 3
    fails: int = 0
    dedup: str = ""
    size: int = 0
    timeout_s: int = 60
    #: It has both callbacks, which fail so often, and are tried again once.
    callbacks: bool = False
    callbacks_fail: int = 0
    #: Through which queue it goes, or under which flow-control key, with what limits.
    queue: str = ""
    key: str = ""
    limits: str = ""
    #: How long the endpoint takes; 0: not long.
    takes_s: float = 0

    @property
    def lane(self) -> str:
        return f"queue {self.queue}" if self.queue else f"key {self.key}" if self.key else ""


@dataclass
class Told:
    """One answer to one publish. Times are the world's monotonic milliseconds."""

    spec: Spec
    asked_ms: int
    answered_ms: int
    status: int
    message_id: str
    url: str = _IN


@dataclass
class Cancelled:
    message_id: str
    answered_ms: int
    count: int


@dataclass
class Ordered:
    """One cancel of all messages."""

    asked_ms: int
    #: None: no answer came, so it may have been done or not.
    answered_ms: int | None = None


@dataclass
class Revived:
    """One dead letter that operators retried. `answers` are what those of them heard who were answered."""

    told: Told
    answers: list[str] = field(default_factory=list)


@dataclass
class Changed:
    """What a client did to a schedule, until it was answered. `tag`: that of its messages from then on; empty: it
    fires none."""

    name: str
    tag: str
    asked_ms: int
    answered_ms: int = 0


@dataclass
class History:
    world: World
    told: list[Told] = field(default_factory=list)
    cancelled: list[Cancelled] = field(default_factory=list)
    ordered: list[Ordered] = field(default_factory=list)
    revived: list[Revived] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    #: By the message of a schedule that arrived: when it was accepted.
    created: dict[str, int] = field(default_factory=dict)
    final: dict[str, str] = field(default_factory=dict)
    #: Of the world's monotonic clock.
    start_ms: int = 0
    wrong: list[str] = field(default_factory=list)
    signed_with: str = ""

    async def publish(self, spec: Spec) -> Told | None:
        asked = self.world.clock.monotonic_ms()
        way = f"enqueue/{spec.queue}" if spec.queue else "publish"
        reply = await self.world.ask("POST", f"/v2/{way}/{_IN}", _headers(spec), _body(spec))
        if reply is None or reply.status >= 300:
            self._refused("publish", reply)
            return None
        told = Told(spec, asked, self.world.clock.monotonic_ms(), reply.status, reply.content["messageId"])
        self.told.append(told)
        return told

    async def batch(self, *specs: Spec) -> bool:
        """All of them in one request. False: not all are known to be accepted."""
        asked = self.world.clock.monotonic_ms()
        items = [{"destination": _IN, "headers": _headers(one), "body": _body(one).decode()} for one in specs]
        reply = await self.world.ask("POST", "/v2/batch", body=json.dumps(items).encode())
        if reply is None or not isinstance(reply.content, list):
            self._refused("batch", reply)
            return False
        return self._accepted(asked, specs, reply.content)

    async def make_group(self, name: str, endpoints: int) -> None:
        """By a client that asks until it is answered."""
        urls = [{"url": f"{_IN}?n={n}"} for n in range(endpoints)]
        while True:
            body = json.dumps({"endpoints": urls}).encode()
            reply = await self.world.ask("POST", f"/v2/topics/{name}/endpoints", body=body)
            if reply and reply.status == 200:
                return
            self._refused("upsert", reply)
            await asyncio.sleep(1)

    async def publish_to_group(self, name: str, spec: Spec) -> bool:
        """False: not all messages are known to be accepted."""
        asked = self.world.clock.monotonic_ms()
        reply = await self.world.ask("POST", f"/v2/publish/{name}", _headers(spec), _body(spec))
        if reply is None or not isinstance(reply.content, list):
            self._refused("publish to a group", reply)
            return False
        return self._accepted(asked, [spec] * len(reply.content), reply.content)

    async def schedule(self, name: str, tag: str, to: str = _IN) -> None:
        """Makes a schedule, or replaces it."""
        headers = {"Upstash-Cron": _CRON, "Upstash-Schedule-Id": name}
        await self._change(name, tag, "POST", to, headers, _body(Spec(tag)))

    async def pause(self, name: str) -> None:
        await self._change(name, "", "PATCH", f"{name}/pause")

    async def resume(self, name: str, tag: str) -> None:
        await self._change(name, tag, "PATCH", f"{name}/resume")

    async def unschedule(self, name: str) -> None:
        await self._change(name, "", "DELETE", name)

    async def _change(self, name: str, tag: str, method: str, path: str, *what: Any) -> None:
        """By a client that asks until it is answered."""
        changed = Changed(name, tag, self.world.clock.monotonic_ms())
        self.changed.append(changed)
        tries = 0
        while True:
            tries += 1
            reply = await self.world.ask(method, f"/v2/schedules/{path}", *what)
            # Whoever deletes again finds nothing there.
            if reply and (reply.status < 300 or (method == "DELETE" and tries > 1 and reply.status == 404)):
                changed.answered_ms = self.world.clock.monotonic_ms()
                return
            self._refused(f"{method} of a schedule", reply)
            await asyncio.sleep(1)

    def _accepted(self, asked_ms: int, specs: Sequence[Spec], answers: Sequence[dict[str, Any]]) -> bool:
        """Each message that an answer names is owed."""
        now = self.world.clock.monotonic_ms()
        for spec, answer in zip(specs, answers, strict=True):
            if "error" not in answer:
                status = 202 if "deduplicated" in answer else 201
                self.told.append(Told(spec, asked_ms, now, status, answer["messageId"], answer.get("url", _IN)))
        return not any("error" in answer for answer in answers)

    def _refused(self, what: str, reply: Reply | None) -> None:
        if reply and reply.status != 503:
            self.wrong.append(f"{what} answered {reply.status} {reply.content}")

    async def cancel(self, message_id: str) -> None:
        reply = await self.world.ask("DELETE", f"/v2/messages/{message_id}")
        if reply and reply.status == 200:
            self.cancelled.append(Cancelled(message_id, self.world.clock.monotonic_ms(), reply.content["cancelled"]))
        elif reply and reply.status != 503:
            self.wrong.append(f"cancel of an accepted message answered {reply.status} {reply.content}")

    async def cancel_all(self) -> None:
        ordered = Ordered(self.world.clock.monotonic_ms())
        self.ordered.append(ordered)
        reply = await self.world.ask("DELETE", "/v2/messages")
        if reply and reply.status == 200:
            ordered.answered_ms = self.world.clock.monotonic_ms()
        elif reply and reply.status != 503:
            self.wrong.append(f"a cancel of all answered {reply.status} {reply.content}")

    async def hurry(self, message_id: str) -> None:
        """Makes a waiting message due at once."""
        reply = await self.world.ask("POST", f"/v2/messages/{message_id}/retry")
        if reply and reply.status not in (200, 409, 503):
            self.wrong.append(f"a retry of an accepted message answered {reply.status} {reply.content}")

    async def revive(self, told: Told, operators: int) -> None:
        """So many retry the message's dead letter at once."""
        revived = Revived(told)
        self.revived.append(revived)

        async def retry() -> None:
            reply = await self.world.ask("POST", f"/v2/dlq/retry?messageId={told.message_id}")
            if reply and reply.status == 201:
                revived.answers += [one["messageId"] for one in reply.content["responses"]]
            elif reply and reply.status != 503:
                self.wrong.append(f"the retry of a dead letter answered {reply.status} {reply.content}")

        await asyncio.gather(*(retry() for _ in range(operators)))
        now = self.world.clock.monotonic_ms()
        self.told += [replace(told, message_id=one, asked_ms=now, answered_ms=now) for one in revived.answers]

    async def look_up(self, message_id: str) -> str | None:
        """Reads the state; a final one once answered must never change."""
        # What is asked before somebody else hears of the end may still tell of the time before it.
        before = self.final.get(message_id)
        reply = await self.world.ask("GET", f"/v2/messages/{message_id}")
        if reply is None or reply.status == 503:
            return None
        if reply.status != 200:
            self.wrong.append(f"{message_id} was accepted and is answered {reply.status}")
            return None
        state = str(reply.content["state"])
        if before and before != state:
            self.wrong.append(f"{message_id} was {before} and is now {state}")
        elif state in _FINAL and self.final.setdefault(message_id, state) != state:
            self.wrong.append(f"{message_id} ended as {self.final[message_id]} and as {state}")
        return state

    async def watch(self, message_id: str, every_s: float = 20) -> None:
        """A client that polls to the end, and beyond it."""
        until = self.world.loop.time() + _PATIENCE_S
        while await self.look_up(message_id) not in _FINAL and self.world.loop.time() < until:
            await asyncio.sleep(every_s)
        for _ in range(20):
            await asyncio.sleep(every_s)
            await self.look_up(message_id)

    async def settle(self) -> None:
        """Waits until all that was promised has ended, then looks once more."""
        self.world.faults_armed = False
        until = self.world.loop.time() + _PATIENCE_S
        ids = sorted({told.message_id for told in self.told})
        while self.world.loop.time() < until:
            if all([await self.look_up(i) in _FINAL for i in ids]):
                break
            await asyncio.sleep(60)
        # A callback of the last attempt whose bell was lost waits for a look, and ticks may stay away for an hour.
        await asyncio.sleep(4500 if any(told.spec.callbacks for told in self.told) else 300)
        for i in ids:
            if await self.look_up(i) not in _FINAL:
                self.wrong.append(f"{i} was accepted and has not ended")
        for arrival in self.world.arrivals:
            dlq_id = json.loads(arrival.request.body).get("dlqId") if arrival.about else None
            letter = await self.world.ask("GET", f"/v2/dlq/{dlq_id}") if dlq_id else None
            if letter and letter.status != 200:
                self.wrong.append(f"{arrival.about} was told of the dead letter {dlq_id}, which is none")
        for message_id in {a.message_id for a in self.world.arrivals if scheduled_by(a)}:
            reply = await self.world.ask("GET", f"/v2/messages/{message_id}")
            if reply is None or reply.status != 200:
                self.wrong.append(f"{message_id} arrived and can't be read: {reply}")
            else:
                self.created[message_id] = reply.content["createdAt"] - EPOCH_MS
        reply = await self.world.ask("GET", "/v2/keys")
        self.signed_with = reply.content["current"] if reply else ""

    def check(self) -> list[str]:
        """Every broken promise, in words."""
        wrong = self.wrong + self.world.errors
        crashes = sum(n for (_, fault), n in self.world.injected.items() if fault in CRASHES)
        lost_answers = sum(n for (_, fault), n in self.world.injected.items() if fault == "answer_lost")
        stepped = any(fault.startswith("clock") for _, fault in self.world.injected)
        for told in self.told:
            wrong += self._check_end(told, crashes, lost_answers)
            if told.spec.callbacks and not self.ordered:  # who cancels all cancels callbacks, too
                wrong += self._check_callbacks(told, bool(crashes or lost_answers))
        wrong += self._check_dedup(stepped)
        for revived in self.revived:
            wrong += self._check_revived(revived)
        wrong += self._check_lateness()
        if not stepped:
            for name in sorted({one.name for one in self.changed}):
                wrong += self._check_schedule(name)
        wrong += self._check_cancels(crashes, stepped)
        for ordered in self.ordered:
            wrong += self._check_ordered(ordered, crashes, stepped)
        for arrival in self.world.arrivals:
            wrong += self._check_request(arrival)
        return sorted(set(wrong))

    def was_deleted(self, told: Told) -> bool:
        """Whether the message may have been in a queue that was deleted."""
        return False

    def _check_end(self, told: Told, crashes: int, lost_answers: int) -> list[str]:
        mine = [a for a in self.world.arrivals if a.message_id == told.message_id]
        state, wrong = self.final.get(told.message_id), []
        if state == "DELIVERED" and not any(a.status == 200 for a in mine):
            wrong.append(f"{told.message_id} is DELIVERED but the endpoint never said 2xx")
        if state == "FAILED" and not (crashes or lost_answers):
            if any(a.status == 200 for a in mine):
                wrong.append(f"{told.message_id} is FAILED but the endpoint said 2xx")
            if len(mine) < 1 + told.spec.retries:
                wrong.append(f"{told.message_id} is FAILED after {len(mine)} attempts")
        if (
            state == "CANCELED"
            and all(c.message_id != told.message_id for c in self.cancelled)
            and not any(told.asked_ms <= (o.answered_ms or told.asked_ms) for o in self.ordered)
            and not self.was_deleted(told)
            and not (crashes or lost_answers)
        ):
            wrong.append(f"{told.message_id} is CANCELED but nobody asked for it")
        if not (crashes or lost_answers) and any(a.status == 200 for a in mine[:-1]):
            wrong.append(f"{told.message_id} was attempted again after the endpoint said 2xx")
        if len(mine) > 1 + told.spec.retries + crashes:
            wrong.append(f"{told.message_id}: {len(mine)} attempts, {told.spec.retries} retries, {crashes} crashes")
        return wrong

    def _check_revived(self, revived: Revived) -> list[str]:
        """One dead letter is one message more, however many retry it."""
        tag = revived.told.spec.tag
        reached = {a.message_id for a in self.world.arrivals if a.tag == tag}
        if len(reached | {revived.told.message_id, *revived.answers}) > 2:
            return [f"the dead letter of {tag} was made into {sorted(reached)}, and answered {revived.answers}"]
        return []

    def _check_callbacks(self, told: Told, struck: bool) -> list[str]:
        """Each attempt that came back is told of by one message, and the end by another if it is a failure."""
        wrong, state = [], self.final.get(told.message_id)
        attempts = sum(1 for a in self.world.arrivals if a.message_id == told.message_id)
        about = [a for a in self.world.arrivals if a.about == told.message_id]
        numbers: dict[str, dict[str, int]] = {"/Callback": {}, "/Failure-Callback": {}}
        for arrival in about:
            path = arrival.request.url.partition("127.0.0.1:9")[2].partition("?")[0]
            numbers[path][arrival.message_id] = json.loads(arrival.request.body).get("retried", 0)
        each, ends = numbers["/Callback"], numbers["/Failure-Callback"]
        if len(set(each.values())) < len(each):
            wrong.append(f"{told.message_id}: one attempt is told of twice: {each}")
        if len(each) > attempts or (not struck and len(each) < attempts):
            wrong.append(f"{told.message_id}: {attempts} attempts, and {len(each)} callbacks")
        if len(ends) != (state == "FAILED"):
            wrong.append(f"{told.message_id} is {state}, and {len(ends)} failure callbacks came")
        if state == "DELIVERED" and not each:
            wrong.append(f"{told.message_id} is DELIVERED, and nobody was told")
        for message_id in each.keys() | ends.keys():
            mine = [a for a in about if a.message_id == message_id]
            if len(mine) < 2 and mine[-1].status != 200:
                wrong.append(f"the callback {message_id} was given up after one attempt")
        return wrong

    def _check_lateness(self) -> list[str]:
        """One harmless fault costs a tick at most, or the time until the look has come."""
        struck = [fault for _, fault in self.world.injected.elements()]
        if not HARMLESS.issuperset(struck) or len(struck) > 1:
            return []
        ticks = self.world.ticks
        if any(ticks.missing_s):
            return []
        late_ms, look_ms = (int(ticks.apart_s * 1000) + ms for ms in (_LATE_MS, _LOOK_MS))
        wrong = []
        for told in self.told:
            if told.spec.lane:
                continue  # Others may be before it.
            due = told.asked_ms + told.spec.delay_s * 1000
            for number, arrival in enumerate(a for a in self.world.arrivals if a.message_id == told.message_id):
                latest = max(due + late_ms, told.answered_ms + look_ms)
                if arrival.at_ms > latest:
                    wrong.append(f"{told.message_id}: attempt {number} came {arrival.at_ms - due} ms late")
                due = arrival.at_ms + _ATTEMPT_MS + _WAITS_MS[min(number, len(_WAITS_MS) - 1)]
        return wrong

    def _check_dedup(self, stepped: bool) -> list[str]:
        if stepped:
            return []
        wrong = []
        for name, url in sorted({(t.spec.dedup, t.url) for t in self.told if t.spec.dedup}):
            told = [t for t in self.told if (t.spec.dedup, t.url) == (name, url)]
            ids = {t.message_id for t in told}
            reached = {a.message_id for a in self.world.arrivals if (a.tag, a.request.url) == (name, url)}
            if len(ids | reached) > 1:
                wrong.append(f"deduplication id {name} has the messages {sorted(ids | reached)}")
            if sum(1 for t in told if t.status == 201) > 1:
                wrong.append(f"deduplication id {name} was new twice")
        return wrong

    def _check_schedule(self, name: str) -> list[str]:
        """Each occurrence makes one message to each endpoint, of the definition that stands then; none while there is
        none. One that ticks have missed may be skipped, and comes late."""
        changes = [one for one in self.changed if one.name == name]
        mine = [a for a in self.world.arrivals if scheduled_by(a) == name]
        urls = {a.request.url for a in mine} or {_IN}
        struck = [fault for _, fault in self.world.injected.elements()]
        missing_s = self.world.ticks.missing_s
        ticks_from_ms = self.start_ms + int(missing_s[1] * 1000)
        last_ms = changes[-1].asked_ms
        wrong = []
        first = (changes[0].asked_ms + EPOCH_MS) // _APART_MS
        for number in range(first, (last_ms + EPOCH_MS) // _APART_MS + 1):
            at_ms = number * _APART_MS - EPOCH_MS
            until_ms = at_ms + _APART_MS
            allowed = {""} if at_ms < changes[0].answered_ms else set()
            for index, one in enumerate(changes):
                followed = [other.answered_ms for other in changes[index + 1 : index + 2]]
                if one.asked_ms < until_ms and all(answered_ms >= at_ms for answered_ms in followed):
                    allowed.add(one.tag)
            whole = until_ms < last_ms and (not any(missing_s) or until_ms > ticks_from_ms + 60_000)
            for url in urls:
                made = {
                    a.message_id: a
                    for a in mine
                    if a.request.url == url and at_ms <= self.created[a.message_id] < until_ms
                }
                words = f"{name}, {(at_ms - self.start_ms) // 1000} s: "
                if len(made) > 1:
                    wrong.append(f"{words}{len(made)} messages {sorted(made)}")
                if not made and whole and "" not in allowed:
                    wrong.append(f"{words}no message")
                for message_id, arrival in made.items():
                    late_ms = self.created[message_id] - at_ms
                    if arrival.tag not in allowed:
                        wrong.append(f"{words}{arrival.tag or 'nothing'} was fired, and {sorted(allowed)} was allowed")
                    if not struck and not any(missing_s) and late_ms > _PUNCTUAL_MS:
                        wrong.append(f"{words}{late_ms} ms late")
                    if len(struck) == 1 and HARMLESS.issuperset(struck) and not any(missing_s):
                        most_ms = int(self.world.ticks.apart_s * 1000) + _LATE_MS
                        if late_ms > most_ms:
                            wrong.append(f"{words}{late_ms} ms late")
        return wrong

    def _check_cancels(self, crashes: int, stepped: bool) -> list[str]:
        wrong = []
        for cancel in self.cancelled:
            spec = next(t for t in self.told if t.message_id == cancel.message_id)
            after = [
                a for a in self.world.arrivals if a.message_id == cancel.message_id and a.at_ms > cancel.answered_ms
            ]
            due_ms = spec.asked_ms + spec.spec.delay_s * 1000
            certainly_early = cancel.answered_ms < due_ms and not stepped and not spec.spec.dedup
            allowed = 0 if certainly_early else 1 + crashes
            if cancel.count and len(after) > allowed:
                wrong.append(f"{cancel.message_id} was cancelled, and {len(after)} attempts began after the answer")
            if cancel.count and self.final.get(cancel.message_id) == "FAILED":
                wrong.append(f"{cancel.message_id} was cancelled and is FAILED")
        return wrong

    def _check_ordered(self, ordered: Ordered, crashes: int, stepped: bool) -> list[str]:
        """Whatever was accepted before is not begun after the answer, and ends unless it had begun."""
        wrong: list[str] = []
        answered = ordered.answered_ms
        if answered is None or stepped:
            return wrong
        for told in self.told:
            if told.answered_ms > ordered.asked_ms:
                continue
            after = [a for a in self.world.arrivals if a.message_id == told.message_id and a.at_ms > answered]
            early = answered < told.asked_ms + told.spec.delay_s * 1000 and not told.spec.dedup
            state = self.final.get(told.message_id)
            if len(after) > (0 if early else 1 + crashes):
                wrong.append(f"all were cancelled, and {told.message_id} was attempted {len(after)} times afterwards")
            if (early and state != "CANCELED") or (after and state == "FAILED"):
                wrong.append(f"all were cancelled, and {told.message_id} is {state}")
        return wrong

    def _check_request(self, arrival: Any) -> list[str]:
        headers = dict(arrival.request.headers)
        options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
        claims = jwt.decode(headers["Upstash-Signature"], self.signed_with, algorithms=["HS256"], options=options)
        digest = base64.urlsafe_b64encode(hashlib.sha256(arrival.request.body).digest()).decode()
        if claims["body"] != digest or claims["sub"] != arrival.request.url:
            return [f"{arrival.message_id} arrived with a signature that does not hold"]
        return []


def _headers(spec: Spec) -> dict[str, str]:
    headers = {
        "Upstash-Retries": str(spec.retries),
        "Upstash-Delay": f"{spec.delay_s}s",
        "Upstash-Timeout": f"{spec.timeout_s}s",
    }
    if spec.dedup:
        headers["Upstash-Deduplication-Id"] = spec.dedup
    if spec.key:
        headers |= {"Upstash-Flow-Control-Key": spec.key, "Upstash-Flow-Control-Value": spec.limits}
    for name in ("Callback", "Failure-Callback") if spec.callbacks else ():
        headers[f"Upstash-{name}"] = f"http://127.0.0.1:9/{name}?fails={spec.callbacks_fail}"
        headers[f"Upstash-{name}-Retries"] = "1"
    return headers


def _body(spec: Spec) -> bytes:
    pad = base64.b64encode(hashlib.shake_128(b"pad").digest(spec.size)).decode()
    return json.dumps({"tag": spec.tag, "fails": spec.fails, "takes": spec.takes_s, "pad": pad}).encode()


def scheduled_by(arrival: Arrival) -> str:
    """The schedule that made the message; empty: none."""
    return dict(arrival.request.headers).get("Upstash-Schedule-Id", "")


Script = Callable[[History], Awaitable[None]]


H = TypeVar("H", bound=History)


def run(
    seed: int,
    script: Callable[[H], Awaitable[None]],
    *,
    mode: str,
    plan: dict[int, str] | None = None,
    kind: type[H] = History,  # type: ignore[assignment]
) -> H:
    """One history, from an empty store to the last final state."""
    world = MODES[mode](seed, plan)
    history = kind(world)

    async def main() -> None:
        await world.start()
        history.start_ms = world.clock.monotonic_ms()
        await script(history)
        await history.settle()

    asyncio.set_event_loop(world.loop)
    try:
        world.loop.run_until_complete(main())
    finally:
        asyncio.set_event_loop(None)
        world.bury()
        world.loop.close()
    return history
