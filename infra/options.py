"""What an operator chooses: the context values of `npx cdk deploy -c name=value`. docs/deploy.md lists them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from constructs import Node

from waypost.core import limits
from waypost.core.policy import MINUTE, Policy
from waypost.wiring import SettingError, read_llm_url, read_networks, read_policy

#: CloudWatch keeps logs for these numbers of days, and some more.
RETENTION_DAYS = (1, 3, 7, 14, 30, 90, 365)
_SETTINGS = {known.metadata["setting"] for known in fields(Policy) if "setting" in known.metadata}
_SETTINGS -= {"WAYPOST_MAX_IN_FLIGHT"}
_SETTINGS |= {"WAYPOST_ALLOWED_NETWORKS", "WAYPOST_LLM_URL"}


class OptionError(Exception):
    """A context value that can't be used; the text says which, and what would be right."""


@dataclass(frozen=True, slots=True)
class Options:
    stage: str
    #: `lambda`: packages for the functions' runtime. `host`: for this machine, which an emulator runs functions on.
    bundle_for: str
    settings: Mapping[str, str]
    log_retention_days: int
    #: Deliver functions at once, for fast and for slow destinations.
    max_concurrency: tuple[int, int]
    #: The topic that alarms are sent to; empty: none.
    alarm_topic: str
    #: The secret that holds the model service's key; empty: it needs none.
    llm_key_secret: str

    @property
    def keeps_data(self) -> bool:
        return self.stage == "prod"


def read_options(node: Node) -> Options:
    """Raises OptionError."""

    def given(name: str) -> str:
        return str(node.try_get_context(name) or "")

    topic = given("alarm_topic")
    if topic and not re.fullmatch(r"arn:[^:\s]+:sns:[^:\s]+:[^:\s]+:[^:\s]+", topic):
        raise OptionError(f'alarm_topic is "{topic}", it must be the ARN of an SNS topic')
    secret = given("llm_key_secret")
    if secret and not re.fullmatch(r"arn:[^:\s]+:secretsmanager:[^:\s]+:[^:\s]+:secret:[^:\s*?]+", secret):
        raise OptionError(f'llm_key_secret is "{secret}", it must be the whole ARN of a secret')
    stage = _matching("stage", given("stage") or "dev", "[A-Za-z][A-Za-z0-9-]{0,40}", "letters, digits and -")
    if stage.lower().startswith("prod") and stage != "prod":
        raise OptionError(
            f'stage is "{stage}", whose data nothing would protect: the stage that keeps its data is "prod"'
        )
    return Options(
        stage=stage,
        bundle_for=_one_of("bundle_for", given("bundle_for") or "lambda", ("lambda", "host")),
        settings=_settings(given("settings") or "{}"),
        log_retention_days=int(
            _one_of("log_retention_days", given("log_retention_days") or "30", tuple(map(str, RETENTION_DAYS)))
        ),
        max_concurrency=(
            _concurrency("max_concurrency_fast", given("max_concurrency_fast") or "5"),
            _concurrency("max_concurrency_slow", given("max_concurrency_slow") or "2"),
        ),
        alarm_topic=topic,
        llm_key_secret=secret,
    )


def _matching(name: str, value: str, pattern: str, right: str) -> str:
    if not re.fullmatch(pattern, value):
        raise OptionError(f'{name} is "{value}", it must be {right}')
    return value


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    return _matching(name, value, "|".join(choices), f"one of {', '.join(choices)}")


def _concurrency(name: str, value: str) -> int:
    # SQS's own bounds for an event source.
    if not re.fullmatch("[0-9]{1,4}", value) or not 2 <= int(value) <= 1000:
        raise OptionError(f'{name} is "{value}", it must be a number from 2 to 1000')
    return int(value)


def _settings(text: str) -> Mapping[str, str]:
    """The functions would refuse a wrong setting too, but only once they are deployed."""
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        raise OptionError(
            f'settings is {text}, it must be a JSON object of texts such as {{"WAYPOST_RETENTION": "30d"}}'
        )
    for name in settings:
        if name not in _SETTINGS:
            raise OptionError(
                f"settings: {name} is none that functions have, use one of {', '.join(sorted(_SETTINGS))}"
            )
    try:
        policy = read_policy(settings)
        read_llm_url(settings, read_networks(settings))
    except SettingError as wrong:
        raise OptionError(f"settings: {wrong}") from None
    if policy.max_timeout_ms > limits.TIMEOUT_ON_AWS_MS:
        raise OptionError(
            f"settings: WAYPOST_MAX_TIMEOUT is more than {limits.TIMEOUT_ON_AWS_MS // MINUTE}m, the longest that a"
            " function can wait"
        )
    if policy.max_body > limits.BODY_ON_AWS:
        raise OptionError(
            f"settings: WAYPOST_MAX_BODY is more than {limits.BODY_ON_AWS}, the most that a function is handed"
        )
    return settings
