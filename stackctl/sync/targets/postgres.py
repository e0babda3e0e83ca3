"""PostgreSQL as an external database: binary COPY into a staging table, then one upsert and one delete a batch."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.types.json import Jsonb

from stackctl.core.errors import AnswerNo, StackctlError, StateError
from stackctl.mapping.checksums import compile_table_checksums
from stackctl.mapping.compile import encode_column
from stackctl.mapping.target_statements import TYPES
from stackctl.postgres.connect import connect
from stackctl.postgres.errors import to_one_line, translate_error
from stackctl.postgres.statements import load_statements
from stackctl.sync.streams import Form, Stream
from stackctl.sync.targets import inline_batch
from stackctl.sync.targets.inline_batch import MOST_BYTES, SmallPage
from stackctl.sync.targets.protocol import (
    NEVER_SYNCED,
    Applied,
    Cursor,
    TargetState,
    Waiting,
    check_owner,
    table_differs,
    two_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from uuid import UUID

    from psycopg.abc import QueryNoTemplate

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Mapping
    from stackctl.sync.targets.protocol import Rows

_SQL = load_statements(__file__)
# Data exceptions, constraints, limits of a row, and what the owner's triggers raise: classes of SQLSTATE that speak of
# a row and not of the table or the server.
_REFUSALS = ("22", "23", "54", "P0001")


class PostgresTarget:
    """See target.Target."""

    dialect: Dialect = "postgres"
    form = Form(Stream.binary, depth=256)
    keep_open = True

    def __init__(self, database: ExternalDatabase) -> None:
        assert database.url is not None
        self._where = f"the external database {database.id}"
        self._conn = connect(
            database.url,
            base=database.base,
            autocommit=True,
            what=self._where,
            application_name="stackctl sync",
            ambient=not database.from_backend,
        )
        inline_batch.prepare(self._conn)
        self._checked: set[str] = set()
        self.waiting = Waiting()
        with self._errors():
            # A consumer that holds a table locked costs this database a retry, not everybody their worker.
            self._execute(_SQL["bound_waits"])
            # A statement of ours that was broken off ends there, too, and lets go of the cursor. Not every server can.
            with suppress(psycopg.Error):
                self._execute(_SQL["notice_abort"])

    def _execute(
        self, query: QueryNoTemplate, parameters: dict[str, Any] | Sequence[Any] | None = None
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        with self.waiting():
            return self._conn.execute(query, parameters)

    def abort(self) -> None:
        # Only the socket: libpq's own functions may not be called from another thread.
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self._conn.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN")
        try:
            yield
        except BaseException:
            # A connection that is gone has rolled back already.
            with suppress(psycopg.Error):
                self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    def prepare(self, tenancy: UUID, compiled: Sequence[Compiled]) -> TargetState:
        with self._errors():
            state = self._state()
            if state.operated:
                raise StateError(
                    f"{self._where} holds the backend's own tables; syncing into the operated database is refused",
                    code="operated-database",
                    hint="name another database",
                )
            missing = [c for c in compiled if c.mapping.name not in self._checked]
            if missing or not self._checked:
                self._create(tenancy, missing)
                state = self._state()
            check_owner(state.owner, tenancy, self._where)
            return state

    def _create(self, tenancy: UUID, compiled: Sequence[Compiled]) -> None:
        """Tables, cursors and owner commit together, or not at all; creation is serialised among engines."""
        with self._transaction():
            found = self._execute(_SQL["facts"]).fetchone()
            if not (found and found[1] and found[2] and all(map(self._exists, compiled))):
                self._execute(_SQL["serialise_creation"])
                self._execute(_SQL["create_metadata"])
                self._execute(_SQL["create_owner"])
                for one in compiled:
                    if not self._exists(one):
                        # A cursor left from a table that was dropped would leave the new one empty.
                        self._execute(_SQL["forget_cursor"], {"mapping": one.mapping.name})
                        self._execute(one.create_table)
                # Consumers may read, never write.
                readable = ["_stack_sync_metadata", *(c.mapping.target for c in compiled)]
                self._execute(
                    sql.SQL("GRANT SELECT ON {} TO PUBLIC").format(sql.SQL(", ").join(map(sql.Identifier, readable)))
                )
            if self._one("owner") is None:
                self._execute(_SQL["claim_owner"], {"tenancy": tenancy})
            check_owner(self._one("owner"), tenancy, self._where)
            for one in compiled:
                self._check_table(one)
                self._execute(_SQL["add_cursor"], {"mapping": one.mapping.name})
        self._checked.update(one.mapping.name for one in compiled)

    def _exists(self, compiled: Compiled) -> bool:
        return self._execute(_SQL["columns"], {"table": compiled.mapping.target}).fetchone() is not None

    def _check_table(self, compiled: Compiled) -> None:
        mapping = compiled.mapping
        rows = self._execute(_SQL["columns"], {"table": mapping.target}).fetchall()
        found = {name: (type_, needed) for name, type_, needed in rows}
        problems: list[str] = []
        for column in mapping.columns:
            wanted = TYPES["postgres"][column.type]
            if column.name not in found:
                problems.append(f"{column.name} is missing")
            elif _canonical(found[column.name][0]) != _canonical(wanted):
                problems.append(f"{column.name} is {found[column.name][0]}, not {wanted}")
        known = {column.name for column in mapping.columns}
        problems += [f"{name} must not be null" for name, (_, needed) in found.items() if needed and name not in known]
        key = {"table": mapping.target, "key": sorted(mapping.key)}
        if not problems and not self._one("has_key", key):
            problems.append(f"no unique index on ({', '.join(mapping.key)})")
        if problems:
            raise table_differs(self._where, mapping.target, problems)

    def state(self) -> TargetState:
        with self._errors():
            return self._state()

    def _state(self) -> TargetState:
        found = self._execute(_SQL["facts"]).fetchone()
        assert found is not None
        operated, has_cursors, has_owner = found
        with self.waiting(), self._conn.pipeline():
            owners = self._conn.execute(_SQL["owner"]) if has_owner else None
            cursors = self._conn.execute(_SQL["cursors"]) if has_cursors else None
            owner = owners.fetchone() if owners is not None else None
            rows = cursors.fetchall() if cursors is not None else []
        return TargetState(
            owner[0] if owner else None,
            {name: Cursor(sequence_id, updated_at) for name, sequence_id, updated_at in rows},
            operated,
        )

    @contextmanager
    def locked(self, compiled: Compiled) -> Iterator[int]:
        with self._errors(compiled), self._transaction():
            mapping = {"mapping": compiled.mapping.name}
            row = self._execute(_SQL["lock_cursor"], mapping).fetchone()
            if row is None:  # somebody deleted it: from the beginning
                self._execute(_SQL["add_cursor"], mapping)
                row = self._execute(_SQL["lock_cursor"], mapping).fetchone()
            yield row[0] if row else NEVER_SYNCED

    def apply(self, compiled: Compiled, batch: Rows, on_read: Callable[[int, int], None] | None = None) -> Applied:
        with self._errors(compiled):
            pieces = batch.binary()
            begun = b""
            for piece in pieces:
                begun += piece
                if len(begun) > MOST_BYTES:
                    break
            else:
                page = SmallPage.of(begun)
                if page is not None:
                    return self._merge(compiled, page, on_read)
            self._execute(compiled.create_staging)
            rows = self._copy(
                compiled, chain([begun], pieces), compiled.staging, ["_stack_sequence_id", "_stack_deleted"]
            )
            found = self._execute(
                sql.SQL("SELECT max(_stack_sequence_id), bool_or(_stack_deleted) FROM {}").format(
                    sql.Identifier(compiled.staging)
                )
            ).fetchone()
            highest, deletes = found or (0, False)
            if on_read is not None:
                on_read(rows, highest)
            upserted = self._execute(compiled.upsert).rowcount
            deleted = self._execute(compiled.delete).rowcount if deletes else 0
        return Applied(rows, upserted, deleted, highest)

    def _merge(self, compiled: Compiled, page: SmallPage, on_read: Callable[[int, int], None] | None) -> Applied:
        if not page.rows:
            return Applied(0, 0, 0)
        if on_read is not None:
            on_read(len(page.rows), page.highest)
        upserted = self._execute(page.in_place_of_staging(compiled, compiled.upsert), page.values).rowcount
        deleted = 0
        if page.deletes:
            deleted = self._execute(page.in_place_of_staging(compiled, compiled.delete), page.values).rowcount
        return Applied(len(page.rows), upserted, deleted, page.highest)

    def _copy(self, compiled: Compiled, pieces: Iterable[bytes], table: str, extra: Sequence[str]) -> int:
        columns = [*extra, *(column.name for column in compiled.mapping.columns)]
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self._conn.cursor() as cursor, self.waiting() as waiting:
            with cursor.copy(query) as copy:
                for chunk in pieces:
                    waiting.begin()
                    copy.write(chunk)
                    # The next piece is the source's to bring.
                    waiting.end()
                waiting.begin()
            return cursor.rowcount

    def load(self, compiled: Compiled, rows: Rows) -> Applied:
        """An empty table takes the stream straight; another is first emptied of everything in the transaction.

        DELETE, not TRUNCATE: readers keep seeing the old rows until the commit.
        """
        table = sql.Identifier(compiled.mapping.target)
        with self._errors(compiled), self.waiting.patiently():
            removed = self._execute(sql.SQL("DELETE FROM {}").format(table)).rowcount
            loaded = self._copy(compiled, rows.binary(), compiled.mapping.target, [])
        return Applied(loaded, loaded, max(removed - loaded, 0))

    def advance(self, compiled: Compiled, cursor: int) -> None:
        with self._errors(compiled):
            self._execute(_SQL["advance"], {"mapping": compiled.mapping.name, "cursor": cursor})

    def version(self, compiled: Compiled) -> str:
        with self._errors(compiled):
            return self._one("version", {"mapping": compiled.mapping.name})

    def sums(self, compiled: Compiled) -> Sums:
        with self._errors(compiled), self.waiting.patiently():
            rows = self._execute(compile_table_checksums(compiled.mapping).sums)
            return {bucket: (count, int(total)) for bucket, count, total in rows}

    def hashes(self, compiled: Compiled, wanted: Collection[int]) -> list[tuple[Any, ...]]:
        with self._errors(compiled), self.waiting.patiently():
            return self._execute(compile_table_checksums(compiled.mapping).hashes, {"wanted": list(wanted)}).fetchall()

    def hashes_by_key(self, compiled: Compiled, keys: Collection[Key]) -> list[tuple[Any, ...]]:
        with self._errors(compiled), self.waiting.patiently():
            return self._execute(
                compile_table_checksums(compiled.mapping).by_key, {"keys": Jsonb(list(keys))}
            ).fetchall()

    def rows(self, mapping: Mapping) -> list[tuple[Any, ...]]:
        columns = [
            sql.SQL(cast("LiteralString", encode_column(f't."{column.name}"', column, "sqlite")))
            for column in mapping.columns
        ]
        query = sql.SQL("SELECT {} FROM {} AS t").format(sql.SQL(", ").join(columns), sql.Identifier(mapping.target))
        with self._errors():
            return self._execute(query).fetchall()

    def close(self) -> None:
        self._conn.close()

    def _one(self, name: str, parameters: dict[str, Any] | None = None) -> Any:
        row = self._execute(_SQL[name], parameters).fetchone()
        return row[0] if row else None

    @contextmanager
    def _errors(self, compiled: Compiled | None = None) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._translated(error, compiled) from error

    def _translated(self, error: psycopg.Error, compiled: Compiled | None) -> StackctlError:
        if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.DatatypeMismatch) and compiled is not None:
            return StateError(
                f'{self._where}: the table "{compiled.mapping.target}" was changed: {to_one_line(str(error))}',
                code="table-differs",
                hint="restore the table, or drop it and run `stackctl sync --full`",
            )
        if compiled is not None:
            key = f"{compiled.mapping.target}_pkey"
            if isinstance(error, pg.CardinalityViolation) or error.diag.constraint_name == key:
                return two_rows(compiled)
            if (error.sqlstate or "").startswith(_REFUSALS):
                return AnswerNo(
                    f"{self._where}: {to_one_line(error.diag.message_primary or str(error))}",
                    code="row-refused",
                    details={"sqlstate": error.sqlstate},
                )
        return translate_error(error, self._where)


def _canonical(type_: str) -> str:
    return {"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}.get(
        type_.lower(), type_.lower()
    )
