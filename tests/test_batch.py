"""Batches over the real core with a clock that tests move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import NOW_MS, PUBLISH, Desk, with_desk
from waypost.call import Call, Limit, Reply
from waypost.core.errors import TooMuch
from waypost.core.message import VERSION
from waypost.core.policy import MINUTE, Policy
from waypost.core.ports import Put, Write

URL = "https://example.com/in"
A, B = "https://a.example.com/in", "https://b.example.com/in"


async def batch(desk: Desk, *items: Any, **headers: str) -> Reply:
    return await desk.call("POST", "/v2/batch", headers, json.dumps(items, ensure_ascii=False).encode())


async def make_group(desk: Desk, *urls: str) -> None:
    body = json.dumps({"endpoints": [{"url": url} for url in urls]}).encode()
    assert (await desk.call("POST", "/v2/topics/g/endpoints", body=body)).status == 200


def of_url(*urls: str) -> Any:
    """Whether a write is that of a message to one of them."""

    def busy(one: Write) -> bool:
        return isinstance(one, Put) and one.item.get("url") in urls

    return busy


def test_items_are_answered_in_their_order_a_group_with_an_array_of_its_own(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await make_group(desk, A, B)
        reply = await batch(
            desk,
            {
                "destination": f"{URL}?b&upstash-delay=2m&a=%20#part?x",
                "headers": {"UPSTASH-retries": "1"},
                "body": "one",
            },
            {"destination": "g", "headers": {"Upstash-Forward-X": ["1", "2"]}, "body": "two", "queue": None},
            {"destination": URL, "headers": None, "body": None, "unknown": {"any": "thing"}},
            **{"Upstash-Retries": "9", "Upstash-Deduplication-Id": "d", "Content-Type": "application/json"},
        )
        assert reply.status == 201
        first, (second, third), fourth = reply.content
        assert list(first) == list(fourth) == ["messageId"]
        assert [one["url"] for one in (second, third)] == [A, B]
        seen = [await desk.seen(one["messageId"]) for one in (first, second, third, fourth)]
        assert [one["url"] for one in seen] == [f"{URL}?b&a=%20", A, B, URL]
        assert [one["body"] for one in seen] == ["one", "two", "two", ""]
        assert [one["maxRetries"] for one in seen] == [1, 3, 3, 3]
        assert [one["header"] for one in seen] == [{}, {"X": ["1, 2"]}, {"X": ["1, 2"]}, {}]
        assert [one["notBefore"] for one in seen] == [NOW_MS + 2 * MINUTE, NOW_MS, NOW_MS, NOW_MS]
        assert [one.get("topicName") for one in seen] == [None, "g", "g", None]
        assert await desk.deliver() == 4
        assert [one["state"] for one in [await desk.seen(one["messageId"]) for one in (first, second, third)]] == [
            "DELIVERED"
        ] * 3
        assert (await batch(desk)).content == []

    with_desk(tmp_path, test)


def test_values_in_json_are_text_whose_bytes_are_sent(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        headers = {
            "Upstash-Forward-City": "Zürich",
            "Content-Type": "text/ü",
            "Upstash-Label": "ä",
            "Upstash-Callback": "https://example.com/ü",
            "Upstash-Callback-City": "Zürich",
        }
        [accepted] = (
            await batch(desk, {"destination": "https://example.com/ü", "headers": headers, "body": "ü"})
        ).content
        seen = await desk.seen(accepted["messageId"])
        assert (seen["label"], seen["callback"], seen["url"]) == ("ä", *["https://example.com/%C3%BC"] * 2)
        await desk.deliver()
        await desk.deliver()
        message, callback = desk.sender.sent
        sent = {name: value.encode("latin-1").decode() for name, value in message.headers}
        assert (sent["City"], sent["Content-Type"], message.body.decode()) == ("Zürich", "text/ü", "ü")
        assert dict(callback.headers)["City"].encode("latin-1").decode() == "Zürich"

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"destination": ""}, ["[1].destination", "invalid destination url"]),
        ({"destination": "ftp://example.com"}, ["[1].destination", "add http:// or https://"]),
        ({"destination": "api/llm"}, ["[1].destination", "WAYPOST_LLM_URL"]),
        ({"destination": "http://127.0.0.1/"}, ["[1].destination", "loopback"]),
        ({"destination": "none"}, ["[1].destination", 'no URL group "none"', "POST /v2/topics/none/endpoints"]),
        ({"destination": 7}, ["[1].destination"]),
        ({"body": "x"}, ["[1]", "destination"]),
        ("x", ["[1]", "JSON array"]),
        ({"destination": URL, "body": {"n": 1}}, ["[1].body"]),
        ({"destination": URL, "headers": []}, ["[1].headers"]),
        ({"destination": URL, "headers": {"Upstash-Retries": 3}}, ["[1].headers"]),
        (
            {"destination": URL, "headers": {"Upstash-Delay": "400d"}},
            ["[1].headers: quota maxDelay exceeded, current limit: 31536000"],
        ),
        (
            {"destination": URL, "headers": {"Upstash-Deduplication-Id": "a:b"}},
            ["[1].headers: DeduplicationId cannot contain ':'"],
        ),
        ({"destination": "g", "headers": {"Upstash-Retries": "x"}}, ["[1].headers: Upstash-Retries", '"x"']),
        ({"destination": URL, "headers": {"Upstash-Forward-A": "b\nc: d"}}, ["[1].headers: Upstash-Forward-A"]),
        ({"destination": URL, "headers": {"Upstash-Forward-A\nb": "c"}}, ['[1].headers: "Upstash-Forward-A?b"']),
        ({"destination": URL, "headers": {"": "c"}}, ['[1].headers: "" is no header name']),
        ({"destination": URL, "headers": {"Upstash-Retries ": "0"}}, ['"Upstash-Retries " is no header name']),
        ({"destination": URL, "queue": "a b"}, ["[1].queue", '"a b"']),
        (
            {"destination": URL, "queue": "q", "headers": {"Upstash-Flow-Control-Key": "k"}},
            ["[1].headers: Upstash-Flow-Control-Key", 'queue "q"'],
        ),
        ({"destination": URL, "queue": ""}, ["[1].queue"]),
    ],
)
def test_one_bad_item_refuses_all_and_is_named(tmp_path: Path, bad: Any, words: list[str]) -> None:
    async def test(desk: Desk) -> None:
        await make_group(desk, A)
        reply = await batch(desk, {"destination": URL}, bad, {"destination": "g"})
        assert reply.status == 400
        for word in words:
            assert word in reply.content["error"]
        assert desk.rung.bells == []

    with_desk(tmp_path, test)


@pytest.mark.parametrize("body", [b"", b"{}", b"[{", b"\xff", b'{"destination": "https://example.com"}', b"null"])
def test_what_is_no_array_is_told_what_is_expected(tmp_path: Path, body: bytes) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", "/v2/batch", body=body)
        assert reply.status == 400
        assert 'JSON array of messages like [{"destination"' in reply.content["error"]

    with_desk(tmp_path, test)


def test_a_request_has_a_thousand_messages_when_its_groups_are_expanded(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await make_group(desk, *(f"{URL}/{n}" for n in range(500)))
        for items in (
            [{"destination": "g"}, {"destination": "g"}, {"destination": URL}],
            [{"destination": URL}] * 1_001,
        ):
            reply = await batch(desk, *items)
            assert reply.status == 400
            assert "the limit is 1000" in reply.content["error"]
        assert desk.rung.bells == []
        reply = await batch(desk, {"destination": "g"}, {"destination": "g"})
        assert [len(one) for one in reply.content] == [500, 500]
        assert len({ref for ref, _, _ in desk.rung.bells}) == 1_000

    with_desk(tmp_path, test)


def test_bodies_have_limits_each_and_together(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert (await batch(desk, *[{"destination": URL, "body": "é" * 5}] * 2)).status == 201
        reply = await batch(desk, {"destination": URL}, {"destination": URL, "body": "é" * 5 + "x"})
        assert reply.status == 413
        assert "[1].body: quota maxMessageSize exceeded, current limit: 10 " in reply.content["error"]
        assert "WAYPOST_MAX_BODY" in reply.content["error"]
        reply = await batch(desk, *[{"destination": URL, "body": "é" * 5}] * 3)
        assert reply.status == 413
        assert "current limit: 25 " in reply.content["error"]
        assert "WAYPOST_MAX_BATCH" in reply.content["error"]

    with_desk(tmp_path, test, policy=Policy(max_body=10, max_batch=25))


def test_of_items_under_one_deduplication_id_the_first_is_the_message(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        named = {"Upstash-Deduplication-Id": "d"}
        items = [{"destination": URL, "headers": named, "body": body} for body in ("first", "second")]
        reply = await batch(desk, *items, {"destination": URL}, items[0])
        first, second, other, third = reply.content
        assert (reply.status, list(first), list(other)) == (201, ["messageId"], ["messageId"])
        assert second == third == {**first, "deduplicated": True}
        assert (await desk.seen(first["messageId"]))["body"] == "first"
        assert await desk.deliver() == 2
        assert await desk.call("POST", PUBLISH, named) == Reply(202, second)
        again = await batch(desk, *items)
        assert (again.status, again.content) == (202, [second, second])
        assert await desk.deliver() == 0

    with_desk(tmp_path, test)


def test_a_first_publisher_that_died_is_completed_by_a_batch(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        desk.table.busy = of_url(URL)
        items = [
            {"destination": URL, "headers": {"Upstash-Deduplication-Id": str(n)}, "body": str(n)} for n in range(20)
        ]
        assert (await batch(desk, *items)).status == 503
        desk.table.busy = of_url()
        reply = await batch(desk, *items)
        assert reply.status == 202
        assert await desk.deliver() == 20
        assert sorted(one.body for one in desk.sender.sent) == sorted(str(n).encode() for n in range(20))

    with_desk(tmp_path, test)


def test_a_large_body_that_several_messages_have_is_stored_once(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await make_group(desk, *(f"{URL}/{n}" for n in range(20)))
        body = bytes(range(256)).decode("latin-1") * 100
        items = [{"destination": "g", "body": body}, {"destination": URL, "body": body}]
        assert (await batch(desk, *items, {"destination": URL, "body": body + "x"})).status == 201
        assert len([one for one in (tmp_path / "blobs").rglob("*") if one.is_file()]) == 2
        await desk.deliver()
        assert [one.body.decode() for one in desk.sender.sent].count(body) == 21

    with_desk(tmp_path, test, policy=Policy(compress_from=10**9))


def test_what_the_store_refuses_is_said_in_its_place(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await make_group(desk, A, B)
        desk.table.busy = of_url(B)
        deduplicated = {"destination": B, "headers": {"Upstash-Deduplication-Id": "d"}}
        plain, of_b = {"destination": URL}, {"destination": B}
        reply = await batch(desk, plain, of_b, {"destination": "g"}, deduplicated, deduplicated)
        assert reply.status == 201
        first, second, (third, fourth), *last = reply.content
        assert (list(first), list(third)) == (["messageId"], ["messageId", "url"])
        for failed in (second, fourth, *last):
            assert "the message store failed, try again: simulated" in failed["error"]
        await desk.deliver()
        assert [one.url for one in desk.sender.sent] == [URL, A]
        assert (await batch(desk, of_b, deduplicated)).status == 503

    with_desk(tmp_path, test)


def test_nothing_more_is_tried_when_it_has_taken_long(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        tried = []

        def busy(one: Write) -> bool:
            if isinstance(one, Put) and one.item.get("url") == URL:
                tried.append(one)
                desk.clock.ms += 1_000
                return True
            return False

        desk.table.busy = busy
        reply = await batch(desk, *[{"destination": URL}] * 10)
        assert reply.status == 503
        assert {one["error"] for one in reply.content} == {"the message store failed, try again: simulated"}
        tried.clear()
        reply = await batch(desk, *[{"destination": URL}] * 40)
        assert reply.status == 503
        # All were written at once, in vain, and that took long.
        assert len(tried) == 40
        assert "takes too long" in reply.content[0]["error"]

    with_desk(tmp_path, test)


def test_what_the_look_may_have_missed_is_reminded_of_and_logged(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        refuses_reminders = False

        def slow(one: Write) -> bool:
            if isinstance(one, Put) and one.item.get("url") == URL:
                desk.clock.ms += 20_000
            return refuses_reminders and isinstance(one, Put) and "ref" in one.item

        desk.table.busy = slow
        reply = await batch(desk, *[{"destination": URL}] * 3)
        assert reply.status == 201
        refs = {f"one#{one['messageId']}" for one in reply.content}
        page = await desk.table.query("due#0")
        assert {item["ref"] for item in page.items} == refs
        assert {item["v"] for item in page.items} == {VERSION}
        await desk.service.log.flush()
        events = (await desk.call("GET", "/v2/events", query="state=CREATED")).content["events"]
        assert len(events) == 3
        refuses_reminders = True
        desk.rung.bells.clear()
        # Stored, but nobody may rely on it: no look would find it again.
        reply = await batch(desk, *[{"destination": URL}] * 2, {"destination": A})
        assert reply.status == 503
        assert desk.rung.bells == []

    with_desk(tmp_path, test)


def test_json_that_is_nested_too_deeply_is_a_400(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        deep = b'[{"destination": "https://example.com", "zz": %s%s}]' % (b"[" * 100_000, b"]" * 100_000)
        reply = await desk.call("POST", "/v2/batch", body=deep)
        assert (reply.status, "nested too deeply" in reply.content["error"]) == (400, True)

    with_desk(tmp_path, test)


def test_json_beyond_its_own_limit_says_which_that_is(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        async def read(limit: Limit | None = None) -> bytes:
            assert limit
            raise TooMuch(limit.refusal)

        call = Call("POST", "/v2/batch", "", [("authorization", "Bearer token-one")], read, "192.0.2.7")
        reply = await desk.service.api.answer(call)
        assert reply.status == 413
        assert str(2 * Policy().max_batch + 1_000_000) in reply.content["error"]
        assert "WAYPOST_MAX_BATCH" in reply.content["error"]

    with_desk(tmp_path, test)
