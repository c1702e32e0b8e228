"""Logs as a caller reads them: every state, filters, pages in both orders, and what becomes of them over time."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import ONE, PUBLISH, TWO, Desk, with_desk
from waypost.core import history, limits
from waypost.core.event import Position, after_all, log_bound, log_partition
from waypost.core.policy import DAY, MINUTE, SECOND, Policy
from waypost.core.ports import Answer, Busy, Change, Delete, Key, NoAnswer, Put, Unavailable

_FAILED = Answer(503, (("x-a", "1"), ("x-a", "2")), b"not now")


async def page(desk: Desk, name: str = "events", token: str = ONE.token, **query: Any) -> dict[str, Any]:
    reply = await desk.call("GET", f"/v2/{name}", query=urlencode(query, doseq=True), token=token)
    assert reply.status == 200, reply
    return dict(json.loads(reply.body()))


async def listed(desk: Desk, **query: Any) -> list[dict[str, Any]]:
    """All pages together."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await page(desk, **query)
        found += answer["events"]
        if "cursor" not in answer:
            return found
        query["cursor"] = answer["cursor"]


async def refused(desk: Desk, query: str) -> str:
    reply = await desk.call("GET", "/v2/events", query=query)
    assert reply.status == 400, reply
    return str(reply.content["error"])


async def look(desk: Desk, ms: int = 5 * MINUTE) -> None:
    """Lets so much time go by that the look passes what stands."""
    desk.clock.ms += ms
    while await desk.service.look.tick():
        pass


