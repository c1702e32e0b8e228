"""The official JavaScript client and receiver against the running server."""

from __future__ import annotations

import base64
import json
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qstash import Receiver

from journey.harness import CLOCKS_S, JavaScript, Server, SinkProcess, wait_until


def test_json_arrives_as_it_was_published(javascript: JavaScript, sink: SinkProcess):
    place = sink.place("ok", path="a/b c", empty="")

    published = javascript(
        "publishJSON",
        request={
            "url": place.url,
            "body": {"hello": "wörld"},
            "headers": {"X-Order": "7", "Authorization": "Bearer theirs"},
        },
    )

    [delivery] = place.wait_for(1, 1)
    assert delivery.method == "POST"
    assert sink.url + delivery.target == place.url
    assert json.loads(delivery.body) == {"hello": "wörld"}
    assert delivery.header("Content-Type") == "application/json"
    assert delivery.header("X-Order") == "7"
    assert delivery.header("Authorization") == "Bearer theirs"
    assert delivery.header("User-Agent") == "Upstash-QStash"
    assert delivery.header("Upstash-Message-Id") == published["messageId"]
    assert delivery.header("Upstash-Retried") == "0"
    sent = {name.lower() for name, _ in delivery.headers}
    assert not {name for name in sent if name.startswith(("upstash-telemetry", "upstash-forward", "upstash-method"))}


def test_binary_arrives_byte_for_byte(javascript: JavaScript, sink: SinkProcess):
    place = sink.place("ok")
    every_byte = bytes(range(256)) * 16

    javascript(
        "publishBinary",
        request={"url": place.url, "method": "PUT", "headers": {"Content-Type": "application/octet-stream"}},
        base64=base64.b64encode(every_byte).decode(),
    )

    [delivery] = place.wait_for(1, 1)
    assert delivery.method == "PUT"
    assert delivery.body == every_byte
    assert delivery.header("Content-Type") == "application/octet-stream"


def test_delay_of_two_seconds(javascript: JavaScript, sink: SinkProcess):
    place = sink.place("ok")
    before = time.monotonic()

    javascript("publishJSON", request={"url": place.url, "body": {}, "delay": 2})

    [delivery] = place.wait_for(1, 3)
    assert delivery.arrived >= before + 2 - CLOCKS_S


def test_two_failures_then_success(javascript: JavaScript, sink: SinkProcess, server: Server):
    place = sink.place("fail", times=2, status=503, retry_after=1)

    published = javascript("publishJSON", request={"url": place.url, "body": {"n": 1}, "retries": 3})

    server.wait_for_state(published["messageId"], "DELIVERED", 4)
    deliveries = place.deliveries()
    assert [(d.status, d.header("Upstash-Retried")) for d in deliveries] == [(503, "0"), (503, "1"), (200, "2")]
    assert {d.header("Upstash-Message-Id") for d in deliveries} == {published["messageId"]}
    assert {d.body for d in deliveries} == {b'{"n":1}'}
    assert len({d.header("Upstash-Signature") for d in deliveries}) == 3
    first, second, third = (d.arrived for d in deliveries)
    assert second - first >= 1 - CLOCKS_S
    assert third - second >= 1 - CLOCKS_S


def test_retries_exhausted(javascript: JavaScript, sink: SinkProcess, server: Server):
    place = sink.place("always", status=500, retry_after=1)

    published = javascript("publishJSON", request={"url": place.url, "body": {}, "retries": 2})

    server.wait_for_state(published["messageId"], "FAILED", 4)
    assert [d.header("Upstash-Retried") for d in place.deliveries()] == ["0", "1", "2"]  # 1 + 2 retries


def test_fifty_at_once_under_one_deduplication_id_are_one_message(
    javascript: JavaScript, sink: SinkProcess, server: Server
):
    place = sink.place("ok")

    answers = javascript(
        "publishAtOnce",
        request={"url": place.url, "body": {"n": 1}, "deduplicationId": uuid.uuid4().hex},
        times=50,
    )

    [message_id] = {answer["messageId"] for answer in answers}
    assert [answer.get("deduplicated") for answer in answers].count(True) == 49
    server.wait_for_state(message_id, "DELIVERED", 1)
    assert len(place.deliveries()) == 1


