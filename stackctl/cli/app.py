"""The command tree, and the one boundary where errors become exit codes.

A command's module is imported when that command is called: opening --help costs no more than the list below.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import re
import signal
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stackctl.cli.command import CONTEXT, PARAMETERS, Declared, collect, example_epilog, sign
from stackctl.cli.commands import COMMANDS, Command
from stackctl.core.errors import EXIT_INTERRUPTED, EXIT_OK, AnswerNo, StackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _print_version(wanted: bool) -> None:
    if wanted:
        from stackctl import __version__

        sys.stdout.write(f"stackctl {__version__}\n")
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)]


class _Plain:
    """Lets pass what needs no conversion: an option that was not given, and what has its type already.

    Typer converts every value by pydantic, whose import takes as long as Typer's own.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if "process_value" not in vars(parameter):
                parameter.process_value = partial(_process_value, parameter, parameter.process_value)
        return parameters


def _process_value(parameter: Any, process: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    kind = type(value)
    plain = value is None or (kind in (str, int) and parameter.type_descriptor.annotation in (kind, kind | None))
    if not plain or (parameter.required and value is None):
        return process(ctx, value)
    return value if parameter.callback is None else parameter.callback(ctx, parameter, value)


class _Command(_Plain, TyperCommand):
    pass


class _Root(_Plain, TyperGroup):
    """Lists its commands from COMMANDS and imports only the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name=name, help=entry.help, rich_help_panel=entry.panel), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


class _Group(_Plain, TyperGroup):
    """Imports only the command that is called; all of them where they are listed."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name].callback is None:
            assert self.name is not None
            self.commands[cmd_name] = _declared(f"{self.name.replace('-', '_')}.{cmd_name.replace('-', '_')}", cmd_name)
        return super().get_command(ctx, cmd_name)


def load(name: str) -> Any:
    """The command or group of that name."""
    entry = COMMANDS[name]
    if isinstance(entry, Command):
        return _declared(f"{entry.package}.{name}", name)
    app = typer.Typer(
        cls=_Group,
        help=entry.help,
        callback=_store_shared(),
        no_args_is_help=True,
        add_completion=False,
        epilog=example_epilog(entry.example),
    )
    group = typer.main.get_command(app)
    assert isinstance(group, _Group)
    group.name = name
    for command in entry.commands:
        group.add_command(TyperCommand(name=command), command)
    return group


def _store_shared() -> Callable[..., None]:
    def store(ctx: typer.Context, **given: Any) -> None:
        collect(ctx, given)

    sign(store, [CONTEXT, *PARAMETERS])
    return store


def _declared(module: str, name: str) -> Any:
    found = vars(importlib.import_module(f"stackctl.cli.{module}")).values()
    (declared,) = (one for one in found if isinstance(one, Declared))
    app = typer.Typer(add_completion=False)
    app.command(name, cls=_Command, epilog=declared.epilog, **declared.settings)(declared.invoke)
    command = typer.main.get_command(app)
    command.name = name
    return command


def root() -> Any:
    """The command tree, every branch still unloaded."""
    app = typer.Typer(
        cls=_Root,
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=example_epilog("stackctl demo"),
    )

    def stackctl(ctx: typer.Context, **given: Any) -> None:
        """Operate an auth-and-payments backend on PostgreSQL: migrations, sync pipeline, status."""
        collect(ctx, given)

    version = inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Version)
    sign(stackctl, [CONTEXT, version, *PARAMETERS])
    app.callback()(stackctl)
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    if "--no-color" in arguments or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        # Read when the help's renderer is imported; NO_COLOR alone would leave it bold and dim.
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(arguments)
    except (BrokenPipeError, SystemExit):
        # The reader of our output went away (`| head`; rich makes a SystemExit of it): nobody is left to tell.
        _drop_output()
        return EXIT_OK
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    try:
        code = root().main(args=list(arguments), prog_name="stackctl", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, typer.Abort):
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            return _report(error, arguments)
        _drop_output()
        return _report(
            AnswerNo(f"can't write: {error.strerror}", code="write-failed", hint="free some space, and run it again"),
            arguments,
        )
    except Exception as error:  # noqa: BLE001 - the boundary: whatever is not ours is reported as a bug
        return _report(error, arguments)
    return code if isinstance(code, int) else EXIT_OK


def _drop_output() -> None:
    """What is still buffered for stdout has nowhere to go, and must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def _report(error: Exception, arguments: Sequence[str]) -> int:
    from stackctl.core.console import Console

    _remember_given(arguments)
    console = Console(
        json_output="--json" in arguments, no_color="--no-color" in arguments, quiet="--quiet" in arguments
    )
    if isinstance(error, typer.TyperException):
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(error.format_message() + "\n")
            return UsageError.exit_code
        ours: StackctlError = _usage_error(error)
    elif isinstance(error, StackctlError):
        ours = error
    elif (found := _driver_error(error)) is not None:
        ours = found
    else:
        ours = StackctlError(
            f"a bug in stackctl: {type(error).__name__}: {error}",
            code="bug",
            hint="run it again with --debug and report the traceback",
        )
    if "--debug" in arguments:
        console.traceback("".join(traceback.format_exception(error)))
    console.error(ours)
    return ours.exit_code


_CEL = ("--condition", "--where", "--or")
_ADDRESS = re.compile(r"[^\s@:/=?#]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")


def _remember_given(arguments: Sequence[str]) -> None:
    # An error may quote the command line, or come before the settings were asked for.
    from stackctl.config.keys import KEYS
    from stackctl.core.redaction import remember_secret, remember_url

    for before, argument in zip(("", *arguments), arguments, strict=False):
        if before in _CEL or argument.partition("=")[0] in _CEL:
            continue  # `field == value` is no connection string, and errors name its fields
        if _ADDRESS.fullmatch(argument):
            continue  # of a user, whom errors name
        if "@" in argument or "=" in argument:
            remember_url(argument.partition("=")[2] if argument.startswith("--") else argument)
    for spec in KEYS.values():
        given = os.environ.get(spec.variable) if spec.variable else None
        if given:
            remember_secret(given) if spec.kind == "secret" else remember_url(given)


def _usage_error(error: typer.TyperException) -> StackctlError:
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else "see `stackctl --help`"
    message = " ".join(error.format_message().replace("Value error, ", "").split())
    return UsageError(message.rstrip("."), code="usage", hint=hint)


def _driver_error(error: Exception) -> StackctlError | None:
    # Only when the driver is loaded can the error be the driver's.
    if "psycopg" not in sys.modules:
        return None
    import psycopg

    from stackctl.postgres.errors import translate_error

    if isinstance(error, psycopg.OperationalError | psycopg.DatabaseError):
        return translate_error(error)
    return None
