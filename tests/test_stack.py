"""The synthesised template: who may do what, what is kept, and that two syntheses are the same."""

from __future__ import annotations

import filecmp
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

# The major version of Node whose end is no news.
os.environ["JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION"] = "20"

import pytest
from aws_cdk import App
from aws_cdk.assertions import Match, Template

from infra.options import OptionError, read_options
from infra.stack import WaypostStack

_CONTEXT = {"aws:cdk:bundling-stacks": [], "settings": '{"WAYPOST_MAX_BODY": "500000"}'}
_ITEMS = ["dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"]
_PAGES = ["dynamodb:BatchGetItem", "dynamodb:Query"]
_LOGS = ["logs:CreateLogStream", "logs:PutLogEvents"]
_HEAR = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:GetQueueUrl"]
_HEAR += ["sqs:ReceiveMessage"]
_READ = ["s3:GetObject", "s3:ListBucket"]
_TABLE, _BUCKET, _BLOBS = "TableItems4E2090AD", "BlobsBucket1038ED5D", "BlobsBucket1038ED5D/*"
#: Wildcards in the resources of functions' roles, each with its reason. There may be three.
_WILDCARDS = {_BLOBS: "an object's name is drawn when it is written; AWS has no other way to name all of one bucket"}
_DELIVER = [
    *_ITEMS,
    *_PAGES,
    "dynamodb:BatchWriteItem",
    "dynamodb:DeleteItem",
    *_LOGS,
    *_READ,
    *_HEAR,
    "s3:PutObject",
    "sqs:SendMessage",
]
#: All that each role may do.
_MAY = {
    "api": [
        *_ITEMS,
        *_PAGES,
        *_LOGS,
        *("dynamodb:BatchWriteItem", "dynamodb:DeleteItem"),
        *(*_READ, "s3:PutObject", "secretsmanager:GetSecretValue", "sqs:SendMessage"),
    ],
    "deliver": _DELIVER,
    "deliver-slow": _DELIVER,
    "empty": [*_LOGS, "s3:DeleteObject", "s3:ListBucket"],
    "tick": [
        *_ITEMS,
        *_PAGES,
        *_LOGS,
        "dynamodb:BatchWriteItem",
        *(*_READ, "s3:PutObject", "sqs:GetQueueAttributes", "sqs:SendMessage"),
    ],
}

_ALL = ["m#*", "due#*", "*#dlq#*", "*#keys", "*#log#*", "cursor"]
_OF_DELIVER = {
    "GetItem": [*_ALL, "*#orders", "*#dedup#*", "*#schedules", "*#groups", "*#lane#*"],
    "PutItem": [*_ALL, "*#orders", "*#dedup#*", "*#schedules", "*#lane#*", "*#lanes"],
    "UpdateItem": [*_ALL, "*#orders", "*#dedup#*", "*#schedules", "*#lane#*"],
    "Query": ["m#*", "due#*", "*#orders", "*#line#*"],
    "BatchGetItem": ["m#*", "due#*", "*#orders"],
    "BatchWriteItem": ["due#*", "*#line#*"],
    "DeleteItem": ["*#orders", "*#line#*"],
}
_OF_API = [*_ALL, "*#dedup#*", "*#groups", "*#orders", "*#schedules"]
_OF_TICK = ["m#*", "due#*", "*#log#*", "cursor"]
#: By function and what it does: the partitions of the table that it may do it to.
_PARTITIONS = {
    "api": {
        "GetItem": [*_OF_API, "*#lane#*"],
        "UpdateItem": [*_OF_API, "*#lane#*"],
        "PutItem": [*_OF_API, "*#lane#*", "*#lanes"],
        "Query": [*_OF_API, "*#line#*", "*#lanes"],
        "BatchGetItem": _OF_API,
        "DeleteItem": ["m#*", "*#dlq#*", "*#groups", "*#orders", "*#schedules", "*#line#*"],
        "BatchWriteItem": ["m#*", "due#*", "*#line#*"],
    },
    "deliver": _OF_DELIVER,
    "deliver-slow": _OF_DELIVER,
    "tick": {
        **dict.fromkeys(("PutItem", "UpdateItem", "BatchWriteItem"), _OF_TICK),
        "Query": [*_OF_TICK, "*#line#*"],
        "BatchGetItem": [*_OF_TICK, "*#line#*"],
        "GetItem": [*_OF_TICK, "*#orders", "*#schedules", "*#lane#*"],
    },
}


