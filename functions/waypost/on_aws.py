"""What a function keeps from call to call: settings, clients, the rules over them and one event loop."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from aws_lambda_powertools.logging.formatter import LambdaPowertoolsFormatter
from botocore.exceptions import BotoCoreError, ClientError

from waypost.core import limits
from waypost.core.accounts import Tokens
from waypost.core.guard import Guard, is_address
from waypost.core.llm import KeyMissing, Llm
from waypost.core.ports import Ports, Unavailable
from waypost.engines.aws.clients import make_client
from waypost.engines.aws.dynamo import DynamoTable
from waypost.engines.aws.s3 import S3Blobs
from waypost.engines.aws.sqs import SqsDoorbell
from waypost.engines.system import SystemClock, SystemRandomness
from waypost.engines.transport import HttpSender
from waypost.wiring import Service, assemble, read_llm_url, read_networks, read_policy

T = TypeVar("T")
_log = logging.getLogger(__name__)

_ACCOUNT = "main"
#: Of a minute's messages, and of the reminders: each takes 1,000 write units a second, and each is read every minute.
_SHARDS = 32
#: DynamoDB's writes are paid by the kilobyte.
_COMPRESS_FROM = 512
_THREADS = 16
#: Secrets are read again when they are so old, and the token after so long when a caller has another.
_SECRET_S = 60.0
_TOKEN_MISS_S = 10.0
#: Asked again after this when it could not be read.
_FAILURE_S = 5.0


class Secret:
    """A text in the secrets manager. While it can't be read, the last one counts."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: Any = None
        self._text = ""
        self._read_s = self._failed_s = float("-inf")

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._read_s

    def text(self, oldest_s: float) -> str:
        """As it was so long ago at most. Raises Unavailable if it could never be read."""
        if not self._text and time.monotonic() - self._failed_s < _FAILURE_S:
            raise Unavailable(f"the secret {self._name} can't be read")
        if self.age_s >= oldest_s:
            self._text = self._read()
            self._read_s = time.monotonic()
        return self._text

    def _read(self) -> str:
        try:
            self._client = self._client or make_client("secretsmanager")
            return str(self._client.get_secret_value(SecretId=self._name)["SecretString"]).strip()
        except (BotoCoreError, ClientError) as failed:
            _log.warning("a secret can't be read", exc_info=True, extra={"secret": self._name})
            if not self._text:
                self._failed_s = time.monotonic()
                raise Unavailable(f"the secret {self._name} can't be read") from failed
            return self._text


class SecretTokens(Tokens):
    """The token that a secret holds. A new one is known within a minute."""

    def __init__(self, secret: str) -> None:
        super().__init__({})
        self._secret = Secret(secret)

    def account(self, token: str) -> str | None:
        """Raises Unavailable if no token is known because the secret could never be read."""
        self.accept({self._secret.text(_SECRET_S): _ACCOUNT})
        found = super().account(token)
        if found is None and self._secret.age_s >= _TOKEN_MISS_S:
            self.accept({self._secret.text(_TOKEN_MISS_S): _ACCOUNT})
            found = super().account(token)
        return found


class Function:
    """One environment of one function."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._runner = asyncio.Runner()
        self._stage = environment.get("WAYPOST_STAGE", "dev")
        self.log = _logger(environment.get("WAYPOST_FUNCTION", "waypost"))
        policy = read_policy(environment)
        self.policy = replace(
            policy,
            shards=_SHARDS,
            compress_from=_COMPRESS_FROM,
            fresh=0,
            starts_apart_ms=0,
            max_batch=min(policy.max_batch, limits.BODY_ON_AWS),
        )
        guard = Guard(read_networks(environment), never=_runtime_api(environment))
        threads = ThreadPoolExecutor(_THREADS, "aws")
        self.sender = HttpSender(guard)
        random = SystemRandomness()
        self.ports = Ports(
            DynamoTable(make_client("dynamodb"), environment["WAYPOST_TABLE"], random, threads),
            SqsDoorbell(
                make_client("sqs"), environment["WAYPOST_QUEUE_URL"], environment["WAYPOST_SLOW_QUEUE_URL"], threads
            ),
            S3Blobs(environment["WAYPOST_BUCKET"], threads),
            self.sender,
            SystemClock(),
            random,
        )
        tokens = (
            SecretTokens(environment["WAYPOST_TOKEN_SECRET"]) if "WAYPOST_TOKEN_SECRET" in environment else Tokens({})
        )
        self.service: Service = assemble(self.ports, self.policy, tokens, guard, _llm(environment))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs one call's work to its end: nothing of it goes on in a later call."""
        return self._runner.run(work)

    async def write_log(self) -> None:
        """Nothing is left waiting for a later call, which may never come; what the store did not take is."""
        if left := await self.service.log.flush():
            self.log.warning("events wait to be logged", extra={"reason": left})

    def count(self, metrics: Mapping[str, int]) -> None:
        """Numbers by their metric's name, as one line in CloudWatch's embedded format: it is paid by its length."""
        from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

        line = EphemeralMetrics(namespace="Waypost")
        line.add_dimension(name="stage", value=self._stage)
        for name, number in metrics.items():
            line.add_metric(name=name, unit=MetricUnit.Count, value=number)
        line.flush_metrics()


def _llm(environment: Mapping[str, str]) -> Llm:
    url = read_llm_url(environment, read_networks(environment))
    if "WAYPOST_LLM_KEY_SECRET" not in environment:
        return Llm(url)
    secret = Secret(environment["WAYPOST_LLM_KEY_SECRET"])

    def key() -> str:
        try:
            return secret.text(_SECRET_S)
        except Unavailable as failed:
            raise KeyMissing(f"the model service's key can't be read: {failed}") from failed

    return Llm(url, key)


def _runtime_api(environment: Mapping[str, str]) -> list[str]:
    """Where Lambda hands out other callers' events to whoever asks from within the function."""
    host, _, _ = environment.get("AWS_LAMBDA_RUNTIME_API", "").rpartition(":")
    return [host] if is_address(host) else []


@functools.cache
def function() -> Function:
    return Function(os.environ)


def _logger(service: str) -> logging.Logger:
    """JSON lines on standard output, for everything under `waypost`."""
    handler = logging.StreamHandler(sys.stdout)
    formatter = LambdaPowertoolsFormatter()
    formatter.append_keys(service=service, location=None)
    handler.setFormatter(formatter)
    log = logging.getLogger("waypost")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.INFO)
    return log
