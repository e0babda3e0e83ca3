"""PostgreSQL's errors in stackctl's terms: the single place where SQLSTATEs become a hint and an exit code."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from psycopg import errors as pg

from stackctl.core.errors import ServiceError, StackctlError, StateError
from stackctl.core.redaction import scrub

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECKS_ROW_SECURITY = "check_enable_rls"  # the server's function; its message may be in any language
# What pgbouncer says when it ends a connection, and by which of its settings: no session can lift them.
_POOLER_LIMITS = {
    "query timeout": "query_timeout",
    "query_wait_timeout": "query_wait_timeout",
    "idle transaction timeout": "idle_transaction_timeout",
    "client_idle_timeout": "client_idle_timeout",
}


_LACKING = (pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName, pg.UndefinedFunction, pg.UndefinedObject)


@contextmanager
def translating_errors(what: str) -> Iterator[None]:
    """Inside, errors of PostgreSQL come out as StackctlErrors that name `what`."""
    try:
        yield
    except psycopg.Error as error:
        raise translate_error(error, what) from error


def translate_error(error: psycopg.Error, what: str = "the database", *, external: bool = False) -> StackctlError:
    """The StackctlError for an error of the driver or the server, by SQLSTATE.

    `external`: it is somebody else's database, which no migration of ours makes.
    """
    # The server's own sentence; its DETAIL may quote rows of customers.
    reason = to_one_line(error.diag.message_primary or str(error))
    details = {"sqlstate": error.sqlstate} if error.sqlstate else {}
    match error:
        case _ if external and isinstance(error, _LACKING):
            return StateError(
                f"{what} lacks something: {reason}",
                code="target-differs",
                hint="restore what was dropped or renamed there; a copy's own tables are made again when they are gone."
                " If nothing was, check the search_path of the role or the connection string",
                details=details,
            )
        case pg.UndefinedTable() | pg.UndefinedColumn() | pg.InvalidSchemaName() | pg.UndefinedFunction():
            return StateError(
                f"{what} was never migrated, or not far enough: {reason}",
                code="not-migrated",
                hint="run `stackctl migrate up --bundled` (`stackctl doctor` says what is missing)",
                details=details,
            )
        case pg.InsufficientPrivilege() if error.diag.source_function == _CHECKS_ROW_SECURITY:
            return row_security_error(what, reason)
        case pg.InsufficientPrivilege():
            return ServiceError(
                f"{what} does not permit this: {reason}",
                code="permission-denied",
                hint="connect as a role that has this right, or grant it",
                details=details,
            )
        case pg.ReadOnlySqlTransaction():
            return ServiceError(
                f"{what} is read-only: {reason}",
                code="read-only",
                hint="connect to the primary with a role whose transactions are not read-only",
                details=details,
            )
        case pg.LockNotAvailable():
            return StateError(
                f"{what}: a lock could not be had in time: {reason}",
                code="lock-timeout",
                hint="try again, or find the holder in pg_stat_activity",
                details=details,
            )
        case pg.DeadlockDetected() | pg.SerializationFailure():
            return ServiceError(
                f"{what}: {reason}",
                code="deadlock",
                hint="try again; the transaction was rolled back and nothing was changed",
                details=details,
            )
        case pg.QueryCanceled():
            return ServiceError(f"{what}: {reason}", code="statement-timeout", details=details)
        case pg.InsufficientResources():
            return ServiceError(f"{what} is out of resources: {reason}", code="out-of-resources", details=details)
        case psycopg.OperationalError():
            return ServiceError(
                f"the connection to {what} was lost: {reason}",
                code="connection-lost",
                hint=_suggest_after_loss(error),
                details=details,
            )
        case _:
            return ServiceError(f"{what}: {reason}", code="database-error", details=details)


def row_security_error(what: str, reason: str) -> ServiceError:
    """What our role can't see would be taken for deleted."""
    return ServiceError(
        f"{what} hides rows from this role: {reason}",
        code="row-security",
        hint="ALTER ROLE … BYPASSRLS, or connect as the owner of the tables; no policy can let everything through",
    )


def _suggest_after_loss(error: psycopg.Error) -> str:
    if isinstance(error, pg.IdleSessionTimeout):
        return (
            "try again; behind a pooler, let the server's idle_session_timeout be 0, or longer than the pooler keeps"
            " idle sessions (pgbouncer: server_idle_timeout)"
        )
    setting = _POOLER_LIMITS.get(error.diag.message_primary or "")
    if isinstance(error, pg.ProtocolViolation) and setting is not None:
        return f"a pooler cut it short: raise its {setting} (pgbouncer.ini), or connect to the server itself"
    return "try again; work that was not committed is redone"


def to_one_line(text: str) -> str:
    """The first paragraph of a server's message on one line, without secrets."""
    return scrub(" ".join(line.strip() for line in text.strip().splitlines()))