def synthesised(outdir: Path, **context: str) -> Template:
    app = App(outdir=str(outdir), context={**_CONTEXT, **context})
    template = Template.from_stack(WaypostStack(app, "Waypost", options=read_options(app.node)))
    app.synth()
    return template


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return synthesised(tmp_path_factory.mktemp("synth"))


def resources(template: Template, kind: str) -> dict[str, Any]:
    return dict(template.find_resources(kind))


def service_of(function: dict[str, Any]) -> str:
    return str(function["Properties"]["Environment"]["Variables"]["WAYPOST_FUNCTION"])


def statements_of(template: Template, function: dict[str, Any]) -> list[dict[str, Any]]:
    role = function["Properties"]["Role"]["Fn::GetAtt"][0]
    return [
        statement
        for policy in resources(template, "AWS::IAM::Policy").values()
        if {"Ref": role} in policy["Properties"]["Roles"]
        for statement in policy["Properties"]["PolicyDocument"]["Statement"]
    ]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_each_role_may_do_what_its_function_does_and_no_more(template: Template) -> None:
    functions = resources(template, "AWS::Lambda::Function")
    assert sorted(service_of(one) for one in functions.values()) == sorted(_MAY)
    for function in functions.values():
        actions = {action for one in statements_of(template, function) for action in listed(one["Action"])}
        assert sorted(actions) == sorted(set(_MAY[service_of(function)])), service_of(function)
    assert all("ManagedPolicyArns" not in role["Properties"] for role in resources(template, "AWS::IAM::Role").values())


def test_no_permission_is_for_any_resource_but_the_named_ones(template: Template) -> None:
    found = set()
    for function in resources(template, "AWS::Lambda::Function").values():
        for statement in statements_of(template, function):
            assert all("*" not in action for action in listed(statement["Action"])), statement
            found |= {named(one) for one in listed(statement["Resource"]) if "*" in json.dumps(one)}
    assert found == set(_WILDCARDS)
    assert len(_WILDCARDS) <= 3


def named(resource: Any) -> str:
    """The logical id that an ARN is of, with what stands behind it."""
    match resource:
        case {"Fn::GetAtt": [name, "Arn"]} | {"Ref": name}:
            return str(name)
        case {"Fn::Join": ["", [{"Fn::GetAtt": [name, "Arn"]}, rest]]}:
            return f"{name}{rest}"
    raise AssertionError(f"{resource} is no resource of this stack")


def test_each_role_reaches_its_own_resources_alone(template: Template) -> None:
    for function in resources(template, "AWS::Lambda::Function").values():
        service = service_of(function)
        for statement in statements_of(template, function):
            kinds = {action.partition(":")[0] for action in listed(statement["Action"])}
            reached = {named(one) for one in listed(statement["Resource"])}
            assert len(kinds) == 1, statement
            allowed = {
                "dynamodb": {_TABLE},
                "s3": {_BUCKET, _BLOBS},
                "sqs": {"QueuesFast4D64B2C2", "QueuesSlowBF74C2CE"},
                "logs": {function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]},
                "secretsmanager": {"TokenSecretADE41DCA"},
            }[kinds.pop()]
            assert reached <= allowed, (service, statement)


