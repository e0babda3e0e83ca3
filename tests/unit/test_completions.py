"""The completion scripts: their tables are those of today's commands, and the values that need the configuration."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stackctl.cli import app
from stackctl.cli.completion import scripts, values
from stackctl.cli.completion.scripts import Node, Option, tree, write
from stackctl.cli.completion.values import complete
from stackctl.cli.start.completion import SCRIPTS
from stackctl.cli.tree import load_command
from stackctl.core.bundled import find_bundled

if TYPE_CHECKING:
    from pathlib import Path

TENANCY = "6fbbf22e-f4b2-4c6e-95a1-beab6fa41063"
OTHER = "11111111-f4b2-4c6e-95a1-beab6fa41063"
CONFIG = f"""
version: 1
mappings_dir: ./maps
tenancies:
  {TENANCY}:
    external_databases:
      analytics: {{type: postgres, url: "${{NOT_SET_ANYWHERE}}"}}
      "my db": {{type: sqlite, path: ./a.db}}
  {OTHER}:
    external_databases:
      analytics: {{type: sqlite, path: ./b.db}}
      "two\\nlines": {{type: sqlite, path: ./c.db}}
      "live$(touch x)": {{type: sqlite, path: ./d.db}}
"""


@pytest.fixture(scope="module")
def nodes() -> dict[str, Node]:
    return {" ".join(node.path): node for node in tree()}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maps").mkdir()
    for name in ("users.yaml", "teams.yml", "README.md"):
        (tmp_path / "maps" / name).write_text("")
    path = tmp_path / "stackctl.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_script_is_that_of_the_command_tree(shell: str, nodes: dict[str, Node]) -> None:
    script = (find_bundled("completions") / SCRIPTS[shell]).read_text(encoding="utf-8")
    assert write(script, list(nodes.values()), shell) == script, "run `python -m stackctl.cli.completion.scripts`"


def test_values_are_known_by_their_parameters(nodes: dict[str, Node]) -> None:
    kinds = {(path, option.name): option.kind for path, node in nodes.items() for option in node.options if option.kind}
    assert kinds[("", "--config")] == kinds[("fuse on", "--config")] == "@files"
    assert kinds[("sync", "--database")] == "@databases"
    assert kinds[("sync", "--mapping")] == "@mappings"
    assert kinds[("status", "--tenancy")] == "@tenancies"
    assert nodes["sync"].arguments == ("@synced-tenancies...",)
    assert nodes["enqueue"].arguments == ("@tenancies...",)
    assert nodes["mappings show"].arguments == ("@mappings",)
    assert nodes["mappings check"].arguments == ("@files...",)
    assert nodes["completion"].arguments == ("bash|zsh|fish|powershell",)
    assert nodes["fuse on"].arguments == ("sequencer|poller",)
    assert nodes["demo"].arguments == ("@directories",)


def test_every_kind_is_one_that_can_be_asked_for_and_every_name_that_of_a_parameter(nodes: dict[str, Node]) -> None:
    kinds = {option.kind for node in nodes.values() for option in node.options if option.kind}
    kinds |= {kind.removesuffix("...") for node in nodes.values() for kind in node.arguments}
    asked = {kind[1:] for kind in kinds if kind.startswith("@")} - {"files", "directories", "text"}
    assert asked == set(values.KINDS)
    found: set[str] = set()
    for node in nodes.values():
        if not node.path:
            continue
        command = load_command(node.path[0])
        for name in node.path[1:]:
            command = command.get_command(None, name)
        for parameter in command.params:
            found |= {" ".join([*node.path[:depth], parameter.name]) for depth in range(len(node.path) + 1)}
    assert sorted(scripts.BY_NAME.keys() - found) == []


def test_no_name_or_kind_breaks_out_of_its_table(nodes: dict[str, Node]) -> None:
    words = [word for node in nodes.values() for option in node.options for word in (option.name, option.kind or "")]
    words += [word for node in nodes.values() for word in (*node.path, *node.arguments)]
    assert [word for word in words if not re.fullmatch(r"[\w@.|-]*", word)] == []


def test_a_help_text_with_quotes_stays_text() -> None:
    nodes = [Node((), (), (Option("--x", "it's a\\b ’quoted’", None), Option("--y", "", "a|b")), ("@text...",))]

    def table(shell: str) -> str:
        return write((find_bundled("completions") / SCRIPTS[shell]).read_text(encoding="utf-8"), nodes, shell)

    assert r"'--x:it'\''s a\b ’quoted’'" in table("zsh")
    assert r"'--x:it\'s a\\b ’quoted’'" in table("fish")
    assert r"'--x:it''s a\b ’’quoted’’'" in table("powershell")
    assert "shared='--x --y=a|b'" in table("bash")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_command_prints_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["completion", shell]) == 0
    assert capsys.readouterr().out == (find_bundled("completions") / SCRIPTS[shell]).read_text(encoding="utf-8")


def test_an_unknown_shell_is_a_usage_error_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["completion", "bsh"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "error: no completion for the shell 'bsh'",
        "hint: did you mean `bash`? known are bash, zsh, fish, powershell",
    ]


def test_values_of_the_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [complete([kind]) for kind in ("mappings", "tenancies", "databases")] == [0, 0, 0]
    # The ids that a shell would obey can't be completed; `${NOT_SET_ANYWHERE}` is nobody's business here.
    assert capsys.readouterr().out.splitlines() == [
        "teams",
        "users",
        f"{TENANCY}\tanalytics, my db",
        f"{OTHER}\tanalytics",
        f"analytics\tpostgres of {TENANCY}, sqlite of {OTHER}",
        f"my db\tsqlite of {TENANCY}",
    ]


@pytest.mark.parametrize(
    "name",
    ["$HOME", "`id`", "a;id", "a!!", "it's", 'a"b', "a\\b", "-dash", "~root", "=ls", "@splat", "a*", "a|b", "a>b",
     "a&b", "‘id’", "a{b,c}", "esc\x1b]52;c;eA==\x07", "turn\u202eed", "zero\u200bwidth", "no\u00a0break", "a\rb",
     " blank", ""],
)  # fmt: skip
def test_a_name_that_a_shell_or_terminal_would_obey_is_not_printed(
    name: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = {one: {"type": "sqlite", "path": "./x.db"} for one in (name, "Umlaut ä.b:c/d@e%f+g=h,i-j_k")}
    config.write_text(json.dumps({"tenancies": {TENANCY: {"external_databases": entries}}}))
    assert complete(["databases"]) == 0
    assert capsys.readouterr().out == f"Umlaut ä.b:c/d@e%f+g=h,i-j_k\tsqlite of {TENANCY}\n"


def test_a_named_configuration_beats_the_one_lying_around(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = config.rename(config.with_name("my conf.yaml"))
    config.write_text("not: [valid")
    assert complete(["mappings", "--config", named.name]) == 0
    assert capsys.readouterr().out.split() == ["teams", "users"]


@pytest.mark.parametrize(
    "arguments", [[], ["tables"], ["mappings"], ["tenancies"], ["databases", "--config", "absent"], ["x", "--config"]]
)
def test_whatever_is_wrong_prints_nothing(
    arguments: list[str], config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("mappings_dir: ./absent\ntenancies: {nonsense: 1}")
    assert complete(arguments) == 0
    assert capsys.readouterr() == ("", "")


def test_nothing_heavy_is_imported(config: Path) -> None:
    code = (
        "import sys; sys.argv = ['stackctl', '_complete', 'databases']\n"
        "from stackctl.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'typer', 'rich', 'psycopg', 'sqlglot'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert len(ran.stdout.splitlines()) == 3
