"""A DuckDB file as an external database: CSV through a pipe, then one delete and one insert a batch.

DuckDB lets one process write, or several read. So the file is opened when it is first needed, and should be closed as
soon as nothing is left to send: `keep_open` is false.
"""

# ruff: noqa: S608 - DuckDB has no composer of names: they are quoted here, values are parameters.

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import AnswerNo, ConfigError, ServiceError, StackctlError, StateError
from stackctl.core.files import identify_file, is_writable, private_umask
from stackctl.mapping.checksums import Hasher
from stackctl.mapping.sql_text import quote
from stackctl.mapping.target_statements import TYPES, compose_prune
from stackctl.sync.targets import duckdb_csv
from stackctl.sync.targets.file_rebuild import FileTable, rebuild_file_table
from stackctl.sync.targets.file_target import FileTarget
from stackctl.sync.targets.protocol import (
    CSV,
    RESTORE,
    AppliedBatch,
    StreamFormat,
    TargetState,
    two_rows_error,
)
from stackctl.sync.targets.table_check import TableColumn, check_table

try:
    import duckdb
except ImportError as error:
    raise ConfigError(
        "an external database of type duckdb needs the package duckdb",
        code="missing-extra",
        hint="pip install 'stackctl[duckdb]'",
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Column, Mapping
    from stackctl.sync.targets.protocol import Rows

BUSY_TIMEOUT = 30.0  # seconds to wait until another thread or process has closed the file
BUSY_POLL = 0.05  # seconds
WINDOW = 16 * 1024  # rows that are read by one statement
FETCHED = 100  # of these, rows that are fetched at a time
FEW = 20  # keys whose rows are looked up one by one

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "192MB",  # it spills to the disk beyond that
    "threads": 2,
    "preserve_insertion_order": False,
    # Nothing is downloaded behind the operator's back.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_METADATA = """
CREATE TABLE IF NOT EXISTS _stack_sync_metadata (
    mapping_name VARCHAR PRIMARY KEY,
    last_synced_sequence_id BIGINT NOT NULL DEFAULT -1,
    updated_at TIMESTAMP NOT NULL
)
"""
_OWNER = """
CREATE TABLE IF NOT EXISTS _stack_sync_owner (
    singleton INTEGER PRIMARY KEY DEFAULT 1 CHECK (singleton = 1),
    tenancy_id UUID NOT NULL
)
"""
_KEY = """
SELECT constraint_column_names FROM duckdb_constraints()
WHERE schema_name = 'main' AND table_name = ? AND constraint_type = 'PRIMARY KEY'
"""
_DECLARED = """
SELECT column_name, data_type, column_default FROM duckdb_columns() WHERE schema_name = 'main' AND table_name = ?
"""
_ATTACHED = "SELECT 'index ' || index_name, sql FROM duckdb_indexes() WHERE schema_name = 'main' AND table_name = ?"
_VIEWS = "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal AND NOT temporary"
_STAGED = {"_stack_sequence_id": "BIGINT", "_stack_deleted": "BOOLEAN"}

_open_here: dict[str, threading.Lock] = {}  # by path: within a process DuckDB would share one database


class DuckdbTarget(FileTarget):
    """See target.Target. The file and its `.wal` beside it belong together."""

    dialect: Dialect = "duckdb"
    stream_format = StreamFormat(lambda stream: stream.read_csv(), CSV)
    keep_open = False
    CREATE_OWN_TABLES = (_METADATA, _OWNER)
    HAS_TABLE = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'main' AND NOT temporary AND table_name = ?"
    COLUMNS = (
        "SELECT column_name, data_type, NOT is_nullable AND column_default IS NULL FROM duckdb_columns()"
        " WHERE schema_name = 'main' AND table_name = ?"
    )

    def __init__(self, database: ExternalDatabase, busy_timeout: float | None = None) -> None:
        super().__init__(database)
        self._busy_timeout = busy_timeout or BUSY_TIMEOUT
        self._opened: duckdb.DuckDBPyConnection | None = None
        self._here = _open_here.setdefault(str(self._path.resolve()), threading.Lock())
        self._wide: set[str] = set()  # mappings of whose rows DuckDB can't hold many at once
        # DuckDB makes its `.wal` and what it spills whenever it needs them.
        self._private = ExitStack()

    @property
    def _conn(self) -> duckdb.DuckDBPyConnection:
        """Open from the first use to `close`; nobody else can write meanwhile. What can't be written is only read."""
        if self._opened is None:
            self._opened = self._open(read_only=not is_writable(self._path))
            self._file = identify_file(self._path)
        return self._opened

    def _open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + self._busy_timeout
        with self.response_timer():
            if not self._here.acquire(timeout=self._busy_timeout):
                raise self._locked_error("another worker of this process has it open")
            try:
                if not read_only:
                    self._private.enter_context(private_umask())
                while True:
                    try:
                        opened = duckdb.connect(str(self._path), read_only=read_only, config=_SETTINGS)
                        # It would go to the standard output.
                        return opened.execute("SET enable_progress_bar = false")
                    except duckdb.Error as error:
                        translated = self._to_stackctl_error(error)
                        if translated.code != "lock-timeout" or time.monotonic() >= deadline:
                            raise translated from error
                    time.sleep(BUSY_POLL)
            except BaseException:
                self._private.close()
                self._here.release()
                raise

    def close(self) -> None:
        if self._opened is not None:
            opened, self._opened = self._opened, None
            try:
                with suppress(duckdb.Error):  # what was committed is safe in the `.wal`
                    opened.close()
            finally:
                self._private.close()
                self._here.release()

    def abort(self) -> None:
        if (opened := self._opened) is not None:
            opened.interrupt()

    def _check_table(self, compiled: Compiled) -> None:
        mapping = compiled.mapping
        rows = self._execute(self.COLUMNS, mapping.target).fetchall()

        def find_key_problem() -> str | None:
            found = set(self._fetch_value(_KEY, mapping.target) or ())
            return None if found == set(mapping.key) else f"the primary key is not ({', '.join(mapping.key)})"

        columns = {name: TableColumn(type_, required) for name, type_, required in rows}
        check_table(compiled, columns, self._where, to_canonical_type=_to_canonical_type,
                    find_key_problem=find_key_problem)  # fmt: skip

    def read_state(self, compiled: Sequence[Compiled] = ()) -> TargetState:
        if self._opened is not None:
            return super().read_state(compiled)
        if not self._path.exists():
            return TargetState(None, {})
        # Beside programs that only read, too.
        self._opened = self._open(read_only=True)
        try:
            return super().read_state(compiled)
        finally:
            self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN")
        try:
            yield
        except BaseException:
            with suppress(duckdb.Error):  # after some errors it is over already
                self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    def apply_batch(
        self, compiled: Compiled, batch: Rows, on_read: Callable[[int, int], None] | None = None
    ) -> AppliedBatch:
        with self._translate_errors():
            rows, highest, gone = self._stage(compiled, batch, _STAGED)
            if rows == 0:
                return AppliedBatch(0, 0, 0)
            if on_read is not None:
                on_read(rows, highest)
            upserted = self._execute_counted(compiled.upsert) if gone < rows else 0
            deleted = self._execute_counted(compiled.delete) if gone else 0
        return AppliedBatch(rows, upserted, deleted, highest)

    def replace_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        with self._translate_errors(), self.response_timer.allow_long_waits():
            if self.is_empty(compiled):
                return self.append_rows(compiled, rows)
            loaded, _, _ = self._stage(compiled, rows, {})
            deleted = self._execute_counted(compose_prune(compiled.mapping))
            upserted = self._execute_counted(compiled.upsert)
            self._execute(f"DROP TABLE {quote(compiled.staging)}")
        return AppliedBatch(loaded, upserted, deleted)

    def rebuild_table(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        target = compiled.mapping.target
        with self._translate_errors():
            table = FileTable(
                self._execute(_DECLARED, target).fetchall(),
                self._execute(_ATTACHED, target).fetchall(),
                [name for (name,) in self._execute(_VIEWS).fetchall()],
            )
            return rebuild_file_table(
                compiled, table, self.read_record(compiled), execute=self._execute,
                fill=lambda beside: self.replace_rows(beside, rows), error=duckdb.Error, where=self._where,
            )  # fmt: skip

    def append_rows(self, compiled: Compiled, rows: Rows) -> AppliedBatch:
        with self._translate_errors(), self.response_timer.allow_long_waits():
            loaded = self._insert(quote(compiled.mapping.target), compiled.mapping.columns, rows, {})
        return AppliedBatch(loaded, loaded, 0)

    def _stage(self, compiled: Compiled, rows: Rows, extra: dict[str, str]) -> tuple[int, int, int]:
        """Fill the staging table; how many rows there are, their highest sequence id, and how many were deleted."""
        staging, keys = quote(compiled.staging), ", ".join(quote(name) for name in compiled.mapping.key)
        self._execute(compiled.create_staging)
        self._insert(staging, compiled.mapping.columns, rows, extra)
        count, distinct, highest, gone = self._execute(
            f"SELECT count(*), count(DISTINCT ({keys})), coalesce(max(_stack_sequence_id), 0),"
            f" count(*) FILTER (_stack_deleted) FROM {staging}"
        ).fetchall()[0]
        if count != distinct:
            raise two_rows_error(compiled)
        return count, highest, gone

    def _insert(self, table: str, columns: Sequence[Column], rows: Rows, extra: dict[str, str]) -> int:
        """Insert a stream; `extra` are the columns before the mapping's, and their types."""
        inserted = 0
        for largest, part in duckdb_csv.split_stream(rows.read_csv()):
            if largest > duckdb_csv.LARGEST_ROW:
                raise AnswerNo(f"{self._where}: {duckdb_csv.TOO_LARGE}", code="row-refused")
            with duckdb_csv.open_pipe(part) as path:
                inserted += self._execute_counted(duckdb_csv.compose_insert(table, columns, extra, path, largest))
        return inserted

    def read_cursor_version(self, compiled: Compiled) -> str:
        """While the file is open here nobody else writes it."""
        return str(self._written)

    def sum_hashes(self, compiled: Compiled) -> Sums:
        with self._translate_errors():
            return Hasher(compiled.mapping).sums(self._read_all(compiled.mapping))

    def read_hashes(self, compiled: Compiled, wanted: Collection[int]) -> list[tuple[Any, ...]]:
        with self._translate_errors():
            return Hasher(compiled.mapping).hashes(self._read_all(compiled.mapping), set(wanted))

    def read_hashes_by_key(self, compiled: Compiled, keys: Collection[Key]) -> list[tuple[Any, ...]]:
        mapping, hasher = compiled.mapping, Hasher(compiled.mapping)
        types = [TYPES["duckdb"][column.type] for column in mapping.key_columns]
        with self._translate_errors():
            if mapping.name in self._wide or len(keys) <= FEW:
                one = " AND ".join(f"{quote(n)} = ?::{type_}" for n, type_ in zip(mapping.key, types, strict=True))
                parts = (self._execute(f"{compose_select(mapping)} WHERE {one}", *key).fetchall() for key in keys)
                return [(*hasher.key(row), hasher.hash(row)) for part in parts for row in part]
            names = ", ".join(map(quote, mapping.key))
            given = ", ".join(f"unnest(?::VARCHAR[])::{type_}" for type_ in types)
            statement = f"{compose_select(mapping)} WHERE ({names}) IN (SELECT ({given}))"
            found = self._execute(statement, *([key[n] for key in keys] for n in range(len(types))))
            return [(*hasher.key(row), hasher.hash(row)) for row in found.fetchall()]

    def _read_all(self, mapping: Mapping) -> Iterator[tuple[Any, ...]]:
        """All rows of a copy, some by their place at a time; one by one, where DuckDB can't hold as many as it reads.

        Only the index of a key with a single column leads to one row without its neighbours.
        """
        table, key = quote(mapping.target), quote(next(iter(mapping.key)))
        end = self._fetch_value(f"SELECT coalesce(max(rowid) + 1, 0) FROM {table}")
        for start in range(0, end, WINDOW):
            read: set[int] = set()
            within = f"WHERE rowid >= {start} AND rowid < {start + WINDOW}"
            try:
                cursor = self._execute(f"{compose_select(mapping, 'rowid')} {within}")
                while chunk := cursor.fetchmany(FETCHED):
                    for place, *row in chunk:
                        read.add(place)
                        yield tuple(row)
            except duckdb.OutOfMemoryException:
                if len(mapping.key) > 1:
                    raise
                self._wide.add(mapping.name)
                one = f"{compose_select(mapping)} WHERE {key} = ?"
                for place, value in self._execute(f"SELECT rowid, {key} FROM {table} {within}").fetchall():
                    if place not in read:
                        yield from self._execute(one, value).fetchall()

    def _execute(self, statement: str, *parameters: object) -> duckdb.DuckDBPyConnection:
        return self._conn.execute(statement, parameters or None)

    def _execute_counted(self, statement: str) -> int:
        """How many rows a statement (the last, of several) wrote."""
        return self._fetch_value(statement)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise self._to_stackctl_error(error) from error

    def _locked_error(self, reason: str) -> StateError:
        return StateError(
            f"{self._where} is locked: {reason}",
            code="lock-timeout",
            hint="close the program that has it open: DuckDB lets one process write a file, or several read it",
        )

    def _to_stackctl_error(self, error: duckdb.Error) -> StackctlError:
        reason = " ".join(str(error).split("\n\n")[0].split())
        service = partial(ServiceError, f"{self._where}: {reason}")
        if "Could not set lock" in reason or "Conflicting lock" in reason:
            return self._locked_error(reason.split(". See also")[0])
        if isinstance(error, duckdb.InterruptException):
            return service(code="connection-lost", hint="try again; work that was not committed is redone")
        if isinstance(error, duckdb.OutOfMemoryException) or "failed to pin block" in reason:
            hint = f"DuckDB has {_SETTINGS['memory_limit']}: of rows this wide it holds too many; leave the column out"
            return service(code="out-of-resources", hint=hint)
        if any(text in reason for text in _EXHAUSTED):
            return service(code="out-of-resources", hint="free space on its disk, or make the file writable")
        if isinstance(error, duckdb.CatalogException | duckdb.BinderException):
            return StateError(f"{self._where} was changed: {reason}", code="table-differs", hint=RESTORE)
        if isinstance(error, _REJECTIONS):
            return AnswerNo(f"{self._where}: {_format_rejection(str(error))}", code="row-refused")
        return service(code="unreachable", hint="check the path and its permissions")


_EXHAUSTED = ("No space left", "Read-only file system", "read-only mode", "Disk quota", "File too large", "out of disk")
_REJECTIONS = (
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.InvalidInputException,
    duckdb.OutOfRangeException,
)


def _format_rejection(reason: str) -> str:
    """What is wrong with a value, without the row that DuckDB quotes."""
    if found := re.search(r'converting column "(.*?)"\. .* to \'([^\']*)\'', reason):
        return f"a value of the column {found[1]} is no {found[2]}"
    if "CSV Error" in reason or "Maximum line size" in reason:
        return duckdb_csv.TOO_LARGE
    return " ".join(re.sub(r'"[^"]*"', "…", reason.split("\n")[0]).split())


def compose_select(mapping: Mapping, *first: str) -> str:
    """All rows; these expressions come before the mapping's columns."""
    columns = ", ".join([*first, *(_spelling(column) for column in mapping.columns)])
    return f"SELECT {columns} FROM {quote(mapping.target)}"


def _spelling(column: Column) -> str:
    """The value as PostgreSQL spells it for SQLite."""
    name = quote(column.name)
    match column.type:
        case "boolean":
            return f"{name}::INTEGER"
        case "integer" | "bigint" | "text" | "double":
            return name
        case "numeric":
            return f"rtrim(rtrim({name}::VARCHAR, '0'), '.')"
        case "timestamptz":
            # Whatever the machine's time zone; infinity has no microseconds.
            finite = f"make_timestamp(epoch_us({name}))::VARCHAR"
            return f"CASE WHEN isfinite({name}) THEN {finite} ELSE {name}::VARCHAR END || '+00'"
        case _:
            return f"{name}::VARCHAR"


def _to_canonical_type(type_: str) -> str:
    return type_.upper().replace(", ", ",").replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")
