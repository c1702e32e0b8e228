"""Blobs as objects in a bucket, whose own rules encrypt them and drop them when their class has passed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from waypost.core.ports import Unavailable
from waypost.engines.aws.clients import call, make_client
from waypost.engines.limits import check_blob_name

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


class S3Blobs:
    """ports.Blobs. Needs leave to list the bucket: without it S3 does not say that an object is missing."""

    def __init__(self, bucket: str, threads: Executor, make: Callable[[str], S3Client] = make_client) -> None:
        self._bucket = bucket
        self._threads = threads
        self._make = make

    @functools.cached_property
    def _client(self) -> S3Client:
        # Made when it is needed: it takes a fifth of a cold start, and few messages have a blob.
        return self._make("s3")

    async def put(self, name: str, data: bytes) -> None:
        """Durable on return. Raises ValueError for a name that is none, Unavailable if it cannot be written."""
        check_blob_name(name)
        try:
            await call(self._threads, self._client.put_object, Bucket=self._bucket, Key=name, Body=data)
        except ClientError as error:
            raise Unavailable(f"blob {name} cannot be written: {error}") from error

    async def get(self, name: str) -> bytes | None:
        check_blob_name(name)
        try:
            return await call(self._threads, self._read, name=name)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None
            raise Unavailable(f"blob {name} cannot be read: {error}") from error

    def _read(self, name: str) -> bytes:
        return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()
