"""The tables inside the completion scripts, written from the command tree.

A script in completions/ is a function, kept by hand, and a table between two marks, kept by `python -m
stackctl.cli.completion.scripts`, which rewrites the table in each script.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from stackctl.cli.commands import COMMANDS
from stackctl.cli.start.completion import SCRIPTS
from stackctl.cli.tree import build_root, load_command
from stackctl.core.bundled import find_bundled
from stackctl.rules.model import AUTH_METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BEGIN = "# -- table: written by `python -m stackctl.cli.completion.scripts`"
END = "# -- end of the table"

# What is offered for the parameter of that name: of one command, of a group, or else of all commands. A kind with an @
# is one that `stackctl _complete` lists.
BY_NAME = {
    "code": "@codes",
    "mapping": "@mappings",
    "mappings": "@mappings",
    "mappings export names": "@mappings",
    "rebuild": "@mappings",
    "tenancy": "@tenancies",
    "tenancies": "@tenancies",
    "sync tenancies": "@synced-tenancies",
    "sync tenancy": "@synced-tenancies",
    "verify tenancies": "@synced-tenancies",
    "verify tenancy": "@synced-tenancies",
    "backfill tenancies": "@synced-tenancies",
    "mappings tenancies": "@synced-tenancies",
    "fuse tenancy": "@synced-tenancies",
    "database": "@databases",
    "databases": "@databases",
    "queue ids": "@failing",
    "migrate rule": "@lint-rules",
    "migrate exclude": "@lint-rules",
    "migrate to": "@migrations",
    "migrate diff to": "@directories",
    "migrate diff from_": "@directories",
    "migrate through": "@migrations",
    "migrate revert": "@migrations",
    "migrate names": "@migrations",
    "migrate applied": "@migrations",
    "migrate pending": "@migrations",
    "rules id_": "@rules",
    "rules ids": "@rules",
    "rules before": "@rules",
    "rules after": "@rules",
    "rules add id_": "",
    "auth_method": "|".join(AUTH_METHODS),
    "refund": "@refunds",
    "refunds id_": "@purchases",
    "payment-methods methods": "@payment-methods",
}


@dataclass(frozen=True)
class Option:
    """One spelling of an option. `kind` says what its value is (see `_kind`); None for a flag."""

    name: str
    help: str
    kind: str | None

    @property
    def spec(self) -> str:
        return self.name if self.kind is None else f"{self.name}={self.kind}"


@dataclass(frozen=True)
class Node:
    """A command or group: its words after `stackctl`, and what may follow them.

    `commands` are name and help; `arguments` the kind of each argument, the last with `...` if it repeats.
    """

    path: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    options: tuple[Option, ...]
    arguments: tuple[str, ...]


def tree() -> list[Node]:
    """Every command that is not hidden, groups before what is in them, the root first."""
    top = build_root()
    context = typer.Context(top, info_name="stackctl", **top.context_settings)
    commands = tuple((name, _line(entry.help)) for name, entry in COMMANDS.items())
    commands += (("help", "Show the help of a command."),)  # which is no command of its own
    nodes = [Node((), commands, _options(top, context, ()), ())]
    for name in COMMANDS:
        nodes += _nodes(load_command(name), (name,), context)
    return nodes


def _nodes(command: Any, path: tuple[str, ...], parent: typer.Context) -> list[Node]:
    context = typer.Context(command, parent=parent, info_name=path[-1])
    names = command.list_commands(context) if hasattr(command, "list_commands") else []
    below = [child for name in names if not (child := command.get_command(context, name)).hidden]
    commands = tuple((child.name, _line(child.help)) for child in below)
    nodes = [Node(path, commands, _options(command, context, path), _arguments(command, path))]
    for child in below:
        nodes += _nodes(child, (*path, child.name), context)
    return nodes


def _options(command: Any, context: typer.Context, path: tuple[str, ...]) -> tuple[Option, ...]:
    return tuple(
        Option(name, _line(parameter.help), None if parameter.is_flag or parameter.count else _kind(parameter, path))
        for parameter in command.get_params(context)
        if parameter.param_type_name == "option" and not parameter.hidden
        # Sorted, because the names of --help come out of a set.
        for name in (*sorted(parameter.opts), *sorted(parameter.secondary_opts))
    )


def _arguments(command: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        # A table's columns must keep their places, so that free text needs a mark of its own here.
        (_kind(parameter, path) or "@text") + ("..." if parameter.nargs == -1 else "")
        for parameter in command.params
        if parameter.param_type_name == "argument" and not parameter.hidden
    )


def _kind(parameter: Any, path: tuple[str, ...]) -> str:
    """What a value is: words joined by `|`, @files, @directories, one of BY_NAME, or "" for what can't be known."""
    declared, metavar = parameter.type_descriptor, (parameter.metavar or "").strip("[].…")
    if declared.choices:
        return "|".join(str(getattr(choice, "value", choice)) for choice in declared.choices)
    if Path in (declared.annotation, *get_args(declared.annotation)):
        return "@files" if declared.parameter_info.file_okay and metavar != "DIR" else "@directories"
    if "|" in metavar:
        return metavar
    names = (" ".join([*path[:depth], parameter.name]) for depth in (2, 1, 0))
    return next((BY_NAME[name] for name in names if name in BY_NAME), "")


