"""Queues and flow-control keys, with both official clients and with a slow endpoint that counts."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from qstash import QStash
from qstash.errors import QStashError

from journey.harness import DEV_TOKEN, Client, JavaScript, Place, SinkProcess, request, wait_until

_TOKEN = {"Authorization": f"Bearer {DEV_TOKEN}"}


def name_of(what: str) -> str:
    return f"{what}-{uuid.uuid4().hex}"


def fill(server: Client, items: list[dict[str, object]]) -> list[str]:
    """Publishes them in batches, in their order. Returns the ids."""
    ids: list[str] = []
    for at in range(0, len(items), 500):
        reply = request("POST", f"{server.url}/v2/batch", _TOKEN, 60, json.dumps(items[at : at + 500]).encode())
        assert reply.status == 201, reply
        ids += [one["messageId"] for one in reply.json()]
    return ids


def all_have_ended(server: Client, place: Place, ids: list[str], at_most_s: float) -> None:
    def ended() -> bool:
        return {one.header("Upstash-Message-Id") for one in place.deliveries() if one.status == 200} >= {*ids}

    wait_until(ended, at_most_s)


def at_once(place: Place) -> int:
    """The most requests that were out at the same time."""
    changes = sorted(
        change for one in place.deliveries() for change in ((one.arrived, 1), (one.answered or float("inf"), -1))
    )
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def in_any_second(times: list[float]) -> int:
    times, most, first = sorted(times), 0, 0
    for number, at in enumerate(times):
        while at - times[first] >= 1:
            first += 1
        most = max(most, number - first + 1)
    return most


def test_a_queue_from_its_making_to_its_end(python: QStash, sink: SinkProcess):
    place, queue = sink.place("ok"), name_of("orders")
    with pytest.raises(QStashError, match="not found"):
        python.queue.get(queue)

    python.queue.upsert(queue, parallelism=2, paused=True)

    made = python.queue.get(queue)
    assert (made.name, made.parallelism, made.lag, made.paused) == (queue, 2, 0, True)
    assert made.created_at <= made.updated_at
    first = python.message.enqueue(queue=queue, url=place.url, body="1")
    second = python.message.enqueue_json(queue=queue, url=place.url, body={"n": 2}, headers={"X-Order": "7"})
    assert python.queue.get(queue).lag == 2
    assert python.message.get(second.message_id).queue == queue
    python.queue.resume(queue)
    arrived = place.wait_for(2, 4)
    assert {one.header("Upstash-Message-Id") for one in arrived} == {first.message_id, second.message_id}
    wait_until(lambda: python.queue.get(queue).lag == 0, 2)
    python.queue.pause(queue)
    assert python.queue.get(queue).paused
    python.queue.upsert(queue, parallelism=1)
    assert (python.queue.get(queue).parallelism, python.queue.get(queue).paused) == (1, False)
    assert queue in [one.name for one in python.queue.list()]
    python.queue.delete(queue)
    assert queue not in [one.name for one in python.queue.list()]
    python.queue.delete(queue)


def test_what_waits_in_a_queue_that_is_deleted_is_cancelled(python: QStash, server: Client, sink: SinkProcess):
    place, queue = sink.place("ok"), name_of("orders")
    python.queue.upsert(queue, paused=True)
    waiting = python.message.enqueue(queue=queue, url=place.url)
    shown = request("GET", f"{server.url}/v2/messages/{waiting.message_id}", _TOKEN, 5).json()
    assert shown["waiting"].startswith(f"queue {queue} has been paused since ")

    python.queue.delete(queue)

    def state() -> str:
        return str(request("GET", f"{server.url}/v2/messages/{waiting.message_id}", _TOKEN, 5).json()["state"])

    wait_until(lambda: state() == "CANCELED", 5)
    python.message.enqueue(queue=queue, url=place.url, body="again")
    [delivery] = place.wait_for(1, 4)
    assert delivery.body == b"again"
    assert python.queue.get(queue).parallelism == 1


def test_a_flow_control_key(python: QStash, sink: SinkProcess):
    place, key = sink.place("ok"), name_of("tenant")
    with pytest.raises(QStashError, match="not found"):
        python.flow_control.get(key)
    python.flow_control.pin(key, {"parallelism": 3, "rate": 20, "period": 60})

    sent = python.message.publish(url=place.url, flow_control={"key": key, "parallelism": 1, "rate": 1})

    [delivery] = place.wait_for(1, 4)
    assert delivery.header("Upstash-Message-Id") == sent.message_id
    message = python.message.get(sent.message_id)
    assert message.flow_control
    assert (message.flow_control.key, message.flow_control.parallelism, message.flow_control.rate) == (key, 1, 1)
    info = python.flow_control.get(key)
    assert (info.key, info.parallelism_max, info.rate_max, info.rate_period) == (key, 3, 20, 60)
    assert (info.is_pinned_parallelism, info.is_pinned_rate, info.is_paused, info.rate_count) == (True, True, False, 1)
    python.flow_control.pause(key)
    assert python.flow_control.get(key).is_paused
    held = python.message.publish(url=place.url, flow_control={"key": key})
    assert python.flow_control.get(key).wait_list_size == 1
    python.flow_control.reset_rate(key)
    assert python.flow_control.get(key).rate_count == 0
    python.flow_control.resume(key)
    assert place.wait_for(2, 4)[1].header("Upstash-Message-Id") == held.message_id
    python.flow_control.unpin(key, {"parallelism": True, "rate": True})
    assert python.flow_control.get(key).parallelism_max == 3
    python.message.publish(url=place.url, flow_control={"key": key, "parallelism": 7})
    assert (python.flow_control.get(key).parallelism_max, python.flow_control.get(key).rate_max) == (7, 0)
    assert python.flow_control.get_global_parallelism().parallelism_max >= 7


def test_batches_groups_and_schedules_go_through_lanes(python: QStash, server: Client, sink: SinkProcess):
    place, queue, key, group = sink.place("ok"), name_of("orders"), name_of("tenant"), name_of("group")
    python.queue.upsert(queue, parallelism=2, paused=True)
    python.url_group.upsert_endpoints(group, [{"url": f"{place.url}/{number}"} for number in range(2)])
    limits = {"key": key, "rate": 100, "period": "3d5h12m"}

    one, *several = python.message.batch_json(
        [
            {"queue": queue, "url": place.url, "body": {"n": 1}},
            {"queue": queue, "url_group": group, "body": {"n": 2}},
            {"url": place.url, "body": {"n": 3}, "flow_control": limits},
        ]
    )
    in_group = python.message.enqueue_json(queue=queue, url_group=group, body={"n": 4})
    in_queue = python.schedule.create(destination=place.url, cron="@yearly", queue=queue)
    under_key = python.schedule.create(destination=place.url, cron="@yearly", flow_control=limits)

    assert (len(several[0]), len(in_group)) == (2, 2)
    assert server.message(one.message_id)["waiting"].startswith(f"queue {queue} has been paused since ")
    period = (3 * 24 + 5) * 3_600 + 12 * 60
    with_key = python.schedule.get(under_key).flow_control
    assert with_key
    assert (with_key.key, with_key.rate, with_key.period) == (key, 100, period)
    assert python.schedule.get(in_queue).queue == queue
    for schedule_id in (in_queue, under_key):
        assert server.post(f"/v2/schedules/{schedule_id}/run").status == 201
        python.schedule.delete(schedule_id)
    assert (python.queue.get(queue).lag, python.queue.get(queue).parallelism) == (6, 2)
    assert (python.flow_control.get(key).rate_max, python.flow_control.get(key).rate_period) == (100, period)
    place.wait_for(2, 4)
    python.queue.resume(queue)
    place.wait_for(8, 4)
    wait_until(
        lambda: any(log.message_id == one.message_id for log in python.log.list(filter={"queue": queue}).logs),
        server.logs_within_s,
    )
    python.url_group.delete(group)


def test_javascript_puts_messages_into_a_queue(javascript: JavaScript, sink: SinkProcess):
    place, queue = sink.place("ok"), name_of("js")
    javascript("queue", method="upsert", queueName=queue, request={"parallelism": 1})
    javascript("queue", method="pause", queueName=queue)
    javascript("queue", method="enqueue", queueName=queue, request={"url": place.url, "body": "1"})
    javascript("queue", method="enqueueJSON", queueName=queue, request={"url": place.url, "body": {"n": 2}})
    shown = javascript("queue", method="get", queueName=queue)
    assert (shown["name"], shown["parallelism"], shown["lag"], shown["paused"]) == (queue, 1, 2, True)
    javascript("queue", method="resume", queueName=queue)
    assert [one.body for one in place.wait_for(2, 4)] == [b"1", b'{"n":2}']
    assert queue in [one["name"] for one in javascript("queue", method="list", queueName=queue)]
    javascript("queue", method="delete", queueName=queue)
    assert queue not in [one["name"] for one in javascript("queue", method="list", queueName=queue)]


def test_javascript_pins_a_key(javascript: JavaScript, sink: SinkProcess):
    place, key = sink.place("ok"), name_of("js")
    flow_control = {"key": key, "parallelism": 2, "rate": 10, "period": "1m"}
    javascript("publishJSON", request={"url": place.url, "body": {}, "flowControl": flow_control})
    place.wait_for(1, 4)
    javascript("flowControl", method="pin", args=[key, {"rate": 5, "period": 30}])
    javascript("flowControl", method="pause", args=[key])
    javascript("flowControl", method="resetRate", args=[key])
    info = javascript("flowControl", method="get", args=[key])
    assert (info["parallelismMax"], info["rateMax"], info["ratePeriod"], info["rateCount"]) == (2, 5, 30, 0)
    assert (info["isPaused"], info["isPinnedRate"], info["isPinnedParallelism"]) == (True, True, False)
    javascript("flowControl", method="resume", args=[key])
    javascript("flowControl", method="unpin", args=[key, {"rate": True}])
    info = javascript("flowControl", method="get", args=[key])
    assert (info["isPaused"], info["isPinnedRate"]) == (False, False)
    assert javascript("flowControl", method="getGlobalParallelism", args=[])["parallelismMax"] >= 2


def test_javascript_has_lanes_in_batches_and_schedules(
    javascript: JavaScript, python: QStash, server: Client, sink: SinkProcess
):
    place, queue, key = sink.place("ok"), name_of("js"), name_of("js")
    flow_control = {"key": key, "parallelism": 3, "rate": 100, "period": 60}
    javascript(
        "batchJSON",
        request=[
            {"queueName": queue, "url": place.url, "body": {"n": 1}},
            {"url": place.url, "body": {"n": 2}, "flowControl": flow_control},
        ],
    )
    for lane in ({"queueName": queue}, {"flowControl": flow_control}):
        request = {"destination": place.url, "cron": "@yearly", **lane}
        made = javascript("call", resource="schedules", method="create", request=request)["scheduleId"]
        shown = javascript("call", resource="schedules", method="get", request=made)
        assert shown.get("queueName", queue) == queue
        assert shown.get("flowControlKey", key) == key
        assert ("queueName" in shown, "flowControlKey" in shown) == ("queueName" in lane, "flowControl" in lane)
        assert server.post(f"/v2/schedules/{made}/run").status == 201
        javascript("call", resource="schedules", method="delete", request=made)
    place.wait_for(4, 4)
    assert python.queue.get(queue).parallelism == 1
    info = python.flow_control.get(key)
    assert (info.parallelism_max, info.rate_max, info.rate_period) == (3, 100, 60)


def test_a_queue_of_five_and_a_key_of_fifty_a_second_before_slow_endpoints(
    python: QStash, server: Client, sink: SinkProcess
):
    """Both at the same time, as they are apart."""
    count = server.in_a_lane
    place, queue = sink.place("slow", seconds="0.05"), name_of("five")
    other, key = sink.place("slow", seconds="0.2"), name_of("fifty")
    headers = {"Upstash-Flow-Control-Key": key, "Upstash-Flow-Control-Value": "rate=50, period=1s"}
    python.queue.upsert(queue, parallelism=5)

    queued = fill(server, [{"destination": place.url, "body": str(n), "queue": queue} for n in range(count)])
    keyed = fill(server, [{"destination": other.url, "headers": headers} for _ in range(count)])

    all_have_ended(server, place, queued, count / server.starts_a_second)
    assert 1 < at_once(place) <= 5
    assert len(place.deliveries()) == count
    all_have_ended(server, other, keyed, 3 * count / 50 + 10)
    assert len(other.deliveries()) == count
    assert in_any_second([one.arrived for one in other.deliveries()]) <= 100
    with ThreadPoolExecutor(8) as several:
        shown = several.map(lambda one: request("GET", f"{server.url}/v2/messages/{one}", _TOKEN, 30).json(), keyed)
        windows = Counter(window for message in shown for window in message["rateWindows"])
    assert sum(windows.values()) == count
    assert max(windows.values()) <= 50


def test_a_strict_queue_keeps_its_order_through_failures(server: Client, sink: SinkProcess):
    count = 40
    place, failing, queue = sink.place("ok"), sink.place("fail", times="1"), name_of("strict")
    items = [
        {
            "destination": (failing if number % 8 == 3 else place).url,
            "headers": {"Upstash-Retry-Delay": "300"},
            "body": str(number),
            "queue": queue,
        }
        for number in range(count)
    ]

    ids = fill(server, items)

    wait_until(
        lambda: len(place.deliveries()) + len(failing.deliveries()) >= count + 5, count / server.starts_a_second + 30
    )
    arrived = sorted([*place.deliveries(), *failing.deliveries()], key=lambda one: one.arrived)
    order = [ids.index(one.header("Upstash-Message-Id") or "") for one in arrived]
    assert order == sorted(order)
    assert all((one.answered or 0) <= other.arrived for one, other in pairwise(arrived))