def test_cancelled_before_its_time_it_is_never_delivered(javascript: JavaScript, sink: SinkProcess, server: Server):
    place = sink.place("ok")
    published = javascript("publishJSON", request={"url": place.url, "body": {}, "delay": "4s"})
    due = time.monotonic() + 4

    assert javascript("cancel", messageId=published["messageId"]) == {"cancelled": 1}

    assert time.monotonic() < due, "too slow to show anything"
    wait_until(lambda: time.monotonic() > due + 1, 5)
    assert place.deliveries() == []
    assert server.message(published["messageId"])["state"] == "CANCELED"
    assert javascript("cancel", messageId=published["messageId"]) == {"cancelled": 0}
    other = javascript("publishJSON", request={"url": place.url, "body": {}, "delay": "1h"})
    assert javascript("delete", messageId=other["messageId"]) is None
    assert server.message(other["messageId"])["state"] == "CANCELED"


def test_both_receivers_verify_what_was_delivered(javascript: JavaScript, python_receiver: Receiver, sink: SinkProcess):
    place = sink.place("ok", path="a/b c", empty="")
    javascript("publishJSON", request={"url": place.url, "body": {"hello": "wörld"}})
    [delivery] = place.wait_for(1, 1)
    signature, body = delivery.header("Upstash-Signature"), delivery.body.decode()
    assert signature

    assert javascript("verify", signature=signature, body=body, url=place.url) == {"valid": True}
    python_receiver.verify(signature=signature, body=body, url=place.url)

    forged = javascript("verify", signature=signature, body=body + " ", url=place.url)
    assert forged == {"valid": False, "error": "SignatureError"}


def test_message_is_read_back(javascript: JavaScript, sink: SinkProcess):
    place = sink.place("ok")
    before_ms = time.time() * 1000
    published = javascript(
        "publishJSON",
        request={"url": place.url, "body": {"n": 1}, "retries": 5, "delay": 600, "headers": {"X-Order": "7"}},
    )

    message = javascript("get", messageId=published["messageId"])

    assert message["messageId"] == published["messageId"]
    assert message["url"] == place.url
    assert message["method"] == "POST"
    assert message["body"] == '{"n":1}'
    assert message["maxRetries"] == 5
    assert message["header"]["X-Order"] == ["7"]
    assert message["header"]["Content-Type"] == ["application/json"]
    assert 0 <= message["createdAt"] - before_ms + 1000 * CLOCKS_S < 60_000
    assert round((message["notBefore"] - message["createdAt"]) / 1000) == 600
    assert javascript("cancel", messageId=published["messageId"]) == {"cancelled": 1}


