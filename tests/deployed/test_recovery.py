"""What the deployed stack does when bells are lost, waits are long, and functions die. Nothing here sleeps for a rule:
stored times are rewritten, and the tick is called."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
import zlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from deployed.deployment import Deployment
from journey.harness import DEV_TOKEN, SinkProcess, request
from waypost.core.ids import Place, make_message_id, place_of
from waypost.core.message import partition_of

_MINUTE = 60_000
_SHARDS = 32


def publish(server: Deployment, url: str, body: bytes = b"x", **settings: str) -> str:
    """Returns the message's id."""
    status, answer = try_to_publish(server, url, body, **settings)
    assert status == 201, (status, answer)
    return str(answer["messageId"])


def try_to_publish(server: Deployment, url: str, body: bytes = b"x", **settings: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {DEV_TOKEN}", "Content-Type": "text/plain"}
    headers |= {f"Upstash-{name.replace('_', '-')}": value for name, value in settings.items()}
    reply = request("POST", f"{server.url}/v2/publish/{url}", headers, timeout_s=60, body=body)
    try:
        return reply.status, reply.json()
    except ValueError:
        return reply.status, reply.body


def deliver_what_was_interrupted(server: Deployment, ids: Collection[str]) -> None:
    """What was under way at a kill comes back by itself, when its lease is over and its reminder is due: both are now.
    Nobody rings but the service. Raises AssertionError when something is lost."""
    left = set(ids)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for message_id in list(left):
            pk, sk = where(message_id)
            state = server.item(pk, f"{sk}#s")
            if state and state["state"]["S"] == "DELIVERED":
                left.remove(message_id)
                continue
            if state and state["state"]["S"] == "ACTIVE" and int(state["lease"]["N"]) > 0:
                server.set_number(pk, f"{sk}#s", "lease", 0)
            remind_now(server, message_id)
        if not left:
            return
        server.tick()
        time.sleep(2)
    raise AssertionError(f"{len(left)} of {len(ids)} lost, among them {sorted(left)[:3]}")


def remind_now(server: Deployment, message_id: str) -> None:
    """As if the reminder that the look gives had become due."""
    now, ref = time.time_ns() // 1_000_000, f"main#{message_id}"
    shard = zlib.crc32(ref.encode()) % _SHARDS
    server.put({"pk": f"due#{shard}", "sk": f"{now:015d}#{ref}", "v": 1, "ref": ref, "at": now})


def where(message_id: str) -> tuple[str, str]:
    """The message's key in the table."""
    place = place_of(message_id)
    assert place
    return partition_of(place), f"main#{message_id}"


def test_a_lost_bell_is_rung_again_by_the_tick(server: Deployment, sink: SinkProcess) -> None:
    place = sink.place("ok")
    lost = publish(server, place.url, Delay="1h")
    # The same message as one that was accepted ten minutes ago, and whose bell nobody heard.
    now = time.time_ns() // 1_000_000
    minute = now // _MINUTE - 10
    message_id = make_message_id(Place(minute, 0), now, os.urandom)
    item = server.item(*where(lost))
    assert item
    pk, sk = where(message_id)
    item |= {"pk": {"S": pk}, "sk": {"S": sk}, "id": {"S": message_id}, "due": {"N": str(now - 10 * _MINUTE)}}
    server.table_client.put_item(TableName=server.table, Item=item)
    server.set_number("cursor", "look", "minute", minute - 1)

    server.tick()

    [delivery] = place.wait_for(1, 5)
    assert delivery.header("Upstash-Message-Id") == message_id
    server.wait_for_state(message_id, "DELIVERED", 5)


def test_a_delay_beyond_fifteen_minutes_is_kept_by_a_reminder(server: Deployment, sink: SinkProcess) -> None:
    place = sink.place("ok")
    message_id = publish(server, place.url, Delay="20m")
    # Twenty minutes later: it is due, and its reminder is where the look left it.
    server.set_number(*where(message_id), "due", time.time_ns() // 1_000_000)
    remind_now(server, message_id)

    server.tick()

    place.wait_for(1, 5)
    server.wait_for_state(message_id, "DELIVERED", 5)


def test_a_function_killed_in_the_middle_of_a_batch_loses_nothing(server: Deployment, sink: SinkProcess) -> None:
    place = sink.place("slow", seconds=3)
    ids = [publish(server, place.url, Timeout="10s") for _ in range(5)]
    place.wait_for(5, 5)

    server.restart("deliver")
    for message_id in ids:
        # The lease ends by time alone; the bell comes back, here as it would from the queue.
        pk, sk = where(message_id)
        server.set_number(pk, f"{sk}#s", "lease", 0)
        server.queues.send_message(QueueUrl=server.environment["WAYPOST_QUEUE_URL"], MessageBody=f"main#{message_id}")

    for message_id in ids:
        server.wait_for_state(message_id, "DELIVERED", 20)
    assert len(place.deliveries()) == 10


def test_a_deploy_with_messages_in_flight_loses_nothing(server: Deployment, sink: SinkProcess) -> None:
    place = sink.place("slow", seconds=1)
    accepted: set[str] = set()
    over = threading.Event()

    def publish_all_the_while() -> None:
        while not over.wait(0.2):
            name, status = uuid.uuid4().hex, 0
            while status not in (201, 202):
                # The emulator ends the calls that a deploy meets, which AWS would let end: they are repeated.
                status, answer = try_to_publish(server, place.url, Deduplication_Id=name, Timeout="5s")
                assert status in (201, 202, 502, 503), (status, answer)
            accepted.add(str(answer["messageId"]))

    with ThreadPoolExecutor(1) as callers:
        publishing = callers.submit(publish_all_the_while)
        try:
            server.deploy(WAYPOST_RETENTION="15d")
        finally:
            over.set()
        publishing.result()
    assert len(accepted) > 5
    deliver_what_was_interrupted(server, accepted)


def test_nothing_is_lost_while_functions_are_killed_and_redeployed(server: Deployment, sink: SinkProcess) -> None:
    count = 2_000
    place = sink.place("fail", times=1, retry_after=1)
    calm = sink.place("ok")
    accepted: dict[str, str] = {}
    interrupted: list[int] = []
    over = threading.Event()

    def publish_one(number: int) -> None:
        url = place.url if number % 10 == 0 else calm.url
        name = uuid.uuid4().hex
        while name not in accepted:
            # Killed under its caller, an api call is repeated, as any client would.
            status, answer = try_to_publish(server, url, f"{number}".encode(), Deduplication_Id=name, Timeout="5s")
            if status in (201, 202):
                accepted[name] = answer["messageId"]
            else:
                assert status in (502, 503), (status, answer)
                interrupted.append(status)

    def disturb() -> None:
        services = ("api", "deliver")
        for turn in range(100):
            if over.wait(4):
                return
            server.restart(services[turn % len(services)])

    with ThreadPoolExecutor(8) as callers:
        disturber = threading.Thread(target=disturb)
        disturber.start()
        try:
            list(callers.map(publish_one, range(count)))
        finally:
            over.set()
            disturber.join()
    assert len(set(accepted.values())) == count
    # The kills did strike calls under way.
    assert interrupted

    deliver_what_was_interrupted(server, accepted.values())


def test_the_http_api_itself_answers(server: Deployment, sink: SinkProcess) -> None:
    place = sink.place("ok")
    url = server.outputs["HttpApiUrl"].rstrip("/")
    host = url.split("//")[1].split("/")[0].split(":")[0]
    gateway = server.gateway
    done = subprocess.run(
        [
            *("curl", "-s", "--resolve", f"{host}:{gateway}:127.0.0.1", "-X", "POST"),
            *("-H", f"Host: {host.split('.')[0]}.execute-api.localhost:{gateway}"),
            *("-H", f"Authorization: Bearer {DEV_TOKEN}", "-H", "Content-Type: text/plain", "-d", "hello"),
            f"http://{host}:{gateway}/v2/publish/{place.url}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["messageId"].startswith("msg_"), done.stdout
    [delivery] = place.wait_for(1, 5)
    assert delivery.body == b"hello"
