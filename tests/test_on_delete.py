"""What CloudFormation asks of the function that empties a bucket, and what it is answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import moto
import pytest

from emulator import SETTINGS
from waypost import on_delete
from waypost.engines.aws import clients


class Context:
    def __init__(self, left_ms: int) -> None:
        self._left_ms = left_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._left_ms


class Asked:
    """CloudFormation's side: sends requests, and takes the answers at the URL it names."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.types: list[str | None] = []
        asked = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                asked.types.append(self.headers.get("Content-Type"))
                asked.answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever).start()

    def __call__(self, kind: str, left_ms: int = 900_000) -> dict[str, Any]:
        event = {
            "RequestType": kind,
            "RequestId": "r-1",
            "StackId": "arn:stack",
            "LogicalResourceId": "Emptied",
            "ResponseURL": f"http://127.0.0.1:{self.server.server_port}/answer?signature=x",
            "ResourceProperties": {"Bucket": "blobs"},
        }
        on_delete.handler(event, Context(left_ms))
        return self.answers.pop()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", SETTINGS["region_name"])
    with moto.mock_aws():
        clients._session.cache_clear()
        asked = Asked()
        yield asked
        asked.server.shutdown()
        asked.server.server_close()
        clients._session.cache_clear()


@pytest.fixture
def bucket(asked: Asked) -> Any:
    bucket = boto3.resource("s3", **SETTINGS).create_bucket(Bucket="blobs")
    for number in range(3):
        bucket.put_object(Key=f"30/20261125/main/{number}", Body=b"x")
    return bucket


def left(bucket: Any) -> int:
    return len(list(bucket.objects.all()))


def test_a_bucket_is_emptied_when_its_stack_goes(asked: Asked, bucket: Any) -> None:
    assert asked("Delete") == {
        "Status": "SUCCESS",
        "PhysicalResourceId": "blobs",
        "StackId": "arn:stack",
        "RequestId": "r-1",
        "LogicalResourceId": "Emptied",
    }
    assert left(bucket) == 0
    # The URL is signed for an answer without a type.
    assert asked.types == [""]


@pytest.mark.parametrize("kind", ["Create", "Update"])
def test_nothing_is_deleted_before(asked: Asked, bucket: Any, kind: str) -> None:
    assert asked(kind)["Status"] == "SUCCESS"
    assert left(bucket) == 3


def test_a_bucket_that_is_gone_is_empty(asked: Asked) -> None:
    assert asked("Delete")["Status"] == "SUCCESS"


def test_whoever_deletes_too_much_at_once_is_told_so(asked: Asked, bucket: Any) -> None:
    answer = asked("Delete", left_ms=1_000)
    assert answer["Status"] == "FAILED"
    assert "delete the stack again" in answer["Reason"]
    assert left(bucket) == 3
