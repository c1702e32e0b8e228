"""The official Python client and receiver against the running server."""

from __future__ import annotations

import base64
import json
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from qstash import QStash, Receiver
from qstash.errors import QStashError, SignatureError
from qstash.log import LogState
from qstash.message import PublishResponse

from journey.harness import CLOCKS_S, DEV_TOKEN, JavaScript, Server, SinkProcess, python_client, request, wait_until


def publish_json(client: QStash, **settings: object) -> PublishResponse:
    published = client.message.publish_json(**settings)
    assert isinstance(published, PublishResponse)
    return published


def test_json_arrives_as_it_was_published(python: QStash, sink: SinkProcess):
    place = sink.place("ok", path="a/b c", empty="")

    published = publish_json(python, url=place.url, body={"hello": "wörld"}, headers={"X-Order": "7"})

    [delivery] = place.wait_for(1, 1)
    assert delivery.method == "POST"
    assert sink.url + delivery.target == place.url
    assert json.loads(delivery.body) == {"hello": "wörld"}
    assert delivery.header("Content-Type") == "application/json"
    assert delivery.header("X-Order") == "7"
    assert delivery.header("Upstash-Message-Id") == published.message_id
    assert delivery.header("Upstash-Retried") == "0"


def test_binary_arrives_byte_for_byte(python: QStash, sink: SinkProcess):
    place = sink.place("ok")
    every_byte = bytes(range(256)) * 16

    python.message.publish(url=place.url, body=every_byte, content_type="application/octet-stream", method="PATCH")

    [delivery] = place.wait_for(1, 1)
    assert delivery.method == "PATCH"
    assert delivery.body == every_byte
    assert delivery.header("Content-Type") == "application/octet-stream"


def test_delay_of_two_seconds(python: QStash, sink: SinkProcess):
    place = sink.place("ok")
    before = time.monotonic()

    publish_json(python, url=place.url, body={}, delay="2s")

    [delivery] = place.wait_for(1, 3)
    assert delivery.arrived >= before + 2 - CLOCKS_S


def test_two_failures_then_success(python: QStash, sink: SinkProcess, server: Server):
    place = sink.place("fail", times=2, status=500, retry_after=1)

    published = publish_json(python, url=place.url, body={"n": 1}, retries=3)

    server.wait_for_state(published.message_id, "DELIVERED", 4)
    deliveries = place.deliveries()
    assert [(d.status, d.header("Upstash-Retried")) for d in deliveries] == [(500, "0"), (500, "1"), (200, "2")]
    first, second, third = (d.arrived for d in deliveries)
    assert second - first >= 1 - CLOCKS_S
    assert third - second >= 1 - CLOCKS_S


def test_retries_exhausted(python: QStash, sink: SinkProcess, server: Server):
    place = sink.place("always", status=404, retry_after=1)

    published = publish_json(python, url=place.url, body={}, retries=1)

    server.wait_for_state(published.message_id, "FAILED", 3)
    assert [d.header("Upstash-Retried") for d in place.deliveries()] == ["0", "1"]  # 1 + 1 retry


def test_an_endpoint_can_end_the_retries(python: QStash, sink: SinkProcess, server: Server):
    place = sink.place("status", code=489, nonretryable=1)

    published = publish_json(python, url=place.url, body={}, retries=3)

    server.wait_for_state(published.message_id, "FAILED", 1)
    assert len(place.deliveries()) == 1


def test_a_redirect_is_a_failure_and_not_followed(python: QStash, sink: SinkProcess, server: Server):
    place = sink.place("redirect")

    published = publish_json(python, url=place.url, body={}, retries=0)

    server.wait_for_state(published.message_id, "FAILED", 1)
    assert [d.status for d in place.deliveries()] == [302]
    assert sink.deliveries("/ok/redirected") == []


def test_fifty_at_once_under_one_deduplication_id_are_one_message(python: QStash, sink: SinkProcess, server: Server):
    place = sink.place("ok")
    deduplication_id = uuid.uuid4().hex

    def publish(_: int) -> PublishResponse:
        return publish_json(python, url=place.url, body={"n": 1}, deduplication_id=deduplication_id)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(publish, range(50)))

    [message_id] = {answer.message_id for answer in answers}
    assert [answer.deduplicated for answer in answers].count(True) == 49
    server.wait_for_state(message_id, "DELIVERED", 1)
    assert len(place.deliveries()) == 1


