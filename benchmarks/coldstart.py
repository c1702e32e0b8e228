"""How long functions take to start: imports and clients, over boto3 with one client alone."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.load import ROOT

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "WAYPOST_BUCKET": "bucket",
    "WAYPOST_QUEUE_URL": "http://127.0.0.1:9/fast",
    "WAYPOST_SLOW_QUEUE_URL": "http://127.0.0.1:9/slow",
    "WAYPOST_TABLE": "table",
}
_BOTO3 = "import boto3; boto3.client('dynamodb')"
_API = (
    "import waypost.on_http, waypost.on_aws; waypost.on_aws.function();"
    "from waypost.engines.aws.clients import make_client; make_client('secretsmanager')"
)
_DELIVER = "import waypost.on_queue, waypost.on_aws; waypost.on_aws.function()"


def coldstart(rounds: int = 15) -> None:
    """Medians of the time beyond a bare interpreter's, in alternation."""
    programs = {"nothing": "", "boto3 and one client": _BOTO3, "api": _API, "deliver": _DELIVER}
    took: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))},
            **_ENVIRONMENT,
            "PYTHONPATH": str(ROOT / "functions"),
            "PYTHONPYCACHEPREFIX": str(Path(bytecode)),
        }
        for number in range(rounds + 1):
            for name, program in programs.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", program], check=True, env=environment)
                if number:  # the first round compiles
                    took[name].append(time.perf_counter() - start)
    bare = statistics.median(took["nothing"])
    base = statistics.median(took["boto3 and one client"]) - bare
    for name in ("boto3 and one client", "api", "deliver"):
        own = statistics.median(took[name]) - bare
        print(f"{name:22} {own * 1000:4.0f} ms, {own / base:.2f} of boto3's")
