"""The whole service on one AWS account."""

from __future__ import annotations

from aws_cdk import CfnOutput, Stack
from constructs import Construct

from infra.alarms import Alarms
from infra.blobs import Blobs
from infra.bundle import code
from infra.door import Door
from infra.functions import Functions
from infra.options import Options
from infra.queues import Queues
from infra.table import Table
from infra.tick import Tick
from infra.token import Token


class WaypostStack(Stack):
    """A stage named `prod` keeps its data whatever happens to the stack; any other leaves nothing behind."""

    def __init__(self, scope: Construct, name: str, *, options: Options) -> None:
        super().__init__(scope, name)
        bundle = code(options.bundle_for)
        table = Table(self, "Table", keep=options.keeps_data)
        queues = Queues(self, "Queues")
        blobs = Blobs(self, "Blobs", code=bundle, options=options)
        token = Token(self, "Token", keep=options.keeps_data)
        functions = Functions(
            self, "Functions", code=bundle, table=table, queues=queues, blobs=blobs, token=token, options=options
        )
        door = Door(self, "Door", api=functions.api)
        Tick(self, "Tick", tick=functions.tick)
        Alarms(self, "Alarms", queues=queues, options=options)
        CfnOutput(self, "FunctionUrl", value=door.function_url, description="QSTASH_URL, with exact paths")
        CfnOutput(self, "HttpApiUrl", value=door.http_api_url, description="QSTASH_URL, with decoded paths")
        CfnOutput(self, "TableName", value=table.table.table_name)
        CfnOutput(
            self,
            "TokenCommand",
            value=f"aws secretsmanager get-secret-value --region {self.region} --query SecretString --output text"
            f" --secret-id {token.secret.secret_arn}",
            description="Prints QSTASH_TOKEN",
        )
