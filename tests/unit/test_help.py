"""Help pages: every one of them, set to windows of any width."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

import pytest
import typer

from stackctl.cli.help import COMMON_CODES, read_docstring, render_help
from stackctl.cli.tree import build_root

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.quick


def below(command: Any, context: typer.Context) -> Iterator[tuple[Any, typer.Context]]:
    yield command, context
    for name in command.list_commands(context) if hasattr(command, "commands") else ():
        _, child, _ = command.resolve_command(context, [name])
        yield from below(child, typer.Context(child, parent=context, info_name=name, color=False))


@pytest.fixture(scope="module")
def commands() -> list[tuple[Any, typer.Context]]:
    """Every command and group, hidden ones too, each with the context of its call."""
    root = build_root()
    return list(below(root, typer.Context(root, info_name="stackctl", color=False, **root.context_settings)))


@pytest.mark.parametrize("columns", [1, 40, 79, 80, 200])
def test_a_page_fits_its_window_except_for_what_is_copied(
    commands: list[tuple[Any, typer.Context]], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    width = min(max(columns, 24), 100)
    for command, context in commands:
        text, heading, _ = render_help(command, context).rpartition("\nExample")
        path = context.command_path
        assert heading, path
        if columns >= 79:
            assert [line for line in text.splitlines() if len(line) > width] == [], path
        # A paragraph is filled: the first word of a line had no room on the line before.
        first, *others = text.split("\n\n")[1].splitlines()
        for line, following in itertools.pairwise([first, *others]):
            word = re.match(r"`[^`]{1,40}`\S*|\S+", following)
            assert word and len(line) + 1 + len(word[0]) > width, path


def test_a_page_is_written_for_people(
    commands: list[tuple[Any, typer.Context]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert len(commands) > 60
    for command, context in commands:
        page = render_help(command, context)
        usage = page.split("\n\n")[0].split()
        assert not any(a == b for a, b in itertools.pairwise(usage)), usage
        path = context.command_path
        assert page.startswith(f"Usage: {path}"), path
        assert not re.search(r"<[\w ]+(\[\w+\])?>|\[\[|\]\.\.\.\]|\\\[|\[/?bold", page), (
            f"a developer's notation: {path}"
        )
        if context.parent is not None:
            assert "Common options: --config FILE, --database-url URL, --json" in page, path
        examples = page.rpartition("\nExample")[2].splitlines()[1:]
        assert examples == [f"  {line}" for line in (command.epilog or "").splitlines()]
        assert examples[0].startswith("  stackctl "), path
        assert [line for line in examples if len(line) > 80] == [], "a terminal of 80 columns breaks it"


def test_a_page_says_what_is_printed_and_which_exit_codes_there_are(commands: list[tuple[Any, typer.Context]]) -> None:
    """Codes that are named are the contract's; those that a command ends with are named: tests/forked.py."""
    meanings = {"1", "4", "5", "6"}  # beside those that every command has, and 0
    for command, context in commands:
        if context.parent is None or hasattr(command, "commands") or command.hidden:
            continue
        path = context.command_path
        paragraphs, codes = read_docstring(command.help)
        named = [code for code, _ in codes]
        assert [one for one in paragraphs if one.startswith("Prints ")], path
        assert named == sorted({*named}), path
        assert {*named} <= {"0", "0-3", *meanings, *COMMON_CODES}, path
        options = {option for one in command.params for option in one.opts}
        assert ("--yes" not in options or "5" in named) and ("--check" not in options or "1" in named), path
        page = render_help(command, context)
        assert page.count("Exit codes:") == 1 and "\n  Common: 2 bad usage, 3 " in page, path


def test_headings_are_bold_where_the_context_has_colours(commands: list[tuple[Any, typer.Context]]) -> None:
    root, context = commands[0]
    assert "\x1b" not in render_help(root, context)
    assert "\x1b[1mExamples:\x1b[22m" in render_help(root, typer.Context(root, info_name="stackctl", color=True))


def test_exit_codes_become_a_list() -> None:
    app = typer.Typer(add_completion=False)

    def work() -> None:
        """Work.

        A paragraph.
        Exit codes: 0 done, or
        nothing to do; 1 no; 5 refused.
        """

    app.command(epilog="stackctl work")(work)
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="work", parent=typer.Context(build_root()), color=False)
    page = render_help(command, context)
    assert page.split("\n\n")[1:3] == ["Work.", "A paragraph."]
    assert "\nExit codes:\n  0  Done, or nothing to do.\n  1  No.\n  5  Refused.\n" in page
