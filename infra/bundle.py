"""The one asset that all functions run: the package and what it needs, put together by pip and without Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_

FUNCTIONS = Path(__file__).parents[1] / "functions"
#: What wheels are chosen for. Newer Lambda runtimes have a newer glibc than the first of these names.
_LAMBDA = [
    *("--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_28_aarch64"),
    *("--implementation", "cp", "--python-version", "3.13", "--only-binary=:all:"),
]
#: Parts of the package that only the local server uses.
_LEFT_OUT = ("local", "embedded", "__pycache__")


def code(bundle_for: str) -> lambda_.Code:
    """`lambda`: for the functions' runtime. `host`: for this machine, whose interpreter an emulator runs them on."""
    platform = [] if bundle_for == "host" else _LAMBDA
    return lambda_.Code.from_asset(
        str(FUNCTIONS),
        # By what goes in: the lock file pins the rest, and what is bundled already is not bundled again.
        asset_hash_type=AssetHashType.SOURCE,
        exclude=[f"**/{name}" for name in _LEFT_OUT],
        bundling=BundlingOptions(
            image=DockerImage.from_registry("never-pulled"),
            # Never passed on, since nothing runs in a container: what it says is a part of the hash.
            environment={"PLATFORM": " ".join(platform)},
            local=_Pip(platform),
        ),
    )


@jsii.implements(ILocalBundling)
class _Pip:
    def __init__(self, platform: list[str]) -> None:
        self._platform = platform

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
        for path in [*out.rglob("*"), out]:
            os.utime(path, (0, 0))
        return True
