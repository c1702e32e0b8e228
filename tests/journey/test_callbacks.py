"""Callbacks, labels and redaction as both official clients ask for them, and what arrives, byte for byte."""

from __future__ import annotations

import base64
import json
from typing import Any

from qstash import QStash, Receiver

from journey.harness import CURRENT_KEY, DEV_TOKEN, NEXT_KEY, JavaScript, Server, SinkProcess, request


def lists_of(headers: dict[str, str]) -> dict[str, list[str]]:
    return {name: [value] for name, value in headers.items()}


def test_each_client_is_called_back_about_every_attempt(
    python: QStash, javascript: JavaScript, sink: SinkProcess, server: Server
):
    for publish in (python_publish(python), javascript_publish(javascript)):
        place, heard, failed = sink.place("fail", times=1, retry_after=1), sink.place("ok", n="1"), sink.place("ok")
        message_id = publish(place.url, heard.url, failed.url)

        server.wait_for_state(message_id, "DELIVERED", 4)
        first, second = heard.wait_for(2, 5)

        assert (first.method, first.header("Content-Type")) == ("POST", "application/json")
        assert first.header("X-Told") == "yes"
        assert first.header("Upstash-Message-Id") not in ("", message_id)
        receiver = Receiver(current_signing_key=CURRENT_KEY, next_signing_key=NEXT_KEY)
        receiver.verify(signature=first.header("Upstash-Signature"), body=first.body.decode(), url=heard.url)
        told = json.loads(first.body)
        assert "retried" not in told
        assert told.pop("header")["Retry-After"] == ["1"]
        told.pop("body", None)
        created = told.pop("createdAt")
        assert told == {
            "status": 500,
            "maxRetries": 3,
            "sourceMessageId": message_id,
            "url": place.url,
            "method": "POST",
            "sourceHeader": lists_of({"Content-Type": "application/json", "X-Order": "7"}),
            "sourceBody": base64.b64encode(b'{"n": 1}' if publish.__name__ == "python" else b'{"n":1}').decode(),
            "callerIP": "127.0.0.1",
            "notBefore": created,
        }
        last = json.loads(second.body)
        assert (last["status"], last["retried"]) == (200, 1)
        assert failed.deliveries() == []


def python_publish(python: QStash) -> Any:
    def python_(url: str, callback: str, failure_callback: str) -> str:
        return python.message.publish_json(  # type: ignore[union-attr]
            url=url,
            body={"n": 1},
            headers={"X-Order": "7"},
            callback=callback,
            callback_headers={"Forward-X-Told": "yes"},
            failure_callback=failure_callback,
        ).message_id

    python_.__name__ = "python"
    return python_


def javascript_publish(javascript: JavaScript) -> Any:
    def javascript_(url: str, callback: str, failure_callback: str) -> str:
        wanted = {
            "url": url,
            "body": {"n": 1},
            "headers": {"X-Order": "7", "Upstash-Callback-Forward-X-Told": "yes"},
            "callback": callback,
            "failureCallback": failure_callback,
        }
        return str(javascript("publishJSON", request=wanted)["messageId"])

    return javascript_


def test_a_failure_callback_tells_where_the_dead_letter_is(python: QStash, sink: SinkProcess, server: Server):
    place, failed = sink.place("always", status=404), sink.place("ok")

    published = python.message.publish_json(
        url=place.url, body={}, retries=0, failure_callback=failed.url, failure_callback_headers={"Retries": "1"}
    )

    [delivery] = failed.wait_for(1, 3)
    told = json.loads(delivery.body)
    assert (told["status"], told["maxRetries"], told["sourceMessageId"]) == (404, 0, published.message_id)
    milliseconds, _, number = told["dlqId"].partition("-")
    assert int(milliseconds) >= told["createdAt"]
    assert number.isdigit()


def test_labels_expressions_and_redaction(python: QStash, javascript: JavaScript, sink: SinkProcess, server: Server):
    place = sink.place("ok")
    ids = [
        python.message.publish(
            url=place.url,
            body="a secret",
            headers={"X-Key": "hush"},
            label="first",
            retry_delay="7000 * retried",
            redact={"body": True, "header": ["X-Key"]},
        ).message_id,
        javascript(
            "publish",
            request={
                "url": place.url,
                "body": "a secret",
                "headers": {"X-Key": "hush"},
                "label": ["first", "second"],
                "retryDelay": "7000 * retried",
                "redact": {"body": True, "header": ["X-Key"]},
            },
        )["messageId"],
    ]

    for delivery in place.wait_for(2, 3):
        assert (delivery.body, delivery.header("X-Key")) == (b"a secret", "hush")
    for message_id, labels in zip(ids, (["first"], ["first", "second"]), strict=True):
        shown = javascript("get", messageId=message_id)
        assert (shown["label"], shown["labels"]) == ("first", labels)
        assert shown["retryDelayExpression"] == "7000 * retried"
        assert shown["body"].startswith("REDACTED:")
        assert shown["header"]["X-Key"][0].startswith("REDACTED:")
        assert "hush" not in json.dumps(shown)


def test_a_webhook_is_forwarded_with_all_its_headers(sink: SinkProcess, server: Server):
    place = sink.place("ok")
    query = f"upstash-header-forward=true&upstash-retries=1&qstash_token={DEV_TOKEN.replace('=', '%3D')}"
    reply = request(
        "POST",
        f"{server.url}/v2/publish/{place.url}?x=1&{query}",
        {"X-Hub-Signature": "sha256=1", "User-Agent": "hooks/1"},
        body=b"{}",
    )
    assert reply.status == 201, reply.body

    [delivery] = place.wait_for(1, 2)
    assert delivery.target.endswith("?x=1")
    assert (delivery.header("X-Hub-Signature"), delivery.header("User-Agent")) == ("sha256=1", "hooks/1")
    assert not [name for name, value in delivery.headers if DEV_TOKEN in value]
