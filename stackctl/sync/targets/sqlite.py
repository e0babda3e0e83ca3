"""A SQLite file as an external database: one write transaction a batch, rows and cursor together."""

# ruff: noqa: S608 - SQLite has no composer of names: they are quoted here, values are parameters.

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from functools import partial
from math import isnan
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import AnswerNo, ServiceError, StackctlError, StateError
from stackctl.core.files import identify_file, is_writable, make_private_file
from stackctl.mapping.checksums import Hasher
from stackctl.mapping.sql_text import quote
from stackctl.mapping.target_statements import compose_prune
from stackctl.sync.targets.file_rebuild import FileTable, rebuild_file_table
from stackctl.sync.targets.file_target import FileTarget
from stackctl.sync.targets.protocol import (
    RESTORE,
    SHOWN_KEYS,
    AppliedBatch,
    StreamFormat,
    TargetState,
    swallowed_error,
    two_rows_error,
)
from stackctl.sync.targets.table_check import TableColumn, check_table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Mapping
    from stackctl.sync.targets.mapping_changes import ChangePolicy
    from stackctl.sync.targets.protocol import Rows

BUSY_TIMEOUT = 30.0  # seconds to wait for another engine's transaction
CHUNK = 5000  # rows in memory at a time; some are large
PAGE_SIZE = 8192  # bytes, of a new file: rows of a few hundred bytes take a fifth less work than in pages of 4096
CACHE = 64 * 1024  # KiB of pages kept in memory while rows are written: keys come in no order
WIDE = 1024 * 1024  # characters of a value of which no copies are kept
KEPT_LOG = 64 * 1024 * 1024  # bytes of the `-wal` file kept for the next batches

_METADATA = """
CREATE TABLE IF NOT EXISTS _stack_sync_metadata (
    mapping_name TEXT PRIMARY KEY,
    last_synced_sequence_id INTEGER NOT NULL DEFAULT -1,
    updated_at TEXT NOT NULL
) WITHOUT ROWID
"""
_OWNER = """
CREATE TABLE IF NOT EXISTS _stack_sync_owner (
    singleton INTEGER PRIMARY KEY DEFAULT 1 CHECK (singleton = 1),
    tenancy_id TEXT NOT NULL
)
"""
_DECLARED = "SELECT name, type, dflt_value FROM pragma_table_info(?)"
_ATTACHED = """
SELECT type || ' ' || name, sql FROM sqlite_schema
WHERE tbl_name = ? AND type IN ('index', 'trigger') AND sql IS NOT NULL
"""