def test_cancelled_before_its_time_it_is_never_delivered(python: QStash, sink: SinkProcess, server: Server):
    place = sink.place("ok")
    published = publish_json(python, url=place.url, body={}, delay=2)
    due = time.monotonic() + 2

    python.message.cancel(published.message_id)

    assert time.monotonic() < due, "too slow to show anything"
    wait_until(lambda: time.monotonic() > due + 1, 3)
    assert place.deliveries() == []
    assert server.message(published.message_id)["state"] == "CANCELED"


def test_cancel_says_how_many_it_cancelled(python: QStash, sink: SinkProcess, server: Server):
    published = publish_json(python, url=sink.place("ok").url, body={}, delay=600)
    path = f"{server.url}/v2/messages/{published.message_id}"
    token = {"Authorization": f"Bearer {DEV_TOKEN}"}

    assert [request("DELETE", path, token).json() for _ in range(2)] == [{"cancelled": 1}, {"cancelled": 0}]


def test_both_receivers_verify_what_was_delivered(
    python: QStash, python_receiver: Receiver, javascript: JavaScript, sink: SinkProcess
):
    place = sink.place("ok", path="a/b c", empty="")
    publish_json(python, url=place.url, body={"hello": "wörld"})
    [delivery] = place.wait_for(1, 1)
    signature, body = delivery.header("Upstash-Signature"), delivery.body.decode()
    assert signature

    python_receiver.verify(signature=signature, body=body, url=place.url)
    assert javascript("verify", signature=signature, body=body, url=place.url) == {"valid": True}

    with pytest.raises(SignatureError):
        python_receiver.verify(signature=signature, body=body + " ", url=place.url)
    with pytest.raises(SignatureError):
        python_receiver.verify(signature=signature, body=body, url=place.url + "&more")


def test_an_empty_body_is_signed_too(python: QStash, python_receiver: Receiver, sink: SinkProcess):
    place = sink.place("ok")
    python.message.publish(url=place.url, method="GET")

    [delivery] = place.wait_for(1, 1)

    assert (delivery.method, delivery.body) == ("GET", b"")
    signature = delivery.header("Upstash-Signature")
    assert signature
    python_receiver.verify(signature=signature, body="", url=place.url)


def test_message_is_read_back(python: QStash, sink: SinkProcess):
    place = sink.place("ok")
    before_ms = time.time() * 1000
    published = publish_json(python, url=place.url, body={"n": 1}, retries=5, delay=600, headers={"X-Order": "7"})

    message = python.message.get(published.message_id)

    assert message.message_id == published.message_id
    assert message.url == place.url
    assert message.method == "POST"
    assert message.body
    assert json.loads(message.body) == {"n": 1}
    assert message.max_retries == 5
    assert message.headers
    assert message.headers["X-Order"] == ["7"]
    assert message.headers["Content-Type"] == ["application/json"]
    assert 0 <= message.created_at - before_ms + 1000 * CLOCKS_S < 60_000
    assert round((message.not_before - message.created_at) / 1000) == 600
    assert message.caller_ip == "127.0.0.1"
    python.message.cancel(published.message_id)


def test_a_failed_message_is_found_read_and_deleted_in_the_dead_letter_queue(python: QStash, sink: SinkProcess):
    place = sink.place("status", code=418, body="teapot")
    before_ms = int(time.time() * 1000)
    published = publish_json(python, url=place.url, body={"n": 1}, retries=0, label="dead", headers={"X-Order": "7"})

    [letter] = wait_until(lambda: python.dlq.list(filter={"message_id": published.message_id}).messages, 1)

    assert letter.message_id == published.message_id
    assert (letter.url, letter.method, letter.max_retries, letter.label) == (place.url, "POST", 0, "dead")
    assert letter.body
    assert json.loads(letter.body) == {"n": 1}
    assert letter.headers
    assert letter.headers["X-Order"] == ["7"]
    assert letter.response_status == 418
    assert letter.response_headers
    assert "Content-Length" in letter.response_headers
    assert python.dlq.get(letter.dlq_id) == letter
    for matching in (
        {"label": "dead", "response_status": 418, "caller_ip": "127.0.0.1"},
        {"from_time": before_ms - 1_000, "to_time": int(time.time() * 1000) + 1_000},
    ):
        assert python.dlq.list(filter={"url": place.url, **matching}).messages == [letter]
    for other in ({"label": "x"}, {"response_status": 500}, {"queue": "q"}, {"url_group": "g"}, {"schedule_id": "s"}):
        assert python.dlq.list(filter={"url": place.url, **other}).messages == []

    python.dlq.delete(letter.dlq_id)

    assert python.dlq.list(filter={"url": place.url}).messages == []
    for gone in (python.dlq.get, python.dlq.delete):
        with pytest.raises(QStashError, match="status: 404"):
            gone(letter.dlq_id)


