"""Opening help, a version or a completion costs no driver, parser or SDK."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from stackctl.cli.commands import COMMANDS, Group

HEAVY = ("psycopg", "sqlglot", "stripe", "celpy", "yaml")
COMMAND_LINES = [
    [name, *inner]
    for name, entry in COMMANDS.items()
    for inner in ([[], *([command] for command in entry.commands)] if isinstance(entry, Group) else [[]])
]

SCRIPT = """
import json, sys
from stackctl.__main__ import main
sys.argv = ["stackctl", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as stop:
    if stop.code:
        raise
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def loaded(*arguments: str) -> set[str]:
    """The packages that one call imports."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], *([*line, "--help"] for line in COMMAND_LINES)],
    ids=" ".join,
)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    modules = loaded(*arguments)
    assert "stackctl" in modules
    assert modules.isdisjoint(HEAVY)


def test_the_version_needs_no_command_line_parser() -> None:
    assert loaded("--version").isdisjoint({"typer", "rich"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_completion_script_imports_nothing_heavy(shell: str) -> None:
    assert loaded("completion", shell).isdisjoint(HEAVY)
