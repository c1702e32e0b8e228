"""The settings of one publish: `Upstash-*` headers, or query keys of the same names in lower case.

A callback's settings are the same ones behind a prefix, and are read by the same code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from waypost.core import limits
from waypost.core.accept import Request
from waypost.core.cron import CronError, read_cron
from waypost.core.destination import check_endpoint
from waypost.core.duration import parse_duration, show_duration
from waypost.core.errors import BadRequest, shown
from waypost.core.expression import ExpressionError, check_expression
from waypost.core.flow_control import LimitsError, check_key, read_limits
from waypost.core.guard import Guard
from waypost.core.message import DIRECT, Via
from waypost.core.plain_name import is_plain, remedy
from waypost.core.policy import Policy
from waypost.core.queues import check_queue_name
from waypost.core.remembered import remembered
from waypost.core.terms import Callback, InLane, LaneKind, Terms

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_BACKOFFS = ("exponential", "fixed")
_OURS_BEGIN = "upstash-"
_FORWARD = "upstash-forward-"
_CALLBACK, _FAILURE_CALLBACK = "upstash-callback", "upstash-failure-callback"
_REDACT_FIELDS = "upstash-redact-fields"
_WORKFLOW = ("upstash-workflow-", "upstash-feature-set")
_CRON, _SCHEDULE_ID, _QUEUE = "upstash-cron", "upstash-schedule-id", "upstash-queue-name"
#: What a message can't have.
_OF_SCHEDULES = frozenset({_CRON, _SCHEDULE_ID, _QUEUE})
_FLOW_KEY, _FLOW_VALUE = "upstash-flow-control-key", "upstash-flow-control-value"
#: What a message that Waypost makes itself can't have.
_PUBLISH_ALONE = frozenset(
    {
        "upstash-not-before",
        "upstash-deduplication-id",
        "upstash-content-based-deduplication",
        "upstash-header-forward",
    }
)
_NOT_SCHEDULED = _PUBLISH_ALONE - {"upstash-header-forward"}
_ANY_MESSAGE = frozenset(
    {
        "upstash-method",
        "upstash-delay",
        "upstash-retries",
        "upstash-retry-delay",
        "upstash-backoff",
        "upstash-timeout",
        "upstash-label",
        "upstash-redact-fields",
        _FLOW_KEY,
        _FLOW_VALUE,
    }
)
#: Belong to one connection, or are reckoned anew for the destination: never forwarded.
_NOT_FORWARDED = frozenset(
    {
        "host",
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-authorization",
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
_LISTS = ("-label", "-redact-fields")
_NUMBER = re.compile(r"[0-9]{1,15}")
_REDACTED = re.compile(r"(body)|(headers?)(?:\[\s*([^\[\]]+?)\s*\])?", re.IGNORECASE)
#: What of a message its callbacks can have, too, stands behind one of these.
_BEHIND = re.compile(r"^upstash-(?:callback-failure-callback-|failure-callback-|callback-)?")
#: They exclude each other.
_WAITS = re.compile(rf"({_BEHIND.pattern})(retry-delay|backoff)")
#: Limits that stand for all are of the key that stands beside them.
_KEYS = re.compile(rf"({_BEHIND.pattern}flow-control-)key")
#: Their values are text; those of other headers are bytes.
_TEXTS = _ANY_MESSAGE | _PUBLISH_ALONE | _OF_SCHEDULES
#: They are of one request, or of none that is let in.
_NO_DEFAULTS = frozenset({"upstash-not-before", "upstash-deduplication-id", "authorization", "qstash_token"})


class _Given:
    """What a caller set: values by name, `upstash-...` in lower case, and how each name was spelt."""

    __slots__ = ("_in_headers", "_prefix", "values")

    def __init__(self, values: Mapping[str, str], in_headers: Mapping[str, str], prefix: str = _OURS_BEGIN) -> None:
        self.values = values
        self._in_headers = in_headers
        self._prefix = prefix

    def behind(self, prefix: str) -> _Given:
        """What stands behind a callback's prefix, by the names that it has without it."""
        found = {
            _OURS_BEGIN + name[len(prefix) :]: value for name, value in self.values.items() if name.startswith(prefix)
        }
        return _Given(found, self._in_headers, self._prefix + prefix[len(_OURS_BEGIN) :])

    def spelt(self, name: str) -> str:
        whole = self._whole(name) if name.startswith(_OURS_BEGIN) else name
        return canonical(whole) if whole in self._in_headers else whole

    def behind_prefix(self, name: str) -> str:
        """How a caller writes this setting, whose name begins with `upstash-`."""
        return canonical(self._whole(name))

    def _whole(self, name: str) -> str:
        return self._prefix + name[len(_OURS_BEGIN) :]

    def bad(self, name: str, what: str) -> BadRequest:
        return BadRequest(f"{self.spelt(name)}: {shown(self.values[name])} {what}")


