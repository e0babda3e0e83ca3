"""Values given on the command line, read and refused in one way everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from stackctl.cli.command import Run
    from stackctl.postgres.connect import Connection


def require_names_or_all(names: list[str] | None, everything: bool, what: str) -> None:
    """Either names or --all; UsageError for both and for neither."""
    if names and everything:
        raise UsageError(f"--all means all {what}; leave out the names, or --all", code="usage")
    if not names and not everything:
        raise UsageError(f"name {what}, or --all for all of them", code="usage")


def parse_duration_option(text: str | None, flag: str) -> timedelta | None:
    """A duration given on the command line."""
    from stackctl.core.durations import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", code="usage") from None


def parse_wait_option(text: str, flag: str) -> timedelta:
    """How long something is to wait, given on the command line."""
    from stackctl.core.durations import parse_wait

    try:
        return parse_wait(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", code="usage") from None


def parse_text_option(text: str | None, flag: str, most: int = 500) -> str | None:
    """A text given on the command line that a database is to hold."""
    if text is None:
        return None
    if not text.strip() or len(text) > most:
        raise UsageError(f"{flag} takes 1 to {most} characters", code="usage")
    if not text.isprintable():
        raise UsageError(f"{flag}: only printable characters, please", code="usage")
    return text


def parse_time_option(text: str | None, flag: str) -> datetime | None:
    """A time given on the command line, in UTC unless it says otherwise; a duration counts back from now."""
    from datetime import UTC, datetime

    from stackctl.core.durations import parse_duration

    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    try:
        return datetime.now(UTC) - parse_duration(text)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{flag}: {text!r} is neither a time nor a duration", code="usage", hint="e.g. 2026-01-31, or 720h"
        ) from None


def parse_uuid(text: str, what: str) -> UUID:
    """An id given on the command line."""
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"{text!r} is not the id of a {what} (a UUID)", code="usage") from None


def find_tenancy(conn: Connection, named: str | None) -> UUID | None:
    """The tenancy that an option names, in any of the ways there are; None when it was not given."""
    from stackctl.backend import tenancies

    return None if named is None else tenancies.find_tenancy(conn, named)


def find_tenancies(run: Run, named: Sequence[str]) -> list[UUID] | None:
    """The tenancies that a command line names, each once; None when it names none. Opens a connection of its own."""
    from stackctl.backend import tenancies

    if not named:
        return None
    with run.database() as conn:
        return list(dict.fromkeys(tenancies.find_tenancy(conn, one) for one in named))


def name_operator() -> str:
    """Who is at it, on which machine; behind sudo, who called it."""
    import getpass
    import os
    import platform

    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in a container
        user = str(os.geteuid())
    return f"{user}@{platform.node()}"
