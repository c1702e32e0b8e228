"""For Schemathesis: values of the formats that are ours. No URL among them leaves this machine."""

from __future__ import annotations

import json
import os
import re
import string
import time
from collections.abc import Iterator
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import UseAfterFree

_IN_URLS = string.ascii_letters + string.digits + "-._~!$'()*,;=:@/%"


def _urls(base: str) -> st.SearchStrategy[str]:
    return st.text(_IN_URLS, max_size=30).map(lambda rest: f"{base}/{rest}")


_number = st.integers(1, 14).map(str)
_DESTINATIONS = os.environ["DESTINATIONS"].split()
schemathesis.openapi.format("waypost-endpoint", st.sampled_from(_DESTINATIONS).flatmap(_urls))
schemathesis.openapi.format(
    "waypost-duration",
    st.one_of(
        st.tuples(_number, st.sampled_from(["", "s", "S", "m", "M"])).map("".join),
        st.tuples(_number, st.just("m"), _number, st.just(".5s")).map("".join).filter(lambda text: text < "14m"),
        st.integers(1, 9999).map(lambda ms: f"{ms}ms"),
    ),
)
schemathesis.openapi.format(
    "waypost-seconds",
    st.one_of(st.integers(0, 10**6), st.integers(-60, 60).map(lambda s: int(time.time()) + s)).map(str),
)
_field = st.sampled_from(["*", "*/2", "1", "1-5", "2,3", "1-6/2"])
_fields = st.lists(_field, min_size=5, max_size=5).map(" ".join)
schemathesis.openapi.format(
    "waypost-cron",
    st.tuples(
        st.sampled_from(["", "CRON_TZ=Europe/Berlin ", "CRON_TZ=Australia/Lord_Howe "]),
        st.one_of(_fields, st.sampled_from(["@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly"])),
    ).map("".join),
)
_limit = st.sampled_from(["parallelism=5", "rate=10", "parallelism = 1", "rate=100"])
schemathesis.openapi.format(
    "waypost-flow-control",
    st.one_of(
        st.just(""),
        st.tuples(_limit, st.sampled_from(["", ", period=1m", ",period=3d5h12m", " , period = 60"])).map("".join),
        st.just("period=7d, rate=3, parallelism=2"),
    ),
)
_terms = st.recursive(
    st.one_of(st.just("retried"), st.integers(0, 10**6).map(str), st.floats(0, 10**6).map(lambda x: f"{x:.3f}")),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/%"), inner).map(" ".join),
        inner.map(lambda one: f"(-{one})"),
        st.tuples(st.sampled_from(["exp", "sqrt", "abs", "floor", "ceil", "round", "min"]), inner).map(
            lambda call: f"{call[0]}({call[1]})"
        ),
        st.tuples(st.sampled_from(["pow", "max"]), inner, inner).map(lambda call: f"{call[0]}({call[1]}, {call[2]})"),
    ),
    max_leaves=6,
)
schemathesis.openapi.format("waypost-expression", _terms.filter(lambda text: len(text) <= 256))


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """URLs are of this machine, and so are examples, which are sent, too: those of dead letters are ids that there are.
    And what answers hold must be described: a field that is not would be an error."""
    raw_schema |= json.loads(json.dumps(raw_schema).replace("https://example.com", _DESTINATIONS[0]))
    for endpoint in _of_format(raw_schema, "waypost-endpoint"):
        endpoint["pattern"] = _HTTP.sub(f"({'|'.join(map(re.escape, _DESTINATIONS))})", endpoint["pattern"])
    letters = iter(os.environ["LETTERS"].split())
    for path, operations in raw_schema["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "id" and path.startswith("/v2/dlq"):
                    parameter["example"] = next(letters)
    schemas = raw_schema["components"]["schemas"]
    waiting = _named([operation["responses"] for path in raw_schema["paths"].values() for operation in path.values()])
    answered: set[str] = set()
    while waiting:
        answered |= waiting
        waiting = _named([schemas[name] for name in waiting]) - answered
    for name in answered:
        if "properties" in schemas[name]:
            schemas[name]["additionalProperties"] = False


#: What patterns of URLs begin with.
_HTTP = re.compile(r"\(\[Hh\][^()]*\):/{1,2}")


def _of_format(part: Any, name: str) -> Iterator[dict[str, Any]]:
    """The schemas of that format in what JSON has been read to."""
    if isinstance(part, dict) and part.get("format") == name:
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _of_format(inner, name)


def _named(parts: list[Any]) -> set[str]:
    """The schemas that these refer to."""
    return set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(parts)))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Some settings exclude each other, or need each other, which OpenAPI has no way to say: of two that are right
    alone one stays, and what lacks the other goes."""
    headers = case.headers or {}
    if "Upstash-Flow-Control-Key" in headers and "Upstash-Queue-Name" in headers:
        del headers["Upstash-Queue-Name"]
    if not headers.get("Upstash-Flow-Control-Key", "").strip():
        headers.pop("Upstash-Flow-Control-Value", None)
    else:
        headers.setdefault("Upstash-Flow-Control-Value", "")
    if case.operation.label == "POST /v2/flowControl/{key}/pin" and "rate" not in (case.query or {}):
        case.query = {"parallelism": "1", **(case.query or {})}
    if "Upstash-Retry-Delay" in headers and headers.get("Upstash-Backoff", "").lower() in ("exponential", "fixed"):
        del headers["Upstash-Backoff"]


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: schemathesis.Case, response: Response
) -> bool:
    """DELETE of a message cancels it, and its end can be read: that it is no end would be a failure."""
    if isinstance(failure, UseAfterFree) and case.operation.label == "GET /v2/messages/{id}":
        return response.json()["state"] not in ("CANCELED", "CANCEL_REQUESTED", "DELIVERED", "FAILED")
    return True
