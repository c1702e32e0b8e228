"""The settings of one publish: `Upstash-*` headers, or query keys of the same names in lower case."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from waypost.core.duration import parse_duration, show_duration
from waypost.core.errors import BadRequest, shown
from waypost.core.policy import Policy
from waypost.core.ports import Item
from waypost.core.publish import Request
from waypost.core.remembered import remembered

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_FORWARD = "upstash-forward-"
_WORKFLOW = (
    "upstash-workflow-",
    "upstash-feature-set",
    "upstash-callback-workflow-",
    "upstash-failure-callback-workflow-",
)
#: Known settings that are not served: refused, never accepted and dropped.
_NOT_SERVED = frozenset(
    {
        "upstash-retry-delay",
        "upstash-backoff",
        "upstash-label",
        "upstash-redact-fields",
        "upstash-header-forward",
        "upstash-callback",
        "upstash-failure-callback",
        "upstash-flow-control-key",
        "upstash-flow-control-value",
        "upstash-cron",
        "upstash-schedule-id",
        "upstash-queue-name",
    }
)
_NOT_SERVED_PREFIXES = ("upstash-callback-", "upstash-failure-callback-")
#: Belong to one connection, or are reckoned anew for the destination: never forwarded.
_NOT_FORWARDED = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: Said by Waypost itself on every delivery; a forwarded one would be a forgery.
_OURS = frozenset(
    {
        "upstash-message-id",
        "upstash-retried",
        "upstash-signature",
        "upstash-caller-ip",
        "upstash-region",
        "upstash-topic-name",
        "upstash-schedule-id",
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
#: Settings that are not named `upstash-`.
_OTHERS = frozenset({"content-type", "qstash_token"})
_NUMBER = re.compile(r"[0-9]{1,15}")


def read_settings(
    headers: Sequence[tuple[str, str]],
    query: Sequence[tuple[str, str]],
    *,
    account: str,
    url: str,
    body: bytes,
    caller_ip: str,
    policy: Policy,
    now_ms: int,
) -> Request:
    """Checks everything that a publish says besides destination and body. Raises BadRequest naming the field.

    `headers` are the request's, `query` the destination's control keys: (lower-case name, value). A header wins.
    """
    in_query = _collected(query) if query else {}
    in_headers = _collected(headers)
    given = {name: value for name, value in (in_query | in_headers).items() if value}

    def spelt(lower: str) -> str:
        return canonical(lower) if lower in in_headers else lower

    for name, value in given.items():
        _refuse_unserved(name, value, spelt)
    forwarded = _forwarded(given, spelt, policy)
    return Request(
        account=account,
        url=url,
        method=_method(given, spelt),
        headers=forwarded,
        body=body,
        asked_ms=now_ms,
        due_ms=_due(given, spelt, policy, now_ms),
        retries=_retries(given, spelt, policy),
        timeout_ms=_timeout(given, spelt, policy),
        caller_ip=caller_ip,
        dedup=_dedup(given, spelt, url, body, forwarded),
    )


@remembered(longest=128)
def canonical(name: str) -> str:
    """`my-header` -> `My-Header`."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


_Spelling: TypeAlias = Callable[[str], str]


