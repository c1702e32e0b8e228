"""A thousand messages of one request."""

from __future__ import annotations

import json
import uuid
from collections import Counter

from journey.harness import DEV_TOKEN, Client, Place, Reply, SinkProcess, request, wait_until

_TOKEN = {"Authorization": f"Bearer {DEV_TOKEN}"}
_COUNT = 1_000


def ask(server: Client, method: str, path: str, content: object) -> Reply:
    reply = request(method, f"{server.url}{path}", _TOKEN, 60, json.dumps(content).encode())
    assert reply.status < 300, reply
    return reply


def all_arrive_once(server: Client, place: Place, ids: set[str]) -> None:
    """Each is delivered, and by the time that all are, none twice."""
    wait_until(lambda: len(place.deliveries()) >= len(ids), _COUNT / server.delivers_a_second)
    arrived = Counter(one.header("Upstash-Message-Id") for one in place.deliveries())
    assert set(arrived) == ids
    assert set(arrived.values()) == {1}


def test_one_publish_reaches_a_thousand_endpoints(sink: SinkProcess, server: Client) -> None:
    place, name = sink.place("ok"), f"group-{uuid.uuid4().hex}"
    urls = [f"{place.url}/{number}" for number in range(_COUNT)]
    ask(server, "POST", f"/v2/topics/{name}/endpoints", {"endpoints": [{"url": url} for url in urls]})

    answer = ask(server, "POST", f"/v2/publish/{name}", {"n": 1}).json()

    assert [one["url"] for one in answer] == urls
    all_arrive_once(server, place, {one["messageId"] for one in answer})
    assert {sink.url + one.target for one in place.deliveries()} == set(urls)
    assert {one.header("Upstash-Topic-Name") for one in place.deliveries()} == {name}
    ask(server, "DELETE", f"/v2/topics/{name}", None)


def test_a_batch_has_a_thousand_messages(sink: SinkProcess, server: Client) -> None:
    place = sink.place("ok")
    items = [{"destination": f"{place.url}/{number}", "body": str(number)} for number in range(_COUNT)]

    answer = ask(server, "POST", "/v2/batch", items).json()

    assert len(answer) == _COUNT
    all_arrive_once(server, place, {one["messageId"] for one in answer})
    of_place = {one.target.rpartition("/")[2]: one.body.decode() for one in place.deliveries()}
    assert of_place == {str(number): str(number) for number in range(_COUNT)}
