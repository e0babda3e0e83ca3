"""Every command line shown in README and docs exists, with its flags."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from stackctl.cli.commands import COMMANDS
from stackctl.cli.tree import load_command

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINE = re.compile(r"^\s*(?:\$ |.*&& \.venv/bin/)?(stackctl .*)$|`(stackctl [^`]+)`", re.MULTILINE)


def shown() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for page in PAGES:
        for match in _LINE.finditer(page.read_text(encoding="utf-8")):
            found.append(
                (page.name, (match[1] or match[2]).split("  #")[0].split(" #")[0].split(" | ")[0].split(" >")[0])
            )
    return found


def test_there_are_command_lines_to_check() -> None:
    assert len(shown()) > 20


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_shown_command_line_exists(page: str, line: str) -> None:
    words = shlex.split(line.replace("…", "").replace("'", ""))[1:]
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in ("--config", "--database-url") else words[1:]
    if not words or words[0] == "_complete":  # what completions call is not a command for people
        return
    if words[0] == "help":
        words.pop(0)
    if "--" in words:  # what follows is another program's
        words = words[: words.index("--")]
    assert words[0] in COMMANDS, f"{page}: {line}"
    command: Any = load_command(words.pop(0))
    while hasattr(command, "commands"):
        words = [word for word in words if not word.startswith("-")] if words and words[0].startswith("-") else words
        if not words:
            return
        name = words.pop(0)
        command = command.get_command(None, name)
        assert command is not None, f"{page}: {line}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-") and word != "--":
            assert word.split("=")[0] in known | {"-h", "--help"}, f"{page}: {line}"