def test_partitions_are_parted_where_functions_differ(template: Template) -> None:
    for function in resources(template, "AWS::Lambda::Function").values():
        if service_of(function) == "empty":
            continue
        found: dict[str, set[str]] = defaultdict(set)
        for statement in statements_of(template, function):
            for action in listed(statement["Action"]):
                if action.startswith("dynamodb:"):
                    keys = statement["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
                    found[action.removeprefix("dynamodb:")] |= set(listed(keys))
        assert found == {action: set(keys) for action, keys in _PARTITIONS[service_of(function)].items()}


def test_names_that_hold_data_or_that_users_know_never_change(template: Template) -> None:
    kinds = ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SQS::Queue", "AWS::SecretsManager::Secret")
    kinds += ("AWS::Lambda::Url", "AWS::ApiGatewayV2::Api")
    found = sorted(name for kind in kinds for name in resources(template, kind))
    assert found == [
        "BlobsBucket1038ED5D",
        "DoorHttpApi0AA996A8",
        "FunctionsapiFunctionUrlFAC0C4EB",
        "QueuesDeadC0E868EF",
        "QueuesFast4D64B2C2",
        "QueuesSlowBF74C2CE",
        "TableItems4E2090AD",
        "TokenSecretADE41DCA",
    ]


def test_a_queue_hides_a_bell_while_its_function_may_run(template: Template) -> None:
    functions = resources(template, "AWS::Lambda::Function")
    queues = resources(template, "AWS::SQS::Queue")
    sources = resources(template, "AWS::Lambda::EventSourceMapping")
    assert len(sources) == 2
    for source in sources.values():
        properties = source["Properties"]
        queue = queues[properties["EventSourceArn"]["Fn::GetAtt"][0]]["Properties"]
        function = functions[properties["FunctionName"]["Ref"]]["Properties"]
        assert queue["VisibilityTimeout"] >= function["Timeout"]
        assert properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert properties["BatchSize"] == 10
        assert queue["RedrivePolicy"]["maxReceiveCount"] == 5


def test_each_queue_has_functions_as_many_as_its_option_says(template: Template, tmp_path: Path) -> None:
    assert concurrency(template) == {"QueuesFast4D64B2C2": 5, "QueuesSlowBF74C2CE": 2}
    other = synthesised(tmp_path, max_concurrency_fast="20", max_concurrency_slow="7")
    assert concurrency(other) == {"QueuesFast4D64B2C2": 20, "QueuesSlowBF74C2CE": 7}


def concurrency(template: Template) -> dict[str, int]:
    return {
        source["Properties"]["EventSourceArn"]["Fn::GetAtt"][0]: source["Properties"]["ScalingConfig"][
            "MaximumConcurrency"
        ]
        for source in resources(template, "AWS::Lambda::EventSourceMapping").values()
    }


def test_who_rings_the_queue_that_calls_him_is_no_endless_loop(template: Template) -> None:
    for function in resources(template, "AWS::Lambda::Function").values():
        allowed = function["Properties"].get("RecursiveLoop") == "Allow"
        assert allowed == service_of(function).startswith("deliver")


def test_bodies_are_private_and_dropped_by_their_class(template: Template) -> None:
    [bucket] = resources(template, "AWS::S3::Bucket").values()
    rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    assert {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules} == {
        "30/": 31,
        "60/": 61,
        "120/": 121,
        "400/": 401,
    }
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    template.has_resource_properties(
        "AWS::S3::BucketPolicy",
        {
            "PolicyDocument": {
                "Statement": Match.array_with(
                    [Match.object_like({"Effect": "Deny", "Condition": {"Bool": {"aws:SecureTransport": "false"}}})]
                )
            }
        },
    )


def test_the_token_is_drawn_by_the_account(template: Template) -> None:
    [secret] = resources(template, "AWS::SecretsManager::Secret").values()
    assert "SecretString" not in secret["Properties"]
    assert secret["Properties"]["GenerateSecretString"]["PasswordLength"] >= 32
    command = json.dumps(template.find_outputs("TokenCommand"))
    assert "get-secret-value" in command
    assert "--region" in command
    assert "TokenSecretADE41DCA" in command


def test_functions_are_small_logged_and_told_the_settings(template: Template) -> None:
    template.all_resources_properties("AWS::Lambda::Function", {"Architectures": ["arm64"], "Runtime": "python3.13"})
    template.all_resources_properties("AWS::Logs::LogGroup", {"RetentionInDays": 30})
    for function in resources(template, "AWS::Lambda::Function").values():
        if service_of(function) != "empty":
            assert function["Properties"]["Environment"]["Variables"]["WAYPOST_MAX_BODY"] == "500000"
        assert "ReservedConcurrentExecutions" not in function["Properties"]
    codes = {str(one["Properties"]["Code"]) for one in resources(template, "AWS::Lambda::Function").values()}
    assert len(codes) == 1


def test_a_tick_that_stops_is_an_alarm(template: Template) -> None:
    template.has_resource_properties(
        "AWS::CloudWatch::Alarm",
        {
            "MetricName": "Ticks",
            "Namespace": "Waypost",
            "Dimensions": [{"Name": "stage", "Value": "dev"}],
            "ComparisonOperator": "LessThanThreshold",
            "TreatMissingData": "breaching",
        },
    )
    for function in resources(template, "AWS::Lambda::Function").values():
        names = function["Properties"]["Environment"]["Variables"]
        # Powertools would make dimensions of its own variables, and another metric with them.
        assert not [name for name in names if name.startswith("POWERTOOLS_")]
    template.has_resource_properties("AWS::Events::Rule", {"ScheduleExpression": "rate(1 minute)"})


def test_a_tick_is_not_repeated(template: Template) -> None:
    template.has_resource_properties("AWS::Lambda::EventInvokeConfig", {"MaximumRetryAttempts": 0})
    template.has_resource_properties(
        "AWS::Events::Rule", {"Targets": [Match.object_like({"RetryPolicy": {"MaximumRetryAttempts": 0}})]}
    )


def test_a_stage_that_keeps_nothing_empties_its_bucket_when_all_who_write_are_gone(
    template: Template, tmp_path: Path
) -> None:
    [emptied] = resources(template, "Custom::EmptyBucket")
    for function in resources(template, "AWS::Lambda::Function").values():
        if service_of(function) != "empty":
            assert emptied in function["DependsOn"]
    assert all(
        one["Properties"]["Runtime"] == "python3.13" for one in resources(template, "AWS::Lambda::Function").values()
    )
    assert not resources(synthesised(tmp_path, stage="prod"), "Custom::EmptyBucket")


def test_alarms_are_sent_to_the_topic_that_is_named(template: Template, tmp_path: Path) -> None:
    topic = "arn:aws:sns:eu-central-1:123456789012:pager"
    for alarm in resources(synthesised(tmp_path, alarm_topic=topic), "AWS::CloudWatch::Alarm").values():
        assert alarm["Properties"]["AlarmActions"] == [topic]
    for alarm in resources(template, "AWS::CloudWatch::Alarm").values():
        assert "AlarmActions" not in alarm["Properties"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stage", "my stage"),
        ("stage", "production"),
        ("bundle_for", "docker"),
        ("log_retention_days", "2"),
        ("max_concurrency_fast", "1"),
        ("max_concurrency_slow", "many"),
        ("alarm_topic", "me@example.com"),
        ("llm_key_secret", "my-secret"),
        ("settings", "WAYPOST_RETENTION=30d"),
        ("settings", '{"WAYPOST_RETENTION": 30}'),
        ("settings", '{"WAYPOST_RETENTION": "soon"}'),
        ("settings", '{"WAYPOST_TABLE": "another"}'),
        ("settings", '{"WAYPOST_ALLOWED_NETWORKS": "everywhere"}'),
        ("settings", '{"WAYPOST_MAX_TIMEOUT": "15m"}'),
        ("settings", '{"WAYPOST_MAX_BODY": "5000000"}'),
    ],
)
def test_an_option_that_cannot_be_used_is_named(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(OptionError, match=name):
        synthesised(tmp_path, **{name: value})


def test_deliver_functions_alone_may_read_the_key_of_the_model_service(tmp_path: Path) -> None:
    secret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:models-AbCdEf"
    template = synthesised(tmp_path, llm_key_secret=secret)
    readers = {
        service_of(function)
        for function in resources(template, "AWS::Lambda::Function").values()
        if any(secret in listed(one["Resource"]) for one in statements_of(template, function))
    }
    assert readers == {"deliver", "deliver-slow"}


def test_production_keeps_its_data_and_no_other_stage_does(template: Template, tmp_path: Path) -> None:
    production = synthesised(tmp_path, stage="prod")
    for kind in ("AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret"):
        assert [one["DeletionPolicy"] for one in resources(production, kind).values()] == ["Retain"]
        assert [one["DeletionPolicy"] for one in resources(template, kind).values()] == ["Delete"]
    production.has_resource_properties("AWS::DynamoDB::Table", {"DeletionProtectionEnabled": True})


def test_the_table_is_on_demand_recoverable_and_expires(template: Template) -> None:
    template.has_resource_properties(
        "AWS::DynamoDB::Table",
        {
            "BillingMode": "PAY_PER_REQUEST",
            "TimeToLiveSpecification": {"AttributeName": "ttl", "Enabled": True},
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            "GlobalSecondaryIndexes": Match.absent(),
        },
    )


def test_the_outputs_say_where_and_how(template: Template) -> None:
    assert sorted(template.find_outputs("*")) == ["FunctionUrl", "HttpApiUrl", "TableName", "TokenCommand"]


def test_two_syntheses_are_the_same_byte_for_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        synthesised(tmp_path / name)
    names = [path.name for path in (tmp_path / "one").iterdir() if path.is_file()]
    assert "Waypost.template.json" in names
    same, different, missing = filecmp.cmpfiles(tmp_path / "one", tmp_path / "two", names, shallow=False)
    assert (sorted(same), different, missing) == (sorted(names), [], [])


def test_nothing_is_looked_up_and_no_account_is_named(template: Template, tmp_path: Path) -> None:
    synthesised(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "missing" not in manifest
    assert manifest["artifacts"]["Waypost"]["environment"] == "aws://unknown-account/unknown-region"
