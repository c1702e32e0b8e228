"""The engine on AWS, over its two emulators: each harness has a table and a bucket of its own."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import moto

from emulator import SETTINGS, Emulator
from waypost.core.ports import Blobs, Table
from waypost.engines.aws.clients import make_client
from waypost.engines.aws.dynamo import DynamoTable
from waypost.engines.aws.s3 import S3Blobs

_BY_NATURE = {
    "held commits": "DynamoDB decides and commits in one",
    "expiry on demand": "DynamoDB deletes expired items when it likes",
}


class AwsHarness:
    lacks: Mapping[str, str] = _BY_NATURE

    def __init__(self, threads: int, **settings: Any) -> None:
        self.name = f"t-{os.urandom(8).hex()}"
        self.threads = ThreadPoolExecutor(threads)
        self._settings = {**SETTINGS, **settings}
        self._lose = False

    def client(self, service: str) -> Any:
        return make_client(service, **self._settings)

    @functools.cached_property
    def dynamodb(self) -> Any:
        client = self.client("dynamodb")
        client.meta.events.register("needs-retry.dynamodb", self._lost)
        create_table(client, self.name)
        return client

    async def open(self) -> Table:
        return DynamoTable(self.dynamodb, self.name, os.urandom, self.threads)

    async def crash(self) -> Table:
        return await self.open()

    @functools.cached_property
    def s3(self) -> Any:
        client = self.client("s3")
        client.create_bucket(Bucket=self.name)
        return client

    def blobs(self) -> Blobs:
        return S3Blobs(self.name, self.threads, lambda _: self.s3)

    def hold_commits(self) -> None:
        raise NotImplementedError

    def release(self, commits: int | None = None) -> None:
        raise NotImplementedError

    def fail_next_commit(self) -> None:
        raise NotImplementedError

    async def expire(self, now_s: int, limit: int = 1000) -> int:
        raise NotImplementedError

    def lose_next_answer(self) -> None:
        self._lose = True

    def _lost(self, **event: Any) -> int | None:
        """The answer has come; botocore is told to repeat the call as if it had not."""
        lost, self._lose = self._lose, False
        return 0 if lost else None

    def close(self) -> None:
        self.threads.shutdown()


class MotoHarness(AwsHarness):
    lacks: Mapping[str, str] = {
        **_BY_NATURE,
        "races": "moto decides without a lock: two may win",
        "400 KB": "moto counts binary values in base64, and no growth by a change",
        "differing types": "moto takes True for 1, and fails where anything else is compared with a number",
        "empty names": "moto takes an empty name within a map for a type",
    }

    def __init__(self, folder: Path) -> None:
        # One thread: moto's tables are plain dicts.
        super().__init__(threads=1)
        self._aws = moto.mock_aws()
        self._aws.start()

    def close(self) -> None:
        super().close()
        self._aws.stop()


class MinistackHarness(AwsHarness):
    def __init__(self, folder: Path) -> None:
        super().__init__(threads=16, **_ministack().settings)


@functools.cache
def _ministack() -> Emulator:
    emulator = Emulator()
    atexit.register(emulator.stop)
    return emulator


def create_table(client: Any, name: str) -> None:
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        BillingMode="PAY_PER_REQUEST",
    )
