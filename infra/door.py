"""Two doors to one function: an HTTP API, and a function URL, which keeps paths exact and costs less."""

from __future__ import annotations

from aws_cdk import aws_apigatewayv2 as gateway
from aws_cdk import aws_lambda as lambda_
from aws_cdk.aws_apigatewayv2_integrations import HttpLambdaIntegration
from constructs import Construct


class Door(Construct):
    def __init__(self, scope: Construct, name: str, *, api: lambda_.Function) -> None:
        super().__init__(scope, name)
        http_api = gateway.HttpApi(
            self,
            "HttpApi",
            api_name=scope.node.id,
            default_integration=HttpLambdaIntegration(
                "Api", api, payload_format_version=gateway.PayloadFormatVersion.VERSION_2_0
            ),
        )
        # Whoever calls shows a token, which the function checks.
        url = api.add_function_url(auth_type=lambda_.FunctionUrlAuthType.NONE)
        self.http_api_url = http_api.api_endpoint
        self.function_url = url.url
