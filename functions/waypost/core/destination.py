"""The destination as it stands in a request's raw path and query."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from waypost.core import limits
from waypost.core.errors import BadRequest, shown
from waypost.core.guard import Guard
from waypost.core.llm import API_LLM, LLM, NO_LLM, Llm
from waypost.core.plain_name import is_plain

_SCHEME = re.compile(r"(https?):/(/?)", re.IGNORECASE)
_ENCODED_SCHEME = re.compile(r"https?(?:%3a|:)(?:%2f|/)", re.IGNORECASE)
#: What may stand in a request target; the rest was never legal there or was smuggled in by an escape.
_ILLEGAL = re.compile(r"[^!-~]")
#: What stands in a stored URL as it is: all that can be printed, but for the space.
_IN_URLS = "".join(map(chr, range(0x21, 0x7F)))


def split_control_keys(query: str) -> tuple[str, list[tuple[str, str]]]:
    """Parts a raw query into what belongs to the destination, untouched, and our own keys (lower case) with values."""
    if not query:
        return "", []
    theirs, ours = [], []
    for part in query.split("&"):
        raw_name, _, raw_value = part.partition("=")
        name = unquote(raw_name).lower()
        if name == "qstash_token" or name.startswith("upstash-"):
            # Bytes, as a header's value is: who reads a setting makes text of them.
            ours.append((name, unquote(raw_value.replace("+", " "), encoding="latin-1")))
        else:
            theirs.append(part)
    return "&".join(theirs), ours


def is_group_name(text: str) -> bool:
    return is_plain(text, limits.GROUP_NAME_LENGTH)


class Destination(NamedTuple):
    #: Absolute: what is delivered to.
    url: str
    #: Our control keys in its query: lower-case names, and values.
    ours: Sequence[tuple[str, str]]
    #: The api whose URL that is; empty: the caller named a URL.
    api: str = ""


def read_destination(raw: str, query: str, guard: Guard, llm: Llm = NO_LLM) -> Destination:
    """`raw` is the rest of the raw path, `query` the raw query. Raises BadRequest.

    A single slash after the scheme is repaired; a destination that was percent-encoded as a whole is decoded. No escape
    inside a URL that came as one is touched.
    """
    if not _SCHEME.match(raw) and _ENCODED_SCHEME.match(raw):
        raw, _, own_query = unquote(raw, encoding="latin-1").partition("#")[0].partition("?")
        query = "&".join(part for part in (own_query, query) if part)
    if unquote(raw) == API_LLM:
        return Destination(_url_of(llm), split_control_keys(query)[1], LLM)
    match = _SCHEME.match(raw)
    if not match:
        raise BadRequest(
            f"invalid destination url: endpoint has invalid scheme, add http:// or https:// (the destination is"
            f" {shown(raw)}; {API_LLM} is the only api)"
        )
    query, ours = split_control_keys(query.partition("#")[0])
    url = f"{match[1].lower()}://{raw[match.end() :].partition('#')[0]}"
    return Destination(check_url(f"{url}?{query}" if query else url, guard), ours)


def _url_of(llm: Llm) -> str:
    if not llm.url:
        raise BadRequest(
            f"{API_LLM}: no model service is set; the setting WAYPOST_LLM_URL names one, such as"
            " https://api.openai.com/v1, and WAYPOST_LLM_KEY its key. Or publish to the service's own URL, with"
            " Upstash-Forward-Authorization"
        )
    return llm.url


def check_endpoint(text: str, guard: Guard) -> str:
    """The URL of an endpoint that stands in a value of its own, where nothing was pasted together."""
    if not _SCHEME.match(text):
        raise BadRequest(
            f"invalid destination url: endpoint has invalid scheme, add http:// or https:// (it is {shown(text)})"
        )
    return check_url(text.partition("#")[0], guard)


@functools.lru_cache(maxsize=1024)
def check_url(url: str, guard: Guard) -> str:
    """Returns the URL if a request may be sent there as far as can be said without looking a name up.

    What it refuses is not kept, so no kept URL is longer than the limit.
    """
    url = _ILLEGAL.sub(lambda bad: "".join(f"%{byte:02X}" for byte in bad[0].encode("latin-1", "replace")), url)
    if len(url) > limits.URL_LENGTH:
        raise BadRequest(
            f"invalid destination url: it is {len(url)} characters long, the limit is {limits.URL_LENGTH}:"
            " put data into the body"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as wrong:
        raise BadRequest(
            f"invalid destination url: {shown(url)} can't be read ({wrong}), write it like https://host:8443/path"
        ) from None
    if not host:
        raise BadRequest(f"invalid destination url: {shown(url)} names no host, write https://host/path")
    if port == 0:
        raise BadRequest(f"invalid destination url: {shown(url)} has port 0, which can't be connected to")
    refusal = guard.refuse_host(host)
    if refusal:
        raise BadRequest(f"invalid destination url: {refusal} (WAYPOST_ALLOWED_NETWORKS names networks to allow)")
    return url


def as_stored(text: str) -> str:
    """A URL or a path of one, as it was escaped when it was accepted."""
    match = _SCHEME.match(text)
    return quote(match[0].lower() + text[match.end() :] if match else text, safe=_IN_URLS)


def host_of(url: str) -> str:
    """The host and port that a URL's requests go to, as a key for fairness."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()
