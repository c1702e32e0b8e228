"""`python -m waypost.local`: what `make run` starts."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvloop

from waypost.engines.embedded.sqlite import SqliteStore, StoreError
from waypost.local.server import listen, serve
from waypost.wiring import LocalSettings, SettingError, read_local_settings


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    os.umask(0o077)
    try:
        settings = read_local_settings(os.environ)
        store = SqliteStore(settings.data / "waypost.db")
        listener = listen(settings)
    except (SettingError, StoreError) as wrong:
        sys.exit(f"waypost: {wrong}")
    except OSError as wrong:
        sys.exit(f"waypost: {wrong} (WAYPOST_HOST, WAYPOST_PORT and WAYPOST_DATA say where to serve and to store)")
    _introduce(settings, listener.getsockname()[1])
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, listener, store))
    finally:
        store.close()


def _introduce(settings: LocalSettings, port: int) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{port}{settings.base_path}"
    account = settings.accounts[0]
    print(f"Waypost serves at {url}, {settings.profile} profile, data in {settings.data}\n")
    print(f"export QSTASH_URL={url}")
    print(f"export QSTASH_TOKEN={account.token}")
    if settings.profile == "development":
        print(f"export QSTASH_CURRENT_SIGNING_KEY={account.keys.current}")
        print(f"export QSTASH_NEXT_SIGNING_KEY={account.keys.next}")
    print("\nTry it (the endpoint here is Waypost's own health page; put yours in its place):\n")
    print(
        f'curl -X POST {url}/v2/publish/{url}/healthz -H "Authorization: Bearer {account.token}"'
        " -H 'Upstash-Method: GET' -d hello\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
