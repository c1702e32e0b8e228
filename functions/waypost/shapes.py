"""What is stored, as the SDKs read it. What a publisher redacted is shown as its hash."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from waypost.core.accept import NotStored
from waypost.core.callback import hidden_of_callback, listed, named_via
from waypost.core.dead_letters import Letter
from waypost.core.event import Event, Failure
from waypost.core.groups import Group
from waypost.core.lane_operations import Standing
from waypost.core.message import Message, Phase, State, windows_of
from waypost.core.policy import SECOND
from waypost.core.publish import Accepted
from waypost.core.schedule import Schedule
from waypost.core.terms import Callback, InLane, LaneKind, Terms, hidden


def outcome_shape(outcome: Accepted | NotStored) -> dict[str, Any]:
    """What became of one request to publish."""
    if isinstance(outcome, NotStored):
        return {"error": outcome.reason}
    shape: dict[str, Any] = {"messageId": outcome.message_id}
    if outcome.deduplicated:
        shape["deduplicated"] = True
    return shape


def group_shape(group: Group) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "name": group.name,
        "createdAt": group.created_ms,
        "updatedAt": group.updated_ms,
        "endpoints": [{"url": one.url, "name": one.name} if one.name else {"url": one.url} for one in group.endpoints],
    }
    if group.headers:
        shape["headers"] = listed(group.headers)
    return shape


def message_shape(message: Message, state: State, body: bytes) -> dict[str, Any]:
    """A message, with its `state` and what is known of its last attempt."""
    shape = {
        **described(message, body),
        "state": state.shown,
        "retried": state.retried,
    }
    if state.phase is Phase.RETRY and not (state.is_untried and message.lane):
        shape["nextDeliveryTime"] = state.due_ms
    if state.phase.final:
        shape["endedAt"] = state.ended_ms
    if windows := windows_of(state):
        shape["rateWindows"] = windows
    if state.last:
        shape["responseStatus"] = state.last["status"]
        if state.last["error"]:
            shape["error"] = state.last["error"]
    if state.why:
        shape["error"] = state.why
    return shape


def letter_shape(letter: Letter, message: Message, body: bytes | None) -> dict[str, Any]:
    """A dead letter: the message and its last answer, of which an endpoint may have made an echo of anything."""
    shape = {**described(message, body), "dlqId": letter.id, "responseStatus": letter.status}
    hides = ("header", "body") if message.terms.redacted else ()
    if letter.error:
        shape["error"] = letter.error
    if letter.headers is not None:
        shape["responseHeader"] = shown_headers(letter.headers, hides)
    if letter.body is not None:
        shape |= shown_body("responseBody", "responseBodyBase64", letter.body, hides)
    return shape


def event_shape(event: Event, accepted: Mapping[str, Any]) -> dict[str, Any]:
    """`accepted`: what `logged` says of its message; empty: the message is gone."""
    source = event.source
    shape: dict[str, Any] = {
        **accepted,
        "time": event.position.time_ms,
        "messageId": source.message_id,
        "state": event.state,
        "url": source.url,
        **_caller(source.caller_ip),
        **named_via(source.via),
    }
    if source.queue:
        shape["queueName"] = source.queue
    if source.flow_key:
        shape["flowControlKey"] = source.flow_key
    if source.labels:
        shape |= {"label": source.labels[0], "labels": list(source.labels)}
    if event.next_ms:
        shape["nextDeliveryTime"] = event.next_ms
    if event.failure:
        shape |= _shown_failure(event.failure)
    return shape


def logged(message: Message, body: bytes | None) -> dict[str, Any]:
    """What an event says of its message. Logs differ from messages in a few names, and their bodies are in base64."""
    shape = described(message, body)
    shown = shape.pop("body", None)
    encoded = shape.pop("bodyBase64", None)
    if body is not None:
        shape["body"] = shown if "body" in message.terms.redacted else encoded or base64.b64encode(body).decode()
    for name in ("callback", "failureCallback"):
        if name in shape:
            shape[f"{name}Headers"] = shape.pop(f"{name}Header")
    if "retryDelayExpression" in shape:
        shape["retryDelayExpr"] = shape["retryDelayExpression"]
    return shape


def _shown_failure(failure: Failure) -> dict[str, Any]:
    shape: dict[str, Any] = {"responseStatus": failure.status}
    if failure.headers is not None:
        shape["responseHeader"] = shape["responseHeaders"] = listed(failure.headers)
    if failure.body is not None:
        shape |= shown_text("responseBody", "responseBodyBase64", failure.body)
    if failure.error:
        shape["error"] = failure.error
    return shape


def described(message: Message, body: bytes | None) -> dict[str, Any]:
    """What was accepted. `body` is None where it is not to be shown."""
    return {
        "messageId": message.id,
        "url": message.url,
        "maxRetries": message.terms.retries,
        "notBefore": message.due_ms,
        "createdAt": message.created_ms,
        **_caller(message.caller_ip),
        **named_via(message.via),
        **_terms_shape(message.terms, body),
    }


def schedule_shape(schedule: Schedule, body: bytes | None, states: Mapping[str, str]) -> dict[str, Any]:
    """`states`: of messages, by their ids. `body` is None where it is left out, or gone."""
    last = schedule.last
    shape: dict[str, Any] = {
        "scheduleId": schedule.id,
        "destination": schedule.destination,
        "cron": schedule.cron,
        "createdAt": schedule.created_ms,
        "isPaused": schedule.paused,
        **_caller(schedule.caller_ip),
        "retries": schedule.terms.retries,
        **_terms_shape(schedule.terms, body),
    }
    if schedule.delay_ms:
        shape["delay"] = schedule.delay_ms // 1000
    if not schedule.paused:
        shape["nextScheduleTime"] = schedule.next_ms
    if last:
        shape["lastScheduleTime"] = last.at_ms
        shape["lastScheduleStates"] = {one: states[one] for one in last.message_ids if one in states}
        if last.error:
            shape["error"] = last.error
    return shape


def _caller(ip: str) -> dict[str, str]:
    """The clients spell it in two ways."""
    return {"callerIP": ip, "callerIp": ip}


def _terms_shape(terms: Terms, body: bytes | None) -> dict[str, Any]:
    """On which terms a message or a schedule was accepted. `body` is None where it is not to be shown."""
    shape: dict[str, Any] = {
        "method": terms.method,
        "header": shown_headers(terms.headers, terms.redacted),
        "timeout": terms.timeout_ms,
    }
    if body is not None:
        shape |= shown_body("body", "bodyBase64", body, terms.redacted)
    if terms.labels:
        shape |= {"label": terms.labels[0], "labels": list(terms.labels)}
    if terms.retry_delay:
        shape["retryDelayExpression"] = terms.retry_delay
    if terms.backoff:
        shape["backoff"] = terms.backoff
    if terms.lane:
        shape |= _lane_shape(terms.lane)
    shape |= _shown_callback("callback", terms.callback, terms)
    shape |= _shown_callback("failureCallback", terms.failure_callback, terms)
    return shape


def _lane_shape(lane: InLane) -> dict[str, Any]:
    if lane.kind is LaneKind.QUEUE:
        return {"queueName": lane.name}
    shape: dict[str, Any] = {"flowControlKey": lane.name}
    if lane.limits:
        shape |= {"parallelism": lane.limits.parallelism, "rate": lane.limits.rate}
        shape["period"] = lane.limits.rate and lane.limits.period_ms // SECOND
    return {name: value for name, value in shape.items() if value}


def queue_shape(queue: Standing) -> dict[str, Any]:
    lane = queue.lane
    return {
        "name": lane.name,
        "parallelism": lane.limits.parallelism,
        "createdAt": lane.created_ms,
        "updatedAt": lane.updated_ms,
        "lag": queue.lag,
        "paused": lane.paused_ms > 0,
    }


def flow_key_shape(key: Standing, at_work: int, now_ms: int) -> dict[str, Any]:
    lane, limits = key.lane, key.lane.limits
    return {
        "flowControlKey": lane.name,
        "waitListSize": key.lag - at_work,
        "parallelismMax": limits.parallelism,
        "parallelismCount": at_work,
        "rateMax": limits.rate,
        "rateCount": lane.in_window(now_ms).used if limits.rate else 0,
        "ratePeriod": limits.period_ms // SECOND if limits.rate else 0,
        "ratePeriodStart": lane.window_ms // SECOND if limits.rate else 0,
        "isPaused": lane.paused_ms > 0,
        "isPinnedParallelism": lane.pinned_parallelism,
        "isPinnedRate": lane.pinned_rate,
    }


def shown_body(plain: str, encoded: str, body: bytes, redacted: Sequence[str]) -> dict[str, str]:
    return {plain: hidden(body)} if "body" in redacted else shown_text(plain, encoded, body)


def shown_text(plain: str, encoded: str, data: bytes) -> dict[str, str]:
    """Under its plain name if it is text, under the other one in base64."""
    try:
        return {plain: data.decode()}
    except UnicodeDecodeError:
        return {encoded: base64.b64encode(data).decode()}


def shown_headers(headers: Sequence[tuple[str, str]], redacted: Sequence[str]) -> dict[str, list[str]]:
    """Canonical names and lists of values."""
    return {
        name: [hidden(value.encode()) for value in values] if _hides(redacted, name) else values
        for name, values in listed(headers).items()
    }


def _hides(redacted: Sequence[str], name: str) -> bool:
    return "header" in redacted or f"header[{name.lower()}]" in redacted


def _shown_callback(name: str, callback: Callback | None, terms: Terms) -> dict[str, Any]:
    if callback is None:
        return {}
    hides = hidden_of_callback(callback, terms)
    return {name: callback.url, f"{name}Header": shown_headers(callback.terms.headers, hides)}