def _collected(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """By lower-case name. A forwarded header given twice is joined, as HTTP joins lists; a setting has one value."""
    found: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if not lower.startswith("upstash-") and lower not in _OTHERS:
            continue
        value = value.strip()
        if found.get(lower, value) == value:
            found[lower] = value
        elif lower.startswith(_FORWARD):
            found[lower] += ", " + value
        elif lower != "qstash_token":
            raise BadRequest(f"{name} is given twice, as {shown(found[lower])} and {shown(value)}; give it once")
    found.pop("qstash_token", None)
    return found


def _refuse_unserved(name: str, value: str, spelt: _Spelling) -> None:
    if name == "upstash-header-forward" and value.lower() == "false":
        return
    if name.startswith(_WORKFLOW):
        raise BadRequest(f"{spelt(name)}: workflows are not served; publish without the workflow client")
    if name in _NOT_SERVED or name.startswith(_NOT_SERVED_PREFIXES):
        raise BadRequest(f"{spelt(name)} is not served by this version; leave it out")


def _forwarded(given: Item, spelt: _Spelling, policy: Policy) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    if "content-type" in given:
        found["content-type"] = given["content-type"]
    for name, value in given.items():
        if name.startswith(_FORWARD):
            target = name[len(_FORWARD) :]
            if not _TOKEN.fullmatch(target):
                raise BadRequest(f"{spelt(name)}: {shown(target)} is no header name, use letters, digits and -")
            if _CONTROL.search(value) or any(ord(c) > 255 for c in value):
                raise BadRequest(f"{spelt(name)}: {shown(value)} can't be a header value, use printable latin-1 text")
            if target not in _NOT_FORWARDED and target not in _OURS:
                found[target] = value
    size = sum(map(len, found)) + sum(map(len, found.values()))
    if size > policy.max_headers:
        raise BadRequest(
            f"Upstash-Forward-*: the headers to forward have {size} bytes, the limit is {policy.max_headers}"
            f" (the setting {policy.setting('max_headers')} changes it); put the data into the body"
        )
    return tuple([(canonical(name), value) for name, value in sorted(found.items())])


def _method(given: Item, spelt: _Spelling) -> str:
    value = given.get("upstash-method", "POST")
    if value.upper() not in _METHODS:
        name = spelt("upstash-method")
        raise BadRequest(f"{name}: {shown(value)} is no method that can be used, take one of {', '.join(_METHODS)}")
    return str(value.upper())


def _duration(given: Item, name: str, spelt: _Spelling) -> int | None:
    if name not in given:
        return None
    duration = parse_duration(given[name])
    if duration is None:
        raise BadRequest(f"{spelt(name)}: {shown(given[name])} is no duration, write it like 30s, 5m or 1d10h30m")
    return duration


def _due(given: Item, spelt: _Spelling, policy: Policy, now_ms: int) -> int:
    if "upstash-delay" not in given and "upstash-not-before" not in given:
        return now_ms
    delay = _duration(given, "upstash-delay", spelt) or 0
    name = "upstash-delay"
    if "upstash-not-before" in given:
        name = "upstash-not-before"
        if not _NUMBER.fullmatch(given[name]):
            raise BadRequest(f"{spelt(name)}: {shown(given[name])} is no time, write it in whole seconds since 1970")
        delay = max(0, int(given[name]) * 1000 - now_ms)
        if int(given[name]) > now_ms:
            raise BadRequest(f"{spelt(name)}: {shown(given[name])} looks like milliseconds, write whole seconds")
    if delay > policy.max_delay_ms:
        raise BadRequest(
            f"quota maxDelay exceeded, current limit: {policy.max_delay_ms // 1000} ({spelt(name)}:"
            f" {shown(given[name])} is further away than {show_duration(policy.max_delay_ms)}; the setting"
            f" {policy.setting('max_delay_ms')} changes the limit)"
        )
    return now_ms + delay


def _retries(given: Item, spelt: _Spelling, policy: Policy) -> int:
    value = given.get("upstash-retries")
    if not value:
        return policy.default_retries
    if not _NUMBER.fullmatch(value):
        raise BadRequest(f"{spelt('upstash-retries')}: {shown(value)} is no number of retries, write 0 or more")
    if int(value) > policy.max_retries:
        raise BadRequest(
            f"quota maxRetries exceeded, current limit: {policy.max_retries} ({spelt('upstash-retries')}:"
            f" {shown(value)}; the setting {policy.setting('max_retries')} changes the limit)"
        )
    return int(value)


def _timeout(given: Item, spelt: _Spelling, policy: Policy) -> int:
    timeout = _duration(given, "upstash-timeout", spelt)
    if timeout is None:
        return min(policy.default_timeout_ms, policy.max_timeout_ms)
    name = spelt("upstash-timeout")
    if timeout == 0:
        raise BadRequest(f"{name}: {shown(given['upstash-timeout'])} leaves no time for an answer, write 1s or more")
    if timeout > policy.max_timeout_ms:
        raise BadRequest(
            f"quota maxTimeout exceeded, current limit: {policy.max_timeout_ms // 1000} ({name}:"
            f" {shown(given['upstash-timeout'])} is more than {show_duration(policy.max_timeout_ms)}; the setting"
            f" {policy.setting('max_timeout_ms')} changes the limit)"
        )
    return timeout


def _flag(given: Item, name: str, spelt: _Spelling) -> bool:
    value = str(given.get(name, "")).lower()
    if value not in ("", "true", "false", "1", "0"):
        raise BadRequest(f"{spelt(name)}: {shown(given[name])} is neither true nor false, write true or leave it out")
    return value in ("true", "1")


def _dedup(given: Item, spelt: _Spelling, url: str, body: bytes, forwarded: Sequence[tuple[str, str]]) -> str:
    if "upstash-deduplication-id" not in given and "upstash-content-based-deduplication" not in given:
        return ""
    explicit = given.get("upstash-deduplication-id")
    by_content = _flag(given, "upstash-content-based-deduplication", spelt)
    if explicit:
        if ":" in explicit:
            name = spelt("upstash-deduplication-id")
            raise BadRequest(f"DeduplicationId cannot contain ':' ({name}: {shown(explicit)}); use another separator")
        return f"id:{explicit}"
    if not by_content:
        return ""
    content = hashlib.sha256()
    for part in (url, *(text for pair in forwarded for text in pair)):
        content.update(f"{len(part)}:{part}".encode())
    content.update(body)
    return f"content:{content.hexdigest()}"
