"""Opening help, a version or a completion costs no driver, parser or SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stackctl.cli import app

HEAVY = ("psycopg", "sqlglot", "stripe", "celpy", "yaml")
GROUPS = [name for name, entry in app.COMMANDS.items() if (Path(app.__file__).parent / f"{entry.module}.py").exists()]

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
    [["--version"], ["--help"], *([name, "--help"] for name in GROUPS)],
    ids=" ".join,
)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    modules = loaded(*arguments)
    assert "stackctl" in modules
    assert modules.isdisjoint(HEAVY)


def test_the_help_of_every_single_command_does_not_either() -> None:
    found: set[str] = set()
    for name in GROUPS:
        command = app.load(name)
        for inner in getattr(command, "commands", {}):
            found |= loaded(name, inner, "--help") & set(HEAVY)
    assert found == set()


def test_the_version_needs_no_command_line_parser() -> None:
    assert loaded("--version").isdisjoint({"typer", "rich"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_completion_script_imports_nothing_heavy(shell: str) -> None:
    assert loaded("completion", shell).isdisjoint(HEAVY)
