"""What callbacks say: the body of the message that tells of an attempt, or of the end."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from waypost.core.accept import Request
from waypost.core.message import Message, Via
from waypost.core.ports import Answer, NoAnswer, Randomness
from waypost.core.settings import canonical
from waypost.core.terms import Callback, LaneKind, Terms

_JSON = ("Content-Type", "application/json")


def callback_request(
    callback: Callback,
    message: Message,
    body: bytes,
    outcome: Answer | NoAnswer,
    *,
    retried: int,
    now_ms: int,
    dlq_id: str = "",
) -> Request:
    """The message that tells of an attempt. `body` is the told message's, `retried` counts the attempts before this."""
    terms = replace(callback.terms, redacted=hidden_of_callback(callback, message.terms))
    if not any(name == "Content-Type" for name, _ in terms.headers):
        terms = replace(terms, headers=(_JSON, *terms.headers))
    return Request(
        account=message.account,
        url=callback.url,
        terms=terms,
        body=_told(message, body, outcome, retried, dlq_id),
        asked_ms=now_ms,
        due_ms=now_ms + callback.delay_ms,
        caller_ip=message.caller_ip,
        holds_up=message.ref if message.terms.lane and message.terms.lane.kind is LaneKind.QUEUE else "",
    )


def hidden_of_callback(callback: Callback, terms: Terms) -> tuple[str, ...]:
    """What nobody may read of a callback to a message with these terms: its body tells of what is hidden there."""
    return tuple(dict.fromkeys((*callback.terms.redacted, *(("body", *terms.redacted) if terms.redacted else ()))))


def name_from(*parts: str) -> Randomness:
    """Bytes that depend on the parts alone, so that a repeat makes the same name."""

    def draw(count: int) -> bytes:
        return hashlib.shake_128("\0".join(parts).encode()).digest(count)

    return draw


def listed(headers: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Headers as the SDKs read them."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(canonical(name), []).append(value)
    return found


def named_via(via: Via) -> dict[str, str]:
    """Through what a message came, as readers know it; what is empty is left out."""
    named = {"topicName": via.topic, "endpointName": via.endpoint, "api": via.api, "scheduleId": via.schedule}
    return {name: text for name, text in named.items() if text}


def _told(message: Message, body: bytes, outcome: Answer | NoAnswer, retried: int, dlq_id: str) -> bytes:
    answer = outcome if isinstance(outcome, Answer) else Answer(0, (), b"")
    told: dict[str, Any] = {
        "status": answer.status,
        "header": listed(answer.headers),
        "body": _base64(answer.body),
        "error": outcome.reason if isinstance(outcome, NoAnswer) else "",
        "retried": retried,
        "maxRetries": message.terms.retries,
        "sourceMessageId": message.id,
        "url": message.url,
        "method": message.terms.method,
        "sourceHeader": listed(message.terms.headers),
        "sourceBody": _base64(body),
        "callerIP": message.caller_ip,
        **named_via(message.via),
        "notBefore": message.due_ms,
        "createdAt": message.created_ms,
        "dlqId": dlq_id,
    }
    always = ("status", "maxRetries")
    return msgspec.json.encode({name: value for name, value in told.items() if value or name in always})


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