class Asked(Struct, frozen=True):
    """A message that somebody asks for, but for its settings."""

    account: str
    caller_ip: str
    now_ms: int
    url: str = ""
    body: bytes = b""
    #: The api whose URL that is; empty: the caller named a URL.
    api: str = ""
    #: The queue that it goes through; empty: none.
    queue: str = ""


def read_settings(
    headers: Sequence[tuple[str, str]],
    query: Sequence[tuple[str, str]],
    asked: Asked,
    *,
    policy: Policy,
    guard: Guard,
) -> Request:
    """Checks everything that a publish says besides destination and body. Raises BadRequest naming the field.

    `headers` are the request's, `query` the destination's control keys: (lower-case name, value). A header wins.
    """
    given = _given(headers, query)
    if _flag(given, "upstash-header-forward"):
        given = _with_all_forwarded(given, headers)
    defaults = Terms("POST", (), policy.default_retries, min(policy.default_timeout_ms, policy.max_timeout_ms))
    if asked.queue:
        if _FLOW_KEY in given.values:
            raise given.bad(_FLOW_KEY, f"can't be the key of a message in queue {shown(asked.queue)}; leave one out")
        defaults = replace(defaults, lane=InLane(LaneKind.QUEUE, asked.queue))
    terms = _terms(given, defaults, policy, guard)
    if asked.api and not terms.callback:
        raise BadRequest(
            f"{given.behind_prefix(_CALLBACK)} is missing: api/{asked.api} answers to the URL that it names"
        )
    return Request(
        account=asked.account,
        url=asked.url,
        terms=terms,
        body=asked.body,
        asked_ms=asked.now_ms,
        due_ms=_due(given, policy, asked.now_ms),
        caller_ip=asked.caller_ip,
        dedup=_dedup(given, asked.url, asked.body, terms.headers),
        via=Via(api=asked.api) if asked.api else DIRECT,
    )


class Scheduled(Struct, frozen=True):
    """What a request to make a schedule says."""

    cron: str
    #: Empty: none is given.
    id: str
    #: What is published each time, as if it were now.
    request: Request


def read_schedule(
    headers: Sequence[tuple[str, str]],
    query: Sequence[tuple[str, str]],
    asked: Asked,
    *,
    policy: Policy,
    guard: Guard,
) -> Scheduled:
    """Likewise for a request to make a schedule. Raises BadRequest."""
    own_headers, headers = _parted(headers)
    own_query, query = _parted(query)
    own = _collected_of(own_headers, own_query)
    for name, value in (*query, *headers):
        lower = name.lower()
        if lower in _NOT_SCHEDULED and value.strip():
            raise BadRequest(f"{canonical(name)} is nothing that a schedule can have; leave it out")
    if _CRON not in own.values:
        raise BadRequest(f"{own.behind_prefix(_CRON)} is missing: it says when the schedule fires, such as */5 * * * *")
    cron = own.values[_CRON]
    if len(cron) > limits.CRON_LENGTH:
        raise own.bad(_CRON, f"is longer than {limits.CRON_LENGTH} characters, shorten it")
    try:
        occurs = read_cron(cron).after(asked.now_ms) is not None
    except CronError as wrong:
        raise own.bad(_CRON, f"is no cron expression that can be used: {wrong}") from None
    if not occurs:
        raise own.bad(_CRON, "names a time that never comes, in fifty years at least; name another")
    schedule_id = own.values.get(_SCHEDULE_ID, "")
    if schedule_id and not is_plain(schedule_id, limits.SCHEDULE_ID_LENGTH):
        raise own.bad(_SCHEDULE_ID, f"can't be a schedule's id, {remedy(limits.SCHEDULE_ID_LENGTH)}")
    if queue := own.values.get(_QUEUE, ""):
        try:
            asked = replace(asked, queue=check_queue_name(queue))
        except BadRequest as wrong:
            raise BadRequest(f"{own.spelt(_QUEUE)}: {wrong}") from None
    return Scheduled(cron, schedule_id, read_settings(headers, query, asked, policy=policy, guard=guard))


