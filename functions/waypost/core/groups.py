"""URL groups: endpoints under one name. A publish to it makes a message for each, which knows nothing of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from waypost.core import limits
from waypost.core.accept import Request
from waypost.core.destination import as_stored, check_endpoint, is_group_name
from waypost.core.errors import BadRequest, NotFound, TooMuch, shown
from waypost.core.guard import Guard
from waypost.core.ids import random_name
from waypost.core.json_body import read_json
from waypost.core.message import VERSION, digest
from waypost.core.optimistic import change_item
from waypost.core.plain_name import remedy
from waypost.core.policy import Policy
from waypost.core.ports import (
    Absent,
    Delete,
    Equals,
    Item,
    Key,
    Ports,
    Put,
    TooLarge,
)
from waypost.core.settings import check_defaults, headers_of_json


class Endpoint(Struct, frozen=True):
    url: str
    #: No two of a group have the same; empty: it has none.
    name: str = ""


class Group(Struct, frozen=True):
    name: str
    created_ms: int
    updated_ms: int
    endpoints: tuple[Endpoint, ...]
    #: Stand for each publish that does not say otherwise: as they were given, names in lower case.
    headers: tuple[tuple[str, str], ...] = ()
    #: Drawn anew at each change.
    version: str = ""

    def to_item(self, account: str) -> dict[str, Any]:
        key = _key(account, self.name)
        return {
            "pk": key.pk,
            "sk": key.sk,
            "v": VERSION,
            "name": self.name,
            "created": self.created_ms,
            "updated": self.updated_ms,
            "endpoints": [[one.url, one.name] if one.name else [one.url] for one in self.endpoints],
            "headers": [list(pair) for pair in self.headers],
            "version": self.version,
        }

    @staticmethod
    def from_item(item: Item | None) -> Group | None:
        if item is None:
            return None
        return Group(
            name=item["name"],
            created_ms=item["created"],
            updated_ms=item["updated"],
            endpoints=tuple(Endpoint(*one) for one in item["endpoints"]),
            headers=tuple((name, value) for name, value in item["headers"]),
            version=item["version"],
        )


class Groups:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def read(self, account: str, name: str) -> Group:
        """Raises NotFound."""
        group = Group.from_item(await self._ports.table.get(_key(account, name)))
        if group is None:
            raise unknown(name)
        return group

    async def list_all(self, account: str) -> list[Group]:
        """In order of their names."""
        found: list[Group] = []
        after: str | None = None
        while True:
            page = await self._ports.table.query(_partition(account), after=after)
            found += filter(None, map(Group.from_item, page.items))
            if page.next is None:
                return sorted(found, key=lambda group: group.name)
            after = page.next

    async def upsert(self, account: str, name: str, endpoints: Sequence[Endpoint]) -> None:
        def change(group: Group | None) -> Group:
            new = upserted(group.endpoints if group else (), endpoints)
            if len(new) > limits.GROUP_ENDPOINTS:
                raise BadRequest(
                    f"endpoints: URL group {shown(name)} would have {len(new)}, the limit is {limits.GROUP_ENDPOINTS};"
                    " make another group for the rest"
                )
            return replace(group, endpoints=new) if group else Group(name, self._ports.clock.now_ms(), 0, new)

        await self._change(account, name, change)

    async def remove(self, account: str, name: str, endpoints: Sequence[Endpoint]) -> None:
        """Those that have the URL, or the name, or both where both are given. What is not there is no error."""
        gone = set(endpoints)

        def change(group: Group) -> Group | None:
            left = tuple(
                one for one in group.endpoints if gone.isdisjoint((one, Endpoint(one.url), Endpoint("", one.name)))
            )
            return replace(group, endpoints=left) if left else None

        await self._change(account, name, _of_known(name, change))

    async def set_headers(self, account: str, name: str, headers: Sequence[tuple[str, str]]) -> None:
        await self._change(account, name, _of_known(name, lambda group: replace(group, headers=tuple(headers))))

    async def delete(self, account: str, name: str) -> None:
        await self._ports.table.write(Delete(_key(account, name)))

    async def _change(self, account: str, name: str, change: Callable[[Group | None], Group | None]) -> None:
        """Makes of a group what `change` makes of it; None: there is none."""

        async def once(item: Item | None) -> None:
            standing = Group.from_item(item)
            wanted = change(standing)
            if wanted != standing:
                await self._replace(account, name, standing, wanted)

        await change_item(self._ports, _key(account, name), once, f"the URL group {name}")

    async def _replace(self, account: str, name: str, standing: Group | None, wanted: Group | None) -> None:
        """Raises ConditionFailed."""
        unchanged = Equals("version", standing.version) if standing else Absent("version")
        if wanted is None:
            await self._ports.table.write(Delete(_key(account, name), when=unchanged))
            return
        now, version = self._ports.clock.now_ms(), random_name(self._ports.random)
        try:
            new = replace(wanted, updated_ms=now, version=version)
            await self._ports.table.write(Put(new.to_item(account), when=unchanged))
        except TooLarge:
            raise TooMuch(
                f"URL group {shown(name)} is too large to be stored: its endpoints and headers have more than"
                f" {limits.ITEM // 1024} KB together; make several groups of it"
            ) from None


def _of_known(name: str, change: Callable[[Group], Group | None]) -> Callable[[Group | None], Group | None]:
    def of_known(group: Group | None) -> Group | None:
        if group is None:
            raise unknown(name)
        return change(group)

    return of_known


def upserted(standing: Sequence[Endpoint], given: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """What is given in its place: in that of the endpoint that has its name, else its URL, else at the end. One that
    has the same URL in another place makes room."""
    places: list[Endpoint | None] = []
    by_url: dict[str, int] = {}
    by_name: dict[str, int] = {}

    def take_out(at: int) -> Endpoint | None:
        old, places[at] = places[at], None
        if old:
            del by_url[old.url]
            by_name.pop(old.name, None)
        return old

    def put_in(at: int, one: Endpoint) -> None:
        places[at] = one
        by_url[one.url] = at
        if one.name:
            by_name[one.name] = at

    for one in (*standing, *given):
        same = [at for at in (by_name.get(one.name), by_url.get(one.url)) if at is not None]
        if not same:
            places.append(None)
            put_in(len(places) - 1, one)
            continue
        old = [take_out(at) for at in same]
        put_in(same[0], one if one.name or not old[0] else replace(one, name=old[0].name))
    return tuple(one for one in places if one)


def requests_to(group: Group, request: Request) -> list[Request]:
    """One for each endpoint. The deduplication name is each endpoint's own, within the group."""
    return [
        replace(
            request,
            url=one.url,
            dedup=request.dedup and f"{request.dedup}:{group.name}:{one.url}",
            via=replace(request.via, topic=group.name, endpoint=one.name),
        )
        for one in group.endpoints
    ]


