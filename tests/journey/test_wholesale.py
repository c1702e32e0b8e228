"""What ends all messages, or changes their signatures, and so comes after all other tests."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import Any

import pytest
from qstash import QStash, Receiver
from qstash.errors import SignatureError

from journey.harness import CLOCKS_S, DEV_TOKEN, Client, Delivery, JavaScript, SinkProcess, request, wait_until
from journey.test_cancel_many import delayed, states
from journey.test_python import publish_json

pytestmark = pytest.mark.awaited_last
_TOKEN = {"Authorization": f"Bearer {DEV_TOKEN}"}


def test_the_clients_cancel_all(javascript: JavaScript, python: QStash, sink: SinkProcess, server: Client):
    url = sink.place("ok").url
    ids = delayed(python, url, 3)
    assert python.message.cancel_all() >= 3
    ids += delayed(python, url, 2)
    assert javascript("cancelMany", request={"all": True}) == {"cancelled": 2}
    ids += delayed(python, url, 2)
    assert javascript("deleteAll") == 2
    assert python.message.cancel_all() == 0
    assert set(states(server, ids)) == {"CANCELED"}


def test_a_great_many_are_cancelled_while_they_are_delivered(sink: SinkProcess, server: Client):
    place, label = sink.place("ok"), f"label-{uuid.uuid4().hex}"
    due = int(time.time()) + max(5, server.many // 5_000)
    headers = {"Upstash-Not-Before": str(due), "Upstash-Label": label}
    batch = json.dumps([{"destination": place.url, "headers": headers}] * 1_000).encode()
    for _ in range(server.many // 1_000):
        assert request("POST", f"{server.url}/v2/batch", _TOKEN, 60, batch).status < 300
    place.wait_for(1, due - time.time() + 5)

    answer = request("DELETE", f"{server.url}/v2/messages", _TOKEN, 60).json()
    answered = time.monotonic()

    assert answer["cancelled"] > 0
    cancelled = wait_until(lambda: all_but(server.many, label, server, place.deliveries()), 60)
    delivered = place.deliveries()
    ids = {one.header("Upstash-Message-Id") for one in delivered}
    assert ids.isdisjoint(cancelled)
    assert len(ids) + len(cancelled) == server.many
    assert [one.arrived - answered for one in delivered if one.arrived > answered + CLOCKS_S] == []


def all_but(count: int, label: str, server: Client, delivered: list[Delivery]) -> set[str] | None:
    """The ids of the cancelled messages, once logs tell of all that were not delivered."""
    found: set[str] = set()
    cursor: str | None = ""
    while cursor is not None:
        query = f"label={label}&state=CANCELED" + (f"&cursor={cursor}" if cursor else "")
        page = server.get(f"/v2/logs?{query}").json()
        found |= {event["messageId"] for event in page["logs"]}
        cursor = page.get("cursor")
    return found if len(found) + len({one.header("Upstash-Message-Id") for one in delivered}) >= count else None


def test_receivers_with_the_old_and_with_the_new_pair_verify_across_a_rotation_under_load(
    python: QStash, sink: SinkProcess, server: Client
):
    place, stop = sink.place("ok"), threading.Event()
    published: list[str] = []

    def publish() -> None:
        while not stop.is_set():
            published.append(publish_json(python, url=place.url, body={"n": len(published)}).message_id)

    delayed_ids = [publish_json(python, url=place.url, body={}, delay=8).message_id for _ in range(5)]
    before = python.signing_key.get()
    publishing = threading.Thread(target=publish)
    publishing.start()
    place.wait_for(5, 5)

    after = python.signing_key.rotate()

    answered = time.monotonic()
    count = len(place.deliveries())
    place.wait_for(count + 10, 5)
    stop.set()
    publishing.join()
    deliveries = place.wait_for(len(published) + len(delayed_ids), 10)
    assert after.current == before.next
    assert after == python.signing_key.get()
    old, new = Receiver(before.current, before.next), Receiver(after.current, after.next)
    late = [one for one in deliveries if one.arrived > answered + CLOCKS_S]
    assert len(late) >= 10
    assert [one for one in deliveries if not verified(old, one, place.url)] == []
    assert [one for one in late if not verified(new, one, place.url)] == []
    # The development pair's next key is now the current one: what follows is verified as before.


def verified(receiver: Receiver, delivery: Delivery, url: str) -> bool:
    signature: Any = delivery.header("Upstash-Signature")
    try:
        receiver.verify(signature=signature, body=delivery.body.decode(), url=url)
    except SignatureError:
        return False
    return True
