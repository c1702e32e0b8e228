"""Both clients cancel messages by ids and by filters."""

from __future__ import annotations

import uuid

from qstash import QStash

from journey.harness import Client, JavaScript, SinkProcess
from journey.test_python import publish_json


def delayed(python: QStash, url: str, count: int, label: str = "") -> list[str]:
    return [publish_json(python, url=url, body={}, delay="1h", label=label).message_id for _ in range(count)]


def states(server: Client, ids: list[str]) -> list[str]:
    return [server.message(one)["state"] for one in ids]


def test_the_python_client_cancels_by_ids(python: QStash, sink: SinkProcess, server: Client):
    ids = delayed(python, sink.place("ok").url, 3)

    assert python.message.cancel_many([*ids[:2], "msg_unknown"]) == 2

    assert states(server, ids) == ["CANCELED", "CANCELED", "CREATED"]
    assert python.message.cancel_many(ids) == 1


def test_the_javascript_client_cancels_by_ids(
    javascript: JavaScript, python: QStash, sink: SinkProcess, server: Client
):
    ids = delayed(python, sink.place("ok").url, 4)

    assert javascript("cancelMany", request=ids[:2]) == {"cancelled": 2}
    assert javascript("cancelMany", request={"messageIds": ids[1:3]}) == {"cancelled": 1}
    assert javascript("deleteMany", messageIds=ids) == 1

    assert states(server, ids) == ["CANCELED"] * 4


def test_the_javascript_client_cancels_by_filters(
    javascript: JavaScript, python: QStash, sink: SinkProcess, server: Client
):
    place, label = sink.place("ok"), f"label-{uuid.uuid4().hex}"
    labelled, other = delayed(python, place.url, 150, label), delayed(python, place.url, 2)

    def cancel(**wanted: object) -> object:
        return javascript("cancelMany", request={"filter": wanted})

    assert cancel(label=label, host="elsewhere.example") == {"cancelled": 0}
    assert cancel(label=label, path=place.prefix) == {"cancelled": 150}
    assert cancel(url=place.url, fromDate=1) == {"cancelled": 2}

    assert set(states(server, [*labelled, *other])) == {"CANCELED"}
