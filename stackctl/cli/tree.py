"""The command tree. A command's module is imported when that command is called: opening --help costs no more than the
table of commands.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stackctl.cli.command import CONTEXT, PARAMETERS, Declared, collect_shared_options, set_signature
from stackctl.cli.commands import COMMANDS, Command
from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def _print_version(wanted: bool) -> None:
    if wanted:
        from stackctl import __version__

        sys.stdout.write(f"stackctl {__version__}\n")
        raise typer.Exit


_Version = Annotated[
    bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True, callback=_print_version)
]


_PATHS = (Path, Path | None, list[Path], list[Path] | None)


class _ShowsHelp:
    """Its help page is ours (help.py): Typer's takes the import of rich, and folds examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from stackctl.cli.help import render_help

        formatter.write(render_help(self, ctx))


class _SparesConversion:
    """Lets pass what needs no conversion: an option not given, what has its type already, paths that are there.

    Typer converts every value by pydantic, whose import takes as long as Typer's own.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if "process_value" not in vars(parameter):
                parameter.process_value = partial(_process_value, parameter, parameter.process_value)
        return parameters

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)  # type: ignore[misc]
        parser.parse_args = partial(_parse_once, ctx, parser.parse_args)
        return parser


def _parse_once(ctx: Any, parse: Callable[..., tuple[Any, Any, list[Any]]], args: list[str]) -> tuple[Any, Any, Any]:
    """Refuse an option that has one value and was given two: the last would win in silence. A flag says the same."""
    values, left, order = parse(args)
    for one in order:
        takes_value = one.param_type_name == "option" and not (one.multiple or one.is_flag)
        if takes_value and order.count(one) > 1 and not ctx.resilient_parsing:
            raise UsageError(
                f"{one.opts[0]} is given {order.count(one)} times, and takes one value",
                code="usage",
                hint=f"see `{ctx.command_path} --help`",
            )
    return values, left, order


def _process_value(parameter: Any, process: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    wanted, kind = parameter.type_descriptor.annotation, type(value)
    if wanted in _PATHS and (value == "" or (kind in (list, tuple) and "" in value)):
        # It would be the current folder: that of a script in which a variable is not set.
        raise typer.BadParameter("an empty string is not a path", ctx, parameter)
    if kind is str and wanted in (Path, Path | None) and os.access(value, os.R_OK):
        value, plain = Path(value), True
    elif wanted in (list[str], list[str] | None) and value:
        value, plain = list(value), True
    elif wanted in (list[Path], list[Path] | None) and value and all(os.access(one, os.R_OK) for one in value):
        value, plain = [Path(one) for one in value], True
    else:
        plain = value is None or wanted in (kind, kind | None)
    if not plain or (parameter.required and value is None):
        return process(ctx, value)
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


class _Command(_ShowsHelp, _SparesConversion, TyperCommand):
    pass


class _Root(_ShowsHelp, _SparesConversion, TyperGroup):
    """Lists its commands from COMMANDS and imports only the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name=name, help=entry.help, rich_help_panel=entry.panel), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)


class _Group(_ShowsHelp, _SparesConversion, TyperGroup):
    """Imports only the command that is called; all of them where they are listed."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name].callback is None:
            assert self.name is not None
            self.commands[cmd_name] = _load_command(
                f"{self.name.replace('-', '_')}.{cmd_name.replace('-', '_')}", cmd_name
            )
        return super().get_command(ctx, cmd_name)


def load_command(name: str) -> Any:
    """The command or group of that name."""
    entry = COMMANDS[name]
    if isinstance(entry, Command):
        return _load_command(f"{entry.package}.{name}", name)
    app = typer.Typer(
        cls=_Group,
        help=entry.help,
        callback=_shared_options_callback(),
        no_args_is_help=True,
        add_completion=False,
        epilog=entry.example,
    )
    group = typer.main.get_command(app)
    assert isinstance(group, _Group)
    group.name = name
    for command in entry.commands:
        group.add_command(TyperCommand(name=command), command)
    return group


def _shared_options_callback() -> Callable[..., None]:
    def store(ctx: typer.Context, **given: Any) -> None:
        collect_shared_options(ctx, given)

    set_signature(store, [CONTEXT, *PARAMETERS])
    return store


def _load_command(module: str, name: str) -> Any:
    found = vars(importlib.import_module(f"stackctl.cli.{module}")).values()
    (declared,) = (one for one in found if isinstance(one, Declared))
    app = typer.Typer(add_completion=False)
    app.command(name, cls=_Command, epilog=declared.example, **declared.settings)(declared.invoke)
    command = typer.main.get_command(app)
    command.name = name
    return command


def build_root() -> Any:
    """The command tree, every branch still unloaded."""
    app = typer.Typer(
        cls=_Root,
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="stackctl demo\nstackctl help sync",
    )

    def stackctl(ctx: typer.Context, **given: Any) -> None:
        """Operate an auth-and-payments backend on PostgreSQL: migrations, sync pipeline, status."""
        collect_shared_options(ctx, given)

    version = inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Version)
    set_signature(stackctl, [CONTEXT, version, *PARAMETERS])
    app.callback()(stackctl)
    return typer.main.get_command(app)