def test_dead_letters_are_listed_in_pages_and_deleted_together(python: QStash, sink: SinkProcess):
    place = sink.place("always", status=500)
    published = {publish_json(python, url=place.url, body={}, retries=0).message_id for _ in range(5)}
    wait_until(lambda: len(python.dlq.list(filter={"url": place.url}).messages) == 5, 1)

    pages, cursor = [], None
    while True:
        page = python.dlq.list(filter={"url": place.url}, count=2, cursor=cursor)
        pages.append(page.messages)
        cursor = page.cursor
        if cursor is None:
            break

    letters = [letter for page in pages for letter in page]
    assert {letter.message_id for letter in letters} == published
    assert max(map(len, pages)) == 2
    assert python.dlq.delete_many([*(letter.dlq_id for letter in letters[:3]), "1-1"]) == 3
    assert python.dlq.list(filter={"url": place.url}).messages == letters[3:]
    assert python.dlq.delete_many([letter.dlq_id for letter in letters]) == 2


def test_what_waits_for_its_time_is_made_due_at_once(python: QStash, sink: SinkProcess, server: Server):
    delayed, retrying = sink.place("ok"), sink.place("fail", times=1, status=500, retry_after=600)
    delayed_id = publish_json(python, url=delayed.url, body={}, delay="10d").message_id
    retrying_id = publish_json(python, url=retrying.url, body={}).message_id
    server.wait_for_state(retrying_id, "RETRY", 1)

    for message_id in (delayed_id, retrying_id):
        assert server.post(f"/v2/messages/{message_id}/retry").json() == {"messageId": message_id}

    for message_id in (delayed_id, retrying_id):
        server.wait_for_state(message_id, "DELIVERED", 1)
        assert server.post(f"/v2/messages/{message_id}/retry").status == 409
    assert [d.header("Upstash-Retried") for d in retrying.deliveries()] == ["0", "1"]
    assert server.post("/v2/messages/msg_unknown/retry").status == 404


def test_logs_tell_what_befell_a_message(python: QStash, sink: SinkProcess, server: Server):
    place, label = sink.place("fail", times=1, status=500, retry_after=1), f"label-{uuid.uuid4().hex}"
    published = publish_json(python, url=place.url, body={"n": 1}, label=label, headers={"X-Order": "7"})
    server.wait_for_state(published.message_id, "DELIVERED", 3)
    life = ["DELIVERED", "ACTIVE", "RETRY", "ERROR", "ACTIVE", "CREATED"]

    # By its id at once, by anything else when it is written.
    logs = python.log.list(filter={"message_id": published.message_id}).logs
    assert [log.state.value for log in logs] == life
    labelled = wait_until(
        lambda: found if len(found := python.log.list(filter={"label": label}).logs) == len(life) else None,
        server.logs_within_s,
    )
    assert [(log.time, log.state) for log in labelled] == [(log.time, log.state) for log in logs]

    for log in (*logs, *labelled):
        assert (log.message_id, log.url, log.label, log.method) == (published.message_id, place.url, label, "POST")
        assert json.loads(base64.b64decode(log.body_base64 or "")) == {"n": 1}
        assert (log.headers or {})["X-Order"] == ["7"]
    assert labelled[3].response_status == 500
    assert labelled[3].response_headers
    assert (labelled[2].next_delivery_time or 0) >= labelled[2].time + 1000

    assert python.log.list(filter={"label": label, "state": LogState.RETRY}).logs == [labelled[2]]
    # The first attempt may begin in the millisecond in which the message was made.
    began = labelled[-1].time
    until = [log for log in labelled if log.time <= began]
    assert python.log.list(filter={"label": label, "to_time": began}).logs == until
    assert python.log.list(filter={"message_ids": [published.message_id, "msg_none"]}).logs == logs

    pages, cursor = [], None
    while True:
        page = python.log.list(filter={"label": label}, count=4, cursor=cursor)
        pages += page.logs
        cursor = page.cursor
        if cursor is None:
            break
    assert pages == labelled


