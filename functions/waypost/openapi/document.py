"""The OpenAPI document of the API: the table of routes with what is said of each."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from waypost import __version__
from waypost.api import ROUTES
from waypost.core.duration import show_duration
from waypost.core.policy import Policy
from waypost.openapi.operations import operations
from waypost.openapi.schemas import schemas


@functools.cache
def encoded(policy: Policy) -> bytes:
    return msgspec.json.encode(document(policy))


def document(policy: Policy) -> dict[str, Any]:
    """Raises ValueError if a route is served and not described, or described and not served."""
    described = operations(policy)
    served = [(route.method, route.template) for route in ROUTES if route.handle]
    if apart := described.keys() ^ set(served):
        raise ValueError(f"served and not described, or described and not served: {sorted(apart)}")
    paths: dict[str, dict[str, Any]] = {}
    for method, template in served:
        paths.setdefault(template, {})[method.lower()] = described[method, template]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Waypost",
            "version": __version__,
            "summary": "An HTTP message queue that you run yourself.",
            "description": _about(policy),
        },
        # Below wherever this document was found.
        "servers": [{"url": "."}],
        "security": [{"bearer": []}, {"query": []}],
        "paths": paths,
        "components": {
            "schemas": schemas(policy),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer <token>`"},
                "query": {"type": "apiKey", "in": "query", "name": "qstash_token", "description": "The same token."},
            },
        },
    }


def _about(policy: Policy) -> str:
    return f"""\
Your app POSTs a message; Waypost stores it and delivers it to your endpoint, signed, delayed, retried and
deduplicated. It speaks QStash's v2 REST API, so its SDKs work unchanged.

Each request needs the server's token, as `Authorization: Bearer <token>` or as `?qstash_token=<token>`. Headers that
are not named here are ignored; so are query keys, but for those of lists and of a publish. A method that a path
doesn't have is answered 405, with `Allow`; HEAD is answered wherever GET is.

## Errors

What is wrong is answered as JSON, `{{"error": "..."}}`, with the field, its value and a remedy. Any route may answer
400 (a field has a value that can't be used), 401 (there is no token, or it is not this server's), 431 (the request's
line and headers are too large) and 503 with `Retry-After` (the store could not be reached).

## Deliveries

A delivery is the message's body, its forwarded headers, and `Upstash-Message-Id`, `Upstash-Retried`,
`Upstash-Signature`, `Upstash-Caller-Ip`, `Upstash-Region` and, through a URL group, `Upstash-Topic-Name`, by a
schedule `Upstash-Schedule-Id`. A 2xx delivers it. Anything else is tried again: after {_waits(policy)}.
An answer's `Retry-After`, `X-RateLimit-Reset`, `-Reset-Requests` or `-Reset-Tokens`, asked in that order, overrides
that, to a day. Redirects are not followed; an answer of 489 with `Upstash-NonRetryable-Error: true` is not tried again.
Delivery is at least once: a crash in the middle of an attempt repeats it.

## Callbacks

`Upstash-Callback` is told of every attempt that came back, `Upstash-Failure-Callback` once if the message ends
FAILED. Each is a message of its own, with an id, retries, a signature and, if need be, a dead letter; it is stored in
the same write as what it tells of. Its settings stand behind its prefix: `Upstash-Callback-Retries`, `-Retry-Delay`,
`-Backoff`, `-Timeout`, `-Delay`, `-Method`, `-Label`, `-Redact-Fields`, `-Forward-<Name>`; any other name there is a
header to be sent. Retries default to the message's own. A callback may have a failure callback,
`Upstash-Callback-Failure-Callback`, with settings behind that prefix; nothing deeper.

What it is told is JSON, of which what is empty is left out. If anything of the message is redacted, so are the
callback's own body, and the same headers.

## Redaction

What `Upstash-Redact-Fields` names is sent as it is and shown as its hash, by every route, in logs and dead letters.
With it the whole answer of the endpoint is hidden, which may be an echo.

## Deduplication

A deduplication id holds for {show_duration(policy.dedup_window_ms)} from the first message that has it: whoever
publishes it again, however many at once, is answered 202 and the first one's id."""


def _waits(policy: Policy) -> str:
    if policy.backoff == "qstash":
        return "e^(2.5 n) seconds, a day at most"
    return "10 s, 30 s, 1 min, 2 min, then doubling to a day"