class SqliteTarget(FileTarget):
    """See target.Target. The file and its folder's `-wal` and `-shm` files belong together."""

    dialect: Dialect = "sqlite"
    stream_format = StreamFormat(lambda stream: stream.read_chunks(CHUNK))
    keep_open = True
    CREATE_OWN_TABLES = (_METADATA, _OWNER)
    HAS_TABLE = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?"
    COLUMNS = 'SELECT name, type, "notnull" AND dflt_value IS NULL, pk FROM pragma_table_info(?)'

    def __init__(self, database: ExternalDatabase, busy_timeout: float | None = None) -> None:
        super().__init__(database)
        self._read_only = self._unchanging = False
        try:
            make_private_file(self._path)  # SQLite gives the files beside it the same rights
        except PermissionError as error:
            raise ServiceError(
                f"{self._where}: {error.strerror}", code="permission-denied", hint="keep it in a folder of your own"
            ) from error
        try:
            self._conn = sqlite3.connect(
                self._address(),
                uri=True,
                timeout=busy_timeout or BUSY_TIMEOUT,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=0,
            )
        except sqlite3.Error as error:
            raise self._to_stackctl_error(error) from error
        self._file = self._identify_file()

    def _address(self) -> Path | str:
        """The file as SQLite is told of it. One that can't be written is read, beside those who write it.

        They all share what lies beside it. Where nobody can have made that, nothing is in it, and a file in a folder
        that can't be written is read as it stands.
        """
        beside = {end: self._path.with_name(self._path.name + end) for end in ("-wal", "-shm")}
        alone = not is_writable(self._path.parent) and not beside["-shm"].exists()
        if is_writable(self._path) and not alone:
            return self._path
        self._read_only = True
        self._unchanging = alone and not (beside["-wal"].exists() and beside["-wal"].stat().st_size)
        return f"{self._path.absolute().as_uri()}?mode=ro{'&immutable=1' if self._unchanging else ''}"

    def _identify_file(self) -> tuple[int, ...] | None:
        found = identify_file(self._path)
        if found is None or not self._unchanging:
            return found
        stat = self._path.stat()
        return (*found, stat.st_size, stat.st_mtime_ns)

    def prepare(self, tenancy: UUID, compiled: Sequence[Compiled], policy: ChangePolicy) -> TargetState:
        self._refuse_replaced_file()
        if not self._checked:
            with self._translate_errors():
                # With WAL, readers see the last commit while a batch is written. A commit that a power cut takes
                # back takes its cursor along: the batch is sent again.
                self._conn.execute("PRAGMA synchronous = NORMAL")
                self._conn.execute(f"PRAGMA page_size = {PAGE_SIZE}")
                self._conn.execute("PRAGMA journal_mode = WAL")
                self._conn.execute(f"PRAGMA journal_size_limit = {KEPT_LOG}")
                self._conn.execute(f"PRAGMA cache_size = -{CACHE}")
        return super().prepare(tenancy, compiled, policy)

    def _execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        return self._conn.execute(statement, parameters)

    def _check_table(self, compiled: Compiled) -> None:
        rows = self._execute(self.COLUMNS, compiled.mapping.target).fetchall()
        columns = {name: TableColumn(type_, bool(required)) for name, type_, required, _ in rows}
        key = compiled.mapping.key

        def find_key_problem() -> str | None:
            found = {name for name, _, _, position in rows if position}
            return None if found == set(key) else f"the primary key is not ({', '.join(key)})"

        check_table(compiled, columns, self._where, to_canonical_type=str.upper, find_key_problem=find_key_problem)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE takes the write lock at once: whoever comes second waits here, before reading the source.
        with self.response_timer():
            # Who can't write reads one state until the end.
            self._conn.execute("BEGIN" if self._read_only else "BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
            raise
        self._conn.execute("COMMIT")
        # An idle connection keeps no pages.
        self._conn.execute("PRAGMA shrink_memory")

    def apply_batch(
        self, compiled: Compiled, batch: Rows, on_read: Callable[[int, int], None] | None = None
    ) -> AppliedBatch:
        names = [column.name for column in compiled.mapping.columns]
        # Each row: sequence id, whether it is gone, then the mapping's columns.
        keys = [2 + names.index(name) for name in compiled.mapping.key]
        rows = upserted = deleted = highest = 0
        seen: set[tuple[Any, ...]] = set()
        with self._translate_errors():
            for chunk in batch.read_chunks(CHUNK):
                found = [row[2:] for row in chunk if not row[1]]
                gone = [tuple(row[i] for i in keys) for row in chunk if row[1]]
                seen.update(tuple(row[i] for i in keys) for row in chunk)
                rows += len(chunk)
                if len(seen) != rows:
                    raise two_rows_error(compiled)
                highest = max(highest, *(row[0] for row in chunk))
                chunk.clear()
                _reject_nan(compiled.mapping, found)
                upserted += self._upsert(compiled, found)
                deleted += self._delete(compiled, gone)
            if on_read is not None and rows:
                on_read(rows, highest)
        return AppliedBatch(rows, upserted, deleted, highest)

    def _upsert(self, compiled: Compiled, rows: list[tuple[Any, ...]]) -> int:
        """How many rows were written: all of them. Uses up `rows`, of which only the last one may be wide."""
        keys = [compiled.mapping.columns.index(column) for column in compiled.mapping.key_columns]
        wide = [rows.pop()] if rows and _is_wide(rows[-1]) else []
        rows.sort(key=itemgetter(*keys))  # neighbours in the index come together
        written = self._conn.executemany(compiled.upsert, rows).rowcount if rows else 0
        if written != len(rows):
            # The transaction is given up: it may be found out by trying.
            lost = [row for row in rows if self._conn.execute(compiled.upsert, row).rowcount == 0]
            raise swallowed_error(compiled, self._where, [[row[i] for i in keys] for row in lost[:SHOWN_KEYS]])
        if wide:
            key = [wide[0][i] for i in keys]
            handed = [_HandedOver(value) if isinstance(value, str) else value for value in wide.pop()]
            if self._conn.execute(compiled.upsert, handed).rowcount == 0:
                raise swallowed_error(compiled, self._where, [key])
            written += 1
        return written

    def _delete(self, compiled: Compiled, keys: Sequence[tuple[Any, ...]]) -> int:
        deleted = self._conn.executemany(compiled.delete, keys).rowcount if keys else 0
        if deleted != len(keys):  # some were never there
            one = f"SELECT 1 FROM {quote(compiled.mapping.target)} WHERE {_where_key(compiled.mapping)}"
            if left := [key for key in keys if self._fetch_value(one, *key) is not None]:
                raise swallowed_error(compiled, self._where, left[:SHOWN_KEYS])
        return deleted

    def replace_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        """Readers see the old rows until the commit. Of a table that is not empty the staging table takes the keys."""
        mapping, loaded, deleted = compiled.mapping, 0, 0
        keys = [mapping.columns.index(column) for column in mapping.key_columns]
        stage = f"INSERT INTO {quote(compiled.staging)} VALUES ({', '.join('?' for _ in keys)}) ON CONFLICT DO NOTHING"
        with self._translate_errors():
            merging = self._has_rows(compiled)
            if merging:
                self._conn.execute(compiled.create_staging)
            for chunk in rows.read_chunks(CHUNK):
                _reject_nan(mapping, chunk)
                if merging:
                    self._conn.executemany(stage, ([row[i] for i in keys] for row in chunk))
                loaded += self._upsert(compiled, chunk)
            if merging:
                deleted = self._conn.execute(compose_prune(mapping)).rowcount
                kept = compose_prune(mapping, f"SELECT {', '.join(map(quote, mapping.key))}")
                if left := self._conn.execute(f"{kept} LIMIT {SHOWN_KEYS}").fetchall():
                    raise swallowed_error(compiled, self._where, left)
                self._conn.execute(f"DROP TABLE {quote(compiled.staging)}")
            if self._fetch_value(f"SELECT count(*) FROM {quote(mapping.target)}") != loaded:
                raise two_rows_error(compiled)
        return AppliedBatch(loaded, loaded, deleted)

    def rebuild_table(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        target = compiled.mapping.target
        table = FileTable(
            [(name, type_, default) for name, type_, default in self._conn.execute(_DECLARED, (target,))],
            self._conn.execute(_ATTACHED, (target,)).fetchall(),
            [name for (name,) in self._conn.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")],
        )
        with self._translate_errors():
            # Views and foreign keys go by the table's name, and are to stay so.
            self._conn.execute("PRAGMA legacy_alter_table = ON")
            return rebuild_file_table(
                compiled, table, self.read_record(compiled), execute=self._conn.execute,
                fill=lambda beside: self.replace_rows(beside, rows), error=sqlite3.Error, where=self._where,
            )  # fmt: skip

    def append_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        """Rows that are there are written over."""
        loaded = 0
        keys = [compiled.mapping.columns.index(column) for column in compiled.mapping.key_columns]
        seen: set[tuple[Any, ...]] = set()
        with self._translate_errors():
            for chunk in rows.read_chunks(CHUNK):
                _reject_nan(compiled.mapping, chunk)
                seen.update(tuple(row[i] for i in keys) for row in chunk)
                loaded += self._upsert(compiled, chunk)
        if len(seen) != loaded:
            raise two_rows_error(compiled)
        return AppliedBatch(loaded, loaded, 0)

    def read_cursor_version(self, compiled: Compiled) -> str:
        """SQLite counts the commits of other connections; our own are counted here."""
        with self._translate_errors():
            return f"{self._fetch_value('PRAGMA data_version')} {self._written}"

    def abort(self) -> None:
        self._conn.interrupt()

    def sum_hashes(self, compiled: Compiled) -> Sums:
        with self._translate_errors():
            return Hasher(compiled.mapping).sums(self._conn.execute(_compose_select(compiled.mapping)))

    def read_hashes(self, compiled: Compiled, wanted: Collection[int]) -> list[tuple[Any, ...]]:
        with self._translate_errors():
            return Hasher(compiled.mapping).hashes(self._conn.execute(_compose_select(compiled.mapping)), set(wanted))

    def read_hashes_by_key(self, compiled: Compiled, keys: Collection[Key]) -> list[tuple[Any, ...]]:
        hasher = Hasher(compiled.mapping)
        one = f"{_compose_select(compiled.mapping)} WHERE {_where_key(compiled.mapping)}"
        with self._translate_errors():
            return [(*key, hasher.hash(row)) for key in keys for row in self._conn.execute(one, key)]

    def close(self) -> None:
        self._conn.close()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._to_stackctl_error(error) from error

    def _to_stackctl_error(self, error: sqlite3.Error) -> StackctlError:
        reason = str(error)
        if "locked" in reason or "busy" in reason:
            return StateError(
                f"{self._where} is locked by another program: {reason}",
                code="lock-timeout",
                hint="end the transaction that holds it open",
            )
        if "no such table" in reason or "no column" in reason or "no such column" in reason:
            return StateError(f"{self._where} was changed: {reason}", code="table-differs", hint=RESTORE)
        if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
            return AnswerNo(f"{self._where}: {reason}", code="row-refused")
        service = partial(ServiceError, f"{self._where}: {reason}")
        if any(text in reason for text in _EXHAUSTED):
            return service(code="out-of-resources", hint="free space on its disk, or make the file writable")
        if "interrupted" in reason:
            return service(code="connection-lost", hint="try again; work that was not committed is redone")
        return service(code="unreachable", hint="check the path and its permissions")


_EXHAUSTED = ("is full", "disk I/O error", "readonly")


class _HandedOver:
    """A text that SQLite copies when it is bound: nobody else keeps it while the row is written."""

    def __init__(self, text: str) -> None:
        self._held = [text]

    def __conform__(self, protocol: object) -> str:
        return self._held.pop()


def _is_wide(row: Sequence[object]) -> bool:
    return any(isinstance(value, str) and len(value) > WIDE for value in row)


def _reject_nan(mapping: Mapping, rows: Sequence[tuple[Any, ...]]) -> None:
    """SQLite would keep null for it."""
    width = len(mapping.columns)
    for position, column in enumerate(mapping.columns):
        if column.type == "double":
            for row in rows:
                value = row[position - width]
                if value is not None and isnan(value):
                    raise AnswerNo(f"the column {column.name} is NaN, which SQLite does not keep", code="row-refused")


def _compose_select(mapping: Mapping) -> str:
    return f"SELECT {', '.join(quote(column.name) for column in mapping.columns)} FROM {quote(mapping.target)}"


def _where_key(mapping: Mapping) -> str:
    return " AND ".join(f"{quote(name)} = ?" for name in mapping.key)