# What is asked -------------------------------------------------------------------------------------------------------


class _Endpoint(Struct):
    url: str | None = None
    name: str | None = None


class _Endpoints(Struct):
    endpoints: list[_Endpoint]


class _Headers(Struct):
    headers: Mapping[str, str | list[str] | None]


_endpoints, _headers = msgspec.json.Decoder(_Endpoints), msgspec.json.Decoder(_Headers)


def check_name(name: str) -> str:
    if not is_group_name(name):
        raise BadRequest(f"{shown(name)} can't be the name of a URL group, {remedy(limits.GROUP_NAME_LENGTH)}")
    return name


def read_endpoints(body: bytes, guard: Guard) -> list[Endpoint]:
    """Those to be added. Raises BadRequest naming the one that can't be used."""
    found = []
    for at, one in enumerate(
        read_json(body, _endpoints, 'JSON like {"endpoints": [{"url": "https://example.com"}]}').endpoints
    ):
        name = one.name or ""
        if not one.url:
            raise BadRequest(f"endpoints[{at}].url is missing, write the URL of the endpoint")
        if len(name) > limits.GROUP_NAME_LENGTH:
            raise BadRequest(
                f"endpoints[{at}].name: {shown(name)} is longer than {limits.GROUP_NAME_LENGTH} characters, shorten it"
            )
        try:
            found.append(Endpoint(check_endpoint(as_stored(one.url), guard), name))
        except BadRequest as wrong:
            raise BadRequest(f"endpoints[{at}].url: {wrong}") from None
    if not found:
        raise BadRequest("endpoints is empty, name one at least")
    return found


def read_removed(body: bytes) -> list[Endpoint]:
    """Those to be removed; an empty URL or name stands for any."""
    found = []
    for at, one in enumerate(read_json(body, _endpoints, 'JSON like {"endpoints": [{"name": "one"}]}').endpoints):
        if not one.url and not one.name:
            raise BadRequest(f"endpoints[{at}] has neither url nor name, write one of them")
        found.append(Endpoint(as_stored(one.url or "").partition("#")[0], one.name or ""))
    return found


def read_headers(body: bytes, policy: Policy, guard: Guard) -> list[tuple[str, str]]:
    """Those that are to stand for every publish to a group, as text. Raises BadRequest for what none could have."""
    given = read_json(body, _headers, 'JSON like {"headers": {"Upstash-Retries": "5"}}').headers
    found = [(name.lower(), text) for name, value in given.items() for text in _texts(value)]
    check_defaults(headers_of_json(found), policy, guard)
    return found


def _texts(value: str | Sequence[str] | None) -> Sequence[str]:
    return (value,) if isinstance(value, str) else value or ()


def unknown(name: str) -> NotFound:
    return NotFound(
        f"there is no URL group {shown(name)}: create it with POST /v2/topics/{name}/endpoints, or add http:// or"
        " https:// where a URL is meant"
    )


def _partition(account: str) -> str:
    return f"{account}#groups"


def _key(account: str, name: str) -> Key:
    return Key(_partition(account), digest(name))