def _line(help_: str | None) -> str:
    """The first line of a help text."""
    lines = (help_ or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def write(script: str, nodes: Sequence[Node], shell: str) -> str:
    """`script` with its table replaced by that of `nodes`."""
    head, rest = script.split(BEGIN, 1)
    indent = head.rpartition("\n")[2]
    tail = rest.split(END, 1)[1]
    shared = [option for option in nodes[0].options if all(option in node.options for node in nodes)]
    table = "\n".join([BEGIN, *_TABLES[shell](nodes, shared), END])
    return head + table.replace("\n", f"\n{indent}") + tail


def _bash(nodes: Sequence[Node], shared: Sequence[Option]) -> Iterable[str]:
    yield f"shared='{' '.join(option.spec for option in shared)}'"
    yield "case $1 in"
    for node in nodes:
        columns = {
            "subcommands": [name for name, _ in node.commands],
            "flags": [option.spec for option in node.options if option not in shared],
            "arguments": node.arguments,
        }
        assigned = "".join(f" {name}='{' '.join(values)}'" for name, values in columns.items() if values)
        yield f"  '{' '.join(node.path)}'){assigned} ;;"
    yield "esac"


def _described(node: Node, shared: Sequence[Option]) -> dict[str, list[str]]:
    return {
        "subcommands": [f"{name}:{help_}" for name, help_ in node.commands],
        "flags": [f"{option.spec}:{option.help}" for option in node.options if option not in shared],
        "arguments": list(node.arguments),
    }


def _list(opening: str, values: Sequence[str], step: str = "  ") -> Iterable[str]:
    """`opening`, the values, one a line where there are several, and the closing parenthesis."""
    if len(values) < 2:
        return [f"{opening}{''.join(values)})"]
    indent = " " * (len(opening) - len(opening.lstrip()))
    return [opening, *(f"{indent}{step}{value}" for value in values), f"{indent})"]


def _zsh(nodes: Sequence[Node], shared: Sequence[Option]) -> Iterable[str]:
    def quoted(text: str) -> str:
        return "'" + text.replace("'", r"'\''") + "'"

    yield from _list("shared=(", [quoted(f"{option.spec}:{option.help}") for option in shared])
    yield "case $1 in"
    for node in nodes:
        yield f"  {quoted(' '.join(node.path))})"
        for name, values in _described(node, shared).items():
            if values:
                yield from _list(f"    {name}=(", [quoted(value) for value in values])
        yield "    ;;"
    yield "esac"


def _fish(nodes: Sequence[Node], shared: Sequence[Option]) -> Iterable[str]:
    def quoted(text: str) -> str:
        return "'" + text.replace("\\", r"\\").replace("'", r"\'") + "'"

    def assigned(name: str, values: Sequence[str], indent: str = "") -> str:
        between = " " if len(values) == 1 else f" \\\n{indent}        "
        return f"{indent}set {name}" + "".join(f"{between}{quoted(value)}" for value in values)

    yield assigned("shared", [f"{option.spec}:{option.help}" for option in shared])
    yield 'switch "$where"'
    for node in nodes:
        yield f"    case {quoted(' '.join(node.path))}"
        for name, values in _described(node, shared).items():
            if values:
                yield assigned(name, values, "        ")
    yield "end"


def _powershell(nodes: Sequence[Node], shared: Sequence[Option]) -> Iterable[str]:
    def quoted(text: str) -> str:
        # PowerShell takes the typographic ones for quotes as well.
        return "'" + "".join(character * 2 if character in "'‘’‚‛" else character for character in text) + "'"

    yield from _list("$shared = @(", [quoted(f"{option.spec}:{option.help}") for option in shared], "    ")
    yield "$table = @{"
    for node in nodes:
        yield f"    {quoted(' '.join(node.path))} = @{{"
        for name, values in _described(node, shared).items():
            yield from _list(f"        {name} = @(", [quoted(value) for value in values], "    ")
        yield "    }"
    yield "}"


_TABLES = {"bash": _bash, "zsh": _zsh, "fish": _fish, "powershell": _powershell}


def main() -> None:
    """Rewrite the table of every script in completions/."""
    nodes = tree()
    for shell, name in SCRIPTS.items():
        path = find_bundled("completions") / name
        path.write_text(write(path.read_text(encoding="utf-8"), nodes, shell), encoding="utf-8")


if __name__ == "__main__":
    main()
