"""How long functions take to start: imports and clients, over boto3 with one client alone."""

from __future__ import annotations

import compileall
import importlib.util
import os
import shutil
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
    """Medians of the time beyond a bare interpreter's, in alternation: with bytecode, as a deploy from the functions'
    own Python ships it, and without."""
    programs = {"nothing": "", "boto3 and one client": _BOTO3, "api": _API, "deliver": _DELIVER}
    with tempfile.TemporaryDirectory() as folder:
        compiled, plain = _copy(Path(folder, "compiled")), _copy(Path(folder, "plain"))
        compileall.compile_dir(compiled, quiet=1)
        took = {name: [] for name in (*programs, "api, not compiled", "deliver, not compiled")}
        for number in range(rounds + 1):
            for name, program in programs.items():
                took[name].append(_start(program, compiled))
                if name in ("api", "deliver"):
                    took[f"{name}, not compiled"].append(_start(program, plain))
            if not number:  # the first round fills the machine's caches
                took = {name: [] for name in took}
    bare = statistics.median(took.pop("nothing"))
    base = statistics.median(took["boto3 and one client"]) - bare
    for name, times in took.items():
        own = statistics.median(times) - bare
        print(f"{name:22} {own * 1000:4.0f} ms, {own / base:.2f} of boto3's")


def _copy(folder: Path) -> Path:
    """What ships, besides what the runtime has."""
    shutil.copytree(ROOT / "functions/waypost", folder / "waypost", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("aws_lambda_powertools", "httptools", "msgspec"):
        found = importlib.util.find_spec(package)
        assert found
        assert found.origin
        source = Path(found.origin).parent
        shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _start(program: str, packages: Path) -> float:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))},
        **_ENVIRONMENT,
        "PYTHONPATH": str(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    return time.perf_counter() - start