def test_a_url_group_is_made_published_to_and_deleted(python: QStash, sink: SinkProcess):
    group, first, second = f"group-{uuid.uuid4().hex}", sink.place("ok", part="1"), sink.place("status", code=404)
    before_ms = time.time() * 1000
    python.url_group.upsert_endpoints(group, [{"url": first.url, "name": "first"}, {"url": second.url}])

    made = python.url_group.get(group)

    assert made.name == group
    assert [(one.url, one.name) for one in made.endpoints] == [(first.url, "first"), (second.url, None)]
    assert 0 <= made.created_at - before_ms + 1000 * CLOCKS_S < 60_000
    assert made in python.url_group.list()

    answers = python.message.publish_json(url_group=group, body={"n": 1}, retries=0, deduplication_id="once")
    assert isinstance(answers, list)
    assert [(one.url, one.deduplicated) for one in answers] == [(first.url, False), (second.url, False)]
    for place, answer in zip((first, second), answers, strict=True):
        [delivery] = place.wait_for(1, 1)
        assert json.loads(delivery.body) == {"n": 1}
        assert delivery.header("Upstash-Message-Id") == answer.message_id
        assert delivery.header("Upstash-Topic-Name") == group
    message = python.message.get(answers[0].message_id)
    assert (message.url_group, message.endpoint) == (group, "first")
    [letter] = wait_until(lambda: python.dlq.list(filter={"url_group": group}).messages, 1)
    assert (letter.message_id, letter.url_group) == (answers[1].message_id, group)
    python.dlq.delete(letter.dlq_id)
    again = python.message.publish_json(url_group=group, body={"n": 1}, deduplication_id="once")
    assert isinstance(again, list)
    assert [(one.message_id, one.deduplicated) for one in again] == [(one.message_id, True) for one in answers]

    python.url_group.upsert_endpoints(group, [{"url": first.url + "&more", "name": "first"}])
    python.url_group.remove_endpoints(group, [{"url": second.url}])
    assert [one.url for one in python.url_group.get(group).endpoints] == [first.url + "&more"]
    python.url_group.remove_endpoints(group, [{"name": "first"}])
    with pytest.raises(QStashError, match="status: 404"):
        python.url_group.get(group)
    python.url_group.upsert_endpoints(group, [{"url": first.url}])
    python.url_group.delete(group)
    with pytest.raises(QStashError, match="no URL group"):
        python.message.publish_json(url_group=group, body={})


def test_a_batch_is_many_messages(python: QStash, sink: SinkProcess):
    group = f"group-{uuid.uuid4().hex}"
    first, second, grouped = sink.place("ok", part="1"), sink.place("ok", part="2"), sink.place("ok", part="3")
    python.url_group.upsert_endpoints(group, [{"url": grouped.url}])

    one, of_group, other = python.message.batch_json(
        [
            {"url": first.url, "body": {"n": 1}, "headers": {"X-Order": "7"}, "delay": 1},
            {"url_group": group, "body": {"n": 2}, "retries": 0},
            {"url": first.url, "body": {"n": 3}, "deduplication_id": uuid.uuid4().hex, "method": "PUT"},
        ]
    )
    [plain] = python.message.batch([{"url": second.url, "body": "text", "content_type": "text/plain"}])

    assert isinstance(of_group, list)
    assert [answer.url for answer in of_group] == [grouped.url]
    for answer in (one, other, plain):
        assert not isinstance(answer, list)
    by_body = {json.loads(delivery.body)["n"]: delivery for delivery in first.wait_for(2, 2)}
    assert (by_body[1].header("X-Order"), by_body[1].method, by_body[3].method) == ("7", "POST", "PUT")
    assert by_body[1].header("Content-Type") == "application/json"
    [delivery] = second.wait_for(1, 1)
    assert (delivery.body, delivery.header("Content-Type")) == (b"text", "text/plain")
    [delivery] = grouped.wait_for(1, 1)
    assert delivery.header("Upstash-Message-Id") == of_group[0].message_id
    with pytest.raises(QStashError, match=r"\[1\].headers"):
        python.message.batch_json([{"url": second.url, "body": {}}, {"url": second.url, "body": {}, "delay": "soon"}])
    python.url_group.delete(group)


def test_signing_keys_are_read(python: QStash, python_receiver: Receiver):
    keys = python.signing_key.get()

    assert (keys.current, keys.next) == (python_receiver._current_signing_key, python_receiver._next_signing_key)


def test_a_refusal_is_an_error_that_says_why(python: QStash, server: Server):
    with pytest.raises(QStashError, match="status: 400"):
        publish_json(python, url="http://127.0.0.1:9/", body={}, delay="soon")
    with pytest.raises(QStashError, match="status: 404"):
        python.message.get("msg_unknown")
    with python_client(server.url, "not-a-token") as stranger, pytest.raises(QStashError, match="status: 401"):
        publish_json(stranger, url="http://127.0.0.1:9/", body={})
