"""What --help shows: a page of plain text, set to the width of the window, whose examples stand as they are typed.

A docstring's paragraphs are reflowed. That which begins with `Exit codes:` (`0 done; 1 …`) becomes a list at the end;
the codes that every command has are added in one line.
"""

from __future__ import annotations

import re
import textwrap
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, get_args

from stackctl.cli.command import PANEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import typer

_NARROWEST, _WIDEST = 24, 100  # columns: below, nothing can be set; above, a line is tiring to read
_MOST_INDENT = 32  # where the second column of a list begins at most
_CODES = "Exit codes:"
# Commands in backquotes are not broken: they are copied.
_QUOTED = re.compile(r"`[^`]{1,40}`")
_KEPT_SPACE = "\N{NO-BREAK SPACE}"
_EXIT_CODES = [
    ("0", "Done."),
    ("1", "It ran, and the answer is no: a failing test, a finding, a difference, a database that did not sync."),
    ("2", "Bad usage: an unknown option, or no such tenancy, mapping, database or id."),
    ("3", "Bad configuration, or a bad input file."),
    ("4", "A service can't be reached, or refuses the credentials."),
    ("5", "Refused because of the state things are in, or not confirmed."),
    ("6", "Sent, but the outcome is unknown or not final."),
    ("70", "A bug in stackctl."),
    ("130", "Interrupted."),
]
COMMON_CODES = {"2": "bad usage", "3": "bad configuration", "70": "a bug", "130": "interrupted"}


def render_help(command: Any, context: typer.Context) -> str:
    """The page of a command or a group; headings are bold unless the context's colour is off."""
    page = _Page(context.color is not False)
    page.text(f"Usage: {_usage(command, context)}", hang=7)
    paragraphs, codes = read_docstring(command.help or "")
    for paragraph in paragraphs:
        page.gap()
        page.text(paragraph)
    parameters = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
    page.section("Arguments", [(_value(one), _described(one)) for one in parameters if _is_argument(one) and one.help])
    commands = _list_commands(command, context)
    longest = max((len(name) for entries in commands.values() for name, _ in entries), default=0)
    for heading, entries in commands.items():
        page.section(heading, [(name.ljust(longest), description) for name, description in entries])
    options = [one for one in parameters if not _is_argument(one)]
    is_root = context.parent is None
    own = [one for one in options if is_root or not _is_common(one)]
    page.section("Options", [(_spelled(one), _described(one)) for one in own])
    if not is_root:
        page.gap()
        common = ", ".join(_spelled(one, "/") for one in options if _is_common(one))
        page.text(f"{page.bold('Common options:')} {common}", hang=2)
    page.section("Exit codes", _EXIT_CODES if is_root else codes)
    if codes:
        common = ", ".join(f"{code} {meaning}" for code, meaning in COMMON_CODES.items())
        page.text(f"Common: {common}", first="  ", hang=4)
    examples = (command.epilog or "").splitlines()
    if examples:
        page.heading("Examples" if len(examples) > 1 else "Example")
        page.lines += [f"  {example}" for example in examples]
    return "\n".join(page.lines)


