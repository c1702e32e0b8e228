"""Schedules, with both official clients. That one fires when its minute comes is awaited in test_waits."""

from __future__ import annotations

import json
import uuid

import pytest
from qstash import QStash
from qstash.errors import QStashError

from journey.harness import JavaScript, Server, SinkProcess, wait_until


def run(server: Server, schedule_id: str) -> str:
    """Fires it now. Returns the message's id."""
    reply = server.post(f"/v2/schedules/{schedule_id}/run")
    assert reply.status == 201, reply
    return str(reply.json()["messageId"])


def test_a_schedule_from_its_making_to_its_end(python: QStash, server: Server, sink: SinkProcess):
    place, name = sink.place("ok", part="1"), f"daily-{uuid.uuid4().hex}"

    made = python.schedule.create_json(
        destination=place.url,
        cron="CRON_TZ=America/New_York 0 4 * * *",
        body={"n": 1},
        schedule_id=name,
        method="PUT",
        headers={"X-Order": "7"},
        retries=2,
        retry_delay="1000 * (1 + retried)",
        delay=1,
        timeout="20s",
        callback="http://127.0.0.1:9/done",
        callback_headers={"Y": "z"},
        failure_callback="http://127.0.0.1:9/failed",
        label="nightly",
    )

    assert made == name
    schedule = python.schedule.get(name)
    assert (schedule.schedule_id, schedule.destination, schedule.cron) == (
        *(name, place.url),
        "CRON_TZ=America/New_York 0 4 * * *",
    )
    assert (schedule.method, schedule.retries, schedule.retry_delay_expression) == ("PUT", 2, "1000 * (1 + retried)")
    assert (schedule.delay, schedule.label, schedule.paused) == (1, "nightly", False)
    assert schedule.headers == {"Content-Type": ["application/json"], "X-Order": ["7"]}
    assert (schedule.callback, schedule.callback_headers) == ("http://127.0.0.1:9/done", {"Y": ["z"]})
    assert schedule.failure_callback == "http://127.0.0.1:9/failed"
    assert json.loads(schedule.body or "") == {"n": 1}
    assert schedule.next_schedule_time
    assert schedule.next_schedule_time > schedule.created_at
    assert (schedule.last_schedule_time, schedule.last_schedule_states, schedule.error) == (None, None, None)
    assert name in [one.schedule_id for one in python.schedule.list()]

    python.schedule.pause(name)
    python.schedule.pause(name)
    assert python.schedule.get(name).paused
    python.schedule.resume(name)
    assert not python.schedule.get(name).paused

    message_id = run(server, name)
    [delivery] = place.wait_for(1, 2)
    assert (delivery.method, json.loads(delivery.body), delivery.header("X-Order")) == ("PUT", {"n": 1}, "7")
    assert delivery.header("Upstash-Message-Id") == message_id
    assert delivery.header("Upstash-Schedule-Id") == name
    assert python.message.get(message_id).schedule_id == name
    events = wait_until(lambda: python.log.list(filter={"schedule_id": name}).logs, server.logs_within_s)
    assert {event.message_id for event in events} == {message_id}

    python.schedule.delete(name)
    with pytest.raises(QStashError, match="not found"):
        python.schedule.get(name)


def test_an_id_that_is_given_again_replaces_it(python: QStash, sink: SinkProcess):
    place, name = sink.place("ok"), f"replaced-{uuid.uuid4().hex}"
    python.schedule.create(destination=place.url, cron="0 0 1 1 *", body="old", schedule_id=name, retries=1)
    first = python.schedule.get(name)

    python.schedule.create(destination=place.url, cron="@monthly", schedule_id=name)

    second = python.schedule.get(name)
    assert (second.cron, second.body, second.retries, second.created_at) == ("@monthly", "", 3, first.created_at)
    assert [one.schedule_id for one in python.schedule.list()].count(name) == 1
    python.schedule.delete(name)


def test_what_can_not_be_a_schedule_is_refused(python: QStash):
    for cron in ("* * * * * *", "@reboot", "CRON_TZ=Nowhere/Atall * * * * *", "0 0 31 2 *"):
        with pytest.raises(QStashError, match="Upstash-Cron"):
            python.schedule.create(destination="http://127.0.0.1:9/", cron=cron)
    with pytest.raises(QStashError, match="Upstash-Schedule-Id"):
        python.schedule.create(destination="http://127.0.0.1:9/", cron="@daily", schedule_id="no id")
    with pytest.raises(QStashError, match="not found"):
        python.schedule.delete("unknown")


def test_a_schedule_of_a_url_group(python: QStash, server: Server, sink: SinkProcess):
    first, second, group = sink.place("ok", part="1"), sink.place("ok", part="2"), f"group-{uuid.uuid4().hex}"
    python.url_group.upsert_endpoints(group, [{"url": first.url}, {"url": second.url}])
    schedule_id = python.schedule.create(destination=group, cron="@yearly", body="text", content_type="text/plain")

    answer = server.post(f"/v2/schedules/{schedule_id}/run").json()

    assert [one["url"] for one in answer] == [first.url, second.url]
    for place in (first, second):
        [delivery] = place.wait_for(1, 2)
        assert (delivery.body, delivery.header("Upstash-Topic-Name")) == (b"text", group)
        assert delivery.header("Upstash-Schedule-Id") == schedule_id
    python.schedule.delete(schedule_id)
    python.url_group.delete(group)


def test_javascript_makes_reads_pauses_and_deletes_them(javascript: JavaScript, server: Server, sink: SinkProcess):
    place, name = sink.place("ok"), f"js-{uuid.uuid4().hex}"
    request = {
        "destination": place.url,
        "cron": "CRON_TZ=Asia/Tokyo 30 9 * * 1-5",
        "scheduleId": name,
        "body": json.dumps({"n": 1}),
        "headers": {"X-Order": "7"},
        "retries": 2,
        "delay": 1,
        "timeout": 20,
        "label": ["nightly", "b"],
        "callback": "http://127.0.0.1:9/done",
        "redact": {"header": ["X-Order"]},
    }

    assert javascript("call", resource="schedules", method="create", request=request) == {"scheduleId": name}

    schedule = javascript("call", resource="schedules", method="get", request=name)
    assert (schedule["scheduleId"], schedule["destination"], schedule["cron"]) == (
        *(name, place.url),
        "CRON_TZ=Asia/Tokyo 30 9 * * 1-5",
    )
    assert (schedule["method"], schedule["retries"], schedule["delay"], schedule["labels"]) == (
        *("POST", 2, 1),
        ["nightly", "b"],
    )
    assert schedule["header"]["X-Order"][0].startswith("REDACTED:")
    assert schedule["header"]["Content-Type"] == ["application/json"]
    assert schedule["isPaused"] is False
    assert name in [one["scheduleId"] for one in javascript("call", resource="schedules", method="list")]
    javascript("call", resource="schedules", method="pause", request={"schedule": name})
    assert javascript("call", resource="schedules", method="get", request=name)["isPaused"] is True
    message_id = run(server, name)
    [delivery] = place.wait_for(1, 2)
    assert (json.loads(delivery.body), delivery.header("X-Order")) == ({"n": 1}, "7")
    assert delivery.header("Upstash-Message-Id") == message_id
    javascript("call", resource="schedules", method="resume", request={"schedule": name})
    assert javascript("call", resource="schedules", method="get", request=name)["isPaused"] is False
    javascript("call", resource="schedules", method="delete", request=name)
    assert name not in [one["scheduleId"] for one in javascript("call", resource="schedules", method="list")]