_Pairs = list[tuple[str, str]]


def _parted(pairs: Sequence[tuple[str, str]]) -> tuple[_Pairs, _Pairs]:
    """What is of schedules alone, and the rest."""
    own = [pair for pair in pairs if pair[0].lower() in _OF_SCHEDULES]
    return own, [pair for pair in pairs if pair[0].lower() not in _OF_SCHEDULES]


def read_changes(
    headers: Sequence[tuple[str, str]],
    query: Sequence[tuple[str, str]],
    terms: Terms,
    *,
    policy: Policy,
    guard: Guard,
    now_ms: int,
) -> tuple[Terms, int]:
    """The terms with what a request changes about them, and when the message is then due. Raises BadRequest."""
    given = _given(headers, query)
    if "content-type" in given.values:
        # It is that of the request itself, whose body is not the message's.
        given = _Given({name: v for name, v in given.values.items() if name != "content-type"}, given._in_headers)
    for name in given.values:
        if name in _PUBLISH_ALONE and name != "upstash-not-before":
            raise BadRequest(f"{given.spelt(name)} is nothing that a retry can have; leave it out")
    return _terms(given, terms, policy, guard), _due(given, policy, now_ms)


def headers_of_json(given: Iterable[tuple[str, str | Sequence[str] | None]]) -> list[tuple[str, str]]:
    """Headers that stand in JSON, as if a request had brought them: their values are bytes.

    Raises BadRequest for what no request can bring.
    """
    found = []
    for name, value in given:
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise BadRequest(f"{shown(name)} is no header name, use letters, digits and -")
        for text in (value,) if isinstance(value, str) else value or ():
            if _CONTROL.search(text):
                raise BadRequest(f"{canonical(name)}: {shown(text)} can't be a header value, use printable text")
            found.append((lower, text.encode().decode("latin-1")))
    return found


def check_defaults(defaults: Sequence[tuple[str, str]], policy: Policy, guard: Guard) -> None:
    """Raises BadRequest for what can't stand for every request that does not say otherwise."""
    for name, _ in defaults:
        if name in _NO_DEFAULTS:
            raise BadRequest(f"{canonical(name)} is nothing that all messages can have; leave it out")
    read_settings(defaults, (), Asked("", "", 0), policy=policy, guard=guard)


def with_defaults(
    headers: Sequence[tuple[str, str]],
    query: Sequence[tuple[str, str]],
    defaults: Sequence[tuple[str, str]],
    *,
    queue: str = "",
    scheduled: bool = False,
) -> list[tuple[str, str]]:
    """The headers, and of the defaults those that neither they nor the query's control keys take the place of, or
    exclude. What the defaults hide stays hidden, and what is meant for one callback is told to no other. `queue`: that
    of the message. `scheduled`: they are a schedule's, which can't have all of them."""
    own = [(name, value) for name, value in headers if value.strip() or not _is_ours(name)]
    given = {name.lower() for name, _ in own} | {name for name, value in query if value.strip() or not _is_ours(name)}
    for match in filter(None, map(_WAITS.fullmatch, tuple(given))):
        given.add(match[1] + ("backoff" if match[2] == "retry-delay" else "retry-delay"))
    given |= {f"{match[1]}value" for match in map(_KEYS.fullmatch, tuple(given)) if match}
    if queue or _QUEUE in given:
        given |= {_FLOW_KEY, _FLOW_VALUE}
    if scheduled:
        given |= _NOT_SCHEDULED
    hidden = [value for name, value in query if name == _REDACT_FIELDS and value.strip()]
    given.discard(_REDACT_FIELDS)
    of_callbacks = tuple([f"{name}-" for name in (_CALLBACK, _FAILURE_CALLBACK) if name in given])
    # A header wins over a query key, so what stands there goes along.
    return [
        *own,
        *((_REDACT_FIELDS, value) for value in hidden),
        *((name, value) for name, value in defaults if name not in given and not name.startswith(of_callbacks)),
    ]


