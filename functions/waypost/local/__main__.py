"""`python -m waypost.local`: what `make run` starts."""

from __future__ import annotations

import argparse
import asyncio
import errno
import gc
import logging
import os
import shlex
import sys

import uvloop

from waypost.core.signing import SigningKeys
from waypost.engines.embedded.sqlite import SqliteStore, StoreError
from waypost.local.server import listen, serve
from waypost.local.settings import LocalSettings, read_local_settings, with_kept_token
from waypost.wiring import SettingError


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m waypost.local",
        description="Serves Waypost on this machine, on http://127.0.0.1:8080 unless WAYPOST_PORT says otherwise."
        " All settings are environment variables; docs/settings.md lists them.",
    ).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o077)
    try:
        settings = read_local_settings(os.environ)
    except SettingError as wrong:
        sys.exit(f"waypost: {wrong}")
    try:
        listener = listen(settings)
        store = SqliteStore(settings.data / "waypost.db")
        settings = with_kept_token(settings)
    except (SettingError, StoreError) as wrong:
        sys.exit(f"waypost: {wrong}")
    except OSError as wrong:
        if wrong.errno == errno.EADDRINUSE:
            sys.exit(f"waypost: port {settings.port} is taken: stop what listens there, or set WAYPOST_PORT")
        sys.exit(f"waypost: {settings.host}:{settings.port} can't be listened on ({wrong.strerror}): set WAYPOST_HOST")

    def introduce(keys: SigningKeys) -> None:
        print(introduction(settings, listener.getsockname()[1], keys), flush=True)

    tune_interpreter()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, listener, store, introduce))
    finally:
        store.close()


def tune_interpreter() -> None:
    """For one busy thread that leaves next to no cycles, and one that writes to the disk and is hardly ever awake.

    Together worth about a tenth of the messages a second.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # How long the writer waits for the interpreter's lock before it asks for it: a commit waits for it twice.
    sys.setswitchinterval(0.0003)


def introduction(settings: LocalSettings, port: int, keys: SigningKeys) -> str:
    """What a start says: where it serves, and lines to paste into a shell."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - not bound, replaced
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.base_path}"
    exports = {
        "QSTASH_URL": url,
        "QSTASH_TOKEN": settings.accounts[0].token,
        "QSTASH_CURRENT_SIGNING_KEY": keys.current,
        "QSTASH_NEXT_SIGNING_KEY": keys.next,
    }
    destination = f"{url}/healthz" if settings.profile == "development" else "https://example.com/"
    lines = [
        f"Waypost serves at {url}, {settings.profile} profile, data in {settings.data}",
        "",
        *(f"export {name}={shlex.quote(value)}" for name, value in exports.items()),
        "",
        "Try it (put your endpoint in the place of the destination):",
        "",
        f"curl -X POST {shlex.quote(f'{url}/v2/publish/{destination}')}"
        f" -H {shlex.quote(f'Authorization: Bearer {settings.accounts[0].token}')} -H 'Upstash-Method: GET'",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
