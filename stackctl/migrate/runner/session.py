"""The one session that migrations run in: its statements, and its settings between files."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, LiteralString, TypeAlias, cast

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row, tuple_row

from stackctl.core.durations import LONGEST_WAIT
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Connection: TypeAlias = psycopg.Connection[Any]

LOCK_WAIT = timedelta(seconds=10)
LOCK_TIMEOUT = timedelta(seconds=3)
# CONCURRENTLY holds nobody up while it waits, and what it has built is lost when it gives up: it may wait longer.
CONCURRENTLY_LOCK_TIMEOUTS = 10  # times lock_timeout
_CHECK_CLIENT = ("client_connection_check_interval", "1s")

_SQL = load_statements(__file__, "runner")


@dataclass(frozen=True)
class Limits:
    """How long to wait: for another run, for a lock of a statement (zero: for ever), and for a statement's end
    (None: as the role is set up).
    """

    lock_wait: timedelta = LOCK_WAIT
    lock_timeout: timedelta = LOCK_TIMEOUT
    statement_timeout: timedelta | None = None


@dataclass(frozen=True)
class Session:
    """A connection in autocommit mode and the schema that is migrated. `history`: the name of the history that keeps
    what is applied, empty for the default one. `initial_settings`: what the caller had SET.
    """

    conn: Connection
    schema: str
    limits: Limits = field(default_factory=Limits)
    initial_settings: Sequence[tuple[str, str]] = ()
    history: str = ""

    @classmethod
    def begin(cls, conn: Connection, schema: str, limits: Limits, history: str = "") -> Session:
        """Raises ValueError unless `conn` is in autocommit mode."""
        if not conn.autocommit:
            raise ValueError("migrations need a connection in autocommit mode")
        with conn.cursor(row_factory=tuple_row) as cursor:
            before = cursor.execute(_SQL["read_session_settings"]).fetchall()
        return cls(conn, schema, limits, before, history)

    @property
    def history_table(self) -> str:
        """Its name in schema stackctl."""
        return format_history_table(self.history)

    def fetch_named(self, statement: str, /, **values: Any) -> list[dict[str, Any]]:
        """The rows of a named statement."""
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(self._compose(statement), {"schema": self.schema, **values}).fetchall()

    def fetch_together(self, *statements: str, **values: Any) -> list[dict[str, Any]]:
        """Several named statements in one message, and so in one transaction; the rows of the last."""
        with psycopg.ClientCursor(self.conn, row_factory=dict_row) as cursor:
            return _read_last(cursor.execute(self._join(*statements), {"schema": self.schema, **values}))

    def send_named(self, cursor: psycopg.Cursor[Any], statement: str) -> None:
        """Run a named statement on a cursor, within a pipeline."""
        cursor.execute(self._compose(statement), {"schema": self.schema}, prepare=False)

    def run_named(self, statement: str, /, **values: Any) -> None:
        """A named statement that returns nothing."""
        self.execute(self._compose(statement), {"schema": self.schema, **values} if values else None)

    def _compose(self, statement: str) -> sql.Composed:
        """A named statement; `{}` in it stands for the table of the history."""
        return sql.SQL(_SQL[statement]).format(sql.Identifier("stackctl", self.history_table))

    def _join(self, *statements: str) -> sql.Composed:
        return sql.SQL(";\n").join(map(self._compose, statements))

    def execute(self, query: LiteralString | sql.Composed, values: Mapping[str, Any] | None = None) -> None:
        self.conn.execute(query, values)

    def begin_file(self) -> list[dict[str, Any]]:
        """Undo what a file SET for the session, and say where unqualified names live and how long to wait.

        Behind the schema stays what the role or the database is set up with, where extensions may live. Returned is
        what find_other_runners sees.
        """
        with self.conn.cursor(row_factory=dict_row) as cursor:
            return _read_last(cursor.execute(self._begin_file))

    def restore_settings(self) -> None:
        """Give the session back as it came."""
        self.fetch_together("reset_session", "set_settings", **_to_values(self.initial_settings))

    @cached_property
    def _begin_file(self) -> LiteralString:
        wanted = [*self.initial_settings, *self._timeouts().items()]
        # A build whose client was killed would otherwise go on, and keep the lock, until it is done. Servers on some
        # systems can't check.
        with contextlib.suppress(errors.InvalidParameterValue, errors.UndefinedObject):
            self._set_one(*_CHECK_CLIENT)
            wanted.append(_CHECK_CLIENT)
        own = sql.Identifier(self.schema).as_string()
        values = {"schema": self.schema, "own": own, **_to_values(wanted)}
        statements = self._join("reset_session", "set_settings", "set_search_path", "find_other_runners")
        return cast("LiteralString", psycopg.ClientCursor(self.conn).mogrify(statements, values))

    @contextlib.contextmanager
    def extend_lock_timeout(self) -> Iterator[None]:
        """Inside, a lock may take as long as CONCURRENTLY may wait for one."""
        limit = self.fetch_named("get_setting", name="lock_timeout")[0]["value"]
        # A file that has set its own is taken at its word.
        if limit == self._timeouts()["lock_timeout"]:
            self._set_one("lock_timeout", _milliseconds(self.limits.lock_timeout * CONCURRENTLY_LOCK_TIMEOUTS))
        try:
            yield
        finally:
            if not self.conn.closed:
                self._set_one("lock_timeout", limit)

    def _timeouts(self) -> dict[str, str]:
        found = {"lock_timeout": _milliseconds(self.limits.lock_timeout)}
        if self.limits.statement_timeout is not None:
            found["statement_timeout"] = _milliseconds(self.limits.statement_timeout)
        return found

    def _set_one(self, name: str, value: str) -> None:
        self.fetch_named("set_settings", **_to_values([(name, value)]))


def _read_last(cursor: psycopg.Cursor[dict[str, Any]]) -> list[dict[str, Any]]:
    while cursor.nextset():
        pass
    return cursor.fetchall()


def _to_values(settings: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"names": [name for name, _ in settings], "values": [value for _, value in settings]}


def format_history_table(history: str) -> str:
    """The table in schema stackctl that keeps the history of that name; the default one has none."""
    return f"migration_history_{history}" if history else "migration_history"


def _milliseconds(wait: timedelta) -> str:
    """As the server writes it in pg_settings, without a unit; 0 means for ever, and only 0 becomes it."""
    return str(math.ceil(min(wait, LONGEST_WAIT) / timedelta(milliseconds=1)))