def _is_ours(name: str) -> bool:
    """Whether an empty one is none."""
    lower = name.lower()
    return lower.startswith(_OURS_BEGIN) and not _may_be_empty(lower)


def _may_be_empty(name: str) -> bool:
    """A client leaves the limits of a key empty that are to stay as they are."""
    return name.startswith(_FORWARD) or name.endswith("-flow-control-value")


@remembered(longest=128)
def canonical(name: str) -> str:
    """`my-header` -> `My-Header`."""
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def _given(headers: Sequence[tuple[str, str]], query: Sequence[tuple[str, str]]) -> _Given:
    given = _collected_of(headers, query)
    for name in given.values:
        _refuse_unserved(given, name)
    return given


def _collected_of(headers: Sequence[tuple[str, str]], query: Sequence[tuple[str, str]]) -> _Given:
    in_query = _collected(query, str) if query else {}
    in_headers = _collected(headers, canonical)
    return _Given(
        {name: value for name, value in (in_query | in_headers).items() if value or _may_be_empty(name)}, in_headers
    )


def _collected(pairs: Sequence[tuple[str, str]], spelt: Callable[[str], str]) -> dict[str, str]:
    """By lower-case name. A forwarded header given twice is joined, as HTTP joins lists, and so are settings that are
    lists; others have one value."""
    found: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if not lower.startswith(_OURS_BEGIN) and lower not in _OTHERS:
            continue
        # Nothing else: the last byte of many letters is one that Python takes for a space.
        value = value.strip(" \t")
        if not value.isascii() and _BEHIND.sub(_OURS_BEGIN, lower, count=1) in _TEXTS:
            value = _as_text(value)
        if lower not in found:
            found[lower] = value
        elif _FORWARD[len(_OURS_BEGIN) :] in lower or lower.endswith(_LISTS):
            found[lower] += ", " + value
        elif found[lower] != value and lower != "qstash_token":
            raise BadRequest(f"{spelt(name)} is given twice, as {shown(found[lower])} and {shown(value)}; give it once")
    found.pop("qstash_token", None)
    return found


