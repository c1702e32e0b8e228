"""Arrows point inward: entry points -> core <- engines, and the entry points alone know both."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "functions" / "waypost"
#: What the core may import besides itself: nothing that knows AWS, the web, sockets, threads or the environment.
_CORE_MAY = {
    "__future__",
    "binascii",
    "collections",
    "contextlib",
    "cronsim",
    "dataclasses",
    "datetime",
    "decimal",
    "email",
    "enum",
    "functools",
    "heapq",
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
    "zoneinfo",  # what it reads is data
    "ast",
    "asyncio",  # `gather` alone: to ask for several things at once
    "waypost",
}
#: What an engine may import of the core: what it is asked for, and what needs nothing of the rest.
_ENGINES_MAY = {"waypost.core.ports", "waypost.core.guard", "waypost.core.limits", "waypost.core.remembered"}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "waypost.core":
            found |= {f"waypost.core.{alias.name}" for alias in node.names}
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


#: What entry points and the stack know of the rules besides what `wiring` puts together: names, and no decisions.
_ENTRY_POINTS_MAY = {
    "waypost.api",
    "waypost.call",
    "waypost.core.accounts",
    "waypost.core.deliver",
    "waypost.core.errors",
    "waypost.core.guard",
    "waypost.core.llm",
    "waypost.core.limits",
    "waypost.core.message",
    "waypost.core.policy",
    "waypost.core.ports",
    "waypost.on_aws",
    "waypost.wiring",
}
_STACK_MAY = {"waypost.core.body", "waypost.core.limits", "waypost.core.policy", "waypost.wiring"}


def test_entry_points_turn_events_into_calls() -> None:
    found = sorted(PACKAGE.glob("on_*.py"))
    assert len(found) == 5
    for file in found:
        for name in imports(file):
            if name.startswith("waypost"):
                assert name in _ENTRY_POINTS_MAY or name.startswith("waypost.engines."), (file.name, name)


def test_wiring_knows_no_engine_and_no_entry_point() -> None:
    for name in imports(PACKAGE / "wiring.py"):
        assert not name.startswith("waypost") or name == "waypost.api" or name.startswith("waypost.core."), name


def test_the_stack_knows_names_and_limits_alone() -> None:
    for file in (PACKAGE.parents[1] / "infra").glob("*.py"):
        for name in imports(file):
            assert not name.startswith("waypost") or name in _STACK_MAY, (file.name, name)


def test_nothing_but_the_programs_reads_the_environment() -> None:
    for file in files("."):
        if file.name not in ("on_aws.py", "__main__.py"):
            assert "os.environ" not in file.read_text(), file.name
