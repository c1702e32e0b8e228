"""The publish surface and the message routes, over the real core with a clock that tests move."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support import NOW_MS, ONE, PUBLISH, TWO, Desk, with_desk
from waypost.core.guard import Guard
from waypost.core.policy import DAY, MINUTE, Policy
from waypost.core.ports import Answer, NoAnswer


def test_a_message_is_accepted_delivered_and_read(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Content-Type": "text/plain", "Upstash-Forward-My-header": "x y"}, b"hello")
        before = await desk.seen(message_id)
        assert before == {
            "messageId": message_id,
            "url": "https://example.com/in",
            "method": "POST",
            "maxRetries": 3,
            "notBefore": NOW_MS,
            "createdAt": NOW_MS,
            "header": {"Content-Type": ["text/plain"], "My-Header": ["x y"]},
            "callerIP": "192.0.2.7",
            "callerIp": "192.0.2.7",
            "timeout": 60_000,
            "state": "CREATED",
            "retried": 0,
            "body": "hello",
        }
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == "DELIVERED"
        (sent,) = desk.sender.sent
        assert (sent.method, sent.url, sent.body, sent.timeout_ms) == (
            "POST",
            "https://example.com/in",
            b"hello",
            60_000,
        )
        headers = dict(sent.headers)
        assert headers.pop("Upstash-Signature").count(".") == 2
        assert headers == {
            "User-Agent": "Upstash-QStash",
            "Content-Type": "text/plain",
            "My-Header": "x y",
            "Upstash-Message-Id": message_id,
            "Upstash-Retried": "0",
            "Upstash-Caller-Ip": "192.0.2.7",
            "Upstash-Region": "US-EAST-1",
        }

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Upstash-Delay": "soon"}, ["Upstash-Delay", '"soon"', "1d10h30m"]),
        ({"Upstash-Delay": "-5s"}, ["Upstash-Delay", '"-5s"']),
        ({"Upstash-Delay": "366d"}, ["Upstash-Delay", "366d", "31536000", "WAYPOST_MAX_DELAY"]),
        ({"Upstash-Not-Before": "tomorrow"}, ["Upstash-Not-Before", "tomorrow"]),
        ({"Upstash-Not-Before": "9999999999"}, ["Upstash-Not-Before", "WAYPOST_MAX_DELAY"]),
        ({"Upstash-Retries": "-1"}, ["Upstash-Retries", '"-1"', "0 or more"]),
        ({"Upstash-Retries": "many"}, ["Upstash-Retries", "many"]),
        ({"Upstash-Retries": "101"}, ["Upstash-Retries", "100", "WAYPOST_MAX_RETRIES"]),
        ({"Upstash-Timeout": "15m"}, ["Upstash-Timeout", "840", "WAYPOST_MAX_TIMEOUT"]),
        ({"Upstash-Timeout": "0s"}, ["Upstash-Timeout"]),
        ({"Upstash-Method": "TRACE"}, ["Upstash-Method", "TRACE", "PATCH"]),
        ({"Upstash-Deduplication-Id": "a:b"}, ["DeduplicationId cannot contain ':'", "a:b"]),
        ({"Upstash-Content-Based-Deduplication": "perhaps"}, ["Upstash-Content-Based-Deduplication", "perhaps"]),
        ({"Upstash-Forward-A b": "x"}, ["Upstash-Forward-A b", "header name"]),
        ({"Upstash-Workflow-RunId": "wfr_1"}, ["Upstash-Workflow-Runid", "workflows are not served"]),
        ({"Upstash-Retry-Delay": "pow(2"}, ["Upstash-Retry-Delay", "pow(2", "milliseconds"]),
        ({"Upstash-Retry-Delay": "__import__('os')"}, ["Upstash-Retry-Delay", "__import__"]),
        ({"Upstash-Retry-Delay": "1000 * attempts"}, ["Upstash-Retry-Delay", "attempts", "retried"]),
        ({"Upstash-Backoff": "linear"}, ["Upstash-Backoff", "linear", "exponential or fixed"]),
        ({"Upstash-Redact-Fields": "body, cookies"}, ["Upstash-Redact-Fields", "cookies", "header[Name]"]),
        ({"Upstash-Header-Forward": "perhaps"}, ["Upstash-Header-Forward", "perhaps"]),
        ({"Upstash-Callback": "example.com/cb"}, ["Upstash-Callback", "invalid scheme"]),
        ({"Upstash-Callback": "http://127.0.0.1/cb"}, ["Upstash-Callback", "loopback"]),
        ({"Upstash-Failure-Callback": "ftp://example.com"}, ["Upstash-Failure-Callback", "invalid scheme"]),
        ({"Upstash-Callback-Retries": "1"}, ["Upstash-Callback-Retries", "needs Upstash-Callback"]),
        ({"Upstash-Callback-Failure-Callback": "https://e.com"}, ["Upstash-Callback-Failure-Callback", "needs"]),
        ({"Upstash-Flow-Control-Value": "rate=1"}, ["Upstash-Flow-Control-Value", "needs Upstash-Flow-Control-Key"]),
        ({"Upstash-Flow-Control-Key": "k" * 251}, ["Upstash-Flow-Control-Key", "longer than 250 characters"]),
        ({"Upstash-Queue-Name": "q"}, ["Upstash-Queue-Name", "POST /v2/enqueue/"]),
        ({"Upstash-Cron": "* * * * *"}, ["Upstash-Cron", "POST /v2/schedules/"]),
        ({"Upstash-Schedule-Id": "s"}, ["Upstash-Schedule-Id", "POST /v2/schedules/"]),
    ],
)
def test_a_bad_or_unserved_setting_is_a_400_that_names_it_and_stores_nothing(
    tmp_path: Path, headers: dict[str, str], words: list[str]
) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", PUBLISH, headers, b"x")
        assert reply.status == 400
        for word in words:
            assert word in reply.content["error"]
        assert desk.rung.bells == []
        # The same as a query key, in lower case, is named as it was written.
        (name, value) = next(iter(headers.items()))
        reply = await desk.call("POST", PUBLISH, query=f"{name.lower().replace(' ', '%20')}={value}")
        assert reply.status == 400
        assert name.lower() in reply.content["error"] or "DeduplicationId" in reply.content["error"]

    with_desk(tmp_path, test)


def test_settings_are_taken_from_headers_and_from_query_keys_and_a_header_wins(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish(
            {"upstash-retries": "1", "upstash-timeout": "1.5s", "Upstash-Telemetry-Sdk": "x", "Upstash-Unknown": "y"},
            query="a=1&upstash-retries=5&upstash-delay=2m&upstash-method=put&qstash_token=other&b",
        )
        seen = await desk.seen(message_id)
        assert seen["url"] == "https://example.com/in?a=1&b"
        assert (seen["maxRetries"], seen["timeout"], seen["method"]) == (1, 1500, "PUT")
        assert seen["notBefore"] == NOW_MS + 2 * MINUTE
        assert seen["header"] == {}

    with_desk(tmp_path, test)


def test_not_before_wins_over_delay_and_the_past_means_at_once(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        later = str(NOW_MS // 1000 + 30)
        seen = await desk.seen(await desk.publish({"Upstash-Delay": "9h", "Upstash-Not-Before": later}))
        assert seen["notBefore"] == NOW_MS + 30_000
        assert (await desk.seen(await desk.publish({"Upstash-Not-Before": "1"})))["notBefore"] == NOW_MS

    with_desk(tmp_path, test)


def test_headers_of_the_connection_and_waypost_s_own_are_not_forwarded(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        names = ("Host", "Content-Length", "Transfer-Encoding", "Connection", "Upstash-Signature", "Upstash-Message-Id")
        await desk.publish(
            {f"Upstash-Forward-{name}": "evil" for name in names} | {"Upstash-Forward-content-type": "a/b"}
        )
        await desk.deliver()
        headers = desk.sender.sent[0].headers
        assert "evil" not in [value for _, value in headers]
        assert [value for name, value in headers if name.lower() == "content-type"] == ["a/b"]

    with_desk(tmp_path, test)


def test_a_second_publish_under_a_deduplication_id_is_the_first_message(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        first = await desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": "d"}, b"1")
        second = await desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": "d"}, b"2")
        assert (first.status, second.status) == (201, 202)
        assert second.content == {"messageId": first.content["messageId"], "deduplicated": True}
        other = await desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": "d"}, token=TWO.token)
        assert other.status == 201
        desk.clock.ms += 15 * MINUTE
        assert (await desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": "d"})).status == 201

    with_desk(tmp_path, test)


def test_fifty_at_once_make_one_message(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        replies = await asyncio.gather(
            *(desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": "d"}) for _ in range(50))
        )
        assert sorted(reply.status for reply in replies) == [201] + [202] * 49
        assert len({reply.content["messageId"] for reply in replies}) == 1
        while await desk.deliver():
            pass
        assert len(desk.sender.sent) == 1

    with_desk(tmp_path, test)


def test_what_a_second_publisher_stored_first_is_what_is_delivered(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        headers, write = {"Upstash-Deduplication-Id": "d"}, desk.table.write
        helped: list[str] = []

        async def after_a_helper(*what: Any, **how: Any) -> Any:
            if what[0].key.pk.startswith("m#") and not helped:
                helped.append("")
                helped[0] = await desk.publish(headers, b"helper's")
            return await write(*what, **how)

        desk.table.write = after_a_helper  # type: ignore[method-assign]
        message_id = await desk.publish(headers, b"first's")
        assert helped == [message_id]
        assert (await desk.seen(message_id))["body"] == "helper's"
        await desk.deliver()
        assert [sent.body for sent in desk.sender.sent] == [b"helper's"]

    with_desk(tmp_path, test)


@pytest.mark.parametrize("end", ["FAILED", "CANCELED"])
def test_what_failed_or_was_cancelled_blocks_its_deduplication_id(tmp_path: Path, end: str) -> None:
    async def test(desk: Desk) -> None:
        headers = {"Upstash-Deduplication-Id": "d", "Upstash-Retries": "0"}
        message_id = await desk.publish(headers)
        if end == "CANCELED":
            await desk.call("DELETE", f"/v2/messages/{message_id}")
        desk.sender.answers = [Answer(500, (), b"")]
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == end
        assert (await desk.call("POST", PUBLISH, headers)).status == 202
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == end

    with_desk(tmp_path, test)


def test_content_makes_the_id_where_it_is_asked_for(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        async def status(body: bytes = b"x", path: str = PUBLISH, **headers: str) -> int:
            given = {"Upstash-Content-Based-Deduplication": "True"}
            given |= {name.replace("_", "-"): value for name, value in headers.items()}
            return (await desk.call("POST", path, given, body)).status

        assert await status() == 201
        assert await status(Upstash_Delay="9s", Upstash_Retries="0", Upstash_Method="PUT") == 202
        assert await status(b"y") == 201
        assert await status(path=PUBLISH + "2") == 201
        assert await status(Content_Type="a/b") == 201
        assert await status(Upstash_Forward_A="1") == 201
        assert await status(Upstash_Deduplication_Id="explicit") == 201
        assert await status(Upstash_Content_Based_Deduplication="False") == 201

    with_desk(tmp_path, test)


def test_retries_follow_the_table_in_virtual_time_and_end_in_the_dead_letter_queue(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Retries": "5"})
        desk.sender.answers = [Answer(503, (), b"no")] * 5 + [NoAnswer("connection refused")]
        delays = []
        for _ in range(6):
            delays.append([bell.delay_ms // 1000 for bell in desk.rung.bells])
            await desk.deliver()
        assert delays == [[0], [10], [30], [60], [120], [240]]
        assert [dict(s.headers)["Upstash-Retried"] for s in desk.sender.sent] == ["0", "1", "2", "3", "4", "5"]
        assert len({dict(s.headers)["Upstash-Signature"] for s in desk.sender.sent}) == 6
        seen = await desk.seen(message_id)
        assert (seen["state"], seen["responseStatus"], seen["error"]) == ("FAILED", 0, "connection refused")
        letters = [item for shard in range(16) for item in (await desk.table.query(f"one#dlq#{shard}")).items]
        assert [(letter["id"], letter["status"]) for letter in letters] == [(message_id, 0)]

    with_desk(tmp_path, test)


def test_retry_after_and_489_are_heard(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()
        desk.sender.answers = [
            Answer(429, (("retry-after", "77"),), b""),
            Answer(489, (("upstash-nonretryable-error", "true"),), b"never"),
        ]
        await desk.deliver()
        assert [bell.delay_ms for bell in desk.rung.bells] == [77_000]
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == "FAILED"

    with_desk(tmp_path, test)


def test_cancel_says_what_it_did(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Delay": "5s"})
        path = f"/v2/messages/{message_id}"
        assert (await desk.call("DELETE", path, token=TWO.token)).status == 404
        assert (await desk.call("DELETE", path)).content == {"cancelled": 1}
        assert (await desk.seen(message_id))["state"] == "CANCELED"
        again = await desk.call("DELETE", path)
        assert (again.status, again.content) == (200, {"cancelled": 0})
        await desk.deliver()
        assert desk.sender.sent == []
        for unknown in ("msg_nothing", "msg_" + "0" * 21, "msg_" + "z" * 21, "%00"):
            assert (await desk.call("DELETE", f"/v2/messages/{unknown}")).status == 404
            assert (await desk.call("GET", f"/v2/messages/{unknown}")).status == 404

    with_desk(tmp_path, test)


@pytest.mark.parametrize(("status", "end"), [(200, "DELIVERED"), (500, "CANCELED")])
def test_a_cancel_during_an_attempt_stops_the_next(tmp_path: Path, status: int, end: str) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()

        class Cancelling:
            async def send(self, request: Any) -> Answer:
                assert (await desk.call("DELETE", f"/v2/messages/{message_id}")).content == {"cancelled": 1}
                assert (await desk.seen(message_id))["state"] == "CANCEL_REQUESTED"
                return Answer(status, (), b"")

        desk.sender.send = Cancelling().send  # type: ignore[method-assign]
        await desk.deliver()
        assert (await desk.seen(message_id))["state"] == end
        assert desk.rung.bells == []

    with_desk(tmp_path, test)


def test_an_ended_message_can_be_read_for_the_retention(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()
        await desk.deliver()
        desk.clock.ms += DAY - 1
        assert (await desk.seen(message_id))["state"] == "DELIVERED"
        desk.clock.ms += 1
        assert (await desk.call("GET", f"/v2/messages/{message_id}")).status == 404

    with_desk(tmp_path, test, policy=Policy(retention_ms=DAY))


def test_six_crashes_end_a_message(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()

        class Crash(Exception):
            pass

        async def crash(request: object) -> Answer:
            raise Crash

        desk.sender.send = crash  # type: ignore[assignment, method-assign]
        message = await desk.service.deliverer.find(f"one#{message_id}")
        assert message
        for _ in range(6):
            with pytest.raises(Crash):
                await desk.service.deliverer.deliver(message)
            desk.clock.ms += 2 * MINUTE
        await desk.service.deliverer.deliver(message)
        seen = await desk.seen(message_id)
        assert (seen["state"], seen["error"], seen["retried"]) == ("FAILED", "delivery did not return", 0)

    with_desk(tmp_path, test)


def test_tokens_keys_and_accounts_are_apart(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        for token in (None, "wrong"):
            reply = await desk.call("POST", PUBLISH, token=token)
            assert reply.status == 401
            assert reply.content["error"].startswith("unable to authenticate")
        assert (await desk.call("GET", "/v2/keys", query=f"qstash_token={TWO.token}", token=None)).content == {
            "current": TWO.keys.current,
            "next": TWO.keys.next,
        }
        assert (await desk.call("GET", "/v2/keys", {"Authorization": f"Basic {ONE.token}"}, token=None)).status == 401
        message_id = await desk.publish()
        assert (await desk.call("GET", f"/v2/messages/{message_id}", token=TWO.token)).status == 404

    with_desk(tmp_path, test)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/healthz", 200, ""),
        ("GET", PUBLISH, 405, "use POST"),
        ("PUT", "/v2/keys", 405, "use GET"),
        ("GET", "/v2/keys/rotate", 405, "use POST"),
        ("POST", "/v2/publish/v2/publish/https://example.com", 404, "QSTASH_URL must be"),
        ("GET", "/v2/publish/v2/keys", 404, "QSTASH_URL must be"),
        ("POST", "/v2/publish/", 400, "invalid destination url"),
        ("POST", "/v2/publish/base/v2/publish/https://example.com", 404, "QSTASH_URL must be"),
        ("HEAD", "/healthz", 200, ""),
        ("PUT", "/v2/queues", 405, "use GET, HEAD, POST"),
        ("GET", "/v2/messages/", 404, "no route"),
        ("GET", "/v2/nothing", 404, "no route"),
        ("POST", "/v2/enqueue/q/https://example.com", 201, ""),
        ("POST", "/v2/enqueue/q/g", 404, "no URL group"),
        ("POST", "/v2/enqueue/a%20b/https://example.com", 400, '"a b" can\'t be the name of a queue'),
        ("POST", "/v2/enqueue/q", 404, "no route"),
        ("POST", "/v2/enqueue/q/", 400, "invalid destination url"),
        ("POST", "/v2/enqueue//https://example.com", 404, "no route"),
        ("POST", "/v2/batch", 400, "JSON array"),
        ("GET", "/v2/batch", 405, "use POST"),
        ("POST", "/v2/batch/trigger", 404, "not served"),
        ("DELETE", "/v2/messages", 200, ""),
        ("GET", "/v2/dlq", 200, ""),
        ("POST", "/v2/dlq", 405, "use DELETE, GET"),
        ("GET", "/v2/dlq/retry", 405, "use POST"),
        ("POST", "/v2/dlq/retry", 201, ""),
        ("GET", "/v2/queues", 200, ""),
        ("GET", "/v2/queues/", 404, "no route"),
        ("GET", "/v2/queues/q", 404, 'queue "q" not found'),
        ("GET", "/v2/queues/a%20b", 400, "the name of a queue"),
        ("DELETE", "/v2/queues/q", 200, ""),
        ("POST", "/v2/queues/q", 405, "use DELETE, GET, HEAD"),
        ("POST", "/v2/queues/q/pause", 404, 'queue "q" not found'),
        ("GET", "/v2/queues/q/resume", 405, "use POST"),
        ("GET", "/v2/schedules", 200, ""),
        ("POST", "/v2/schedules", 405, "use GET, HEAD"),
        ("POST", "/v2/schedules/https://example.com", 400, "Upstash-Cron is missing"),
        # A destination, although it ends like a route.
        ("POST", "/v2/schedules/https://example.com/pause", 400, "Upstash-Cron is missing"),
        ("POST", "/v2/schedules/https:/example.com/run", 400, "Upstash-Cron is missing"),
        ("POST", "/v2/schedules/https:/pause", 400, "Upstash-Cron is missing"),
        ("POST", "/v2/schedules/g", 404, "no URL group"),
        ("POST", "/v2/schedules/", 400, "invalid destination url"),
        ("PATCH", "/v2/schedules/x/pause", 404, 'schedule "x" not found'),
        ("POST", "/v2/schedules/x/resume", 404, 'schedule "x" not found'),
        ("POST", "/v2/schedules/x/run", 404, 'schedule "x" not found'),
        ("PUT", "/v2/schedules/x", 405, "use DELETE, GET, HEAD, POST"),
        ("GET", "/v2/schedules/x/pause", 405, "use PATCH, POST"),
        ("GET", "/v2/topics", 200, ""),
        ("POST", "/v2/topics", 405, "use GET"),
        ("POST", "/v2/topics/g", 405, "use DELETE, GET, HEAD, PATCH"),
        ("GET", "/v2/topics/g/endpoints", 405, "use DELETE, POST"),
        ("GET", "/v2/topics/g", 404, "no URL group"),
        ("POST", "/v2/publish/g", 404, "POST /v2/topics/g/endpoints"),
        ("POST", "/v2/publish/api/llm", 400, "WAYPOST_LLM_URL"),
        ("POST", "/v2/publish/api/email", 400, "invalid destination url: endpoint has invalid scheme"),
        ("POST", "/v2/keys/rotate", 200, ""),
        ("GET", "/v2/flowControl", 200, ""),
        ("GET", "/v2/flowControl/", 404, "no route"),
        ("GET", "/v2/flowControl/a/b%20c", 404, 'flow-control key "a/b c" not found'),
        ("GET", "/v2/flowControl/" + "k" * 251, 400, "longer than 250 characters"),
        ("POST", "/v2/flowControl/k", 405, "use GET, HEAD"),
        ("POST", "/v2/flowControl/k/resume", 404, 'flow-control key "k" not found'),
        ("POST", "/v2/flowControl/k/reset", 404, 'flow-control key "k" not found'),
        ("GET", "/v2/flowControl/k/pause", 405, "use POST"),
        ("GET", "/v2/globalParallelism", 200, ""),
        ("POST", "/v2/trigger/https://example.com", 404, "not served"),
        ("DELETE", "/v2/workflows/runs/wfr_1", 404, "not served"),
        ("POST", "/llm/v1/chat/completions", 404, "publish to api/llm"),
    ],
)
def test_routes(tmp_path: Path, method: str, path: str, status: int, words: str) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call(method, path)
        assert reply.status == status
        assert words in (reply.content["error"] if status >= 400 else "")

    with_desk(tmp_path, test)


def test_a_body_beyond_the_limit_is_a_413_that_names_the_setting(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert (await desk.call("POST", PUBLISH, body=b"x" * 10)).status == 201
        reply = await desk.call("POST", PUBLISH, body=b"x" * 11)
        assert reply.status == 413
        assert "WAYPOST_MAX_BODY" in reply.content["error"]

    with_desk(tmp_path, test, policy=Policy(max_body=10))


@pytest.mark.parametrize("body", [b"", b"\x00\xff\xfe", b"a" * 600, bytes(range(256)) * 300, b"\xc3\xa9"])
def test_bodies_of_any_bytes_come_back_and_arrive(tmp_path: Path, body: bytes) -> None:
    import base64

    async def test(desk: Desk) -> None:
        seen = await desk.seen(await desk.publish(body=body))
        assert (base64.b64decode(seen["bodyBase64"]) if "bodyBase64" in seen else seen["body"].encode()) == body
        await desk.deliver()
        assert desk.sender.sent[0].body == body

    with_desk(tmp_path, test)


def test_a_private_destination_is_refused_unless_its_network_is_named(tmp_path: Path) -> None:
    async def refused(desk: Desk) -> None:
        reply = await desk.call("POST", "/v2/publish/http://127.0.0.1:3000/x")
        assert reply.status == 400
        assert "loopback" in reply.content["error"]

    async def taken(desk: Desk) -> None:
        assert (await desk.call("POST", "/v2/publish/http://127.0.0.1:3000/x")).status == 201

    with_desk(tmp_path / "a", refused)
    with_desk(tmp_path / "b", taken, guard=Guard(["127.0.0.0/8"]))


def test_a_setting_given_twice_is_refused_and_a_forwarded_header_joined(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        reply = await desk.call("POST", PUBLISH, {"Upstash-Delay": "1s", "upstash-delay": "2s"})
        assert reply.status == 400
        assert "given twice" in reply.content["error"]
        await desk.publish({"Upstash-Forward-A": "1", "upstash-forward-a": "2", "Upstash-Forward-User-Agent": "mine"})
        await desk.deliver()
        headers = [(n, v) for n, v in desk.sender.sent[0].headers if n in ("A", "User-Agent")]
        assert headers == [("A", "1, 2"), ("User-Agent", "mine")]

    with_desk(tmp_path, test)


def test_headers_beyond_what_an_item_holds_are_refused_before_anything_is_stored(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        headers = {f"Upstash-Forward-H{n}": "x" * 1000 for n in range(70)} | {"Upstash-Deduplication-Id": "d"}
        reply = await desk.call("POST", PUBLISH, headers)
        assert reply.status == 400
        assert "WAYPOST_MAX_HEADERS" in reply.content["error"]
        assert (await desk.call("POST", PUBLISH, {"Upstash-Deduplication-Id": "d"})).status == 201

    with_desk(tmp_path, test)


def test_empty_settings_ask_for_nothing(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        empty = {"Content-Type": "", "Upstash-Delay": "", "Upstash-Label": "", "Upstash-Header-Forward": "false"}
        assert (await desk.seen(await desk.publish(empty)))["header"] == {}

    with_desk(tmp_path, test)


def test_a_foreign_authorization_leaves_the_query_s_token_in_force(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        headers = {"Authorization": "Basic abc"}
        reply = await desk.call("POST", PUBLISH, headers, query=f"qstash_token={ONE.token}", token=None)
        assert reply.status == 201

    with_desk(tmp_path, test)


def test_what_is_given_back_before_a_stop_is_neither_crash_nor_retry(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        message_id = await desk.publish()
        started = asyncio.Event()

        async def hang(request: object) -> Answer:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        desk.sender.send, send = hang, desk.sender.send  # type: ignore[assignment, method-assign]
        attempt = asyncio.ensure_future(desk.deliver())
        await started.wait()
        await asyncio.gather(*desk.service.deliverer.let_go())
        attempt.cancel()
        assert (await desk.seen(message_id))["state"] == "RETRY"
        desk.sender.send = send  # type: ignore[method-assign]
        message = await desk.service.deliverer.find(f"one#{message_id}")
        assert message
        await desk.service.deliverer.deliver(message)
        assert dict(desk.sender.sent[0].headers)["Upstash-Retried"] == "0"
        assert (await desk.seen(message_id))["state"] == "DELIVERED"

    with_desk(tmp_path, test)


def test_a_body_that_is_gone_is_a_failed_attempt_that_says_so(tmp_path: Path) -> None:
    import random
    import shutil

    async def test(desk: Desk) -> None:
        message_id = await desk.publish({"Upstash-Retries": "0"}, random.Random(1).randbytes(20_000))
        shutil.rmtree(tmp_path / "blobs")
        await desk.deliver()
        state = await desk.call("GET", f"/v2/messages/{message_id}")
        assert state.status == 503
        assert "missing" in state.content["error"]
        assert desk.sender.sent == []
        assert desk.rung.bells == []

    with_desk(tmp_path, test)
