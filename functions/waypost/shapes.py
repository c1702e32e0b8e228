"""What is stored, as the SDKs read it. What a publisher redacted is shown as its hash, here and nowhere else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from waypost.core.callback import listed
from waypost.core.dead_letters import Letter
from waypost.core.message import Message, Phase, State
from waypost.core.terms import Callback, Terms


def message_shape(message: Message, state: State, body: bytes) -> dict[str, Any]:
    """A message, with its `state` and what is known of its last attempt."""
    shape = {
        **described(message, body),
        "state": "CANCEL_REQUESTED" if state.stop and not state.phase.final else state.phase.value,
        "retried": state.retried,
    }
    if state.phase is Phase.RETRY:
        shape["nextDeliveryTime"] = state.due_ms
    if state.phase.final:
        shape["endedAt"] = state.ended_ms
    if state.last:
        shape["responseStatus"] = state.last["status"]
        if state.last["error"]:
            shape["error"] = state.last["error"]
    return shape


def letter_shape(letter: Letter, message: Message, body: bytes | None) -> dict[str, Any]:
    """A dead letter: the message and its last answer, of which an endpoint may have made an echo."""
    terms = message.terms
    shape = {**described(message, body), "dlqId": letter.id, "responseStatus": letter.status}
    if letter.error:
        shape["error"] = letter.error
    if letter.headers is not None:
        shape["responseHeader"] = shown_headers(letter.headers, terms)
    if letter.body is not None:
        shape |= shown_body("responseBody", "responseBodyBase64", letter.body, terms)
    return shape


def described(message: Message, body: bytes | None) -> dict[str, Any]:
    """What was accepted. `body` is None where it is not to be shown."""
    terms = message.terms
    shape: dict[str, Any] = {
        "messageId": message.id,
        "url": message.url,
        "method": terms.method,
        "maxRetries": terms.retries,
        "notBefore": message.due_ms,
        "createdAt": message.created_ms,
        "header": shown_headers(terms.headers, terms),
        "callerIP": message.caller_ip,
        "timeout": terms.timeout_ms,
    }
    if body is not None:
        shape |= shown_body("body", "bodyBase64", body, terms)
    if terms.labels:
        shape |= {"label": terms.labels[0], "labels": list(terms.labels)}
    if terms.retry_delay:
        shape["retryDelayExpression"] = terms.retry_delay
    if terms.backoff:
        shape["backoff"] = terms.backoff
    shape |= _shown_callback("callback", terms.callback, terms)
    shape |= _shown_callback("failureCallback", terms.failure_callback, terms)
    return shape


def shown_body(plain: str, encoded: str, body: bytes, terms: Terms) -> dict[str, str]:
    """Under its plain name if it is text, under the other one in base64."""
    if "body" in terms.redacted:
        return {plain: redacted(body)}
    try:
        return {plain: body.decode()}
    except UnicodeDecodeError:
        return {encoded: base64.b64encode(body).decode()}


def shown_headers(headers: Sequence[tuple[str, str]], terms: Terms) -> dict[str, list[str]]:
    """Canonical names and lists of values."""
    return {
        name: [redacted(value.encode()) for value in values] if _hides(terms, name) else values
        for name, values in listed(headers).items()
    }


def redacted(value: bytes) -> str:
    return f"REDACTED:{hashlib.sha256(value).hexdigest()}"


def _hides(terms: Terms, name: str) -> bool:
    return "header" in terms.redacted or f"header[{name.lower()}]" in terms.redacted


def _shown_callback(name: str, callback: Callback | None, terms: Terms) -> dict[str, Any]:
    if callback is None:
        return {}
    return {name: callback.url, f"{name}Header": shown_headers(callback.terms.headers, terms)}
