"""Filters by what a message is: those of logs and of cancelling are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from waypost.core.destination import as_stored
from waypost.core.event import Source
from waypost.core.query import Query

#: By a filter's name, what it allows; all must hold.
SourceFilter = Mapping[str, frozenset[str]]


def _host(source: Source) -> Sequence[str]:
    parts = urlsplit(source.url)
    return parts.hostname or "", parts.netloc.rpartition("@")[2].lower()


_FIELDS: Mapping[str, Callable[[Source], Sequence[str]]] = {
    "url": lambda source: (source.url,),
    "host": _host,
    "path": lambda source: (urlsplit(source.url).path or "/",),
    "label": lambda source: source.labels,
    "callerIp": lambda source: (source.caller_ip,),
    "topicName": lambda source: (source.via.topic,),
    "api": lambda source: (source.via.api,),
    "scheduleId": lambda source: (source.via.schedule,),
    "queueName": lambda source: (source.queue,),
    "flowControlKey": lambda source: (source.flow_key,),
}
SOURCE_FILTERS = tuple(_FIELDS)
#: How a filter's value is written to compare with what is stored.
_AS_STORED: Mapping[str, Callable[[str], str]] = {"host": str.lower, "url": as_stored, "path": as_stored}


def fits(wanted: SourceFilter, source: Source) -> bool:
    """An empty filter asks for nothing."""
    return all(not values.isdisjoint(_FIELDS[name](source)) for name, values in wanted.items())


def read_source_filter(query: Query) -> SourceFilter:
    return {
        name: frozenset(map(_AS_STORED.get(name, str), query.all(name))) for name in SOURCE_FILTERS if name in query
    }
