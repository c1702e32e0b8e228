"""The local server's settings, its profiles and the token that it keeps."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from waypost.core.accounts import Account
from waypost.core.llm import Llm
from waypost.core.policy import Policy
from waypost.core.signing import SigningKeys
from waypost.engines.embedded.durable import write_whole
from waypost.wiring import SettingError, read_llm_url, read_networks, read_policy

#: Public constants of QStash's development server. They are accepted in the development profile alone.
DEVELOPMENT_ACCOUNTS = (
    Account(
        "defaultUser",
        "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0=",
        SigningKeys("sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r", "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"),
    ),
    Account(
        "testUser1",
        "eyJVc2VySUQiOiJ0ZXN0VXNlcjEiLCJQYXNzd29yZCI6InRlc3RQYXNzd29yZCJ9",
        SigningKeys("sig_7GVPjvuwsfqF65iC8fSrs1dfYruM", "sig_5NoELc3EFnZn4DVS5bDs2Nk4b7Ua"),
    ),
    Account(
        "testUser2",
        "eyJVc2VySUQiOiJ0ZXN0VXNlcjIiLCJQYXNzd29yZCI6InRlc3RQYXNzd29yZCJ9",
        SigningKeys("sig_6jWGaWRxHsw4vMSPJprXadyvrybF", "sig_7qHbvhmahe5GwfePDiS5Lg3pi6Qx"),
    ),
    Account(
        "testUser3",
        "eyJVc2VySUQiOiJ0ZXN0VXNlcjMiLCJQYXNzd29yZCI6InRlc3RQYXNzd29yZCJ9",
        SigningKeys("sig_5T8FcSsynBjn9mMLBsXhpacRovJf", "sig_7GFR4YaDshFcqsxWRZpRB161jguD"),
    ),
)
_LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """What the local server needs to know."""

    profile: str
    host: str
    port: int
    base_path: str
    data: Path
    accounts: Sequence[Account]
    allowed_networks: Sequence[str]
    ca_file: str | None
    llm: Llm
    policy: Policy


def read_local_settings(environment: Mapping[str, str]) -> LocalSettings:
    profile = environment.get("WAYPOST_PROFILE") or "development"
    if profile not in ("development", "server"):
        raise SettingError(f'WAYPOST_PROFILE is "{profile}", it must be development or server')
    host = environment.get("WAYPOST_HOST") or "127.0.0.1"
    development = profile == "development"
    if development and host not in ("127.0.0.1", "::1", "localhost"):
        raise SettingError(
            f'WAYPOST_HOST is "{host}": the development profile has a public token and listens on loopback only;'
            " set WAYPOST_PROFILE=server for any other address"
        )
    port = environment.get("WAYPOST_PORT") or "8080"
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise SettingError(f'WAYPOST_PORT is "{port}", it must be a port number')
    data = Path(environment.get("WAYPOST_DATA") or ".waypost").absolute()
    ca_file = environment.get("WAYPOST_CA_FILE") or None
    if ca_file and not Path(ca_file).is_file():
        raise SettingError(f'WAYPOST_CA_FILE is "{ca_file}", there is no such file')
    networks = read_networks(environment)
    allowed = (*_LOOPBACK, *networks) if development else networks
    key = environment.get("WAYPOST_LLM_KEY", "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise SettingError("WAYPOST_LLM_KEY must be printable ASCII, since it stands in a header")
    return LocalSettings(
        profile=profile,
        host=host,
        port=int(port),
        base_path="/" + path if (path := environment.get("WAYPOST_BASE_PATH", "").strip("/")) else "",
        data=data,
        accounts=DEVELOPMENT_ACCOUNTS if development else (_own_account(environment),),
        allowed_networks=allowed,
        ca_file=ca_file,
        llm=Llm(read_llm_url(environment, allowed), lambda: key),
        policy=read_policy(environment),
    )


def _own_account(environment: Mapping[str, str]) -> Account:
    """The server profile's one account. Its token is set, or empty until `with_kept_token`."""
    token = environment.get("WAYPOST_TOKEN", "")
    if any(token == public.token for public in DEVELOPMENT_ACCOUNTS):
        raise SettingError("WAYPOST_TOKEN is the public token of the development profile; choose another")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingError("WAYPOST_TOKEN must be printable ASCII without blanks, since it stands in a header")
    fresh = SigningKeys(f"sig_{secrets.token_urlsafe(24)}", f"sig_{secrets.token_urlsafe(24)}")
    return Account("main", token, fresh)


def with_kept_token(settings: LocalSettings) -> LocalSettings:
    """Gives an account without a token the one kept in the data folder, made at the first start. The caller holds the
    folder's lock."""
    (account, *others) = settings.accounts
    if account.token:
        return settings
    return replace(settings, accounts=(replace(account, token=_kept_secret(settings.data / "token")), *others))


def _kept_secret(file: Path) -> str:
    if not file.exists():
        write_whole(file, f"{secrets.token_urlsafe(32)}\n".encode())
    file.chmod(0o600)
    token = file.read_text().strip()
    if not token:
        raise SettingError(f"{file} is empty: remove it to get a new token, or set WAYPOST_TOKEN")
    return token
