"""The dead letter queue as its readers and operators see it, over the real core."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import NOW_MS, TWO, Desk, with_desk
from waypost.call import Reply
from waypost.core.policy import DAY, Policy
from waypost.core.ports import Answer, Busy, NoAnswer, Put

DLQ = "/v2/dlq"
RETRY = "/v2/dlq/retry"
FAILED = Answer(500, (("content-type", "text/plain"), ("x-trace", "1"), ("x-trace", "2")), b"broken")


async def failed(
    desk: Desk,
    headers: dict[str, str] | None = None,
    body: bytes = b"x",
    outcome: Answer | NoAnswer = FAILED,
    path: str = "https://example.com/in",
) -> str:
    """Publishes a message that fails at once; its id."""
    reply = await desk.call("POST", f"/v2/publish/{path}", {"Upstash-Retries": "0", **(headers or {})}, body)
    assert reply.status == 201, reply
    desk.sender.answers.append(outcome)
    await desk.deliver()
    desk.clock.ms += 1
    return str(reply.content["messageId"])


async def ask(desk: Desk, method: str = "GET", path: str = DLQ, *pairs: tuple[str, str], **how: Any) -> Reply:
    return await desk.call(method, path, query=urlencode(pairs), **how)


async def listed(desk: Desk, *pairs: tuple[str, str], **how: Any) -> list[dict[str, Any]]:
    """All pages of a list."""
    found: list[dict[str, Any]] = []
    cursor: list[tuple[str, str]] = []
    while True:
        reply = await ask(desk, "GET", DLQ, *pairs, *cursor, **how)
        assert reply.status == 200, reply
        found += reply.content["messages"]
        if "cursor" not in reply.content:
            return found
        assert reply.content["cursor"].isdigit()
        cursor = [("cursor", reply.content["cursor"])]


async def ids_of(desk: Desk, *pairs: tuple[str, str], **how: Any) -> list[str]:
    return [one["messageId"] for one in await listed(desk, *pairs, **how)]


# Reading -------------------------------------------------------------------------------------------------------------


def test_a_failed_message_stands_there_at_once_with_its_last_answer(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await failed(desk, {"Content-Type": "text/plain", "Upstash-Label": "a,b"}, b"hello")
        [letter] = await listed(desk)
        assert letter.pop("dlqId").startswith(f"{NOW_MS}-")
        assert letter == {
            "messageId": message_id,
            "url": "https://example.com/in",
            "method": "POST",
            "maxRetries": 0,
            "notBefore": NOW_MS,
            "createdAt": NOW_MS,
            "header": {"Content-Type": ["text/plain"]},
            "callerIP": "192.0.2.7",
            "callerIp": "192.0.2.7",
            "timeout": 60_000,
            "body": "hello",
            "label": "a",
            "labels": ["a", "b"],
            "responseStatus": 500,
            "responseHeader": {"Content-Type": ["text/plain"], "X-Trace": ["1", "2"]},
            "responseBody": "broken",
        }
        [letter] = await listed(desk)
        assert (await desk.call("GET", f"{DLQ}/{letter['dlqId']}")).content == letter

    with_desk(tmp_path, test)


def test_without_an_answer_the_status_is_0_and_the_reason_is_told(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk, outcome=NoAnswer("connection refused"))
        [letter] = await listed(desk)
        assert (letter["responseStatus"], letter["error"]) == (0, "connection refused")
        assert not {"responseHeader", "responseBody", "responseBodyBase64"} & letter.keys()

    with_desk(tmp_path, test)


def test_an_answer_that_is_no_text_is_shown_in_base64_and_a_long_one_cut(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk, outcome=Answer(500, [("x-long", "y" * 5_000)] * 3, b"\xff" * 20_000))
        [letter] = await listed(desk)
        assert base64.b64decode(letter["responseBodyBase64"]) == b"\xff" * 16_384
        assert letter["responseHeader"] == {"X-Long": ["y" * 5_000]}  # 2 x 5,006 > 8,192

    with_desk(tmp_path, test)


def test_a_large_body_is_shown_while_it_is_there(tmp_path: Path) -> None:
    body = random.Random(1).randbytes(20_000)

    async def test(desk: Desk) -> None:
        await failed(desk, body=body)
        [letter] = await listed(desk)
        assert base64.b64decode(letter["bodyBase64"]) == body
        assert (await desk.call("GET", f"{DLQ}/{letter['dlqId']}")).content == letter
        shutil.rmtree(tmp_path / "blobs")
        del letter["bodyBase64"]
        assert await listed(desk) == [letter]
        assert (await desk.call("GET", f"{DLQ}/{letter['dlqId']}")).content == letter

    with_desk(tmp_path, test)


def test_a_list_of_large_letters_is_cut_where_an_answer_would_be_too_large(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        made = [await failed(desk, body=b"a" * 900_000) for _ in range(5)]
        first = (await ask(desk)).content
        assert [one["messageId"] for one in first["messages"]] == made[:1:-1]  # 3 x 0.9 MB < 3 MB
        assert await ids_of(desk) == made[::-1]
        # Clients that name ids don't go on: they get all, and the last ones without their bodies.
        ids = [one["dlqId"] for one in await listed(desk)]
        named = (await ask(desk, "GET", DLQ, ("dlqIds", ",".join(ids)))).content
        assert [one["messageId"] for one in named["messages"]] == made[::-1]
        assert ["body" in one for one in named["messages"]] == [True, True, False, False, False]
        assert "cursor" not in named

    with_desk(tmp_path, test)


def test_an_answer_is_not_cut_within_a_letter(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk, outcome=Answer(500, (), b"x" + "\u00e9".encode() * 20_000))
        [letter] = await listed(desk)
        assert letter["responseBody"] == "x" + "\u00e9" * 8_191
        events = (await desk.call("GET", "/v2/events", query="state=ERROR")).content["events"]
        assert [one["responseBody"] for one in events] in ([], ["x" + "\u00e9" * 511])

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("redact", "hidden"),
    [("body", b"secret"), ("header", b"hush"), ("header[x-key]", b"hush"), ("headers[X-Key]", b"hush")],
)
def test_what_is_redacted_is_never_read_but_sent_again(tmp_path: Path, redact: str, hidden: bytes) -> None:
    echo = Answer(500, (("x-key", "hush"), ("x-all", "x-key: hush, secret")), b"you said: secret, x-key: hush")

    async def test(desk: Desk) -> None:
        await failed(desk, {"Upstash-Redact-Fields": redact, "Upstash-Forward-X-Key": "hush"}, b"secret", echo)
        page = await ask(desk)
        single = await desk.call("GET", f"{DLQ}/{page.content['messages'][0]['dlqId']}")
        assert hidden not in page.body()
        assert hidden not in single.body()
        assert b"REDACTED:" in single.body()
        reply = await ask(desk, "POST", RETRY)
        assert (
            hidden not in (await desk.call("GET", f"/v2/messages/{reply.content['responses'][0]['messageId']}")).body()
        )
        await desk.deliver()
        assert desk.sender.sent[-1].body == b"secret"
        assert dict(desk.sender.sent[-1].headers)["X-Key"] == "hush"

    with_desk(tmp_path, test)


def test_letters_belong_to_an_account_and_end_with_the_retention(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk)
        [letter] = await listed(desk)
        assert await listed(desk, token=TWO.token) == []
        for method, path in (("GET", DLQ), ("DELETE", DLQ), ("POST", RETRY)):
            assert (await desk.call(method, f"{path}/{letter['dlqId']}", token=TWO.token)).status == 404
        desk.clock.ms += 20 * DAY - 2
        assert len(await listed(desk)) == 1
        assert (await desk.call("GET", f"{DLQ}/{letter['dlqId']}")).status == 200
        desk.clock.ms += 1
        assert await listed(desk) == []
        for method, path in (("GET", DLQ), ("DELETE", DLQ), ("POST", RETRY)):
            assert (await desk.call(method, f"{path}/{letter['dlqId']}")).status == 404

    with_desk(tmp_path, test, policy=Policy(dlq_retention_ms=20 * DAY))


def test_a_letter_can_be_retried_until_its_last_day_with_a_large_body(tmp_path: Path) -> None:
    body = random.Random(1).randbytes(20_000)

    async def test(desk: Desk) -> None:
        await failed(desk, body=body)
        desk.clock.ms += 99 * DAY
        assert len((await ask(desk, "POST", RETRY)).content["responses"]) == 1
        await desk.deliver()
        assert desk.sender.sent[-1].body == body

    with_desk(tmp_path, test, policy=Policy(dlq_retention_ms=100 * DAY))


# Filters -------------------------------------------------------------------------------------------------------------


def test_each_filter_finds_its_letters(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        one = await failed(desk, {"Upstash-Label": "a,b"})
        two = await failed(
            desk, {"Upstash-Label": "b"}, outcome=Answer(404, (), b""), path="https://example.com/two%20x?q=1"
        )
        three = await failed(desk, outcome=NoAnswer("refused"))
        dlq_ids = {letter["messageId"]: letter["dlqId"] for letter in await listed(desk)}
        whens = {message_id: dlq_id.partition("-")[0] for message_id, dlq_id in dlq_ids.items()}
        for expected, pairs in (
            ([three, two, one], []),
            ([one, two, three], [("order", "earliestFirst")]),
            ([two, one], [("label", "b")]),
            ([one], [("label", "a")]),
            ([two, one], [("label", "a"), ("label", "b")]),
            ([two, one], [("label", "a,b")]),
            ([two], [("url", "https://example.com/two%20x?q=1")]),
            ([two], [("url", "https://example.com/two x?q=1")]),
            ([], [("url", "https://example.com/i")]),
            ([two], [("label", "b"), ("responseStatus", "404")]),
            ([two, one], [("responseStatus", "500"), ("responseStatus", "404")]),
            ([three], [("responseStatus", "0")]),
            ([three, two, one], [("callerIp", "192.0.2.7")]),
            ([], [("callerIP", "192.0.2.8")]),
            ([one], [("messageId", one)]),
            ([two, one], [("messageId", one), ("messageId", two), ("messageId", "msg_unknown")]),
            ([], [("messageId", "msg_unknown")]),
            ([], [("messageId", one), ("label", "c")]),
            ([three, two], [("fromDate", whens[two])]),
            ([two, one], [("toDate", whens[two])]),
            ([two], [("fromDate", whens[two]), ("toDate", whens[two])]),
            ([], [("fromDate", whens[three]), ("toDate", whens[one])]),
            ([three, one], [("dlqIds", dlq_ids[one]), ("dlqIds", dlq_ids[three])]),
            ([three, one], [("dlqIds", f"{dlq_ids[one]}, {dlq_ids[three]},{dlq_ids[one]}")]),
            ([one], [("dlqIds", dlq_ids[one]), ("dlqIds", "1-2"), ("dlqIds", "nonsense")]),
            ([], [("dlqIds", dlq_ids[one]), ("responseStatus", "404")]),
            *(([], [(name, "x")]) for name in ("topicName", "scheduleId", "queueName", "flowControlKey", "api")),
            ([three, two, one], [("count", "1000"), ("upstash-delay", "x"), ("qstash_token", "x")]),
        ):
            assert await ids_of(desk, *pairs) == expected, pairs

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("source=x", ['"source"', "messageId", "flowControlKey"]),
        ("host=example.com", ['"host"']),
        ("Label=x", ['"Label"']),
        ("dlqId=1-2", ['"dlqId"', "dlqIds"]),
        ("label=", ["label", "empty"]),
        ("label", ["label", "empty"]),
        ("dlqIds=", ["dlqIds", "empty"]),
        ("dlqIds=1-2,", ["dlqIds", "empty"]),
        ("dlqIds=" + ",".join(f"1-{n}" for n in range(401)), ["dlqIds", "401", "400"]),
        ("responseStatus=teapot", ["responseStatus", "teapot"]),
        ("fromDate=yesterday", ["fromDate", "yesterday"]),
        ("toDate=-1", ["toDate", "-1"]),
        ("toDate=1&toDate=2", ["toDate", "twice"]),
        ("count=0", ["count", "1 or more"]),
        ("count=many", ["count", "many"]),
        ("order=newest", ["order", "newest", "latestFirst or earliestFirst"]),
        ("cursor=12", ["cursor", '"12"']),
        ("cursor=001790000000000-1", ["cursor", "001790000000000-1"]),
    ],
)
def test_a_filter_that_cannot_be_used_is_a_400_that_names_it_and_does_nothing(
    tmp_path: Path, query: str, words: list[str]
) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk)
        for method, path in (("GET", DLQ), ("DELETE", DLQ), ("POST", RETRY)):
            reply = await desk.call(method, path, query=query)
            assert reply.status == 400, (method, reply)
            for word in words:
                assert word in reply.content["error"]
        assert len(await listed(desk)) == 1

    with_desk(tmp_path, test)


_LABELS = st.lists(st.sampled_from("abc"), unique=True, max_size=3)


@given(
    letters=st.lists(st.tuples(_LABELS, st.sampled_from([404, 500]), st.integers(0, 1)), max_size=60),
    wanted_labels=st.lists(st.sampled_from("abc"), unique=True, max_size=2),
    wanted_status=st.sampled_from([None, 404, 500]),
    count=st.integers(1, 70),
    order=st.sampled_from(["latestFirst", "earliestFirst"]),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=40, deadline=None)
def test_pages_of_any_size_show_each_letter_that_matches_once_and_in_order(
    letters: list[tuple[list[str], int, int]],
    wanted_labels: list[str],
    wanted_status: int | None,
    count: int,
    order: str,
    seed: int,
) -> None:
    async def test(desk: Desk) -> None:
        expected = []
        for labels, status, pause in letters:
            message_id = await failed(desk, {"Upstash-Label": ",".join(labels)}, outcome=Answer(status, (), b""))
            desk.clock.ms += pause - 1
            labelled = not wanted_labels or not set(wanted_labels).isdisjoint(labels)
            if labelled and wanted_status in (None, status):
                expected.append(message_id)
        filters = [("label", one) for one in wanted_labels] + [("order", order), ("count", str(count))]
        if wanted_status:
            filters.append(("responseStatus", str(wanted_status)))
        found = await listed(desk, *filters)
        assert sorted(one["messageId"] for one in found) == sorted(expected)
        times = [int(one["dlqId"].partition("-")[0]) for one in found]
        assert times == sorted(times, reverse=order == "latestFirst")
        deleted, cursor = 0, ""
        while True:
            # Whoever begins each time anew comes to the same end as who goes on after what was done.
            with_cursor = [("cursor", cursor)] if cursor and random.Random(seed).random() < 0.5 else []
            reply = await ask(desk, "DELETE", DLQ, *filters, *with_cursor)
            deleted, cursor = deleted + reply.content["deleted"], reply.content.get("cursor", "")
            if not cursor:
                break
        assert deleted == len(expected)
        assert await listed(desk, *filters) == []

    with tempfile.TemporaryDirectory() as folder:
        with_desk(Path(folder), test)


@given(st.text(alphabet="abdlqIdsurl=&%,0123456789-+", max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_query_is_a_page_or_a_400(query: str) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.call("GET", DLQ, query=query)).status in (200, 400)

    with tempfile.TemporaryDirectory() as folder:
        with_desk(Path(folder), test)


def test_one_call_looks_at_so_many_letters_and_gives_a_cursor_that_goes_on(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk, {"Upstash-Label": "oldest"})
        [letter] = [item for shard in range(16) for item in (await desk.table.query(f"one#dlq#{shard}")).items]
        await desk.table.write_many(
            [
                Put(
                    {
                        **letter,
                        "pk": f"one#dlq#{n % 16}",
                        "sk": f"{NOW_MS + n:015d}-{n}",
                        "dlq": f"{NOW_MS + n}-{n}",
                        "failed": NOW_MS + n,
                        "labels": ["new"],
                    }
                )
                for n in range(1, 5_001)
            ]
        )
        desk.clock.ms += 10_000
        pages, cursor = [], []
        while True:
            reply = await ask(desk, "GET", DLQ, ("label", "oldest"), *cursor)
            pages.append(len(reply.content["messages"]))
            if "cursor" not in reply.content:
                break
            cursor = [("cursor", reply.content["cursor"])]
        assert pages == [0, 0, 1]  # 2,000 + 2,000 + 1,001

    with_desk(tmp_path, test)


# Deleting ------------------------------------------------------------------------------------------------------------


def test_one_is_deleted_and_then_unknown(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk)
        [letter] = await listed(desk)
        assert (await desk.call("DELETE", f"{DLQ}/{letter['dlqId']}")).status == 200
        assert await listed(desk) == []
        for method, path in (("GET", DLQ), ("DELETE", DLQ), ("POST", RETRY)):
            for unknown in (letter["dlqId"], "1-1", f"0{letter['dlqId']}", "nonsense"):
                reply = await desk.call(method, f"{path}/{unknown}")
                assert (reply.status, unknown in reply.content["error"]) == (404, True)

    with_desk(tmp_path, test)


def test_some_are_deleted_by_ids_in_query_or_body(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        made = [await failed(desk) for _ in range(5)]
        ids = [letter["dlqId"] for letter in await listed(desk, ("order", "earliestFirst"))]
        assert (await ask(desk, "DELETE", DLQ, ("dlqIds", ids[0]), ("dlqIds", "1-1"))).content == {"deleted": 1}
        body = json.dumps({"dlqIds": [ids[0], ids[1], ids[2]]}).encode()
        assert (await desk.call("DELETE", DLQ, {"Content-Type": "application/json"}, body)).content == {"deleted": 2}
        assert await ids_of(desk) == [made[4], made[3]]
        for wrong in (b"[]", b"{", b'{"dlqIds": "x"}', b'{"dlqIds": [1]}', b'{"messageIds": []}', b"null", b"\xff"):
            reply = await desk.call("DELETE", DLQ, body=wrong)
            assert (reply.status, "dlqIds" in reply.content["error"]) == (400, True)
        # An empty list names none.
        assert (await desk.call("DELETE", DLQ, body=b'{"dlqIds": []}')).content == {"deleted": 0}
        assert (await desk.call("POST", RETRY, body=b'{"dlqIds": []}')).content == {"responses": []}
        # No ids and no filter are everything.
        assert (await ask(desk, "DELETE", DLQ, ("cursor", ""))).content == {"deleted": 2}
        assert (await ask(desk, "DELETE")).content == {"deleted": 0}

    with_desk(tmp_path, test)


# Retrying ------------------------------------------------------------------------------------------------------------


def test_a_retry_is_a_new_message_with_everything_that_the_old_one_had(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        old_id = await failed(
            desk,
            {
                "Content-Type": "text/plain",
                "Upstash-Method": "PUT",
                "Upstash-Forward-X-Key": "k",
                "Upstash-Label": "a",
                "Upstash-Timeout": "5s",
                "Upstash-Retry-Delay": "1000",
                "Upstash-Callback": "https://example.com/cb",
            },
            b"hello",
        )
        desk.rung.bells.clear()
        old = await desk.seen(old_id)
        [letter] = await listed(desk)
        desk.clock.ms += DAY
        reply = await desk.call("POST", f"{RETRY}/{letter['dlqId']}", {"Content-Type": "application/json"})
        assert reply.status == 201
        new_id = reply.content["messageId"]
        assert new_id != old_id
        assert await listed(desk) == []
        new = await desk.seen(new_id)
        assert (new["state"], new["retried"], new["createdAt"]) == ("CREATED", 0, desk.clock.ms)
        changing = {"messageId", "createdAt", "notBefore", "state", "endedAt", "retried", "responseStatus"}
        assert {k: v for k, v in new.items() if k not in changing} == {
            k: v for k, v in old.items() if k not in changing
        }
        await desk.deliver()
        before, after = [sent for sent in desk.sender.sent if sent.method == "PUT"]
        assert (before.url, before.body) == (after.url, after.body)
        assert dict(after.headers)["Upstash-Retried"] == "0"
        assert (await desk.seen(new_id))["state"] == "DELIVERED"
        assert (await desk.seen(old_id))["state"] == "FAILED"

    with_desk(tmp_path, test)


def test_headers_and_query_keys_of_a_retry_override_the_settings(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk, {"Upstash-Retries": "0", "Upstash-Forward-A": "1", "Upstash-Forward-B": "2"})
        [letter] = await listed(desk)
        for headers, words in (
            ({"Upstash-Retries": "many"}, ["Upstash-Retries", "many"]),
            ({"Upstash-Deduplication-Id": "d"}, ["Upstash-Deduplication-Id", "retry"]),
            ({"Upstash-Queue-Name": "q"}, ["Upstash-Queue-Name", "POST /v2/enqueue/"]),
        ):
            for path in (f"{RETRY}/{letter['dlqId']}", RETRY):
                reply = await desk.call("POST", path, headers)
                assert reply.status == 400
                assert all(word in reply.content["error"] for word in words)
        reply = await desk.call(
            "POST",
            f"{RETRY}/{letter['dlqId']}",
            {"Upstash-Retries": "2", "Upstash-Forward-A": "9"},
            query="upstash-delay=1h&upstash-method=PATCH",
        )
        seen = await desk.seen(reply.content["messageId"])
        assert (seen["maxRetries"], seen["method"], seen["header"]) == (2, "PATCH", {"A": ["9"], "B": ["2"]})
        assert seen["notBefore"] == desk.clock.ms + 3_600_000

    with_desk(tmp_path, test)


def test_settings_that_one_of_many_cannot_have_are_refused_before_any_is_retried(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        made = [await failed(desk, {"Upstash-Forward-X-Big": "b" * size}) for size in (10, 60_000, 10)]
        reply = await desk.call("POST", RETRY, {"Upstash-Forward-Y": "y" * 8_000})
        assert reply.status == 400
        assert await ids_of(desk) == made[::-1]

    with_desk(tmp_path, test)


def test_what_a_retry_redacts_its_callback_does_not_tell(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk, {"Upstash-Callback": "https://example.com/told"}, b"secret")
        await desk.deliver()
        assert base64.b64encode(b"secret") in desk.sender.sent[-1].body
        assert (await desk.call("POST", RETRY, {"Upstash-Redact-Fields": "body"})).status == 201
        desk.sender.answers = [FAILED, FAILED]
        await desk.deliver()
        desk.clock.ms += 1
        await desk.deliver()
        assert base64.b64encode(b"secret") in desk.sender.sent[-1].body
        newest = (await listed(desk))[0]
        assert newest["url"] == "https://example.com/told"
        assert newest["body"].startswith("REDACTED:")

    with_desk(tmp_path, test)


def test_a_retry_that_fails_again_is_a_new_letter(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk)
        [first] = await listed(desk)
        reply = await ask(desk, "POST", RETRY, ("dlqIds", first["dlqId"]))
        desk.sender.answers.append(FAILED)
        await desk.deliver()
        [second] = await listed(desk)
        assert second["dlqId"] != first["dlqId"]
        assert reply.content == {"responses": [{"messageId": second["messageId"]}]}

    with_desk(tmp_path, test)


def test_many_are_retried_page_by_page(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for n in range(7):
            await failed(desk, {"Upstash-Label": "some" if n < 5 else "others"})
        made, cursor, calls = [], [], 0
        while True:
            reply = await ask(desk, "POST", RETRY, ("label", "some"), ("count", "2"), *cursor)
            assert reply.status == 201
            made += [one["messageId"] for one in reply.content["responses"]]
            calls += 1
            if not reply.content.get("cursor"):
                break
            cursor = [("cursor", reply.content["cursor"])]
        assert (len(made), len(set(made)), calls) == (5, 5, 3)  # 2 + 2 + 1
        assert len(await listed(desk)) == 2
        assert (await ask(desk, "POST", RETRY, ("label", "none"))).content == {"responses": []}

    with_desk(tmp_path, test)


def test_two_who_retry_at_once_make_one_message(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for single in (True, False):
            await failed(desk)
            [letter] = await listed(desk)
            if single:
                calls = [desk.call("POST", f"{RETRY}/{letter['dlqId']}") for _ in range(2)]
            else:
                calls = [ask(desk, "POST", RETRY, ("dlqIds", letter["dlqId"])), ask(desk, "POST", RETRY)]
            replies = await asyncio.gather(*calls)
            assert sorted(reply.status for reply in replies) == ([201, 404] if single else [201, 201])
            if not single:
                assert sum(len(reply.content["responses"]) for reply in replies) == 1
            before = len(desk.sender.sent)
            await desk.deliver()
            assert len(desk.sender.sent) == before + 1
            assert await listed(desk) == []

    with_desk(tmp_path, test)


def test_who_meets_somebody_else_s_retry_in_a_busy_store_is_told_that_the_letter_is_gone(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk)
        [letter] = await listed(desk)
        together, others = desk.table.write_together, []

        async def busy(writes: Any) -> None:
            desk.table.write_together = together  # type: ignore[method-assign]
            others.append(await desk.call("POST", f"{RETRY}/{letter['dlqId']}"))
            raise Busy("transaction conflict")

        desk.table.write_together = busy  # type: ignore[method-assign]
        assert (await desk.call("POST", f"{RETRY}/{letter['dlqId']}")).status == 404
        assert [reply.status for reply in others] == [201]

    with_desk(tmp_path, test)


def test_an_answer_lost_on_the_way_is_found_out(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk)
        together = desk.table.write_together

        async def lost(writes: Any) -> None:
            desk.table.write_together = together  # type: ignore[method-assign]
            await together(writes)
            raise Busy("an answer was lost")

        desk.table.write_together = lost  # type: ignore[method-assign]
        reply = await ask(desk, "POST", RETRY)
        assert len(reply.content["responses"]) == 1
        await desk.deliver()
        assert (await desk.seen(reply.content["responses"][0]["messageId"]))["state"] == "DELIVERED"

    with_desk(tmp_path, test)


def test_a_body_that_is_gone_keeps_its_letter_from_being_retried_and_no_other(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await failed(desk, body=random.Random(1).randbytes(20_000))
        [lame] = await listed(desk)
        await failed(desk)
        shutil.rmtree(tmp_path / "blobs")
        reply = await desk.call("POST", f"{RETRY}/{lame['dlqId']}")
        assert reply.status == 409
        assert "missing" in reply.content["error"]
        assert len((await ask(desk, "POST", RETRY)).content["responses"]) == 1
        assert [letter["dlqId"] for letter in await listed(desk)] == [lame["dlqId"]]

    with_desk(tmp_path, test)
