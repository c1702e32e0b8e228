"""CloudFormation asks before it removes a stage: the bucket is emptied, since only an empty one can be removed.

Only stages that keep nothing have this function. It is not one of the service: it knows none of its rules.
"""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from waypost.engines.aws.clients import make_client

#: What is left of the function's time for the answer.
_ENOUGH_MS = 20_000

_log = logging.getLogger("waypost.delete")


class _NotEmpty(Exception):
    """Why objects are left."""


def handler(event: Mapping[str, Any], context: Any) -> None:
    """Always answers: without one CloudFormation waits for an hour."""
    bucket = event["ResourceProperties"]["Bucket"]
    answer = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    answer |= {"Status": "SUCCESS", "PhysicalResourceId": bucket}
    if event["RequestType"] == "Delete":
        try:
            empty(make_client("s3"), bucket, context.get_remaining_time_in_millis)
        except Exception as failed:  # noqa: BLE001 - whatever it was, whoever runs the deletion must read it
            _log.exception("the bucket was not emptied", extra={"bucket": bucket})
            answer |= {"Status": "FAILED", "Reason": f"{bucket} was not emptied: {failed}"[:1000]}
    _put(event["ResponseURL"], json.dumps(answer).encode())


def empty(s3: Any, bucket: str, left_ms: Any) -> None:
    """Deletes every object. `left_ms` tells how long the function still has."""
    while True:
        try:
            found = s3.list_objects_v2(Bucket=bucket)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                return
            raise
        keys = [{"Key": one["Key"]} for one in found.get("Contents", ())]
        if not keys:
            return
        if left_ms() < _ENOUGH_MS:
            raise _NotEmpty("too many objects for one go, delete the stack again")
        for failed in s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True}).get("Errors", ()):
            raise _NotEmpty(f"{failed['Key']}: {failed['Code']}")


def _put(url: str, answer: bytes) -> None:
    # The URL is signed for this type of content, which is none.
    request = urllib.request.Request(url, answer, {"Content-Type": ""}, method="PUT")  # noqa: S310 - AWS's own
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310
