"""MiniStack, the AWS that tests deploy into: a process of its own, on free ports of this machine's loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

_ROOT = Path(__file__).parents[1]
ACCOUNT, REGION = "000000000000", "us-east-1"
#: What a client of any emulator is made with.
SETTINGS = {"region_name": REGION, "aws_access_key_id": "test", "aws_secret_access_key": "test"}


class Emulator:
    """`url` is AWS's one endpoint. `log` holds what it printed."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        #: What a client of this one is made with.
        self.settings = {**SETTINGS, "endpoint_url": self.url}
        self._folder = tempfile.TemporaryDirectory(prefix="waypost-emulator-")
        self.log = Path(self._folder.name) / "log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [_ROOT / ".venv-emulator/bin/ministack"],
                env={**_without_aws(os.environ), "GATEWAY_PORT": str(self.port), "TMPDIR": self._folder.name},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the emulator did not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def environment(self) -> dict[str, str]:
        """What points AWS's tools and clients at it, besides the rest of this process's environment."""
        return {
            **_without_aws(os.environ),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
        }

    def reset(self) -> None:
        """Empties it of all state."""
        request = urllib.request.Request(f"{self.url}/_ministack/reset", method="POST")
        urllib.request.urlopen(request, timeout=30).close()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._folder.cleanup()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def _without_aws(environment: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("AWS_")}
