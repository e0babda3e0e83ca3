"""Errors of reading the operated database, as the engine tells them apart."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg

from stackctl.core.errors import AnswerNo, ServiceError
from stackctl.postgres.errors import translate_error

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_THE_MAPPINGS = ("deadlock", "lock-timeout", "statement-timeout", "out-of-resources", "row-security")


class OperatedDatabaseLost(ServiceError):
    """The operated database went away, or its replica lags: not the fault of the external database at hand."""


@contextmanager
def translate_source_errors(what: str) -> Iterator[None]:
    """Raise OperatedDatabaseLost; AnswerNo `row-refused` for a value that can't be read, `mapping-failed` for the rest.

    What is not the mapping's fault, such as a deadlock, is raised as the server says it.
    """
    try:
        yield
    except psycopg.Error as error:
        inner = translate_error(error, "the operated database")
        if _is_lost(error):
            raise OperatedDatabaseLost(inner.message, code=inner.code, hint=inner.hint) from error
        if inner.code in _NOT_THE_MAPPINGS:
            raise inner from error
        if (error.sqlstate or "").startswith("22"):
            raise AnswerNo(f"{what} can't be read: {inner.message}", code="row-refused", hint=inner.hint) from error
        raise AnswerNo(f"{what} can't be read: {inner.message}", code="mapping-failed", hint=inner.hint) from error


def _is_lost(error: psycopg.Error) -> bool:
    # Class 08 and 57P say that the server or the connection is gone; without a SQLSTATE only the connection can be.
    state = error.sqlstate
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(("08", "57P")))
