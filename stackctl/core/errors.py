"""The one family of errors: what happened, a hint, a kebab-case code and the exit code of the process.

The class says the exit code and nothing else; `code` names the case for scripts. Whatever is not a StackctlError
is a bug in stackctl (exit code 70).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EXIT_OK = 0
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class StackctlError(Exception):
    """What happened, as one line without a trailing stop; or as several, where a file has many mistakes.

    `code` is kebab-case and stable: scripts match on it. `hint` says what to do next. `details` is JSON-able
    material for scripts; nothing secret belongs in any of them.
    """

    exit_code: ClassVar[int] = EXIT_BUG

    def __init__(
        self,
        message: str | Sequence[str],
        *,
        code: str,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        # A line break within a line is somebody's value, and is not shown as one.
        self.lines = (message,) if isinstance(message, str) else tuple(message)
        self.message = "\n".join(self.lines)
        super().__init__(self.message)
        self.code = code
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})


class AnswerNo(StackctlError):
    """It ran and the answer is no: drift, a failing test, a database that did not sync."""

    exit_code = 1


class UsageError(StackctlError):
    """The command line is wrong, or names something that does not exist."""

    exit_code = 2


class ConfigError(StackctlError):
    """A configuration or input file is wrong."""

    exit_code = 3


class ServiceError(StackctlError):
    """A service can't be reached, or refuses the credentials."""

    exit_code = 4


class StateError(StackctlError):
    """Refused because of the state things are in: a lock is held, a confirmation is missing."""

    exit_code = 5


class OutcomeUnknown(StackctlError):
    """Sent, but the outcome is unknown or not final."""

    exit_code = 6


def find_nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names somebody may have meant."""
    import difflib  # only a mistake needs it

    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def unknown_name_error(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Something that the user named and that does not exist, with the nearest that does."""
    near = find_nearest_name(name, known := list(known))
    hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(known)) or 'none'}"
    return UsageError(f"there is no {kind} {name!r}", code=f"unknown-{kind.split()[-1]}", hint=hint)
