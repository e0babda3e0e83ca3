"""A command imports what it uses and no more: help, a version or a completion no driver, parser or SDK at all."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stackctl.cli.commands import COMMANDS, Group
from tests.backend import MINE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.backend import Project

HEAVY = {"psycopg", "sqlglot", "stripe", "celpy", "yaml", "rich", "pydantic", "sqlite3", "duckdb"}
HELP = {"rich"}  # which draws it
HELP_LINES = [
    "--help",
    *(
        " ".join([name, *command, "--help"])
        for name, entry in COMMANDS.items()
        for command in ([[], *([inner] for inner in entry.commands)] if isinstance(entry, Group) else [[]])
    ),
]
COMPLETION_LINES = [f"completion {shell}" for shell in ("bash", "zsh", "fish", "powershell")]

DATABASE = {"psycopg", "yaml"}
SYNC = DATABASE | {"sqlite3"}  # of the external database that the project has
CEL = {"celpy", "pydantic"}  # cel-python comes with pydantic
# Command lines, and the heavy packages that each may import off a terminal.
MAY_IMPORT: dict[str, set[str]] = {
    "config show": {"yaml"},
    "migrate status": DATABASE,
    "migrate verify": DATABASE,
    "migrate lint": DATABASE | {"sqlglot"},
    "mappings list": DATABASE,
    "mappings show users": DATABASE,
    "mappings compile users": DATABASE,
    "mappings check": DATABASE | {"sqlglot"},
    "fuse show": DATABASE,
    "fuse on sequencer": DATABASE | {"pydantic"},
    "queue list": DATABASE,
    "queue retry --all": DATABASE,
    "enqueue --all": DATABASE,
    "status": SYNC,
    "sequence": DATABASE,
    "poll": SYNC,
    "sync --all": SYNC,
    "verify": SYNC,
    "backfill users": SYNC,
    "run --max-duration 1ms": SYNC,
    "users show nobody@example.com": DATABASE,
    "rules list": {"yaml"},
    "rules check": {"yaml"} | CEL,
    "rules tree block": {"yaml"} | CEL,
    "rules eval --email a@example.com": {"yaml"} | CEL,
    "rules stats": DATABASE,
    "refunds list": DATABASE,
    "refunds show 7c9e6679-7425-40de-944b-e07fc1f90ae7": DATABASE,
    "payments status": DATABASE,
    "payment-methods list": DATABASE,
}
# Nobody is called so, no refund has this id, and the tenancy's project is connected to no Stripe account.
EXIT_CODES = {
    "users show nobody@example.com": 2,
    "refunds show 7c9e6679-7425-40de-944b-e07fc1f90ae7": 2,
    "payment-methods list": 3,
}
RULES = """
rules:
  block: {priority: 100, condition: 'emailDomain == "tempmail.com"', action: {type: reject}}
"""

# A process that has imported nothing forks one for each command line, which says what it has imported in the end.
FORKS = """
import json, os, sys
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


def imports_of(lines: Iterable[str], cwd: Path | None = None) -> dict[str, tuple[int, set[str]]]:
    """The exit code of each command line, and the packages that it imported."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS], input=json.dumps(list(lines)), cwd=cwd,
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    reports = [json.loads(report) for report in done.stdout.splitlines()]
    return {line: (code, set(packages)) for line, code, packages in reports}


@pytest.fixture(scope="module")
def plain() -> dict[str, tuple[int, set[str]]]:
    return imports_of([*HELP_LINES, *COMPLETION_LINES, "--version"])


def test_help_imports_nothing_heavy(plain: dict[str, tuple[int, set[str]]]) -> None:
    assert {line: plain[line][0] for line in HELP_LINES if plain[line][0] != 0} == {}
    assert {line: plain[line][1] & HEAVY - HELP for line in HELP_LINES} == dict.fromkeys(HELP_LINES, set())


def test_a_completion_script_imports_nothing_heavy(plain: dict[str, tuple[int, set[str]]]) -> None:
    assert {line: plain[line][0] for line in COMPLETION_LINES} == dict.fromkeys(COMPLETION_LINES, 0)
    assert {line: plain[line][1] & HEAVY for line in COMPLETION_LINES} == dict.fromkeys(COMPLETION_LINES, set())


def test_the_version_needs_no_command_line_parser(plain: dict[str, tuple[int, set[str]]]) -> None:
    code, packages = plain["--version"]
    assert code == 0
    assert packages.isdisjoint({"typer", "rich"})


def test_a_command_imports_what_it_uses(project: Project) -> None:
    project.sqlite(MINE).write()
    (project.directory / "sign-up-rules.yaml").write_text(RULES)
    found = imports_of(MAY_IMPORT, project.directory)
    assert {line: found[line][0] for line in MAY_IMPORT if found[line][0] != EXIT_CODES.get(line, 0)} == {}
    more = {line: found[line][1] & HEAVY - may for line, may in MAY_IMPORT.items()}
    assert more == dict.fromkeys(MAY_IMPORT, set())


def test_no_permission_is_unused(project: Project) -> None:
    """What a line of MAY_IMPORT allows is needed: an import that went away is struck off."""
    project.sqlite(MINE).write()
    (project.directory / "sign-up-rules.yaml").write_text(RULES)
    found = imports_of(MAY_IMPORT, project.directory)
    assert {line: may - found[line][1] for line, may in MAY_IMPORT.items() if may - found[line][1]} == {}
