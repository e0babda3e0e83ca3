"""A driver's error while migrating, as one of stackctl's."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from stackctl.core.errors import AnswerNo, ServiceError, StackctlError
from stackctl.core.redaction import MASK
from stackctl.postgres.errors import to_one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.migrate.files import Migration, Statement
    from stackctl.migrate.runner.session import Connection


FIX_THE_REST = (
    "What was committed before stays, and is not run again. Fix what follows and run stackctl migrate up again."
)
FIX_AND_RERUN = "The transaction was rolled back; nothing was changed. Fix the file and run stackctl migrate up again."


@contextmanager
def translating(conn: Connection) -> Iterator[None]:
    """Inside, what the server refuses to this role, and a connection that goes away, are StackctlErrors."""
    try:
        yield
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
        raise to_permission_error(error, format_error(error), {}) from error
    except psycopg.OperationalError as error:
        if conn.closed:
            raise to_connection_lost(format_error(error), {}) from error
        raise


def format_error(error: psycopg.Error) -> str:
    """The server's message in one line, with its detail."""
    message = error.diag.message_primary or str(error)
    return to_one_line(f"{message} ({error.diag.message_detail})" if error.diag.message_detail else message)


def find_hint(error: psycopg.Error | None) -> str | None:
    """What to do about an error whose own hint, if it has one, says less."""
    match error:
        case errors.ActiveSqlTransaction():
            return "Put the line -- stackctl:outside-transaction into its piece."
        case errors.UnsafeNewEnumValueUsage():
            return "A new enum value can be used after a commit: put what uses it into a migration of its own."
        case errors.QueryCanceled():
            return "Give it longer with --statement-timeout, or part the work into batches (-- stackctl:repeat)."
        case _:
            return None


def to_permission_error(error: psycopg.Error, message: str, details: dict[str, Any]) -> ServiceError:
    """The role or the server may not write: `read-only` or `permission-denied`."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        hint = "Give the primary's URL, and a role that may write."
        return ServiceError(message, code="read-only", hint=hint, details=details)
    hint = "Use a role that owns the schema, for example the one the application migrates with."
    return ServiceError(message, code="permission-denied", hint=hint, details=details)


def to_connection_lost(message: str, details: dict[str, Any]) -> ServiceError:
    """The connection went away under a run: `connection-lost`."""
    hint = "Run stackctl migrate up again: it goes on after the last commit."
    return ServiceError(message, code="connection-lost", hint=hint, details=details)


def to_stackctl_error(
    migration: Migration, statement: Statement, what: str, error: psycopg.Error | None, *, schema: str, closed: bool
) -> StackctlError:
    """The failure of a statement, with its place in the file. `closed`: whether the connection is gone."""
    from stackctl.migrate.statement_text import find_position

    line, column = find_position(statement, schema, error)
    details: dict[str, Any] = {"file": str(migration.path), "line": line, "column": column}
    if error is not None:
        details |= {"sqlstate": error.sqlstate, "detail": error.diag.message_detail}
    # A password whose quotes were forgotten is named by the server as what it does not understand.
    if (near := re.search(r'near "+([^"]+)', what)) and re.search(
        rf'(?i)\bpassword\s+"?{re.escape(near[1])}', statement.sql
    ):
        what = what.replace(near[1], MASK)
    message = f"{migration.path}:{line}:{column}: {what}"
    if closed:
        return to_connection_lost(message, details)
    if isinstance(error, errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction):
        return to_permission_error(error, message, details)
    hint = error.diag.message_hint if error is not None else None
    return AnswerNo(
        message,
        code="migration-failed",
        hint=find_hint(error) or hint or FIX_AND_RERUN,
        details=details,
    )
