"""Puts the service together over one set of ports, and reads the settings that both engines share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields

from waypost.api import Api
from waypost.core.accept import Acceptor
from waypost.core.accounts import KeyStore, Tokens
from waypost.core.cancel import Canceller
from waypost.core.dead_letters import DeadLetters
from waypost.core.deliver import Deliverer
from waypost.core.destination import check_endpoint
from waypost.core.duration import parse_duration
from waypost.core.errands import Errands
from waypost.core.errors import BadRequest
from waypost.core.firing import Firer
from waypost.core.fresh import Fresh
from waypost.core.groups import Groups
from waypost.core.guard import Guard
from waypost.core.lane_errand import LaneErrand
from waypost.core.lane_operations import LaneOperations
from waypost.core.lane_store import LaneStore
from waypost.core.lanes import Lanes
from waypost.core.llm import NO_LLM, Llm, completions_url
from waypost.core.log import Log
from waypost.core.look import Look
from waypost.core.message import LANE
from waypost.core.messages import Messages
from waypost.core.order import ORDER, OpenOrders
from waypost.core.policy import Policy
from waypost.core.ports import Ports
from waypost.core.publish import Publisher
from waypost.core.reminder import Looked
from waypost.core.schedule import SCHEDULE
from waypost.core.schedules import Schedules


class SettingError(Exception):
    """A setting has a value that can't be used; the text says which, and what would be right."""


@dataclass(frozen=True, slots=True)
class Service:
    """The rules over one set of ports."""

    api: Api
    deliverer: Deliverer
    look: Look
    log: Log
    keys: KeyStore
    orders: OpenOrders
    errands: Errands


def assemble(ports: Ports, policy: Policy, tokens: Tokens, guard: Guard, llm: Llm = NO_LLM) -> Service:
    looked, fresh = Looked(), Fresh(policy.fresh)
    keys, log, orders = KeyStore(ports, alone=bool(policy.boot)), Log(ports, policy), OpenOrders(ports)
    lane_store = LaneStore(ports, policy)
    lanes = Lanes(ports, policy, lane_store)
    acceptor = Acceptor(ports, policy, looked, lanes, log)
    messages = Messages(ports, policy, lanes, log)
    canceller = Canceller(ports, policy, messages, orders, log)
    publisher = Publisher(ports, policy, looked, fresh, acceptor, lanes)
    groups, schedules = Groups(ports), Schedules(ports, policy)
    firer = Firer(ports, schedules, publisher, groups, guard, llm)
    errands = Errands({ORDER: canceller, SCHEDULE: firer, LANE: LaneErrand(ports, lane_store, lanes, messages)})
    return Service(
        api=Api(
            ports,
            policy,
            tokens,
            guard,
            llm,
            publisher,
            groups,
            schedules,
            firer,
            messages,
            canceller,
            LaneOperations(ports, policy, lane_store, lanes),
            DeadLetters(ports, policy, acceptor, lanes),
            keys,
        ),
        deliverer=Deliverer(ports, policy, looked, fresh, keys.keys, acceptor, orders, lanes, llm, log),
        look=Look(ports, policy, looked, errands),
        log=log,
        keys=keys,
        orders=orders,
        errands=errands,
    )


def read_policy(environment: Mapping[str, str]) -> Policy:
    changed: dict[str, object] = {}
    for known in fields(Policy):
        setting = known.metadata.get("setting")
        text = environment.get(setting, "") if setting else ""
        if text:
            changed[known.name] = _figure(known, str(setting), text)
    return Policy(**changed)  # type: ignore[arg-type]


def _figure(known: Field[object], setting: str, text: str) -> object:
    choices: tuple[str, ...] = known.metadata["choices"]
    if choices:
        if text not in choices:
            raise SettingError(f'{setting} is "{text}", it must be {" or ".join(choices)}')
        return text
    if known.name.endswith("_ms"):
        figure = parse_duration(text)
        if figure is None:
            raise SettingError(f'{setting} is "{text}", it must be a duration such as 30s or 14d')
    elif re.fullmatch("[0-9]{1,15}", text):
        figure = int(text)
    else:
        raise SettingError(f'{setting} is "{text}", it must be a whole number')
    if figure < known.metadata["least"]:
        raise SettingError(f'{setting} is "{text}", it must be more than nothing')
    return figure


def read_llm_url(environment: Mapping[str, str], networks: Sequence[str]) -> str:
    """Where the model service is asked for completions; empty: there is none. `networks`: the private ones that it may
    be in. Raises SettingError."""
    base_url = environment.get("WAYPOST_LLM_URL", "").strip()
    if any(mark in base_url for mark in "?#@"):
        raise SettingError(
            f'WAYPOST_LLM_URL is "{base_url}", it must be a base URL such as https://api.openai.com/v1, without a query'
            " or a user; WAYPOST_LLM_KEY is the key"
        )
    try:
        return completions_url(base_url) and check_endpoint(completions_url(base_url), Guard(networks))
    except BadRequest as wrong:
        raise SettingError(f'WAYPOST_LLM_URL is "{base_url}", which can\'t be used: {wrong}') from None


def read_networks(environment: Mapping[str, str]) -> Sequence[str]:
    """The private networks that destinations may be in. Raises SettingError."""
    networks = [n.strip() for n in environment.get("WAYPOST_ALLOWED_NETWORKS", "").split(",") if n.strip()]
    try:
        Guard(networks)
    except ValueError as wrong:
        raise SettingError(f"WAYPOST_ALLOWED_NETWORKS: {wrong}") from None
    return networks
