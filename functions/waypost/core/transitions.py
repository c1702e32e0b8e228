"""What may become of a message's state: each write with the condition that it is made under."""

from __future__ import annotations

from typing import Any

from waypost.core.message import STATE_OUTLIVES_MS, VERSION, Message, Phase, State, due_of
from waypost.core.ports import Absent, AllOf, AnyOf, AtMost, Change, Condition, Equals, Item, Present
from waypost.core.reminder import Looked

_NEVER_ATTEMPTED = Absent("state")
_RETRYING = Equals("state", Phase.RETRY.value)
_ACTIVE = Phase.ACTIVE.value
NOT_STOPPED = Absent("stop")
_OUT_OF_LINE = Present("out")
#: For its first attempt or for another.
WAITING = AllOf((AnyOf((_NEVER_ATTEMPTED, _RETRYING)), NOT_STOPPED))


def claim_condition(now_ms: int) -> Condition:
    """When a message may be claimed without further ado: never attempted (then it is due itself), or due again."""
    return AllOf((AnyOf((_NEVER_ATTEMPTED, AllOf((_RETRYING, AtMost("due", now_ms))))), NOT_STOPPED))


def claim_in_place(message: Message, now_ms: int) -> Condition:
    """Likewise in a lane: it stands in a place that it has not been claimed in before."""
    stands: Condition = Absent("out")
    return AllOf((claim_condition(now_ms), stands if message.lane_place else AllOf((stands, Present("lp")))))


def under_way(state: State) -> AllOf:
    """Just this attempt is, whether it was cancelled or not."""
    return AllOf((Equals("state", _ACTIVE), Equals("token", state.token)))


def settle_condition(state: State) -> Condition:
    """Never on time: a zombie can't overwrite its successor, whatever the clocks say."""
    held = under_way(state)
    return held if state.stop else AllOf((*held.conditions, NOT_STOPPED))


def is_abandoned(state: State, now_ms: int, boot: str) -> bool:
    return state.lease_ms <= now_ms or bool(boot and state.boot != boot)


def needs_reminder(looked: Looked, message: Message, now_ms: int) -> bool:
    """The look gives a reminder to all that is unfinished when it comes; after it, whoever retries owes one."""
    return looked.may_have_passed(message.place.minute, now_ms)


def lease(message: Message, token: str, lease_ms: int, boot: str, when: Condition, crashes: int = 0) -> Change:
    """The claim."""
    held: dict[str, Any] = {"state": _ACTIVE, "token": token, "lease": lease_ms, "boot": boot}
    return _change(message, held | ({"crashes": crashes} if crashes else {}), (), when)


def retry_later(message: Message, state: State, when: Condition) -> Change:
    settled: dict[str, Any] = {"state": Phase.RETRY.value, "due": state.due_ms, "retried": state.retried}
    if state.crashes:
        settled["crashes"] = state.crashes
    if state.out_of_line:
        settled["out"] = 1
    if state.given_back:
        settled["back"] = 1
    return _change(message, settled | _attempts(state), ("token", "lease", "boot"), when)


def in_place(message: Message, state: State, place: int) -> Change:
    """Gives a place to a message that is due and has none."""
    due_ms = due_of(message, state)
    due = AnyOf((_NEVER_ATTEMPTED, AllOf((_RETRYING, AtMost("due", due_ms)))))
    when = AllOf((due, NOT_STOPPED, AnyOf((_OUT_OF_LINE, Absent("lp")))))
    return _change(message, {"state": Phase.RETRY.value, "due": due_ms, "lp": place}, ("out",), when)


def due_at_once(message: Message, now_ms: int) -> Change:
    """Makes a message due that waits for its first attempt or for another; what is known of attempts stays."""
    return _change(message, {"state": Phase.RETRY.value, "due": now_ms}, (), WAITING)


def ended(message: Message, state: State, phase: Phase, now_ms: int, when: Condition) -> Change:
    settled: dict[str, Any] = {
        "state": str(phase),
        "ended": now_ms,
        "retried": state.retried,
        "crashes": state.crashes,
    }
    if state.why:
        settled["why"] = state.why
    return _change(message, settled | _attempts(state), ("token", "lease", "boot", "due"), when)


def _attempts(state: State) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if state.last:
        found["last"] = state.last
    if state.earlier:
        found["earlier"] = [list(one) for one in state.earlier]
    if state.callbacks:
        found["calls"] = list(state.callbacks)
    return found


def _change(message: Message, values: Item, remove: tuple[str, ...], when: Condition) -> Change:
    ttl = (message.ttl_ms + STATE_OUTLIVES_MS) // 1000
    return Change(message.state_key, set={"v": VERSION, **values, "ttl": ttl}, remove=remove, when=when)
