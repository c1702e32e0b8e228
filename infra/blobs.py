"""Bodies too large for the table, dropped by age: a prefix for each class of days."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_s3 as s3
from constructs import Construct

_CLASSES = (30, 120, 400)


class Blobs(Construct):
    def __init__(self, scope: Construct, name: str, *, keep: bool) -> None:
        super().__init__(scope, name)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            lifecycle_rules=[
                s3.LifecycleRule(
                    prefix=f"{days}/",
                    expiration=Duration.days(days + 1),
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                )
                for days in _CLASSES
            ],
            removal_policy=RemovalPolicy.RETAIN if keep else RemovalPolicy.DESTROY,
        )