def _as_text(value: str) -> str:
    """Some clients write UTF-8, others latin-1."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value


def _refuse_unserved(given: _Given, name: str) -> None:
    if name.startswith(_WORKFLOW):
        raise BadRequest(f"{given.spelt(name)}: workflows are not served; publish without the workflow client")
    if name == _QUEUE:
        raise BadRequest(
            f"{given.spelt(name)} is a schedule's: POST /v2/enqueue/<queue>/<destination>, or the queue of a batch's"
            " item, puts a message into a queue; leave it out elsewhere"
        )
    if name in _OF_SCHEDULES:
        raise BadRequest(
            f"{given.spelt(name)} is a schedule's: POST /v2/schedules/<destination> makes one; leave it out elsewhere"
        )


def _with_all_forwarded(given: _Given, headers: Sequence[tuple[str, str]]) -> _Given:
    """As if each header of the request had been given to be forwarded, but for the caller's own token and our settings.
    What is given to be forwarded wins."""
    all_of_them: dict[str, str] = {}
    left_out = {"authorization", "content-type"}
    for name, value in headers:
        if name.lower() == "connection":
            left_out |= {one.strip().lower() for one in value.split(",")}
    for name, value in headers:
        lower = name.lower()
        if lower not in left_out and not lower.startswith(_OURS_BEGIN):
            forwarded = _FORWARD + lower
            between = "; " if lower == "cookie" else ", "
            all_of_them[forwarded] = all_of_them[forwarded] + between + value if forwarded in all_of_them else value
    return _Given({**all_of_them, **given.values}, given._in_headers)


# Terms ---------------------------------------------------------------------------------------------------------------


def _terms(given: _Given, defaults: Terms, policy: Policy, guard: Guard) -> Terms:
    """The defaults with what is given in their places."""
    retry_delay, backoff = _waits(given, defaults)
    terms = Terms(
        method=_method(given, defaults),
        headers=_forwarded(given, defaults, policy),
        retries=_retries(given, defaults, policy),
        timeout_ms=_timeout(given, defaults, policy),
        retry_delay=retry_delay,
        backoff=backoff,
        labels=_labels(given, defaults),
        redacted=_redacted(given, defaults),
        callback=defaults.callback,
        failure_callback=defaults.failure_callback,
        lane=_lane(given, defaults),
    )
    for name in given.values:
        if name.startswith((_CALLBACK, _FAILURE_CALLBACK)):
            return replace(
                terms,
                callback=_callback(_CALLBACK, given, terms, policy, guard),
                failure_callback=_callback(_FAILURE_CALLBACK, given, terms, policy, guard),
            )
    return terms


def _callback(name: str, given: _Given, terms: Terms, policy: Policy, guard: Guard) -> Callback | None:
    """The callback that is named so, with its own settings behind its name; None: there is none."""
    own = given.behind(name + "-")
    if name not in given.values:
        for setting in own.values:
            raise BadRequest(f"{own.spelt(setting)} needs {given.behind_prefix(name)}, the URL that is called back")
        return terms.callback if name == _CALLBACK else terms.failure_callback
    try:
        url = check_endpoint(given.values[name], guard)
    except BadRequest as wrong:
        raise BadRequest(f"{given.spelt(name)}: {wrong}") from None
    for setting in own.values:
        _refuse_unserved(own, setting)
        nested = setting == _FAILURE_CALLBACK or setting.startswith(_FAILURE_CALLBACK + "-")
        if setting in _PUBLISH_ALONE or setting.startswith(_CALLBACK) or (nested and name == _FAILURE_CALLBACK):
            raise BadRequest(f"{own.spelt(setting)} is nothing that a callback can have; leave it out")
    defaults = Terms("POST", (), terms.retries, min(policy.default_timeout_ms, policy.max_timeout_ms))
    delay_ms = _delay_within(own, "upstash-delay", _duration(own, "upstash-delay") or 0, policy)
    return Callback(url, delay_ms, _terms(_with_bare_headers(own), defaults, policy, guard))


def _with_bare_headers(given: _Given) -> _Given:
    """Behind a callback's prefix a name that is no setting is a header to be sent: so the Python client has it."""
    bare = {
        _FORWARD + name[len(_OURS_BEGIN) :]: value
        for name, value in given.values.items()
        if name not in _ANY_MESSAGE and not name.startswith((_FORWARD, _FAILURE_CALLBACK, "upstash-telemetry-"))
    }
    return _Given({**bare, **given.values}, given._in_headers, given._prefix) if bare else given


def _forwarded(given: _Given, defaults: Terms, policy: Policy) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {name.lower(): value for name, value in defaults.headers}
    if "content-type" in given.values:
        found["content-type"] = given.values["content-type"]
    for name, value in given.values.items():
        if name.startswith(_FORWARD):
            target = name[len(_FORWARD) :]
            if not _TOKEN.fullmatch(target):
                raise BadRequest(f"{given.spelt(name)}: {shown(target)} is no header name, use letters, digits and -")
            if _CONTROL.search(value) or any(ord(c) > 255 for c in value):
                raise given.bad(name, "can't be a header value, use printable latin-1 text")
            if target not in _NOT_FORWARDED and target not in _OURS:
                found[target] = value
    size = sum(map(len, found)) + sum(map(len, found.values()))
    if size > policy.max_headers:
        raise BadRequest(
            f"{given.behind_prefix(_FORWARD)}*: the headers to forward have {size} bytes, the limit is"
            f" {policy.max_headers} (the setting {policy.setting('max_headers')} changes it); put the data into the"
            " body"
        )
    return tuple([(canonical(name), value) for name, value in sorted(found.items())])


