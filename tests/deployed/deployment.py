"""The stack as the CDK's own command line deploys it, into the emulator, and what tests do to it there."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from deployed.front import Front
from emulator import ACCOUNT, REGION, Emulator
from journey.harness import CURRENT_KEY, DEV_TOKEN, NEXT_KEY, ROOT, Client

#: The one thing that a test deployment opens.
LOOPBACK = {"WAYPOST_ALLOWED_NETWORKS": "127.0.0.0/8"}


class Deployment(Client):
    """`url` is the test front's. Token and signing keys are the development profile's, which the journeys know."""

    logs_within_s = 5
    many = 1_000
    delivers_a_second = 20
    in_a_lane = 200
    starts_a_second = 1
    fires_within_s = 10

    def __init__(
        self, emulator: Emulator, folder: Path, settings: dict[str, str] | None = None, llm_key: str = ""
    ) -> None:
        self._emulator = emulator
        self._llm_key_secret = ""
        if llm_key:
            made = self.client("secretsmanager").create_secret(Name="model-service", SecretString=llm_key)
            self._llm_key_secret = made["ARN"]
        #: The emulator's port, where the HTTP API is reached by its host name.
        self.gateway = emulator.port
        self._folder = folder
        #: What is deployed.
        self.source = ROOT
        self._settings = LOOPBACK if settings is None else settings
        self.cdk("bootstrap", f"aws://{ACCOUNT}/{REGION}")
        self.deploy()
        self.functions = self.client("lambda")
        self.table_client = self.client("dynamodb")
        self.queues = self.client("sqs")
        stack = self.client("cloudformation").describe_stacks(StackName="Waypost-dev")["Stacks"][0]
        self.outputs: dict[str, str] = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        self.table = self.outputs["TableName"]
        self.names = self._names()
        environment = self.functions.get_function_configuration(FunctionName=self.names["tick"])["Environment"]
        self.environment: dict[str, str] = environment["Variables"]
        self._know_the_development_profile()
        self._front = Front(self.functions, self.names["api"])
        super().__init__(self._front.port)

    def deploy(self, **changed: str) -> None:
        """With these settings besides those it has."""
        self._settings = {**self._settings, **changed}
        self.cdk("deploy", "--require-approval", "never")

    def cdk(self, command: str, *arguments: str) -> str:
        """Raises AssertionError with what it printed when it fails."""
        done = subprocess.run(
            [
                ROOT / "node_modules/.bin/cdk",
                command,
                *arguments,
                *("--output", self._folder / "cdk.out"),
                *("-c", "bundle_for=host", "-c", f"settings={json.dumps(self._settings)}"),
                *("-c", f"llm_key_secret={self._llm_key_secret}"),
            ],
            cwd=self.source,
            env={
                **self._emulator.environment(),
                "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
                "CDK_DISABLE_CLI_TELEMETRY": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"cdk {command}:\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        return done.stdout + done.stderr

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            **self._emulator.settings,
            # A call that fails is told so: what a test does it does once.
            config=Config(retries={"total_max_attempts": 1}, read_timeout=130, max_pool_connections=50),
        )

    def _names(self) -> dict[str, str]:
        """The functions' names in this stack, by what the stack calls their service."""
        found = {}
        for function in self.functions.list_functions()["Functions"]:
            service = function.get("Environment", {}).get("Variables", {}).get("WAYPOST_FUNCTION")
            if service:
                found[service] = function["FunctionName"]
        return found

    def _know_the_development_profile(self) -> None:
        secret = self.functions.get_function_configuration(FunctionName=self.names["api"])["Environment"]["Variables"][
            "WAYPOST_TOKEN_SECRET"
        ]
        self.client("secretsmanager").put_secret_value(SecretId=secret, SecretString=DEV_TOKEN)
        self.put({"pk": "main#keys", "sk": "signing", "v": 1, "current": CURRENT_KEY, "next": NEXT_KEY})

    # What tests do ---------------------------------------------------------------------------------------------------

    def put(self, item: dict[str, Any]) -> None:
        boto3.resource(
            "dynamodb",
            **self._emulator.settings,
        ).Table(self.table).put_item(Item=item)

    def item(self, pk: str, sk: str) -> dict[str, Any] | None:
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        found = self.table_client.get_item(TableName=self.table, Key=key, ConsistentRead=True)
        return found.get("Item")

    def set_number(self, pk: str, sk: str, name: str, value: int) -> None:
        self.table_client.update_item(
            TableName=self.table,
            Key={"pk": {"S": pk}, "sk": {"S": sk}},
            UpdateExpression="SET #n = :v",
            ExpressionAttributeNames={"#n": name},
            ExpressionAttributeValues={":v": {"N": str(value)}},
        )

    def tick(self) -> None:
        answer = self.functions.invoke(FunctionName=self.names["tick"], Payload=b"{}")
        assert "FunctionError" not in answer, answer["Payload"].read()

    def restart(self, service: str) -> None:
        """Redeploys a function's configuration: the emulator kills the call in flight, which AWS would let end."""
        name = self.names[service]
        environment = self.functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        environment["WAYPOST_RESTARTED"] = str(time.time_ns())
        self.functions.update_function_configuration(FunctionName=name, Environment={"Variables": environment})

    def close(self) -> None:
        self._front.close()
