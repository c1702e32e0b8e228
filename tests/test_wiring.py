from __future__ import annotations

from pathlib import Path

import pytest

from waypost.core.policy import DAY
from waypost.local.settings import DEVELOPMENT_ACCOUNTS, read_local_settings, with_kept_token
from waypost.wiring import SettingError, read_policy


def test_the_development_profile_is_public_and_listens_on_loopback_alone(tmp_path: Path) -> None:
    settings = read_local_settings({"WAYPOST_DATA": str(tmp_path)})
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert settings.accounts == DEVELOPMENT_ACCOUNTS
    with pytest.raises(SettingError, match="WAYPOST_PROFILE=server"):
        read_local_settings({"WAYPOST_HOST": "192.0.2.1"})


def test_the_server_profile_has_a_token_of_its_own_and_allows_no_private_network(tmp_path: Path) -> None:
    environment = {"WAYPOST_PROFILE": "server", "WAYPOST_DATA": str(tmp_path), "WAYPOST_HOST": "192.0.2.1"}
    first = with_kept_token(read_local_settings(environment))
    again = with_kept_token(read_local_settings(environment))
    assert first.accounts[0].token == again.accounts[0].token
    assert len(first.accounts[0].token) > 30
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert list(first.allowed_networks) == []
    with pytest.raises(SettingError, match="public token"):
        read_local_settings(environment | {"WAYPOST_TOKEN": DEVELOPMENT_ACCOUNTS[0].token})
    (tmp_path / "token").write_text("")
    with pytest.raises(SettingError, match="empty"):
        with_kept_token(read_local_settings(environment))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WAYPOST_PROFILE", "prod"),
        ("WAYPOST_PORT", "http"),
        ("WAYPOST_PORT", "²"),
        ("WAYPOST_MAX_RETRIES", "²"),
        ("WAYPOST_MAX_DELAY", "long"),
        ("WAYPOST_MAX_IN_FLIGHT", "0"),
        ("WAYPOST_MAX_TIMEOUT", "0s"),
        ("WAYPOST_BACKOFF", "linear"),
        ("WAYPOST_REGION", "€"),
        ("WAYPOST_CA_FILE", "/nonexistent"),
        ("WAYPOST_ALLOWED_NETWORKS", "everything"),
    ],
)
def test_a_wrong_setting_is_named_at_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name):
        read_local_settings({name: value})


def test_figures_come_from_the_environment() -> None:
    policy = read_policy({"WAYPOST_MAX_DELAY": "7d", "WAYPOST_MAX_RETRIES": "5", "WAYPOST_BACKOFF": "qstash"})
    assert (policy.max_delay_ms, policy.max_retries, policy.backoff) == (7 * DAY, 5, "qstash")
