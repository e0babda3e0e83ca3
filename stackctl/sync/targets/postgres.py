"""PostgreSQL as an external database: binary COPY into a staging table, then one upsert and one delete a batch."""

from __future__ import annotations

import os
import re
import socket
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.types.json import Jsonb

from stackctl.core.errors import AnswerNo, StackctlError, StateError
from stackctl.mapping.checksums import compile_table_checksums
from stackctl.mapping.sql_text import quote
from stackctl.mapping.target_statements import compose_exchange_upsert, compose_prune, compose_unwritten
from stackctl.postgres.connect import connect
from stackctl.postgres.errors import to_one_line, translate_error
from stackctl.postgres.statements import load_statements
from stackctl.sync.targets import postgres_inline
from stackctl.sync.targets.mapping_changes import (
    check_fingerprint,
    make_record,
    plan_change,
    refuse_other_table,
)
from stackctl.sync.targets.postgres_inline import MAX_BYTES, InlineBatch
from stackctl.sync.targets.postgres_rebuild import BESIDE, TableRebuild, TableShape
from stackctl.sync.targets.protocol import (
    NEVER_SYNCED,
    RESTORE,
    SHOWN_KEYS,
    AppliedBatch,
    CopyRecord,
    Cursor,
    ResponseTimer,
    StreamFormat,
    TargetState,
    add_foreign_tables,
    check_owner,
    not_ours_error,
    swallowed_error,
    two_rows_error,
)
from stackctl.sync.targets.table_check import TableColumn, check_table, to_postgres_type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from uuid import UUID

    from psycopg.abc import QueryNoTemplate

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Mapping
    from stackctl.sync.targets.mapping_changes import ChangePolicy
    from stackctl.sync.targets.protocol import Rows

_SQL = load_statements(__file__)
# Data exceptions, constraints, limits of a row, and what the owner's triggers raise: classes of SQLSTATE that speak of
# a row and not of the table or the server.
_DUPLICATE = re.compile(r"\((.+?)\)=\(")  # in the detail of a unique violation, in whichever language
_REJECTIONS = ("22", "23", "54", "P0001")


