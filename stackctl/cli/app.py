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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from stackctl.cli.command import CONTEXT, PARAMETERS, collect, sign
from stackctl.errors import EXIT_INTERRUPTED, EXIT_OK, AnswerNo, StackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Entry:
    """A command or group at the top level: where it is defined and what the list says of it."""

    module: str
    help: str
    panel: str


_START, _SCHEMA, _PIPELINE, _WATCH = "Getting started", "Schema", "Sync pipeline", "Seeing and steering"
_USERS = "Users"
_PAYMENTS = "Payments"

COMMANDS: dict[str, Entry] = {
    "demo": Entry("demo", "Everything end to end on an embedded PostgreSQL.", _START),
    "init": Entry("init", "Write a commented stackctl.yaml.", _START),
    "doctor": Entry("doctor", "Check the configuration and every database; each finding names its fix.", _START),
    "config": Entry("config", "Show the effective configuration.", _START),
    "completion": Entry("completion", "Print the completion script of a shell.", _START),
    "migrate": Entry("migrate", "Apply, inspect and write migrations.", _SCHEMA),
    "mappings": Entry("mappings", "List, check and compile the SQL mappings.", _SCHEMA),
    "run": Entry("pipeline", "Sequencer, poller and engine in one process.", _PIPELINE),
    "sequence": Entry("pipeline", "Stamp changed rows and queue their tenancies.", _PIPELINE),
    "poll": Entry("pipeline", "Work off the queue: sync the tenancies that are due.", _PIPELINE),
    "sync": Entry("pipeline", "Sync tenancies now, without the queue.", _PIPELINE),
    "backfill": Entry("backfill", "Send every row of a mapping again, in batches.", _PIPELINE),
    "verify": Entry("verify", "Compare external databases with their source, and mend them.", _PIPELINE),
    "enqueue": Entry("queue", "Queue tenancies for the poller.", _PIPELINE),
    "queue": Entry("queue", "List the queue; retry what failed.", _PIPELINE),
    "status": Entry("status", "The pipeline at a glance: fuses, backlog, lag, queue, databases.", _WATCH),
    "fuse": Entry("fuse", "Switch the sequencer or the poller off and on.", _WATCH),
    "rules": Entry("rules", "Test sign-up rules before they lock anyone out.", _USERS),
    "users": Entry("users", "Show a user; restrict it, or lift that.", _USERS),
    "refunds": Entry("refunds", "Give money back through Stripe, never twice.", _PAYMENTS),
    "payments": Entry("payments", "How a project is connected to Stripe; its test mode and products.", _PAYMENTS),
    "payment-methods": Entry("payment_methods", "See and switch what a checkout offers to pay with.", _PAYMENTS),
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from stackctl import __version__

        sys.stdout.write(f"stackctl {__version__}\n")
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)]


class _LazyGroup(TyperGroup):
    """The root: lists its commands from COMMANDS and imports only the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(TyperCommand(name=name, help=entry.help, rich_help_panel=entry.panel), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


def load(name: str) -> Any:
    """The command or group of that name, in full."""
    module = importlib.import_module(f"stackctl.cli.{COMMANDS[name].module}")
    command = typer.main.get_command(module.apps[name])
    command.name = name
    return command


def root() -> _LazyGroup:
    """The command tree, every branch still unloaded."""
    app = typer.Typer(
        cls=_LazyGroup,
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="\n\n".join(["[bold]Example[/bold]", "stackctl demo"]),
    )

    def stackctl(ctx: typer.Context, **given: Any) -> None:
        """Operate an auth-and-payments backend on PostgreSQL: migrations, sync pipeline, status."""
        collect(ctx, given)

    version = inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_Version)
    sign(stackctl, [CONTEXT, version, *PARAMETERS])
    app.callback()(stackctl)
    return typer.main.get_command(app)  # type: ignore[return-value]


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
    from stackctl.console import Console

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
    from stackctl.redaction import remember, remember_url
    from stackctl.settings import KEYS

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
            remember(given) if spec.kind == "secret" else remember_url(given)


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

    from stackctl.db import translate

    if isinstance(error, psycopg.OperationalError | psycopg.DatabaseError):
        return translate(error)
    return None
