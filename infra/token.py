"""The first token: drawn by the account itself, so that nobody else has ever seen it."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct


class Token(Construct):
    def __init__(self, scope: Construct, name: str, *, keep: bool) -> None:
        super().__init__(scope, name)
        self.secret = secretsmanager.Secret(
            self,
            "Secret",
            description="Waypost's token: QSTASH_TOKEN",
            generate_secret_string=secretsmanager.SecretStringGenerator(exclude_punctuation=True, password_length=48),
            removal_policy=RemovalPolicy.RETAIN if keep else RemovalPolicy.DESTROY,
        )