class PostgresTarget:
    """See target.Target."""

    dialect: Dialect = "postgres"
    stream_format = StreamFormat(lambda stream: stream.read_binary())
    keep_open = True

    def __init__(self, database: ExternalDatabase) -> None:
        assert database.url is not None
        self._database = database
        self._where = f"the external database {database.id}"
        self._conn = connect(
            database.url,
            base=database.base,
            what=self._where,
            application_name="stackctl sync",
            author=database.author,
            external=True,
        )
        postgres_inline.register_dumper(self._conn)
        self._checked: set[str] = set()
        self._created: set[str] = set()  # tables that were made here, and nobody has seen with rows
        self._has_records = False
        self.response_timer = ResponseTimer()
        if not self._conn.is_shared:
            # A statement of ours that was broken off ends there, too, and lets go of the cursor. Not every server can.
            with self._translate_errors(), suppress(psycopg.Error):
                self._execute(_SQL["notice_lost_client"])

    def _execute(
        self, query: QueryNoTemplate, parameters: dict[str, Any] | Sequence[Any] | None = None
    ) -> psycopg.Cursor[tuple[Any, ...]]:
        with self.response_timer():
            return self._conn.execute(query, parameters)

    def abort(self) -> None:
        # Only the socket: libpq's own functions may not be called from another thread.
        with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(self._conn.fileno())) as connection:
            connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        transaction = self._conn.transaction()
        with self.response_timer():
            transaction.__enter__()
        try:
            yield
        except BaseException as error:
            with self.response_timer():
                transaction.__exit__(type(error), error, error.__traceback__)
            raise
        with self.response_timer():
            transaction.__exit__(None, None, None)

    def prepare(self, tenancy: UUID, compiled: Sequence[Compiled], policy: ChangePolicy) -> TargetState:
        with self._translate_errors():
            state = self._read_state()
            if state.operated:
                raise StateError(
                    f"{self._where} holds the backend's own tables; syncing into the operated database is refused",
                    code="operated-database",
                    hint="name another database",
                )
            missing = [c for c in compiled if c.mapping.name not in self._checked]
            if missing or not self._checked:
                followed = self._create_missing(tenancy, missing, policy)
                state = replace(self._read_state(), followed=tuple(followed))
            check_owner(state.owner, tenancy, self._where)
            return state

    def _create_missing(self, tenancy: UUID, compiled: Sequence[Compiled], policy: ChangePolicy) -> list[str]:
        """Tables, cursors and owner commit together, or not at all; creation is serialised among engines."""
        with self._transaction():
            found = self._execute(_SQL["read_facts"]).fetchone()
            if not (found and all(found[1:]) and all(map(self._has_table, compiled))):
                self._execute(_SQL["lock_creation"])
                self._execute(_SQL["create_metadata"])
                self._execute(_SQL["create_owner"])
                self._execute(_SQL["create_places"])
                self._execute(_SQL["create_records"])
                created = [one for one in compiled if not self._has_table(one)]
                for one in created:
                    refuse_other_table(one, self.read_record(one), self._database, policy)
                    # A cursor left from a table that was dropped would leave the new one empty.
                    self._execute(_SQL["forget_cursor"], {"mapping": one.mapping.name})
                    self._execute(one.create_table)
                    self._execute(_SQL["add_cursor"], {"mapping": one.mapping.name})
                    self.write_record(one, make_record(one))
                # Consumers may read, never write. Who may read a table that was there is its owner's business.
                readable = ["_stack_sync_metadata", "_stack_sync_mapping", *(one.mapping.target for one in created)]
                self._execute(
                    sql.SQL("GRANT SELECT ON {} TO PUBLIC").format(sql.SQL(", ").join(map(sql.Identifier, readable)))
                )
                self._created.update(one.mapping.target for one in created)
            if self._fetch_value("read_owner") is None:
                self._execute(_SQL["claim_owner"], {"tenancy": tenancy})
            check_owner(self._fetch_value("read_owner"), tenancy, self._where)
            self._has_records = True
            followed: list[str] = []
            for one in compiled:
                followed += self._follow_mapping(one, policy)
                if one.mapping.name != policy.rebuild:
                    self._check_table(one)
        self._checked.update(one.mapping.name for one in compiled)
        return followed

    def _follow_mapping(self, compiled: Compiled, policy: ChangePolicy) -> Iterator[str]:
        """Make a copy of an older mapping one of this, as far as the policy says so; yields what was done."""
        # Nobody writes a batch meanwhile; and the record is read after whoever had the cursor before.
        row = self._execute(_SQL["lock_cursor"], {"mapping": compiled.mapping.name}).fetchone()
        columns = {name for name, *_ in self._execute(_SQL["read_columns"], {"table": compiled.mapping.target})}
        cursor = row[0] if row else None
        change = plan_change(compiled, self.read_record(compiled), cursor=cursor, columns=columns,
                             database=self._database, policy=policy)  # fmt: skip
        if change.statements:
            self._alter_table(compiled, change.statements)
        if cursor is not None and (
            compiled.mapping.name == policy.rebuild or any(c.startswith(BESIDE) for c in columns)
        ):
            work = TableRebuild(compiled, self.read_record(compiled), self._execute, self._where)
            work.add_columns() if compiled.mapping.name == policy.rebuild else work.drop_leftovers()
        if change.record is not None:
            self.write_record(compiled, change.record)
            if cursor is not None:
                self.advance_cursor(compiled, cursor)  # whoever has read ahead must see that somebody wrote
        if change.description is not None:
            yield change.description

    def _alter_table(self, compiled: Compiled, statements: Iterable[LiteralString]) -> None:
        try:
            self._execute(_SQL["hurry"])
            for statement in statements:
                self._execute(statement)
        except pg.LockNotAvailable as error:
            table = compiled.mapping.target
            raise StateError(
                f'{self._where}: the table "{table}" was held by a reader, and could not be given its new columns',
                code="table-in-use",
                hint="it is tried again; a transaction that stays open may be in the way (pg_stat_activity)",
            ) from error

    def _has_table(self, compiled: Compiled) -> bool:
        return self._execute(_SQL["read_columns"], {"table": compiled.mapping.target}).fetchone() is not None

    def _check_table(self, compiled: Compiled) -> None:
        mapping = compiled.mapping
        rows = self._execute(_SQL["read_columns"], {"table": mapping.target}).fetchall()

        def find_key_problem() -> str | None:
            key = {"table": mapping.target, "key": sorted(mapping.key)}
            if self._fetch_value("has_unique_index", key):
                return None
            return f"no unique index on ({', '.join(mapping.key)})"

        columns = {name: TableColumn(type_, required) for name, type_, required in rows}
        check_table(compiled, columns, self._where, to_canonical_type=to_postgres_type,
                    find_key_problem=find_key_problem)  # fmt: skip

    def read_state(self, compiled: Sequence[Compiled] = ()) -> TargetState:
        with self._translate_errors():
            state = self._read_state()
            unloaded = [one for one in compiled if one.mapping.name not in state.cursors]
            if not unloaded:
                return state
            asked = {"tables": [one.mapping.target for one in unloaded]}
            readable = {name for (name,) in self._execute(_SQL["list_readable_tables"], asked)}
            found = [one for one in unloaded if one.mapping.target in readable]
            return add_foreign_tables(state, found, self._has_rows, self._database, self._where)

    def _read_state(self) -> TargetState:
        found = self._execute(_SQL["read_facts"]).fetchone()
        assert found is not None
        operated, has_cursors, has_owner, has_places, self._has_records = found
        with self.response_timer(), self._conn.pipeline():
            owners = self._conn.execute(_SQL["read_owner"]) if has_owner else None
            cursors = self._conn.execute(_SQL["list_cursors"]) if has_cursors else None
            places = self._conn.execute(_SQL["list_places"]) if has_places else None
            records = self._conn.execute(_SQL["list_records"]) if self._has_records else None
            owner = owners.fetchone() if owners is not None else None
            rows = cursors.fetchall() if cursors is not None else []
            copies = records.fetchall() if records is not None else []
        return TargetState(
            owner[0] if owner else None,
            {name: Cursor(sequence_id, updated_at) for name, sequence_id, updated_at in rows},
            operated,
            dict(places.fetchall()) if places is not None else {},
            {name: CopyRecord(*record) for name, *record in copies},
        )

    @contextmanager
    def lock_cursor(self, compiled: Compiled, *, adopt: bool = False, rebuild: bool = False) -> Iterator[int]:
        with self._translate_errors(compiled), self._transaction():
            mapping = {"mapping": compiled.mapping.name}
            with self.response_timer(), self._conn.pipeline():
                locked = self._conn.execute(_SQL["lock_cursor"], mapping)
                # A statement of its own: it sees what was committed while the first one waited.
                records = self._conn.execute(_SQL["read_record"], mapping) if self._has_records else None
                row = locked.fetchone()
                record = records.fetchone() if records is not None else None
            if record is not None and not rebuild:
                check_fingerprint(compiled, record[0], self._database, prepared=compiled.mapping.name in self._checked)
            if row is None:
                added = self._execute(_SQL["add_cursor"], mapping).rowcount
                if added and not adopt and self._has_rows(compiled):
                    raise not_ours_error(compiled, self._database, self._where)
                row = self._execute(_SQL["lock_cursor"], mapping).fetchone()
            yield row[0] if row else NEVER_SYNCED

    def apply_batch(
        self, compiled: Compiled, batch: Rows, on_read: Callable[[int, int], None] | None = None
    ) -> AppliedBatch:
        with self._translate_errors(compiled):
            pieces = batch.read_binary()
            begun, size = deque[bytes](), 0
            for piece in pieces:
                begun.append(piece)
                size += len(piece)
                del piece
                if size > MAX_BYTES:
                    break
            else:
                inline = InlineBatch.from_copy_stream(b"".join(begun))
                if inline is not None:
                    return self._apply_inline(compiled, inline, on_read)
            self._execute(compiled.create_staging)
            rows = self._copy_in(
                compiled, chain(_drain(begun), pieces), compiled.staging, ["_stack_sequence_id", "_stack_deleted"]
            )
            found = self._execute(
                sql.SQL("SELECT max(_stack_sequence_id), count(*) FILTER (WHERE _stack_deleted) FROM {}").format(
                    sql.Identifier(compiled.staging)
                )
            ).fetchone()
            highest, gone = found or (0, 0)
            if on_read is not None:
                on_read(rows, highest)
            upserted, deleted = self._merge(compiled, rows - gone, gone, self._execute)
        return AppliedBatch(rows, upserted, deleted, highest)

    def _apply_inline(
        self, compiled: Compiled, inline: InlineBatch, on_read: Callable[[int, int], None] | None
    ) -> AppliedBatch:
        if not inline.rows:
            return AppliedBatch(0, 0, 0)
        if on_read is not None:
            on_read(inline.rows, inline.highest)
        gone, values = inline.deleted, inline.to_values(compiled)

        def execute(statement: LiteralString) -> psycopg.Cursor[tuple[Any, ...]]:
            return self._execute(postgres_inline.to_statement(compiled, statement), values)

        upserted, deleted = self._merge(compiled, inline.rows - gone, gone, execute)
        return AppliedBatch(inline.rows, upserted, deleted, inline.highest)

    def _merge(
        self,
        compiled: Compiled,
        found: int,
        gone: int,
        execute: Callable[[LiteralString], psycopg.Cursor[tuple[Any, ...]]],
    ) -> tuple[int, int]:
        """Upsert and delete what is staged: how many rows that were. Raises AnswerNo when some are swallowed.

        Fewer may be deleted than were sent, for a row that was never there.
        """
        upserted = execute(compiled.upsert).rowcount if found else 0
        deleted = execute(compiled.delete).rowcount if gone else 0
        if upserted != found or deleted != gone:
            keys = execute(
                cast("LiteralString", f"{compose_unwritten(compiled.mapping)} LIMIT {SHOWN_KEYS}")
            ).fetchall()
            if keys or upserted != found:
                raise swallowed_error(compiled, self._where, keys)
        return upserted, deleted

    def _copy_in(self, compiled: Compiled, pieces: Iterable[bytes], table: str, extra: Sequence[str]) -> int:
        columns = [*extra, *(column.name for column in compiled.mapping.columns)]
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
            sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with self._conn.cursor() as cursor, self.response_timer() as waiting:
            with cursor.copy(query) as copy:
                for chunk in pieces:
                    waiting.start()
                    copy.write(chunk)
                    del chunk
                    # The next piece is the source's to bring.
                    waiting.stop()
                waiting.start()
            return cursor.rowcount

    def replace_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        """An empty table that writes what it is given takes the stream straight.

        Readers see the old rows until the commit.
        """
        mapping = compiled.mapping
        table = sql.Identifier(mapping.target)
        with self._translate_errors(compiled), self.response_timer.allow_long_waits():
            if self.is_empty(compiled):
                key = self._take_key_off(mapping)
                applied = self.append_rows(compiled, rows)
                if key is not None:
                    self._put_key_back(mapping, key)
                return applied
            self._execute(compiled.create_staging)
            loaded = self._copy_in(compiled, rows.read_binary(), compiled.staging, [])
            # First: a unique index of the consumer's may hold what a new row brings.
            deleted = self._execute(compose_prune(mapping)).rowcount
            upserted, _ = self._merge(compiled, loaded, 0, self._execute)
            count = self._execute(sql.SQL("SELECT count(*) FROM {}").format(table)).fetchone()
            if count != (loaded,):
                kept = compose_prune(mapping, f"SELECT {_key_names(mapping)}") + f" LIMIT {SHOWN_KEYS}"
                raise swallowed_error(compiled, self._where, self._execute(cast("LiteralString", kept)).fetchall())
        return AppliedBatch(loaded, upserted, deleted)

    def _take_key_off(self, mapping: Mapping) -> str | None:
        """The name of the key that the table lacks from now on, to be put back; None: it keeps its key.

        Keys that come in no order cost more than half of a COPY, and are sorted at once afterwards. Readers have to
        wait until the commit: only a table that was just made, and is in nobody's use, is left without.
        """
        if mapping.target not in self._created:
            return None
        self._created.discard(mapping.target)
        table = sql.Identifier(mapping.target)
        try:
            with self._transaction():  # within that of the load: what fails here is as if it had not been tried
                self._execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(table))
                if self._fetch_value("may_lose_rows", {"table": mapping.target}):
                    return None
                key = self._fetch_value("find_plain_key", {"table": mapping.target})
                if key is not None:
                    self._execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(key)))
                return key
        except (pg.LockNotAvailable, pg.DependentObjectsStillExist, pg.InsufficientPrivilege):
            return None

    def _put_key_back(self, mapping: Mapping, key: str) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, mapping.key))
        statement = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY ({})")
        self._execute(statement.format(sql.Identifier(mapping.target), sql.Identifier(key), columns))

    def append_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        with self._translate_errors(compiled), self.response_timer.allow_long_waits():
            if not self._fetch_value("may_lose_rows", {"table": compiled.mapping.target}):
                loaded = self._copy_in(compiled, rows.read_binary(), compiled.mapping.target, [])
            else:
                self._execute(compiled.create_staging)
                loaded = self._copy_in(compiled, rows.read_binary(), compiled.staging, [])
                self._merge(compiled, loaded, 0, self._execute)
        return AppliedBatch(loaded, loaded, 0)

    def is_empty(self, compiled: Compiled) -> bool:
        return not self._has_rows(compiled)

    def rebuild_table(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        """See postgres_rebuild.py; `prepare` has added the new columns."""
        mapping = compiled.mapping
        work = TableRebuild(compiled, self.read_record(compiled), self._execute, self._where)
        with self._translate_errors(compiled), self.response_timer.allow_long_waits():
            shape = work.read_shape()
            self._execute(compiled.create_staging)
            loaded = self._copy_in(compiled, rows.read_binary(), compiled.staging, [])
            if shape.quiet:
                self._write_staged(mapping, shape)
            work.exchange(
                shape, None if shape.quiet else lambda: self._write_staged(mapping, replace(shape, beside={}))
            )
            self._check_table(compiled)
            count = self._execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(mapping.target))).fetchone()
            if count != (loaded,):
                raise swallowed_error(compiled, self._where, [])
        return AppliedBatch(loaded, loaded, 0)

    def _write_staged(self, mapping: Mapping, shape: TableShape) -> None:
        """Everything that is staged, and nothing else, into the table on its way to another shape."""
        if not shape.same_key:
            self._execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(mapping.target)))
            self._execute(compose_exchange_upsert(mapping, {}))
            return
        self._execute(compose_prune(mapping))
        self._execute(
            compose_exchange_upsert(mapping, {column.name: shape.get_name(column.name) for column in mapping.columns})
        )

    def _has_rows(self, compiled: Compiled) -> bool:
        query = sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(compiled.mapping.target))
        return self._execute(query).fetchone() is not None

    def advance_cursor(self, compiled: Compiled, cursor: int) -> None:
        with self._translate_errors(compiled):
            self._execute(_SQL["advance_cursor"], {"mapping": compiled.mapping.name, "cursor": cursor})

    def record_place(self, compiled: Compiled, identity: str) -> None:
        with self._translate_errors(compiled):
            self._execute(_SQL["record_place"], {"mapping": compiled.mapping.name, "identity": identity})

    def read_record(self, compiled: Compiled) -> CopyRecord | None:
        with self._translate_errors(compiled):
            row = self._execute(_SQL["read_record"], {"mapping": compiled.mapping.name}).fetchone()
        return CopyRecord(*row) if row else None

    def write_record(self, compiled: Compiled, record: CopyRecord) -> None:
        with self._translate_errors(compiled):
            self._execute(_SQL["write_record"], {"mapping": compiled.mapping.name, **asdict(record)})

    def read_cursor_version(self, compiled: Compiled) -> str:
        with self._translate_errors(compiled):
            return self._fetch_value("read_cursor_version", {"mapping": compiled.mapping.name})

    def sum_hashes(self, compiled: Compiled) -> Sums:
        with self._translate_errors(compiled), self.response_timer.allow_long_waits():
            rows = self._execute(compile_table_checksums(compiled.mapping).sums)
            return {bucket: (count, int(total)) for bucket, count, total in rows}

    def read_hashes(self, compiled: Compiled, wanted: Collection[int]) -> list[tuple[Any, ...]]:
        with self._translate_errors(compiled), self.response_timer.allow_long_waits():
            return self._execute(compile_table_checksums(compiled.mapping).hashes, {"wanted": list(wanted)}).fetchall()

    def read_hashes_by_key(self, compiled: Compiled, keys: Collection[Key]) -> list[tuple[Any, ...]]:
        with self._translate_errors(compiled), self.response_timer.allow_long_waits():
            return self._execute(
                compile_table_checksums(compiled.mapping).by_key, {"keys": Jsonb(list(keys))}
            ).fetchall()

    def close(self) -> None:
        self._conn.close()

    def _fetch_value(self, name: str, parameters: dict[str, Any] | None = None) -> Any:
        row = self._execute(_SQL[name], parameters).fetchone()
        return row[0] if row else None

    @contextmanager
    def _translate_errors(self, compiled: Compiled | None = None) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._to_stackctl_error(error, compiled) from error

    def _to_stackctl_error(self, error: psycopg.Error, compiled: Compiled | None) -> StackctlError:
        if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.DatatypeMismatch) and compiled is not None:
            reason = to_one_line(error.diag.message_primary or str(error))
            return StateError(
                f'{self._where}: the table "{compiled.mapping.target}" was changed: {reason}',
                code="table-differs",
                hint=RESTORE,
            )
        if compiled is not None:
            if isinstance(error, pg.CardinalityViolation) or _is_duplicate_of_key(error, compiled.mapping):
                return two_rows_error(compiled)
            if (error.sqlstate or "").startswith(_REJECTIONS):
                return AnswerNo(
                    f"{self._where}: {to_one_line(error.diag.message_primary or str(error))}",
                    code="row-refused",
                    details={"sqlstate": error.sqlstate},
                )
        return translate_error(error, self._where, external=True)


def _drain(pieces: deque[bytes]) -> Iterator[bytes]:
    while pieces:
        yield pieces.popleft()


def _key_names(mapping: Mapping) -> str:
    return ", ".join(quote(name) for name in mapping.key)


def _is_duplicate_of_key(error: psycopg.Error, mapping: Mapping) -> bool:
    """By the columns that the server names: an index on the key may be called anything."""
    found = _DUPLICATE.search(error.diag.message_detail or "") if isinstance(error, pg.UniqueViolation) else None
    return found is not None and {name.strip('"') for name in found[1].split(", ")} == set(mapping.key)
