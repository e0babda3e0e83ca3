"""A session on a server, and what our work needs of it, set so that nothing of it stays behind for anybody else.

A pooler in transaction mode lends a session of the server for one transaction, and then to others: what was SET in it
would be theirs, and what was prepared in it would be met by strangers. So a session as a whole is set up only where it
is known to be ours. Elsewhere it is shared: each transaction brings our settings along, and its end takes them away; a
statement outside of a transaction gets one; nothing is prepared.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from psycopg import Copy
    from psycopg.abc import Params, Query, QueryNoTemplate
    from psycopg.copy import Writer
    from psycopg.pq.abc import PGconn

# What values look like: `timestamp` columns, which the backend fills in UTC, mean the same to everyone.
FORMATS = {"TimeZone": "UTC", "DateStyle": "ISO, YMD", "IntervalStyle": "iso_8601", "extra_float_digits": "1"}

# What a role or a database is set up with is meant for its application. Our work takes as long as there are rows, and
# waits in its transactions for the other side; what hangs is broken off by whoever waits for it (ResponseTimer).
WORK = {
    "default_transaction_isolation": "read committed",  # each statement sees what was committed before it
    "row_security": "off",  # rows that a policy hides would be taken for deleted ones: the server refuses instead
    "lock_timeout": "30s",  # whoever holds a table locked costs us a retry
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "1h",  # of ours that was cut off without a word
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # Plans that are only steered (enable_seqscan and others) look endlessly dear, and each would be compiled for 80 ms.
    "jit": "off",
}
SINCE = {"idle_session_timeout": 140000, "transaction_timeout": 170000}

# The server's own word for its version: a pooler may report another.
_BEGIN = """
SELECT own, version, CASE WHEN own THEN
    (SELECT count(set_config(name, value, false))
     FROM unnest(%(names)s::text[], %(values)s::text[], %(since)s::int[]) AS s (name, value, since)
     WHERE since <= version)
END FROM (SELECT %(own)s OR pg_backend_pid() = %(pid)s AS own, current_setting('server_version_num')::int AS version)
    AS session
"""


class Session(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode. As it is opened it is psycopg's; `begin` makes it one of ours."""

    def __init__(self, pgconn: PGconn, row_factory: Any = tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self.cursor_factory = _Cursor
        self._brought: list[bytes] = []  # what each transaction brings along, where the session is shared
        self._inside = False

    def begin(self, settings: Mapping[str, str], schema: str | None, *, own: bool) -> None:
        """Take up these settings, and the schema as search path. Raises psycopg's errors.

        `own`: the session is known to be. Else whoever sits between is told by the process that was named when the
        connection was made: it is one of theirs, where the server names the session's.
        """
        path = {"search_path": sql.Identifier(schema).as_string(self)} if schema is not None else {}
        wanted = {**settings, **path}
        since = [SINCE.get(name, 0) for name in wanted]
        values = {"names": list(wanted), "values": list(wanted.values()), "since": since}
        row = self.execute(_BEGIN, values | {"own": own, "pid": self.info.backend_pid}).fetchone()
        assert row is not None
        if row[0]:
            return
        self.prepare_threshold = None
        known = {name: value for name, value in settings.items() if SINCE.get(name, 0) <= row[1]}
        if known.pop("default_transaction_isolation", None):
            self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        known.pop("idle_session_timeout", None)
        brought: dict[str, sql.Composable] = {name: sql.Literal(value) for name, value in known.items()}
        if schema is not None:
            brought["search_path"] = sql.Identifier(schema)
        self._brought = [
            sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), value).as_bytes(self)
            for name, value in brought.items()
        ]

    @property
    def is_shared(self) -> bool:
        """Whether somebody else may be lent the session between two transactions."""
        return bool(self._brought)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if self._inside or not self._brought:
                yield transaction
                return
            self._inside = True
            try:
                # A pipeline takes one statement at a time; elsewhere they are one message.
                for setting in self._brought if self.pgconn.pipeline_status else [b"; ".join(self._brought)]:
                    self.execute(setting)
                yield transaction
            finally:
                self._inside = False

    @contextmanager
    def provide_transaction(self) -> Iterator[None]:
        """What a statement of ours needs around it."""
        with nullcontext() if self._inside or not self._brought else self.transaction():
            yield


@contextmanager
def pipelined_transaction(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """A transaction in a pipeline whose BEGIN and COMMIT go out with its statements; psycopg's own waits for each.

    For a connection in autocommit mode. What fails is raised where a result is fetched, or at the end.
    """
    if isinstance(conn, Session) and conn.is_shared:
        with conn.pipeline(), conn.transaction():
            yield
        return
    try:
        with conn.pipeline():
            conn.execute("BEGIN")
            yield
            conn.execute("COMMIT")
    finally:
        if conn.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            conn.execute("ROLLBACK")


class _Cursor(psycopg.Cursor[Any]):
    def __init__(self, connection: Session, **options: Any) -> None:
        super().__init__(connection, **options)
        self._provide_transaction = connection.provide_transaction

    def execute(self, query: Query, params: Params | None = None, **how: Any) -> Self:
        with self._provide_transaction():
            return super().execute(cast("QueryNoTemplate", query), params, **how)

    def stream(self, query: Query, params: Params | None = None, **how: Any) -> Iterator[Any]:
        with self._provide_transaction():
            yield from super().stream(query, params, **how)

    @contextmanager
    def copy(self, statement: Query, params: Params | None = None, *, writer: Writer | None = None) -> Iterator[Copy]:
        with self._provide_transaction(), super().copy(statement, params, writer=writer) as copy:
            yield copy