class _Page:
    def __init__(self, colored: bool) -> None:
        self.lines: list[str] = []
        self._colored = colored
        self._width = min(max(get_terminal_size().columns, _NARROWEST), _WIDEST)

    def gap(self) -> None:
        self.lines.append("")

    def bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[22m" if self._colored else text

    def heading(self, text: str) -> None:
        self.gap()
        self.lines.append(self.bold(f"{text}:"))

    def text(self, text: str, *, first: str = "", hang: int = 0) -> None:
        """A paragraph; `hang`: how far its further lines are set in, `first` what the first begins with."""
        kept = _QUOTED.sub(lambda found: found[0].replace(" ", _KEPT_SPACE), text)
        filled = textwrap.wrap(
            kept, self._width, initial_indent=first, subsequent_indent=" " * hang,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        self.lines += [line.replace(_KEPT_SPACE, " ") for line in filled]

    def section(self, heading: str, entries: Sequence[tuple[str, str]]) -> None:
        """A list in two columns; in a narrow window, or behind a long name, the second begins a line of its own."""
        if not entries:
            return
        self.heading(heading)
        most = min(_MOST_INDENT, self._width // 2)
        indent = max((len(name) + 4 for name, _ in entries if len(name) + 4 <= most), default=6)
        for name, description in entries:
            if len(name) + 4 <= indent:
                self.text(description or " ", first=f"  {name}".ljust(indent), hang=indent)
            else:
                self.lines.append(f"  {name}")
                self.text(description, first=" " * indent, hang=indent)


def _usage(command: Any, context: typer.Context) -> str:
    if hasattr(command, "commands"):
        return f"{context.command_path} COMMAND"
    shown = [one for one in command.params if _is_argument(one) and not one.hidden]
    required = [_spelled(one) for one in command.params if not _is_argument(one) and one.required]
    return " ".join([context.command_path, *map(_value, shown), *required, "[OPTIONS]"])


def read_docstring(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Its paragraphs, each on one line, and its exit codes."""
    text = re.sub(rf"\n\s*(?={_CODES})", "\n\n", text)
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", text.strip())]
    codes = [one.removeprefix(_CODES).strip().rstrip(".") for one in paragraphs if one.startswith(_CODES)]
    items = [item for one in codes for item in re.split(r"[;,.] (?=[\d-]+ )", one)]
    listed = [(code, meaning[:1].upper() + meaning[1:] + ".") for code, _, meaning in (i.partition(" ") for i in items)]
    return [one for one in paragraphs if one and not one.startswith(_CODES)], listed


def _list_commands(command: Any, context: typer.Context) -> dict[str, list[tuple[str, str]]]:
    """By heading, each command below this one, and the first sentence of its help."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in command.list_commands(context) if hasattr(command, "commands") else ():
        child = command.get_command(context, name)
        if not child.hidden:
            sentence = (read_docstring(child.help or "")[0] or [""])[0]
            sentence = re.split(r"(?<=\.) ", sentence)[0]
            found.setdefault(child.rich_help_panel or "Commands", []).append((name, sentence))
    return found


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def _is_common(parameter: Any) -> bool:
    return parameter.rich_help_panel == PANEL or parameter.name == "help"


def _spelled(option: Any, between: str = ", ") -> str:
    """`-y, --yes`, `--to VERSION`."""
    names = between.join(sorted((*option.opts, *option.secondary_opts), key=len))
    return names if option.is_flag or option.count else f"{names} {_value(option)}"


def _choices(parameter: Any) -> list[str]:
    return [str(getattr(choice, "value", choice)) for choice in parameter.type_descriptor.choices or ()]


def _value(parameter: Any) -> str:
    """What stands for the value: the declared name, a few choices, or what its type is called."""
    choices = "|".join(_choices(parameter))
    declared = (parameter.metavar or "").strip("[].…")
    if not declared and choices and len(choices) <= _MOST_INDENT - 12:
        declared = choices
    if not declared and _is_argument(parameter):
        declared = parameter.name.upper()
    if not declared:
        kinds = (parameter.type_descriptor.annotation, *get_args(parameter.type_descriptor.annotation))
        declared = "N" if int in kinds else parameter.name.upper() if choices else "TEXT"
    if not _is_argument(parameter):
        return declared
    repeated = declared + ("..." if parameter.nargs == -1 else "")
    return repeated if parameter.required else f"[{repeated}]"


def _described(parameter: Any) -> str:
    return " ".join(_descriptions(parameter))


def _descriptions(parameter: Any) -> Iterator[str]:
    yield parameter.help or ""
    choices = _choices(parameter)
    if choices and "|" not in _value(parameter):
        yield f"One of {', '.join(choices)}."
    if _is_argument(parameter):
        return
    if parameter.required:
        yield "Required."
    default = getattr(parameter.default, "value", parameter.default)
    if default not in (None, False, "", ()) and not callable(default) and "default" not in (parameter.help or ""):
        yield f"Default: {default}."
