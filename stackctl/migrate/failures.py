"""A driver's error while migrating, as one of stackctl's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg import errors

from stackctl.errors import ServiceError

if TYPE_CHECKING:
    import psycopg


def sentence(error: psycopg.Error) -> str:
    """The server's message in one line, with its detail."""
    message = error.diag.message_primary or str(error).strip()
    return f"{message} ({error.diag.message_detail})" if error.diag.message_detail else message


def refused(error: psycopg.Error, message: str, details: dict[str, Any]) -> ServiceError:
    """The role or the server may not write: `read-only` or `permission-denied`."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        hint = "Give the primary's URL, and a role that may write."
        return ServiceError(message, code="read-only", hint=hint, details=details)
    hint = "Use a role that owns the schema, for example the one the application migrates with."
    return ServiceError(message, code="permission-denied", hint=hint, details=details)


def connection_lost(message: str, details: dict[str, Any]) -> ServiceError:
    """The connection went away under a run: `connection-lost`."""
    hint = "Run stackctl migrate up again: it goes on after the last commit."
    return ServiceError(message, code="connection-lost", hint=hint, details=details)
