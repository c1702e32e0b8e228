"""What a caller wants cancelled: the names and values of a query, and ids in a body, checked."""

from __future__ import annotations

from msgspec import Struct

from waypost.core import limits
from waypost.core.order import Selection
from waypost.core.query import END_OF_TIME, Query
from waypost.core.source_filter import SOURCE_FILTERS, read_source_filter

_KNOWN = (*SOURCE_FILTERS, "messageIds", "fromDate", "toDate", "count")
_SPELT = {"callerIP": "callerIp", "messageId": "messageIds"}
#: The newest JavaScript client always sends it, and does not come back for more: to it, it means all.
_NO_LIMIT = 100


class CancelRequest(Struct, frozen=True):
    selection: Selection
    #: These and no others, whatever else is asked for; None: none are named.
    ids: tuple[str, ...] | None
    #: No more than so many; None: all.
    most: int | None


def read_cancel(raw: str, body: bytes, now_ms: int) -> CancelRequest:
    """Raises BadRequest naming what can't be used."""
    query = Query(raw, _KNOWN, "messages to cancel", _SPELT)
    count = query.count(END_OF_TIME)
    return CancelRequest(
        selection=Selection(
            at_ms=now_ms,
            source=read_source_filter(query),
            from_ms=query.time("fromDate", 0),
            to_ms=query.time("toDate", END_OF_TIME),
        ),
        ids=query.ids("messageIds", body, limits.CANCEL_IDS),
        most=None if "count" not in query or count == _NO_LIMIT else count,
    )
