"""The one boundary where errors become exit codes."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING

import typer

from stackctl.cli.commands import COMMANDS, Group
from stackctl.cli.signals import interrupt_on_signals
from stackctl.cli.tree import build_root
from stackctl.core.errors import EXIT_INTERRUPTED, EXIT_OK, AnswerNo, StackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def run(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    interrupt_on_signals()
    if arguments[:1] == ["help"]:  # as people type it
        arguments = [*arguments[1:], "--help"]
    try:
        return _run(arguments)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    try:
        code = build_root().main(
            args=list(arguments), prog_name="stackctl", standalone_mode=False, color=_shows_colors(arguments)
        )
        sys.stdout.flush()
    except typer.Abort:
        raise
    except OSError as error:
        return report_os_error(error, arguments)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever is not ours is reported as a bug
        return _report(error, arguments)
    return code if isinstance(code, int) else EXIT_OK


def report_os_error(error: OSError, arguments: Sequence[str]) -> int:
    """Most likely stdout that takes nothing more; returns the exit code."""
    if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
        return _report(error, arguments)
    _drop_output()
    return _report(
        AnswerNo(
            f"the result can't be written: {error.strerror}",
            code="write-failed",
            hint="what the command has done stands: free some space, and look before you run it again",
        ),
        arguments,
    )


def _shows_colors(arguments: Sequence[str]) -> bool:
    """Whether a help page may have bold headings."""
    plain = "--no-color" in arguments or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and sys.stdout.isatty()


def _drop_output() -> None:
    """What is still buffered for stdout has nowhere to go, and must not fail again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception, arguments: Sequence[str]) -> int:
    from stackctl.core.console import Console

    _remember_given(arguments)
    has_filter = any(argument.partition("=")[0] == "--jq" for argument in arguments)
    console = Console(
        json_output="--json" in arguments and not has_filter,
        no_color="--no-color" in arguments,
        quiet="--quiet" in arguments,
    )
    if isinstance(error, typer.TyperException):
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stdout.write(error.format_message() + "\n")
            return UsageError.exit_code
        ours: StackctlError = _usage_error(error, arguments)
    elif isinstance(error, StackctlError):
        ours = error
    elif (found := _driver_error(error)) is not None:
        ours = found
    else:
        said = str(error).partition("\n")[0]
        ours = StackctlError(
            f"a bug in stackctl: {type(error).__name__}: {said}",
            code="bug",
            hint="run it again with --debug and report the traceback",
        )
    if "--debug" in arguments:
        console.traceback(_format_traceback(error))
    console.error(ours)
    return ours.exit_code


def _format_traceback(error: Exception) -> Iterator[str]:
    """Its lines; those of what an exception says are set in, and the statements that a server quotes left out."""
    for part in traceback.format_exception(error):
        first, *others = part.rstrip("\n").split("\n")
        yield first
        quoted = False
        for line in others:
            if first in ("", "Traceback (most recent call last):") or first.startswith(" "):
                yield line
                continue
            if section := _SECTION.match(line):
                quoted = section[1] in ("LINE", "QUERY", "CONTEXT")
                yield f"    {section[0]} …" if quoted else f"    {line}"
            elif not quoted:
                yield f"    {line}"


_SECTION = re.compile(r"([A-Z]+)(?: \d+)?:")
# A connection string in the wrong place: a URL, or what has lost its scheme (`user:password@host`).
_URL_LIKE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/|[^\s:/@=]+:[^\s@]+@")


def _remember_given(arguments: Sequence[str]) -> None:
    # An error may quote the command line, or come before the settings were asked for.
    from stackctl.config.keys import KEYS
    from stackctl.core.redaction import remember_secret, remember_url

    kinds = {f"--{spec.flag.replace('_', '-')}": spec.kind for spec in KEYS.values() if spec.flag}
    for before, argument in zip(("", *arguments), arguments, strict=False):
        option, given, value = argument.partition("=")
        if not (given and option.startswith("--")):
            option, value = before, argument
        kind = kinds.get(option)
        if kind == "secret":
            remember_secret(value)
        elif kind == "url" or _URL_LIKE.match(value):
            remember_url(value)
    for spec in KEYS.values():
        given = os.environ.get(spec.variable) if spec.variable else None
        if given:
            remember_secret(given) if spec.kind == "secret" else remember_url(given)


def _find_command(arguments: Sequence[str]) -> list[str]:
    """The names of the group and the command that are called, as far as they can be told."""
    words = [word for word in arguments if not word.startswith("-")]
    at = next((at for at, word in enumerate(words) if word in COMMANDS), len(words))
    group = COMMANDS.get(words[at]) if at < len(words) else None
    inner = isinstance(group, Group) and words[at + 1 : at + 2] and words[at + 1] in group.commands
    return words[at : at + (2 if inner else 1)]


def _usage_error(error: typer.TyperException, arguments: Sequence[str]) -> StackctlError:
    context = getattr(error, "ctx", None)
    path = " ".join(["stackctl", *_find_command(arguments)]) if context is None else context.command_path
    hint = f"see `{path} --help`"
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