def _method(given: _Given, defaults: Terms) -> str:
    value = given.values.get("upstash-method", defaults.method)
    if value.upper() not in _METHODS:
        raise given.bad("upstash-method", f"is no method that can be used, take one of {', '.join(_METHODS)}")
    return value.upper()


def _retries(given: _Given, defaults: Terms, policy: Policy) -> int:
    value = given.values.get("upstash-retries")
    if not value:
        return defaults.retries
    if not _NUMBER.fullmatch(value):
        raise given.bad("upstash-retries", "is no number of retries, write 0 or more")
    if int(value) > policy.max_retries:
        raise BadRequest(
            f"quota maxRetries exceeded, current limit: {policy.max_retries} ({given.spelt('upstash-retries')}:"
            f" {shown(value)}; the setting {policy.setting('max_retries')} changes the limit)"
        )
    return int(value)


def _timeout(given: _Given, defaults: Terms, policy: Policy) -> int:
    timeout = _duration(given, "upstash-timeout")
    if timeout is None:
        return defaults.timeout_ms
    if timeout == 0:
        raise given.bad("upstash-timeout", "leaves no time for an answer, write 1s or more")
    if timeout > policy.max_timeout_ms:
        name, value = given.spelt("upstash-timeout"), given.values["upstash-timeout"]
        raise BadRequest(
            f"quota maxTimeout exceeded, current limit: {policy.max_timeout_ms // 1000} ({name}:"
            f" {shown(value)} is more than {show_duration(policy.max_timeout_ms)}; the setting"
            f" {policy.setting('max_timeout_ms')} changes the limit)"
        )
    return timeout


def _waits(given: _Given, defaults: Terms) -> tuple[str, str]:
    """The expression and the backoff, of which there is one at most."""
    expression, backoff = given.values.get("upstash-retry-delay", ""), given.values.get("upstash-backoff", "")
    if not expression and not backoff:
        return defaults.retry_delay, defaults.backoff
    if expression and backoff:
        raise BadRequest(
            f"{given.spelt('upstash-retry-delay')} and {given.spelt('upstash-backoff')} both say how long to wait"
            f" before a retry, {shown(expression)} and {shown(backoff)}; leave one out"
        )
    if backoff:
        if backoff.lower() not in _BACKOFFS:
            raise given.bad("upstash-backoff", f"is no backoff, write {' or '.join(_BACKOFFS)}")
        return "", backoff.lower()
    try:
        check_expression(expression)
    except ExpressionError as wrong:
        raise given.bad("upstash-retry-delay", f"is no expression in milliseconds: {wrong}") from None
    return expression, ""


def _labels(given: _Given, defaults: Terms) -> tuple[str, ...]:
    value = given.values.get("upstash-label")
    if not value:
        return defaults.labels
    if len(value) > limits.LABELS_LENGTH:
        raise given.bad("upstash-label", f"is longer than {limits.LABELS_LENGTH} characters, shorten the labels")
    return tuple(dict.fromkeys(label for one in value.split(",") if (label := one.strip())))


