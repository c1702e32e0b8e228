"""URL groups, and publishing to them, over the real core with a clock that tests move."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from support import NOW_MS, TWO, Desk, with_desk
from waypost.call import Reply
from waypost.core.groups import Endpoint, upserted
from waypost.core.policy import MINUTE
from waypost.core.ports import Answer, Put, Write

A, B, C = "https://a.example.com/in", "https://b.example.com/in?x=1", "https://c.example.com/in"


async def upsert(desk: Desk, *endpoints: dict[str, Any], name: str = "g", **how: Any) -> Reply:
    return await desk.call("POST", f"/v2/topics/{name}/endpoints", body=as_json(endpoints=endpoints), **how)


async def remove(desk: Desk, *endpoints: dict[str, Any], name: str = "g") -> Reply:
    return await desk.call("DELETE", f"/v2/topics/{name}/endpoints", body=as_json(endpoints=endpoints))


async def patch(desk: Desk, headers: Any) -> Reply:
    return await desk.call("PATCH", "/v2/topics/g", body=as_json(headers=headers))


async def group(desk: Desk, name: str = "g") -> Any:
    return (await desk.call("GET", f"/v2/topics/{name}")).content


async def to_group(desk: Desk, headers: dict[str, str] | None = None, body: bytes = b"x", query: str = "") -> Reply:
    return await desk.call("POST", "/v2/publish/g", headers, body, query=query)


def as_json(**content: Any) -> bytes:
    return json.dumps(content).encode()


def test_a_group_is_made_read_changed_and_deleted(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.call("GET", "/v2/topics")).content == []
        assert (await upsert(desk, {"url": A, "name": "first"}, {"url": B, "name": None})).status == 200
        made = {
            "name": "g",
            "createdAt": NOW_MS,
            "updatedAt": NOW_MS,
            "endpoints": [{"url": A, "name": "first"}, {"url": B}],
        }
        assert await group(desk) == made
        desk.clock.ms += 5_000
        await upsert(desk, {"url": A}, {"url": B})
        assert await group(desk) == made, "nothing changed"
        await upsert(desk, {"url": C, "name": "first"}, {"url": B, "name": "second"})
        assert await group(desk) == {
            **made,
            "updatedAt": NOW_MS + 5_000,
            "endpoints": [{"url": C, "name": "first"}, {"url": B, "name": "second"}],
        }
        await upsert(desk, {"url": A}, name="f.2-_")
        listed = json.loads((await desk.call("GET", "/v2/topics")).body())
        assert [one["name"] for one in listed] == ["f.2-_", "g"]
        assert (await remove(desk, {"name": "first"}, {"url": "https://none.example.com"})).status == 200
        assert [one["url"] for one in (await group(desk))["endpoints"]] == [B]
        assert (await remove(desk, {"url": B})).status == 200
        assert (await desk.call("GET", "/v2/topics/g")).status == 404
        assert [(await desk.call("DELETE", "/v2/topics/f.2-_")).status for _ in range(2)] == [200, 200]
        assert (await desk.call("GET", "/v2/topics")).content == []

    with_desk(tmp_path, test)


def test_what_is_upserted_takes_the_place_of_its_name_then_of_its_url() -> None:
    standing = [Endpoint("u1", "a"), Endpoint("u2", "b"), Endpoint("u3")]
    assert upserted(standing, [Endpoint("u9", "b")]) == (standing[0], Endpoint("u9", "b"), standing[2])
    assert upserted(standing, [Endpoint("u2", "c")]) == (standing[0], Endpoint("u2", "c"), standing[2])
    assert upserted(standing, [Endpoint("u2")]) == tuple(standing)
    # It has the name of one and the URL of another: one is left of the two.
    assert upserted(standing, [Endpoint("u3", "a")]) == (Endpoint("u3", "a"), standing[1])
    assert upserted(standing, [Endpoint("u4", "b"), Endpoint("u2")]) == (
        standing[0],
        Endpoint("u4", "b"),
        standing[2],
        Endpoint("u2"),
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", ["JSON like"]),
        (b"[]", ["JSON like", "Expected"]),
        (as_json(endpoints=[]), ["endpoints is empty"]),
        (as_json(endpoints=[{"url": A}, {"name": "x"}]), ["endpoints[1].url is missing"]),
        (as_json(endpoints=[{"url": A}, {"url": "b.example.com"}]), ["endpoints[1].url", "invalid scheme"]),
        (as_json(endpoints=[{"url": "http://127.0.0.1/"}]), ["endpoints[0].url", "loopback"]),
        (as_json(endpoints=[{"url": 7}]), ["endpoints[0].url"]),
        (as_json(endpoints=[{"url": A, "name": "n" * 257}]), ["endpoints[0].name", "256"]),
        (as_json(endpoints=[{"url": f"{A}/{n}"} for n in range(1_001)]), ["1001", "limit is 1000"]),
    ],
)
def test_endpoints_that_cannot_be_used_are_named(tmp_path: Path, body: bytes, words: list[str]) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", "/v2/topics/g/endpoints", body=body)
        assert reply.status == 400
        for word in words:
            assert word in reply.content["error"]
        assert (await desk.call("GET", "/v2/topics/g")).status == 404

    with_desk(tmp_path, test)


@pytest.mark.parametrize("name", ["a%20b", "n" * 257, "g%2Fh", "caf\u00e9"])
def test_a_name_that_cannot_be_used_is_a_400(tmp_path: Path, name: str) -> None:
    async def test(desk: Desk) -> None:
        for method, path in (("POST", "/endpoints"), ("DELETE", "/endpoints"), ("GET", ""), ("DELETE", "")):
            reply = await desk.call(method, f"/v2/topics/{name}{path}", body=as_json(endpoints=[{"url": A}]))
            assert reply.status == 400
            assert "letters, digits" in reply.content["error"]
        assert "invalid scheme" in (await desk.call("POST", f"/v2/publish/{name}")).content["error"]

    with_desk(tmp_path, test)


def test_an_unknown_group_is_a_404_that_tells_how_to_make_it(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A}, token=TWO.token)
        for reply in (
            await to_group(desk),
            await desk.call("GET", "/v2/topics/g"),
            await patch(desk, {}),
            await remove(desk, {"url": A}),
        ):
            assert reply.status == 404
            assert '"g"' in reply.content["error"]
            assert "POST /v2/topics/g/endpoints" in reply.content["error"]
            assert "add http:// or https://" in reply.content["error"]
        assert (await remove(desk, {})).status == 400

    with_desk(tmp_path, test)


def test_a_group_that_is_changed_by_several_at_once_has_what_all_of_them_wrote(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        urls = [f"https://example.com/{n}" for n in range(6)]
        replies = await asyncio.gather(*(upsert(desk, {"url": url}) for url in urls))
        assert {reply.status for reply in replies} == {200}
        assert sorted(one["url"] for one in (await group(desk))["endpoints"]) == urls

    with_desk(tmp_path, test)


def test_a_group_holds_a_thousand_endpoints_and_one_too_large_is_a_413_that_speaks_of_it(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        many = [{"url": f"https://example.com/{n:04}/{'p' * 300}", "name": f"endpoint-{n}"} for n in range(1_000)]
        assert (await upsert(desk, *many)).status == 200
        assert len((await group(desk))["endpoints"]) == 1_000
        reply = await upsert(desk, *({**one, "url": one["url"] + "q" * 100} for one in many))
        assert reply.status == 413
        assert 'URL group "g"' in reply.content["error"]
        assert "400 KB" in reply.content["error"]
        assert (await group(desk))["endpoints"] == many

    with_desk(tmp_path, test)


def test_a_publish_to_a_group_is_a_message_for_each_endpoint(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A, "name": "first"}, {"url": B})
        reply = await to_group(desk, {"Upstash-Retries": "1"}, b"hello", "upstash-label=l&theirs=1")
        assert reply.status == 201
        assert [one["url"] for one in reply.content] == [A, B]
        shapes = [await desk.seen(one["messageId"]) for one in reply.content]
        assert [(one["url"], one["topicName"], one.get("endpointName")) for one in shapes] == [
            (A, "g", "first"),
            (B, "g", None),
        ]
        assert [(one["body"], one["maxRetries"], one["label"]) for one in shapes] == [("hello", 1, "l")] * 2
        assert await desk.deliver() == 2
        assert {one.url: dict(one.headers)["Upstash-Topic-Name"] for one in desk.sender.sent} == {A: "g", B: "g"}
        await desk.publish()
        await desk.deliver()
        assert "Upstash-Topic-Name" not in dict(desk.sender.sent[-1].headers)

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    "setting", [{"Upstash-Deduplication-Id": "d"}, {"Upstash-Content-Based-Deduplication": "true"}]
)
def test_each_endpoint_is_deduplicated_for_itself(tmp_path: Path, setting: dict[str, str]) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A}, {"url": B})
        first = await to_group(desk, setting)
        again = await to_group(desk, setting)
        assert (first.status, again.status) == (201, 202)
        assert again.content == [{**one, "deduplicated": True} for one in first.content]
        await upsert(desk, {"url": C})
        mixed = await to_group(desk, setting)
        assert mixed.status == 201
        assert mixed.content[:2] == again.content
        assert "deduplicated" not in mixed.content[2]
        # The same name of a plain publish, or of another group, is another name.
        plain = await desk.call("POST", f"/v2/publish/{A}", setting, b"x")
        await upsert(desk, {"url": A}, name="h")
        other = await desk.call("POST", "/v2/publish/h", setting, b"x")
        assert (plain.status, other.status) == (201, 201)

    with_desk(tmp_path, test)


def test_a_groups_headers_stand_for_every_publish_that_does_not_say_otherwise(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A})
        headers = {
            "Upstash-Header-Forward": ["true"],
            "upstash-retries": "7",
            "Upstash-Forward-City": "Zürich",
            "Upstash-Label": ["ä", "b"],
            "Upstash-Retry-Delay": "1000",
            "X-Own": "1",
        }
        assert (await patch(desk, headers)).status == 200
        assert (await group(desk))["headers"] == {
            "Upstash-Header-Forward": ["true"],
            "Upstash-Retries": ["7"],
            "Upstash-Forward-City": ["Zürich"],
            "Upstash-Label": ["ä", "b"],
            "Upstash-Retry-Delay": ["1000"],
            "X-Own": ["1"],
        }

        async def published(headers: dict[str, str], query: str = "") -> dict[str, Any]:
            [one] = (await to_group(desk, headers, query=query)).content
            return await desk.seen(one["messageId"])

        seen = await published({"X-Sent": "2", "upstash-retries": " "})
        assert (seen["maxRetries"], seen["labels"], seen["retryDelayExpression"]) == (7, ["ä", "b"], "1000")
        bytes_of_it = "Zürich".encode().decode("latin-1")
        assert seen["header"] == {"City": [bytes_of_it], "X-Own": ["1"], "X-Sent": ["2"]}
        seen = await published({"Upstash-Forward-City": "Bern", "Upstash-Backoff": "fixed"}, "upstash-retries=2")
        assert (seen["maxRetries"], seen["backoff"], seen["header"]["City"]) == (2, "fixed", ["Bern"])
        assert "retryDelayExpression" not in seen
        assert (await patch(desk, {"Upstash-Callback": C})).status == 200
        seen = await published({})
        assert (seen["maxRetries"], seen["callback"]) == (3, C)
        await patch(desk, {})
        assert "headers" not in await group(desk)

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Upstash-Retries": "many"}, ["Upstash-Retries", "many"]),
        ({"Upstash-Retries": ["1", "2"]}, ["Upstash-Retries", "given twice"]),
        ({"Upstash-Retries": 3}, ["JSON like"]),
        ({"Upstash-Callback": "c.example.com"}, ["Upstash-Callback", "invalid scheme"]),
        ({"Upstash-Callback-Retries": "1"}, ["needs Upstash-Callback"]),
        ({"Upstash-Retry-Delay": "1", "Upstash-Backoff": "fixed"}, ["leave one out"]),
        ({"Upstash-Flow-Control-Value": "rate=1"}, ["Upstash-Flow-Control-Value", "needs Upstash-Flow-Control-Key"]),
        ({"Upstash-Queue-Name": "q"}, ["Upstash-Queue-Name", "POST /v2/enqueue/"]),
        ({"Upstash-Not-Before": "1790000000"}, ["Upstash-Not-Before", "leave it out"]),
        ({"Upstash-Deduplication-Id": "d"}, ["Upstash-Deduplication-Id", "leave it out"]),
        ({"Authorization": "Bearer t"}, ["Authorization", "leave it out"]),
        ({"Upstash-Forward-X": "a\r\nb: c"}, ["Upstash-Forward-X", "header value"]),
        ({"Content-Type": "a\nb: c"}, ["Content-Type", "header value"]),
        ({"X a": "1"}, ['"x a"', "header name"]),
    ],
)
def test_headers_that_a_publish_could_be_refused_for_are_refused_at_once(
    tmp_path: Path, headers: Any, words: list[str]
) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A})
        reply = await patch(desk, headers)
        assert reply.status == 400
        for word in words:
            assert word in reply.content["error"]
        assert "headers" not in await group(desk)

    with_desk(tmp_path, test)


def test_what_a_message_came_through_is_told_and_found_everywhere(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A, "name": "first"})
        headers = {"Upstash-Retries": "0", "Upstash-Callback": C, "Upstash-Failure-Callback": C}
        [accepted] = (await to_group(desk, headers)).content
        await desk.publish({"Upstash-Retries": "0"})
        desk.sender.answers = [Answer(500, (), b""), Answer(500, (), b"")]
        await desk.deliver()
        await desk.deliver()
        via = {"topicName": "g", "endpointName": "first"}
        told = [json.loads(one.body) for one in desk.sender.sent if one.url == C]
        assert len(told) == 2
        assert all(via.items() <= one.items() for one in told)
        assert all("Upstash-Topic-Name" not in dict(one.headers) for one in desk.sender.sent if one.url == C)

        [letter] = (await desk.call("GET", "/v2/dlq", query="topicName=g")).content["messages"]
        assert (letter["messageId"], letter["topicName"], letter["endpointName"]) == (
            accepted["messageId"],
            "g",
            "first",
        )
        assert (await desk.call("GET", "/v2/dlq", query="topicName=h")).content["messages"] == []

        await desk.service.log.flush()
        for _ in range(2):
            events = (await desk.call("GET", "/v2/events", query="topicName=g")).content["events"]
            states = [json.loads(bytes(one))["state"] for one in events]
            assert sorted(states) == ["ACTIVE", "CREATED", "ERROR", "FAILED"]
            assert all(via.items() <= json.loads(bytes(one)).items() for one in events)
            # Once from the messages themselves, once from what the look wrote down.
            desk.clock.ms += 5 * MINUTE
            await desk.service.look.tick()
        assert (await desk.call("GET", "/v2/events", query="topicName=h")).content["events"] == []

        retried = await desk.call("POST", f"/v2/dlq/retry/{letter['dlqId']}")
        assert via.items() <= (await desk.seen(retried.content["messageId"])).items()

    with_desk(tmp_path, test)


def test_a_groups_messages_are_cancelled_by_its_name(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A}, {"url": B})
        accepted = (await to_group(desk, {"Upstash-Delay": "1h"})).content
        plain = await desk.publish({"Upstash-Delay": "1h"})
        assert (await desk.call("DELETE", "/v2/messages", query="topicName=g")).content == {"cancelled": 2}
        states = [(await desk.seen(one))["state"] for one in (*(one["messageId"] for one in accepted), plain)]
        assert states == ["CANCELED", "CANCELED", "CREATED"]

    with_desk(tmp_path, test)


def test_a_publish_of_which_some_could_not_be_stored_says_how_many_were(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A}, {"url": B}, {"url": C})

        def of_b(one: Write) -> bool:
            return isinstance(one, Put) and one.item.get("url") == B

        desk.table.busy = of_b
        reply = await to_group(desk)
        assert reply.status == 503
        assert "2 of 3" in reply.content["error"]
        assert dict(reply.headers) == {"retry-after": "1"}
        await desk.deliver()
        assert [one.url for one in desk.sender.sent] == [A, C]

    with_desk(tmp_path, test)


def test_a_callback_of_the_requests_own_is_told_nothing_that_was_meant_for_the_groups(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A})
        secret = {"Upstash-Callback": B, "Upstash-Callback-Forward-Authorization": "Bearer of-b"}
        assert (await patch(desk, {**secret, "Upstash-Callback-Retries": "7"})).status == 200
        for headers, told, key in (({}, B, "Bearer of-b"), ({"Upstash-Callback": C}, C, None)):
            desk.sender.sent.clear()
            await to_group(desk, headers)
            await desk.deliver()
            await desk.deliver()
            callback = desk.sender.sent[-1]
            assert callback.url == told
            assert dict(callback.headers).get("Authorization") == key

    with_desk(tmp_path, test)


def test_what_a_group_redacts_stays_redacted_whatever_a_publish_redacts(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await upsert(desk, {"url": A})
        await patch(desk, {"Upstash-Redact-Fields": "body"})
        for how in ({"headers": {"Upstash-Redact-Fields": "header"}}, {"query": "upstash-redact-fields=header"}):
            [answer] = (await to_group(desk, body=b"secret", **how)).content  # type: ignore[arg-type]
            seen = await desk.seen(answer["messageId"])
            assert seen["body"].startswith("REDACTED:")

    with_desk(tmp_path, test)


def test_forty_endpoints_that_register_at_once_are_all_there(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        answers = await asyncio.gather(*(upsert(desk, {"url": f"https://example.com/{n}"}) for n in range(40)))
        assert {answer.status for answer in answers} == {200}
        assert len((await group(desk))["endpoints"]) == 40

    with_desk(tmp_path, test)


def test_more_groups_than_an_answer_holds_are_read_by_their_names(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        many = [{"url": f"https://example.com/{n:04}/{'p' * 330}"} for n in range(1_000)]
        for number in range(12):
            await upsert(desk, *many, name=f"g{number}")
        reply = await desk.call("GET", "/v2/topics")
        assert reply.status == 409
        assert "read them by their names" in reply.content["error"]

    with_desk(tmp_path, test)


@pytest.mark.parametrize(("method", "path"), [("POST", "/endpoints"), ("DELETE", "/endpoints"), ("PATCH", "")])
def test_json_that_is_nested_too_deeply_is_a_400(tmp_path: Path, method: str, path: str) -> None:
    async def test(desk: Desk) -> None:
        deep = b'{"zz": ' + b"[" * 100_000 + b"]" * 100_000 + b', "endpoints": [], "headers": {}}'
        reply = await desk.call(method, f"/v2/topics/g{path}", body=deep)
        assert (reply.status, "nested too deeply" in reply.content["error"]) == (400, True)

    with_desk(tmp_path, test)
