"""Bodies too large for the table, dropped by age: a prefix for each class of days."""

from __future__ import annotations

from aws_cdk import CustomResource, Duration, RemovalPolicy
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.function import allow, make_function
from infra.options import Options
from waypost.core.body import RETENTION_CLASSES


class Blobs(Construct):
    def __init__(self, scope: Construct, name: str, *, code: lambda_.Code, options: Options) -> None:
        super().__init__(scope, name)
        keep = options.keeps_data
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
                for days in RETENTION_CLASSES
            ],
            removal_policy=RemovalPolicy.RETAIN if keep else RemovalPolicy.DESTROY,
        )
        self._emptied = None if keep else self._empty_at_the_end(code, options.log_retention_days)

    def may_read(self, function: lambda_.Function) -> None:
        allow(function, ["s3:GetObject"], self.bucket.arn_for_objects("*"))
        # Without it S3 does not say that an object is missing.
        allow(function, ["s3:ListBucket"], self.bucket.bucket_arn)

    def may_write(self, function: lambda_.Function) -> None:
        allow(function, ["s3:PutObject"], self.bucket.arn_for_objects("*"))

    def outlives(self, writers: Construct) -> None:
        """The bucket is emptied after the writers are gone."""
        if self._emptied:
            writers.node.add_dependency(self._emptied)

    def _empty_at_the_end(self, code: lambda_.Code, log_retention_days: int) -> CustomResource:
        """A function of the same bundle, so that no other runtime comes into the stack."""
        function = make_function(
            self,
            "empty",
            code=code,
            module="on_delete",
            timeout=Duration.minutes(15),
            environment={},
            log_retention_days=log_retention_days,
        )
        allow(function, ["s3:ListBucket"], self.bucket.bucket_arn)
        allow(function, ["s3:DeleteObject"], self.bucket.arn_for_objects("*"))
        emptied = CustomResource(
            self,
            "Emptied",
            resource_type="Custom::EmptyBucket",
            service_token=function.function_arn,
            properties={"Bucket": self.bucket.bucket_name},
        )
        # At the end in the reverse order: the bucket is emptied while its function still may.
        emptied.node.add_dependency(function)
        return emptied
