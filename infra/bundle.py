"""The one asset that all functions run: the package and what it needs, put together by pip and without Docker."""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_

FUNCTIONS = Path(__file__).parents[1] / "functions"
#: Where a function finds its code.
_IN_LAMBDA = "/var/task"
_RUNTIME = (3, 13)
#: What wheels are chosen for. Newer Lambda runtimes have a newer glibc than the first of these names.
_LAMBDA = [
    *("--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_28_aarch64"),
    *("--implementation", "cp", "--python-version", ".".join(map(str, _RUNTIME)), "--only-binary=:all:"),
]
#: Parts of the package that only the local server uses.
_LEFT_OUT = ("local", "embedded", "__pycache__")


def code(bundle_for: str) -> lambda_.Code:
    """`lambda`: for the functions' runtime. `host`: for this machine, whose interpreter an emulator runs them on."""
    platform = [] if bundle_for == "host" else _LAMBDA
    compiled = bundle_for == "host" or sys.version_info[:2] == _RUNTIME
    return lambda_.Code.from_asset(
        str(FUNCTIONS),
        # By what goes in: the lock file pins the rest, and what is bundled already is not bundled again.
        asset_hash_type=AssetHashType.SOURCE,
        exclude=[f"**/{name}" for name in _LEFT_OUT],
        bundling=BundlingOptions(
            image=DockerImage.from_registry("never-pulled"),
            # Never passed on, since nothing runs in a container: what it says is a part of the hash.
            environment={"PLATFORM": " ".join(platform), "COMPILED": str(compiled)},
            local=_Pip(platform, compiled),
        ),
    )


@jsii.implements(ILocalBundling)
class _Pip:
    def __init__(self, platform: list[str], compiled: bool) -> None:
        self._platform = platform
        self._compiled = compiled

    def try_bundle(self, output_dir: str, options: BundlingOptions) -> bool:
        """Raises CalledProcessError when pip fails, rather than to let the CDK look for Docker."""
        del options
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
                *("--no-compile", "--require-hashes", "-r", FUNCTIONS / "requirements.txt", "--target", output_dir),
                *self._platform,
            ],
            check=True,
        )
        out = Path(output_dir)
        shutil.rmtree(out / "bin", ignore_errors=True)
        shutil.copytree(FUNCTIONS / "waypost", out / "waypost", ignore=shutil.ignore_patterns(*_LEFT_OUT))
        for path in out.rglob("*"):
            # pip's records name this machine's folders and times.
            if path.parent.suffix == ".dist-info" and path.name in (
                "RECORD",
                "direct_url.json",
                "INSTALLER",
                "REQUESTED",
            ):
                path.unlink()
        if self._compiled:
            # Nothing can be written where a function runs, so each of its starts would compile everything. Without
            # times and paths of this machine, so that the same sources make the same bytes.
            compileall.compile_dir(
                out,
                quiet=1,
                stripdir=output_dir,
                prependdir=_IN_LAMBDA,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        for path in [*out.rglob("*"), out]:
            os.utime(path, (0, 0))
        return True