def _lane(given: _Given, defaults: Terms) -> InLane | None:
    key, value = given.values.get(_FLOW_KEY), given.values.get(_FLOW_VALUE)
    if not key:
        if value:
            raise BadRequest(
                f"{given.spelt(_FLOW_VALUE)} needs {given.behind_prefix(_FLOW_KEY)}, the key whose limits they are"
            )
        return defaults.lane
    try:
        check_key(key)
    except BadRequest as wrong:
        raise BadRequest(f"{given.spelt(_FLOW_KEY)}: {wrong}") from None
    if value is None:
        raise BadRequest(
            f"{given.spelt(_FLOW_KEY)} needs {given.behind_prefix(_FLOW_VALUE)}, the key's limits, such as"
            " parallelism=5; give it empty if they are to stay as they are"
        )
    try:
        return InLane(LaneKind.KEY, key, read_limits(value) if value else None)
    except LimitsError as wrong:
        raise given.bad(_FLOW_VALUE, f"can't be used: {wrong}") from None


def _redacted(given: _Given, defaults: Terms) -> tuple[str, ...]:
    value = given.values.get("upstash-redact-fields")
    if not value:
        return defaults.redacted
    found = []
    for one in filter(None, (part.strip() for part in value.split(","))):
        match = _REDACTED.fullmatch(one)
        if not match or (match[3] and not _TOKEN.fullmatch(match[3])):
            raise BadRequest(
                f"{given.spelt('upstash-redact-fields')}: {shown(one)} is no field, write body, header or header[Name]"
            )
        found.append(
            "body" if match[1] else f"header[{match[3].lower().removeprefix(_FORWARD)}]" if match[3] else "header"
        )
    if not found:
        raise given.bad("upstash-redact-fields", "names no field, write body, header or header[Name]")
    return tuple(dict.fromkeys([*defaults.redacted, *found]))


# What a publish alone has --------------------------------------------------------------------------------------------


def _duration(given: _Given, name: str) -> int | None:
    if name not in given.values:
        return None
    duration = parse_duration(given.values[name])
    if duration is None:
        raise given.bad(name, "is no duration, write it like 30s, 5m, 500ms or 1d10h30m")
    return duration


def _due(given: _Given, policy: Policy, now_ms: int) -> int:
    if "upstash-delay" not in given.values and "upstash-not-before" not in given.values:
        return now_ms
    delay = _duration(given, "upstash-delay") or 0
    name = "upstash-delay"
    if "upstash-not-before" in given.values:
        name = "upstash-not-before"
        if not _NUMBER.fullmatch(given.values[name]):
            raise given.bad(name, "is no time, write it in whole seconds since 1970")
        delay = max(0, int(given.values[name]) * 1000 - now_ms)
        if int(given.values[name]) > now_ms:
            raise given.bad(name, "looks like milliseconds, write whole seconds")
    return now_ms + _delay_within(given, name, delay, policy)


def _delay_within(given: _Given, name: str, delay: int, policy: Policy) -> int:
    if delay > policy.max_delay_ms:
        raise BadRequest(
            f"quota maxDelay exceeded, current limit: {policy.max_delay_ms // 1000} ({given.spelt(name)}:"
            f" {shown(given.values[name])} is further away than {show_duration(policy.max_delay_ms)}; the setting"
            f" {policy.setting('max_delay_ms')} changes the limit)"
        )
    return delay


def _flag(given: _Given, name: str) -> bool:
    value = given.values.get(name, "").lower()
    if value not in ("", "true", "false", "1", "0"):
        raise given.bad(name, "is neither true nor false, write true or leave it out")
    return value in ("true", "1")


def _dedup(given: _Given, url: str, body: bytes, forwarded: Sequence[tuple[str, str]]) -> str:
    if "upstash-deduplication-id" not in given.values and "upstash-content-based-deduplication" not in given.values:
        return ""
    explicit = given.values.get("upstash-deduplication-id")
    by_content = _flag(given, "upstash-content-based-deduplication")
    if explicit:
        if ":" in explicit:
            name = given.spelt("upstash-deduplication-id")
            raise BadRequest(f"DeduplicationId cannot contain ':' ({name}: {shown(explicit)}); use another separator")
        return f"id:{explicit}"
    if not by_content:
        return ""
    content = hashlib.sha256()
    for part in (url, *(text for pair in forwarded for text in pair)):
        content.update(f"{len(part)}:{part}".encode())
    content.update(body)
    return f"content:{content.hexdigest()}"