def listed(javascript: JavaScript, **wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = javascript("dlq", method="listMessages", request={"filter": wanted})["messages"]
    return found


def dead(javascript: JavaScript, url: str, count: int, bound_s: float = 1) -> list[dict[str, Any]]:
    """The dead letters of a place, once there are so many."""

    def there() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = javascript("dlq", method="listMessages", request={"filter": {"url": url}})[
            "messages"
        ]
        return found if len(found) == count else []

    return wait_until(there, bound_s)


def test_a_dead_letter_is_read_and_retried_by_its_id(javascript: JavaScript, sink: SinkProcess, server: Server):
    place = sink.place("always", status=503)
    published = javascript("publishJSON", request={"url": place.url, "body": {"n": 1}, "retries": 0, "label": "l"})

    [letter] = dead(javascript, place.url, 1)

    assert (letter["messageId"], letter["responseStatus"]) == (published["messageId"], 503)
    assert (letter["label"], letter["labels"], letter["body"]) == ("l", ["l"], '{"n":1}')
    by_id = javascript("dlq", method="listMessages", request={"dlqIds": [letter["dlqId"]]})
    assert by_id["messages"] == [letter]
    retried = javascript("dlq", method="retry", request=letter["dlqId"])
    [again] = dead(javascript, place.url, 1)
    assert retried == {"responses": [{"messageId": again["messageId"]}]}
    assert again["dlqId"] != letter["dlqId"]
    assert javascript("dlq", method="retry", request=letter["dlqId"]) == {"responses": []}
    [last] = javascript("dlq", method="retry", request=[again["dlqId"], "1-1"])["responses"]
    server.wait_for_state(last["messageId"], "FAILED", 1)
    assert [(d.body, d.header("Upstash-Retried")) for d in place.deliveries()] == [(b'{"n":1}', "0")] * 3


def test_dead_letters_are_retried_and_deleted_by_filter_page_by_page(javascript: JavaScript, sink: SinkProcess):
    place = sink.place("always", status=500)
    request = {"url": place.url, "body": {}, "retries": 0, "label": ["a", "b"]}
    published = {one["messageId"] for one in javascript("publishAtOnce", request=request, times=5)}
    assert {one["messageId"] for one in dead(javascript, place.url, 5)} == published
    mine = {"url": place.url, "label": ["b", "c"], "responseStatus": 500, "fromDate": 1}

    answers = javascript("dlqToTheEnd", method="retry", request={"filter": mine, "count": 2})

    retried = [one["messageId"] for answer in answers for one in answer["responses"]]
    assert len(retried) == len(set(retried)) >= 5  # A later page may meet what has failed again meanwhile.
    letters = dead(javascript, place.url, 5)
    assert {one["messageId"] for one in letters}.isdisjoint(published)
    none = {"filter": {**mine, "responseStatus": 404}}
    assert javascript("dlq", method="delete", request=none) == {"deleted": 0}
    assert javascript("dlq", method="retry", request=none) == {"responses": []}
    assert javascript("dlq", method="delete", request=letters[0]["dlqId"]) == {"deleted": 1}
    assert javascript("dlq", method="deleteMany", request={"dlqIds": [letters[1]["dlqId"], "1-1"]}) == {"deleted": 1}
    answers = javascript("dlqToTheEnd", method="delete", request={"filter": mine, "count": 2})
    assert [answer["deleted"] for answer in answers] == [2, 1]
    assert listed(javascript, **mine) == []


def test_all_dead_letters_are_retried_and_deleted(javascript: JavaScript, sink: SinkProcess, server: Server):
    place = sink.place("always", status=500)
    javascript("publishJSON", request={"url": place.url, "body": {}, "retries": 0})
    dead(javascript, place.url, 1)

    answers = javascript("dlqToTheEnd", method="retry", request={"all": True})

    assert sum(len(answer["responses"]) for answer in answers) >= 1
    wait_until(lambda: len(place.deliveries()) >= 2, 1)
    dead(javascript, place.url, 1)
    assert sum(one["deleted"] for one in javascript("dlqToTheEnd", method="delete", request={"all": True})) >= 1
    assert listed(javascript, url=place.url) == []


def test_logs_tell_what_befell_a_message(javascript: JavaScript, sink: SinkProcess, server: Server):
    place, label = sink.place("fail", times=1, status=500, retry_after=1), f"label-{uuid.uuid4().hex}"
    request = {"url": place.url, "body": {"n": 1}, "label": label, "headers": {"X-Order": "7"}}
    message_id = javascript("publishJSON", request=request)["messageId"]
    server.wait_for_state(message_id, "DELIVERED", 3)
    life = ["DELIVERED", "ACTIVE", "RETRY", "ERROR", "ACTIVE", "CREATED"]

    by_id = javascript("logs", request={"messageIds": [message_id]})["logs"]
    assert [log["state"] for log in by_id] == life

    def labelled() -> list[dict[str, object]]:
        found: list[dict[str, object]] = javascript("logs", request={"filter": {"label": [label, "other"]}})["logs"]
        return found

    logs = wait_until(lambda: found if len(found := labelled()) == len(life) else None, server.logs_within_s)
    assert [(log["time"], log["state"]) for log in logs] == [(log["time"], log["state"]) for log in by_id]
    assert {(log["messageId"], log["url"], log["label"]) for log in logs} == {(message_id, place.url, label)}
    assert all(log["header"]["X-Order"] == ["7"] for log in by_id)
    assert base64.b64decode(by_id[0]["body"]) == b'{"n":1}'
    assert logs[3]["responseStatus"] == 500
    assert "nextDeliveryTime" in logs[2]

    chosen = {"label": label, "state": ["RETRY", "ERROR"], "host": urlsplit(place.url).netloc, "fromDate": 1}
    assert javascript("events", request={"filter": chosen})["events"] == logs[2:4]
    assert javascript("allLogs", request={"filter": {"label": label}, "count": 4}) == logs


def test_a_url_group_is_made_published_to_and_deleted(javascript: JavaScript, sink: SinkProcess):
    name, first, second = f"group-{uuid.uuid4().hex}", sink.place("ok", part="1"), sink.place("ok", part="2")
    endpoints = [{"url": first.url, "name": "first"}, {"url": second.url}]
    added = javascript(
        "call", resource="urlGroups", method="addEndpoints", request={"name": name, "endpoints": endpoints}
    )

    made = javascript("call", resource="urlGroups", method="get", request=name)

    assert added is None
    assert (made["name"], made["endpoints"]) == (name, endpoints)
    assert made in javascript("call", resource="urlGroups", method="list")
    answers = javascript("publishJSON", request={"urlGroup": name, "body": {"n": 1}})
    assert [answer["url"] for answer in answers] == [first.url, second.url]
    for place, answer in zip((first, second), answers, strict=True):
        [delivery] = place.wait_for(1, 1)
        assert delivery.header("Upstash-Message-Id") == answer["messageId"]
        assert delivery.header("Upstash-Topic-Name") == name
    message = javascript("get", messageId=answers[0]["messageId"])
    assert (message["urlGroup"], message["endpointName"]) == (name, "first")

    removed = {"name": name, "endpoints": [{"name": "first"}]}
    javascript("call", resource="urlGroups", method="removeEndpoints", request=removed)
    assert javascript("call", resource="urlGroups", method="get", request=name)["endpoints"] == endpoints[1:]
    javascript("call", resource="urlGroups", method="delete", request=name)
    refused = javascript("refused", request={"urlGroup": name, "body": {}})
    assert refused["status"] == 404
    assert f"/v2/topics/{name}/endpoints" in json.loads(refused["message"])["error"]


def test_a_url_group_by_the_name_that_it_had_before(javascript: JavaScript, sink: SinkProcess):
    name, place = f"group-{uuid.uuid4().hex}", sink.place("ok")
    request = {"name": name, "endpoints": [{"url": place.url}]}
    javascript("call", resource="topics", method="addEndpoints", request=request)

    [answer] = javascript("publishJSON", request={"topic": name, "body": {}})

    assert answer["url"] == place.url
    assert javascript("call", resource="topics", method="get", request=name)["endpoints"] == request["endpoints"]
    javascript("call", resource="topics", method="removeEndpoints", request=request)
    assert name not in [one["name"] for one in javascript("call", resource="topics", method="list")]
    javascript("call", resource="topics", method="delete", request=name)


def test_a_batch_is_many_messages(javascript: JavaScript, sink: SinkProcess):
    name = f"group-{uuid.uuid4().hex}"
    first, second, grouped = sink.place("ok", part="1"), sink.place("ok", part="2"), sink.place("ok", part="3")
    request = {"name": name, "endpoints": [{"url": grouped.url}]}
    javascript("call", resource="urlGroups", method="addEndpoints", request=request)

    one, [of_group], again = javascript(
        "batchJSON",
        request=[
            {"url": first.url, "body": {"n": 1}, "headers": {"X-Order": "7"}, "deduplicationId": name},
            {"urlGroup": name, "body": {"n": 2}},
            {"url": first.url, "body": {"n": 3}, "deduplicationId": name},
        ],
    )
    [plain] = javascript("batch", request=[{"url": second.url, "body": "text", "method": "PUT"}])

    assert again == {**one, "deduplicated": True}
    [delivery] = first.wait_for(1, 1)
    assert (json.loads(delivery.body), delivery.header("X-Order")) == ({"n": 1}, "7")
    assert delivery.header("Content-Type") == "application/json"
    [delivery] = grouped.wait_for(1, 1)
    assert delivery.header("Upstash-Message-Id") == of_group["messageId"]
    [delivery] = second.wait_for(1, 1)
    assert (delivery.body, delivery.method) == (b"text", "PUT")
    assert delivery.header("Upstash-Message-Id") == plain["messageId"]
    javascript("call", resource="urlGroups", method="delete", request=name)


def test_a_refusal_is_an_error_that_says_why(javascript: JavaScript):
    refused = javascript("refused", request={"url": "http://127.0.0.1:9/", "body": {}, "retries": -1})

    assert (refused["name"], refused["status"]) == ("QstashError", 400)
    assert "retries" in json.loads(refused["message"])["error"].lower()


def test_dev_mode_adopts_the_server(javascript_in_dev_mode: JavaScript, sink: SinkProcess, tmp_path: Path):
    place = sink.place("ok")

    published, said = javascript_in_dev_mode.run("publishJSON", request={"url": place.url, "body": {"n": 1}})

    [delivery] = place.wait_for(1, 1)
    assert delivery.header("Upstash-Message-Id") == published["messageId"]
    assert "Server already running" in said
    assert list(tmp_path.iterdir()) == [], "it looked for a server to download"
    verified = javascript_in_dev_mode(
        "verify", signature=delivery.header("Upstash-Signature"), body=delivery.body.decode(), url=place.url
    )
    assert verified == {"valid": True}
