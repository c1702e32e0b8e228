"""A stage from its first deploy to its end, with the real command line, and with nothing opened for tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deployed.deployment import Deployment
from deployed.test_recovery import publish, try_to_publish
from emulator import Emulator
from journey.harness import SinkProcess

#: By service: what lists its resources, and where in the answer they stand.
_LISTS = {
    "apigatewayv2": ("get_apis", "Items"),
    "cloudwatch": ("describe_alarms", "MetricAlarms"),
    "dynamodb": ("list_tables", "TableNames"),
    "events": ("list_rules", "Rules"),
    "lambda": ("list_functions", "Functions"),
    "logs": ("describe_log_groups", "logGroups"),
    "secretsmanager": ("list_secrets", "SecretList"),
    "sqs": ("list_queues", "QueueUrls"),
}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment whose settings are the defaults."""
    emulator = Emulator()
    deployment = Deployment(emulator, tmp_path_factory.mktemp("closed"), settings={})
    yield deployment
    deployment.close()
    emulator.stop()


def test_loopback_is_refused_unless_a_setting_opens_it(closed: Deployment, sink: SinkProcess) -> None:
    place = sink.place("ok")
    status, answer = try_to_publish(closed, place.url)
    assert status == 400
    assert "loopback" in answer["error"]
    assert place.deliveries() == []


def test_a_second_diff_is_empty_and_a_destroyed_stage_leaves_nothing(closed: Deployment) -> None:
    assert "There were no differences" in closed.cdk("diff", "--fail")
    # Bodies that lie in the bucket: one of a message, and more than one page of a listing.
    publish(closed, "https://example.com/", os.urandom(12_000).hex().encode(), Delay="1h")
    objects, bucket = closed.client("s3"), closed.environment["WAYPOST_BUCKET"]
    assert objects.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    for number in range(1_000):
        objects.put_object(Bucket=bucket, Key=f"30/20261125/main/{number}", Body=b"x")

    closed.cdk("destroy", "--force")

    left = {
        service: found
        for service, (call, name) in _LISTS.items()
        if (found := getattr(closed.client(service), call)().get(name))
    }
    assert left == {}
    assert [one["Name"] for one in objects.list_buckets()["Buckets"] if "assets" not in one["Name"]] == []
    roles = closed.client("iam").list_roles()["Roles"]
    assert [role["RoleName"] for role in roles if "cdk-" not in role["RoleName"]] == []