def test_segments_of_the_release_before_are_read(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await look(desk)
        message_id = "msg_" + "0" * 26
        now = desk.clock.ms
        # Sources had no more then than id, URL, labels and the caller's address.
        block = [[[message_id, "https://example.com/in", ["l"], "192.0.2.7"]], [[0, 0, 0], [5, 0, 5]]]
        item = {
            "pk": log_partition(ONE.name, now // DAY),
            "sk": f"{log_bound(now + 5)}#old",
            "v": 1,
            "first": now,
            "log": zlib.compress(json.dumps(block).encode()),
            "ttl": now // 1000 + 1_000,
        }
        await desk.table.write(Put(item))
        desk.clock.ms += MINUTE
        assert states(await listed(desk)) == ["DELIVERED", "CREATED"]
        assert states(await listed(desk, label="l")) == ["DELIVERED", "CREATED"]
        assert await listed(desk, topicName="g") == []

    with_desk(tmp_path, test)


def states(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["state"] for event in events]


def keys(events: Sequence[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(event["time"], event["messageId"], event["state"]) for event in events]


# Lives ---------------------------------------------------------------------------------------------------------------


async def delivered(desk: Desk) -> str:
    message_id = await desk.publish()
    await desk.deliver()
    return message_id


async def retried(desk: Desk) -> str:
    desk.sender.answers = [_FAILED, NoAnswer("nobody listens")]
    message_id = await desk.publish({"Upstash-Retries": "1"})
    await desk.deliver()
    await desk.deliver()
    return message_id


async def cancelled_before(desk: Desk) -> str:
    message_id = await desk.publish({"Upstash-Delay": "1h"})
    await desk.call("DELETE", f"/v2/messages/{message_id}")
    return message_id


async def cancelled_meanwhile(desk: Desk) -> str:
    message_id = await desk.publish()
    send = desk.sender.send

    async def cancelling(request: Any) -> Answer:
        desk.clock.ms += 5
        await desk.call("DELETE", f"/v2/messages/{message_id}")
        desk.clock.ms += 5
        return _FAILED

    desk.sender.send = cancelling  # type: ignore[method-assign, assignment]
    await desk.deliver()
    desk.sender.send = send  # type: ignore[method-assign]
    return message_id


LIVES = {
    delivered: ["CREATED", "ACTIVE", "DELIVERED"],
    retried: ["CREATED", "ACTIVE", "ERROR", "RETRY", "ACTIVE", "ERROR", "FAILED"],
    cancelled_before: ["CREATED", "CANCEL_REQUESTED", "CANCELED"],
    cancelled_meanwhile: ["CREATED", "ACTIVE", "CANCEL_REQUESTED", "ERROR", "CANCELED"],
}


@pytest.mark.parametrize("life", LIVES)
def test_each_transition_is_an_event(tmp_path: Path, life: Any) -> None:
    async def test(desk: Desk) -> None:
        message_id = await life(desk)
        by_id = await listed(desk, messageId=message_id)
        assert states(by_id) == LIVES[life][::-1]
        assert "CREATED" in states(await listed(desk)), "before anything is flushed"
        await desk.service.log.flush()
        live = await listed(desk)
        assert keys(live) == keys(by_id)
        assert states(await listed(desk, order="earliestFirst")) == LIVES[life]
        assert (await page(desk, "logs"))["logs"] == live
        await look(desk)
        assert keys(await listed(desk)) == keys(by_id), "after the look"
        assert await listed(desk, token=TWO.token) == []

    with_desk(tmp_path, test)


def test_an_attempt_under_way_is_active(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()

        async def reading(request: Any) -> Answer:
            assert states(await listed(desk, messageId=message_id)) == ["ACTIVE", "CREATED"]
            await desk.call("DELETE", f"/v2/messages/{message_id}")
            assert states(await listed(desk, messageId=message_id)) == ["CANCEL_REQUESTED", "ACTIVE", "CREATED"]
            return Answer(200, (), b"")

        desk.sender.send = reading  # type: ignore[method-assign, assignment]
        await desk.deliver()
        assert states(await listed(desk, messageId=message_id)) == [
            "DELIVERED",
            "CANCEL_REQUESTED",
            "ACTIVE",
            "CREATED",
        ]

    with_desk(tmp_path, test)


def test_six_crashes_are_an_error_and_a_failure(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()

        async def dying(request: Any) -> Answer:
            raise RuntimeError

        desk.sender.send = dying  # type: ignore[method-assign, assignment]
        for _ in range(7):
            message = await desk.service.deliverer.find(f"one#{message_id}")
            assert message
            try:
                await desk.service.deliverer.deliver(message)
            except RuntimeError:
                desk.clock.ms += 10 * MINUTE
        await desk.service.log.flush()
        found = await listed(desk)
        assert states(found) == ["FAILED", "ERROR", *["ACTIVE"] * 6, "CREATED"]
        assert found[1]["error"] == "delivery did not return"

    with_desk(tmp_path, test)


# Shapes --------------------------------------------------------------------------------------------------------------


def test_an_event_tells_of_its_message_and_its_attempt(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        desk.sender.answers = [_FAILED]
        message_id = await desk.publish(
            {
                "Upstash-Label": "a,b",
                "Upstash-Callback": "https://example.com/cb",
                "Upstash-Callback-Forward-X-C": "3",
                "Upstash-Failure-Callback": "https://example.com/fcb",
                "Upstash-Retry-Delay": "1000",
                "Upstash-Forward-X-Order": "7",
            },
            b"\xff\x00",
        )
        created_ms = desk.clock.ms
        await desk.deliver()
        await desk.service.log.flush()
        for found in (await listed(desk, label="a"), await listed(desk, messageId=message_id)):
            retry, error, _, created = found
            assert created == {
                "time": created_ms,
                "messageId": message_id,
                "state": "CREATED",
                "url": "https://example.com/in",
                "method": "POST",
                "maxRetries": 3,
                "notBefore": created_ms,
                "createdAt": created_ms,
                "header": {"X-Order": ["7"]},
                "body": base64.b64encode(b"\xff\x00").decode(),
                "callerIP": "192.0.2.7",
                "callerIp": "192.0.2.7",
                "timeout": 60_000,
                "label": "a",
                "labels": ["a", "b"],
                "retryDelayExpression": "1000",
                "retryDelayExpr": "1000",
                "callback": "https://example.com/cb",
                "callbackHeaders": {"X-C": ["3"]},
                "failureCallback": "https://example.com/fcb",
                "failureCallbackHeaders": {},
            }
            assert retry["nextDeliveryTime"] == retry["time"] + 1000
            headers = {"X-A": ["1", "2"]}
            assert (error["responseStatus"], error["responseBody"]) == (503, "not now")
            assert error["responseHeader"] == error["responseHeaders"] == headers
            assert "responseStatus" not in retry
            assert "responseStatus" not in created

    with_desk(tmp_path, test)


def test_a_body_that_is_a_blob_is_left_out(tmp_path: Path) -> None:
    import random

    async def test(desk: Desk) -> None:
        await desk.publish(body=random.Random(1).randbytes(20_000))
        [created] = await listed(desk)
        assert "body" not in created
        assert "bodyBase64" not in created

    with_desk(tmp_path, test)


def test_what_is_redacted_is_shown_as_its_hash(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(
            {"Upstash-Redact-Fields": "body,header[X-Key]", "Upstash-Forward-X-Key": "s3cret"}, b"s3cret"
        )
        desk.sender.answers = [Answer(500, (("x-key", "s3cret"), ("all", "x-key: s3cret")), b"s3cret")]
        await desk.deliver()
        await desk.service.log.flush()
        for query in ({}, {"messageId": message_id}):
            answer = await page(desk, **query)
            assert "s3cret" not in json.dumps(answer)
            assert base64.b64encode(b"s3cret").decode() not in json.dumps(answer)
            for event in answer["events"]:
                assert event["body"].startswith("REDACTED:")
                assert event["header"]["X-Key"][0].startswith("REDACTED:")
        stored = await desk.table.query(_partition(desk))
        assert stored.items
        assert not any(b"s3cret" in bytes(item["log"]) for item in stored.items)

    with_desk(tmp_path, test)


def test_by_id_events_are_kept_for_the_logs_own_retention(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()
        await desk.deliver()
        desk.clock.ms += 50 * DAY
        assert (await desk.call("GET", f"/v2/messages/{message_id}")).status == 404
        assert states(await listed(desk, messageId=message_id)) == ["DELIVERED", "ACTIVE", "CREATED"]
        desk.clock.ms += 10 * DAY
        assert await listed(desk, messageId=message_id) == []

    with_desk(tmp_path, test, policy=Policy(retention_ms=DAY, dlq_retention_ms=DAY, log_retention_ms=60 * DAY))


@pytest.mark.parametrize(
    ("raw", "filters"),
    [
        ("https://example.com/%C3%A9%20b?x=1&y=a", {"url": "https://example.com/\u00e9 b?x=1&y=a"}),
        ("https://example.com/%C3%A9", {"path": "/\u00e9"}),
        ("HTTPS://example.com/up", {"url": "HTTPS://example.com/up"}),
        ("https://example.com?q=1", {"path": "/"}),
        ("https://example.com/late", {"toDate": str(2**63 - 1)}),
    ],
)
def test_filters_are_understood_as_a_destination_is(tmp_path: Path, raw: str, filters: dict[str, str]) -> None:
    async def test(desk: Desk) -> None:
        target, _, query = raw.partition("?")
        assert (await desk.call("POST", f"/v2/publish/{target}", query=query)).status == 201
        assert states(await listed(desk, **filters)) == ["CREATED"]

    with_desk(tmp_path, test)


def test_of_an_earlier_attempt_nothing_is_made_up(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        desk.sender.answers = [Answer(500, (), b"first"), Answer(500, (), b"second")]
        message_id = await desk.publish({"Upstash-Retries": "1"})
        await desk.deliver()
        await desk.deliver()
        second, first = [one for one in await listed(desk, messageId=message_id) if one["state"] == "ERROR"]
        assert (second["responseStatus"], second["responseBody"]) == (500, "second")
        assert first["responseStatus"] == 500
        assert not {"responseBody", "responseHeaders"} & first.keys()

    with_desk(tmp_path, test)


def _partition(desk: Desk) -> str:
    from waypost.core.event import log_partition

    return log_partition("one", desk.clock.ms // DAY)


def test_a_message_that_is_gone_leaves_its_events(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Label": "kept"})
        await desk.deliver()
        await look(desk)
        await desk.service.log.flush()
        message = await desk.service.deliverer.find(f"one#{message_id}")
        assert message
        await desk.table.write(Delete(message.key))
        found = await listed(desk, label="kept")
        assert states(found) == ["DELIVERED", "ACTIVE", "CREATED"]
        assert {(one["url"], one["callerIP"]) for one in found} == {("https://example.com/in", "192.0.2.7")}
        assert "body" not in found[0]

    with_desk(tmp_path, test)


# Filters -------------------------------------------------------------------------------------------------------------

URLS = ("https://example.com/in", "https://example.com/out?x=1", "http://other.example:8080/in")
LABELS = ("a", "b", "a,b", "")


async def some_history(desk: Desk, spread_ms: int = 20 * SECOND, messages: int = 14) -> list[str]:
    """Messages of many kinds, created over minutes, some delivered, some failing, one cancelled."""
    made = []
    for number in range(messages):
        headers = {"Upstash-Retries": "1", "Upstash-Retry-Delay": "500"}
        if label := LABELS[number % len(LABELS)]:
            headers["Upstash-Label"] = label
        path = f"/v2/publish/{URLS[number % len(URLS)]}"
        path, _, query = path.partition("?")
        reply = await desk.call("POST", path, headers, b"x", query=query)
        assert reply.status == 201, reply
        made.append(str(reply.content["messageId"]))
        if number % 3 == 1:
            desk.sender.answers = [_FAILED, _FAILED][: 1 + number % 2]
        if number % 5 == 4:
            await desk.call("DELETE", f"/v2/messages/{made[-1]}")
        while await desk.deliver():
            pass
        if number % 4 == 3:
            await desk.service.log.flush()
        desk.clock.ms += spread_ms if number % 2 else 0
    await desk.service.log.flush()
    return made


def fits(event: dict[str, Any], name: str, wanted: list[str]) -> bool:
    parts = urlsplit(event["url"])
    if name == "state":
        in_progress = ("ACTIVE", "RETRY", "ERROR") if "IN_PROGRESS" in wanted else ()
        return event["state"] in {*wanted, *in_progress} or (event["state"] == "CANCELED" and "CANCELLED" in wanted)
    if name == "label":
        return any(label in wanted for label in event.get("labels", ()))
    if name == "host":
        return parts.hostname in wanted or parts.netloc in wanted
    if name == "path":
        return parts.path in wanted
    return event.get({"callerIp": "callerIP"}.get(name, name)) in wanted


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A desk with a history, half of it seen by the look."""
    desk = Desk(tmp_path_factory.mktemp("past"))
    runner = asyncio.Runner()

    async def begin() -> list[str]:
        await desk.open()
        made = await some_history(desk)
        await look(desk, MINUTE)
        made += await some_history(desk, messages=6)
        return made

    made = runner.run(begin())
    yield desk, runner, made
    runner.close()
    desk.store.close()


def some(*values: str) -> Any:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "state": some(
            *("CREATED", "ACTIVE", "RETRY", "ERROR", "DELIVERED", "FAILED"),
            *("CANCEL_REQUESTED", "CANCELED", "CANCELLED", "IN_PROGRESS"),
        ),
        "url": some(*URLS, "https://nowhere.example/"),
        "host": some("example.com", "other.example", "other.example:8080"),
        "path": some("/in", "/out", "/"),
        "label": some("a", "b", "c"),
        "callerIp": some("192.0.2.7", "192.0.2.8"),
        "queueName": some("q"),
    },
)


@settings(deadline=None)
@given(FILTERS, st.data())
def test_any_filters_give_what_is_left_of_the_full_list(past: Any, filters: dict[str, list[str]], data: Any) -> None:
    desk, runner, made = past

    async def test() -> None:
        everything = await listed(desk)
        query: dict[str, Any] = dict(filters)
        times = [event["time"] for event in everything]
        low, high = min(times), max(times)
        if data.draw(st.booleans()):
            query["fromDate"] = low = data.draw(st.sampled_from(times))
        if data.draw(st.booleans()):
            query["toDate"] = high = data.draw(st.sampled_from(times))
        name = data.draw(st.sampled_from(["", "messageId", "messageIds"]))
        ids = set(data.draw(st.lists(st.sampled_from(made), min_size=1, max_size=3))) if name else set(made)
        if name:
            query[name] = sorted(ids)
        expected = [
            event
            for event in everything
            if all(fits(event, name, wanted) for name, wanted in filters.items())
            and low <= event["time"] <= high
            and event["messageId"] in ids
        ]
        assert keys(await listed(desk, **query)) == keys(expected)
        order = {"order": "earliestFirst", "count": data.draw(st.integers(1, 7))}
        assert keys(await listed(desk, **query, **order)) == keys(expected)[::-1]

    runner.run(test())


def test_the_full_list_is_what_all_messages_tell(past: Any) -> None:
    desk, runner, made = past

    async def test() -> None:
        everything = await listed(desk)
        apart = [event for message_id in made for event in await listed(desk, messageId=message_id)]
        assert sorted(keys(everything)) == sorted(keys(apart))
        assert [event["time"] for event in everything] == sorted((event["time"] for event in apart), reverse=True)

    runner.run(test())


def test_a_filter_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for query, *said in (
            ("lable=x", "lable", "label"),
            ("groupBy=url", "groupBy"),
            ("state=LOST", "LOST", "IN_PROGRESS"),
            ("count=0", "count"),
            ("count=many", "count"),
            ("count=1&count=2", "count", "twice"),
            ("fromDate=yesterday", "fromDate"),
            ("order=random", "order", "earliestFirst"),
            ("label=", "label"),
            ("&".join(f"messageIds={n}" for n in range(101)), "101"),
        ):
            error = await refused(desk, query)
            assert all(word in error for word in said), error
        for query in ("qstash_token=x&upstash-anything=1", "callerIP=192.0.2.7", "count=5000", "cursor="):
            assert (await desk.call("GET", "/v2/events", query=query)).status == 200
        assert await listed(desk, messageId="msg_nothing") == []

    with_desk(tmp_path, test)


# Pages ---------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
    st.booleans(),
    st.lists(st.sampled_from([0, 0, MINUTE, 4 * MINUTE]), min_size=1, max_size=10),
    st.sampled_from([0, 3 * SECOND, 25 * SECOND]),
    st.sampled_from([1, 30, 20_000]),
)
def test_pages_give_every_event_once_while_the_look_goes_on(
    counts: list[int], earliest_first: bool, pauses: list[int], spread_ms: int, share: int
) -> None:
    async def test(desk: Desk) -> None:
        await some_history(desk, spread_ms)
        everything = keys(await listed(desk))
        query: dict[str, Any] = {"order": "earliestFirst"} if earliest_first else {}
        found: list[tuple[int, str, str]] = []
        number = 0
        while True:
            answer = await page(desk, **query, count=counts[number % len(counts)])
            assert len(answer["events"]) <= counts[number % len(counts)]
            found += keys(answer["events"])
            if "cursor" not in answer:
                break
            assert answer["cursor"].isdecimal()
            query["cursor"] = answer["cursor"]
            # Time goes by, but not for ever: pages this small would not overtake it.
            if number < 50:
                await look(desk, pauses[number % len(pauses)])
            number += 1
            assert number < 1_000, "it never ends"
        assert found == (everything[::-1] if earliest_first else everything)

    with tempfile.TemporaryDirectory() as folder, small_pages(share):
        with_desk(Path(folder), test)


@contextmanager
def small_pages(share: int) -> Iterator[None]:
    """Pages that read no more than so many events, and sources that give few at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "LOG_EVENTS_READ", share)
        patch.setattr(history, "_EMPTY_DAY_COST", 1)
        patch.setattr(history, "_MOST_PARTITIONS", 2)
        patch.setattr(history, "_SEGMENTS_AT_ONCE", 3)
        patch.setattr(history, "_ITEMS_AT_ONCE", 6)
        yield


@pytest.mark.parametrize("order", ["latestFirst", "earliestFirst"])
@pytest.mark.parametrize("seen", [False, True])
def test_a_page_reads_no_more_than_its_share(tmp_path: Path, order: str, seen: bool) -> None:
    async def test(desk: Desk) -> None:
        made = await some_history(desk, messages=40)
        if seen:
            await look(desk)
        everything = await listed(desk, messageIds=made, order=order)
        pages = []
        query: dict[str, Any] = {"order": order}
        while True:
            pages.append(await page(desk, **query))
            if "cursor" not in pages[-1]:
                break
            query["cursor"] = pages[-1]["cursor"]
        assert len(pages) > 3
        assert [key for one in pages for key in keys(one["events"])] == keys(everything)
        # Empty pages lead on as well.
        assert "cursor" in await page(desk, label="none")
        assert await listed(desk, label="none") == []

    with small_pages(40):
        with_desk(tmp_path, test)


def test_an_answer_ends_before_it_is_too_large(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        made = [await desk.publish({"Upstash-Forward-X-Long": "x" * 60_000}) for _ in range(80)]
        answer = await page(desk)
        assert 0 < len(json.dumps(answer)) < 4_300_000
        assert len(answer["events"]) < 80
        assert sorted(event["messageId"] for event in await listed(desk)) == sorted(made)

    with_desk(tmp_path, test)


@given(st.integers(0, 10**14), st.integers(0, 9))
def test_a_cursor_is_digits_and_leads_back(time_ms: int, rank: int) -> None:
    position = Position(time_ms, rank, "msg_0z9A" + "Zz" * 11)
    assert position.to_cursor().isdecimal()
    assert Position.from_cursor(position.to_cursor()) == position
    assert Position.from_cursor(after_all(time_ms).to_cursor()) == after_all(time_ms)


@pytest.mark.parametrize("cursor", ["x", "-1", "0" * 16, "9" * 100, "1.5e3", "٣" * 40, "0" * 16 + "9" * 48])
def test_a_cursor_that_was_never_given_out_is_refused(tmp_path: Path, cursor: str) -> None:
    async def test(desk: Desk) -> None:
        assert "cursor" in await refused(desk, urlencode({"cursor": cursor}))

    with_desk(tmp_path, test)


def test_a_time_is_a_cursor_too(past: Any) -> None:
    """The JavaScript SDK's example begins with `Date.now()`."""
    desk, runner, _ = past

    async def test() -> None:
        everything = keys(await listed(desk))
        assert keys(await listed(desk, cursor=desk.clock.ms)) == everything
        time_ms = everything[len(everything) // 2][0]
        assert keys(await listed(desk, cursor=time_ms)) == [one for one in everything if one[0] <= time_ms]

    runner.run(test())


# Time and faults -----------------------------------------------------------------------------------------------------


def test_events_are_kept_for_the_retention(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()
        await desk.deliver()
        await look(desk)
        await desk.service.log.flush()
        created_ms = (await desk.seen(message_id))["createdAt"]
        desk.clock.ms = created_ms + DAY - 1
        for query in ({}, {"messageId": message_id}):
            assert len(await listed(desk, **query)) == 3
        desk.clock.ms += 1
        for query in ({}, {"messageId": message_id}):
            assert await listed(desk, **query) == []
        while await desk.table.expire(desk.clock.ms // 1000 + 2):
            pass
        assert (await desk.table.query(_partition(desk))).items == []

    with_desk(tmp_path, test, policy=Policy(log_retention_ms=DAY))


class Failing:
    """The desk's table, but for writes of logs while `failure` is set."""

    def __init__(self, desk: Desk) -> None:
        self._write = desk.table.write
        self.failure: Exception | None = None
        self.lost = False
        desk.table.write = self.write  # type: ignore[method-assign]

    async def write(self, one: Put | Change | Delete, *, relaxed: bool = False) -> Any:
        if self.failure and "#log#" in Key(*one.key).pk:
            if self.lost:
                await self._write(one)
            raise self.failure
        return await self._write(one, relaxed=relaxed)


@pytest.mark.parametrize("failure", [Busy(), Unavailable("disk full")])
@pytest.mark.parametrize("lost", [False, True])
def test_what_could_not_be_flushed_is_flushed_later(tmp_path: Path, failure: Exception, lost: bool) -> None:
    async def test(desk: Desk) -> None:
        table = Failing(desk)
        table.failure, table.lost = failure, lost
        message_id = await desk.publish()
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == "DELIVERED"
        assert await desk.service.log.flush()
        await delivered(desk)
        assert await desk.service.log.flush()
        table.failure = None
        assert await desk.service.log.flush() == ""
        assert sorted(states(await listed(desk))) == sorted(["CREATED", "ACTIVE", "DELIVERED"] * 2)
        assert await desk.service.log.flush() == ""

    with_desk(tmp_path, test)


def test_what_waits_is_bounded_while_nothing_can_be_written(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        table = Failing(desk)
        message_id = await desk.publish()
        message = await desk.service.deliverer.find(f"one#{message_id}")
        assert message
        table.failure = Busy()
        for number in range(45_000):
            desk.service.log.active(message, desk.clock.ms + number)
            if number % 900 == 0:
                await desk.service.log.flush()
        table.failure = None
        await desk.service.log.flush()
        found = await listed(desk, state="ACTIVE")
        assert found[0]["time"] == desk.clock.ms + 44_999
        assert 20_000 <= len(found) <= 22_000

    with_desk(tmp_path, test)


def test_a_publisher_whom_the_look_may_have_missed_tells_himself(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        put = desk.table.write

        async def slow(one: Any, **how: Any) -> Any:
            if isinstance(one, Put) and "url" in one.item:
                await look(desk, 10 * MINUTE)
            return await put(one, **how)

        desk.table.write = slow  # type: ignore[method-assign]
        reply = await desk.call("POST", PUBLISH)
        assert reply.status == 201
        await desk.service.log.flush()
        assert states(await listed(desk)) == ["CREATED"]

    with_desk(tmp_path, test)
