"""Arrows point inward: entry points -> core <- engines, and wiring alone knows both."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "functions" / "waypost"
#: What the core may import besides itself: nothing that knows AWS, the web, sockets, threads or the environment.
_CORE_MAY = {
    "__future__",
    "binascii",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "email",
    "enum",
    "functools",
    "hashlib",
    "hmac",
    "ipaddress",
    "json",
    "math",
    "msgspec",
    "re",
    "sys",
    "types",
    "typing",
    "unicodedata",
    "urllib",
    "zlib",
    "ast",
    "asyncio",  # `gather` alone: to ask for several partitions at once
    "waypost",
}
#: What an engine may import of the core: what it is asked for, and two that need nothing of the rest.
_ENGINES_MAY = {"waypost.core.ports", "waypost.core.guard", "waypost.core.remembered"}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
    return found


def files(folder: str) -> list[Path]:
    found = sorted((PACKAGE / folder).rglob("*.py"))
    assert found
    return found


def test_the_core_knows_itself_alone() -> None:
    for file in files("core"):
        for name in imports(file):
            assert name.split(".")[0] in _CORE_MAY, (file.name, name)
            assert not name.startswith("waypost") or name.startswith("waypost.core"), (file.name, name)


def test_engines_know_the_ports_and_themselves() -> None:
    for file in files("engines"):
        for name in imports(file):
            if name.startswith("waypost"):
                known = name in _ENGINES_MAY or name.startswith("waypost.engines")
                assert known, (file.name, name)


def test_nothing_but_the_programs_reads_the_environment() -> None:
    for file in files("."):
        if file.name not in ("on_aws.py", "__main__.py"):
            assert "os.environ" not in file.read_text(), file.name
