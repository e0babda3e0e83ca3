"""A command imports what it uses and no more: help, a version or a completion no driver, parser or SDK at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stackctl.cli.commands import COMMANDS, Group
from tests.backend import MINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.backend import Project

HEAVY = {"psycopg", "sqlglot", "stripe", "celpy", "yaml", "rich", "pydantic", "sqlite3", "duckdb"}
HEAVY |= {"starlette", "uvicorn", "prometheus_client"}
HELP_LINES = [
    "--help",
    *(
        " ".join([name, *command, "--help"])
        for name, entry in COMMANDS.items()
        for command in ([[], *([inner] for inner in entry.commands)] if isinstance(entry, Group) else [[]])
    ),
]
# Of Python's own, what the heavy ones import first: each line need not do it again.
PYTHONS = ("asyncio", "ctypes", "decimal", "email.message", "json", "logging", "random", "ssl", "tempfile", "zoneinfo")
COMPLETION_LINES = [f"completion {shell}" for shell in ("bash", "zsh", "fish", "powershell")]

DATABASE = {"psycopg", "yaml"}
SYNC = DATABASE | {"sqlite3"}  # of the external database that the project has
# Command lines, and the heavy packages that each imports off a terminal.
USES: dict[str, set[str]] = {
    "config show": {"yaml"},
    "explain": set(),
    "explain lock-held": set(),
    "migrate status": DATABASE,
    "migrate status --json --dir .": DATABASE,
    "migrate up": DATABASE,
    "migrate verify": DATABASE,
    "migrate diff": DATABASE,
    "migrate lint": {"yaml", "sqlglot"},
    "migrate lint . --rule drop-table --rule drop-view": {"yaml"},
    "migrate repair": DATABASE,
    "mappings list": {"yaml"},
    "mappings show users": {"yaml"},
    "mappings compile users": {"yaml", "pydantic"},
    "mappings diff": DATABASE,  # no file is there yet
    "mappings new startup_example --dir maps": {"yaml", "pydantic"},
    "mappings export users --to maps": {"yaml"},
    "mappings check": DATABASE | {"sqlglot"},
    "fuse show": DATABASE,
    "fuse on sequencer": DATABASE | {"pydantic"},
    "fuse off --database local --reason x": DATABASE,
    "fuse on --database local": DATABASE,
    "queue list": DATABASE,
    "queue retry --all": DATABASE,
    "queue forget --all --yes": DATABASE,
    "enqueue --all": DATABASE,
    "status": DATABASE,
    "status -q": DATABASE,
    "tenancies list": DATABASE,
    "db url": DATABASE,
    "sequence": DATABASE,
    "poll": SYNC,
    "sync --all": SYNC,
    "verify": SYNC,
    "backfill users": SYNC,
    "run --max-duration 1ms": DATABASE,
    "serve": {"yaml", "psycopg", "starlette", "uvicorn", "prometheus_client"},  # no signing key
    "users show nobody@example.com": DATABASE,
    "rules list": {"yaml"},
    "rules check": {"yaml"},
    "rules tree block": {"yaml"},
    "rules eval --email a@example.com": {"yaml"},
    "rules stats": DATABASE,
    "refunds list": DATABASE,
    "refunds show 7c9e6679-7425-40de-944b-e07fc1f90ae7": DATABASE,
    "payments status": DATABASE,
    "payment-methods list": DATABASE,
}
# Nobody is called so, no refund has this id, and there are two tenancies to choose from.
EXIT_CODES = {
    "users show nobody@example.com": 2,
    "refunds show 7c9e6679-7425-40de-944b-e07fc1f90ae7": 2,
    "payments status": 2,
    "payment-methods list": 2,
    "serve": 3,
    "mappings diff": 1,  # nothing was synced yet
}
RULES = """
rules:
  block: {priority: 100, condition: 'emailDomain == "tempmail.com"', action: {type: reject}}
"""

# A process forks one for each command line, which says what it has imported in the end. It has imported `sys.argv[1:]`
# itself, or nothing: what every command needs and `--version` does not.
FORKS = """
import importlib, json, os, sys
for module in sys.argv[1:]:
    importlib.import_module(module)
for line in json.load(sys.stdin):
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    out = os.dup(1)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.argv = ["stackctl", *line.split()]
    try:
        from stackctl.__main__ import main
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    packages = sorted({name.split(".")[0] for name in sys.modules})
    os.write(out, (json.dumps([line, code, packages]) + "\\n").encode())
    os._exit(0)
"""


def imports_of(
    lines: Iterable[str], cwd: Path | None = None, before: Sequence[str] = ("stackctl.cli.app",)
) -> dict[str, tuple[int, set[str]]]:
    """The exit code of each command line, and the packages that it imported."""
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # no table has to be folded
    done = subprocess.run(
        [sys.executable, "-c", FORKS, *before], input=json.dumps(list(lines)), cwd=cwd, env=environ,
        capture_output=True, text=True, check=True, timeout=170,
    )  # fmt: skip
    reports = [json.loads(report) for report in done.stdout.splitlines()]
    return {line: (code, set(packages)) for line, code, packages in reports}


@pytest.fixture(scope="module")
def plain() -> dict[str, tuple[int, set[str]]]:
    return imports_of([*HELP_LINES, *COMPLETION_LINES])


def test_help_and_completion_scripts_import_nothing_heavy(plain: dict[str, tuple[int, set[str]]]) -> None:
    assert [line for line, (code, _) in plain.items() if code != 0] == []
    assert [line for line in HELP_LINES if plain[line][1] & HEAVY] == []
    assert [line for line in COMPLETION_LINES if plain[line][1] & HEAVY] == []


def test_the_version_needs_no_command_line_parser() -> None:
    code, packages = imports_of(["--version"], before=["stackctl"])["--version"]
    assert (code, packages & {"typer", "rich"}) == (0, set())


def test_a_command_imports_what_it_uses_and_no_more(project: Project) -> None:
    """What a line of USES allows is needed, too: an import that went away is struck off."""
    project.sqlite(MINE).write()
    (project.directory / "sign-up-rules.yaml").write_text(RULES)
    found = imports_of(USES, project.directory, ["stackctl.cli.app", *PYTHONS])
    assert [(line, found[line][0]) for line in USES if found[line][0] != EXIT_CODES.get(line, 0)] == []
    assert {line: packages & HEAVY for line, (_, packages) in found.items()} == USES
