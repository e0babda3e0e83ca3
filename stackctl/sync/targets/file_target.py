"""What SQLite and DuckDB files have in common: cursors, records and owner, kept and read by the same statements."""

# ruff: noqa: S608 - neither SQLite nor DuckDB has a composer of names: they are quoted here.
from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from stackctl.core.files import identify_file
from stackctl.mapping.sql_text import quote
from stackctl.sync.targets import file_statements as on_file
from stackctl.sync.targets.mapping_changes import check_fingerprint, make_record, plan_change, refuse_other_table
from stackctl.sync.targets.protocol import (
    NEVER_SYNCED,
    CopyRecord,
    Cursor,
    ResponseTimer,
    TargetState,
    add_foreign_tables,
    check_owner,
    not_ours_error,
    replaced_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.targets.mapping_changes import ChangePolicy


class FileTarget(ABC):
    """See protocol.Target. A kind of file adds how it is opened, how rows are written, and what its catalog says."""

    CREATE_OWN_TABLES: ClassVar[tuple[str, ...]]  # cursors and owner
    HAS_TABLE: ClassVar[str]
    COLUMNS: ClassVar[str]  # of a table; the name comes first

    def __init__(self, database: ExternalDatabase) -> None:
        assert database.path is not None
        self._database = database
        self._path = database.path
        self._where = f"the external database {database.id} ({database.path})"
        self._file: tuple[int, ...] | None = None  # which one it was when it was opened
        self._checked: set[str] = set()
        self._has_records = False
        self._written = 0
        self.response_timer = ResponseTimer()

    @abstractmethod
    def _execute(self, statement: str, *parameters: object) -> Any:
        """A cursor with the result."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def _translate_errors(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def _check_table(self, compiled: Compiled) -> None:
        """Raise StateError `table-differs` for a table that does not fit its mapping."""

    def _fetch_value(self, statement: str, *parameters: object) -> Any:
        row = self._execute(statement, *parameters).fetchone()
        return row[0] if row else None

    def _identify_file(self) -> tuple[int, ...] | None:
        return identify_file(self._path)

    def _refuse_replaced_file(self) -> None:
        if self._identify_file() != self._file:
            raise replaced_error(self._where)

    # -- before anything is sent

    def prepare(self, tenancy: UUID, compiled: Sequence[Compiled], policy: ChangePolicy) -> TargetState:
        missing = [c for c in compiled if c.mapping.name not in self._checked]
        followed: list[str] = []
        with self._translate_errors():
            if missing or not self._checked:
                # Tables, cursors and owner commit together, or not at all.
                with self._transaction():
                    followed = self._make_tables(tenancy, missing, policy)
                self._checked.update(one.mapping.name for one in missing)
            else:
                self._check_owner(tenancy)
        return replace(self._read_state(), followed=tuple(followed))

    def _make_tables(self, tenancy: UUID, missing: Sequence[Compiled], policy: ChangePolicy) -> list[str]:
        for statement in (*self.CREATE_OWN_TABLES, on_file.PLACES_TABLE, on_file.CREATE_RECORDS):
            self._execute(statement)
        self._has_records = True
        if self._fetch_value(on_file.OWNED_BY) is None:
            self._execute(on_file.CLAIM, str(tenancy))
        self._check_owner(tenancy)
        followed: list[str] = []
        for one in missing:
            if self._fetch_value(self.HAS_TABLE, one.mapping.target) is None:
                refuse_other_table(one, self.read_record(one), self._database, policy)
                # A cursor left from a table that was dropped would leave the new one empty.
                self._execute(on_file.FORGET_CURSOR, one.mapping.name)
                self._execute(one.create_table)
                self._execute(on_file.ADD_CURSOR, one.mapping.name, _now())
                self.write_record(one, make_record(one))
            followed += self._follow_mapping(one, policy)
            if one.mapping.name != policy.rebuild:
                self._check_table(one)
        return followed

    def _check_owner(self, tenancy: UUID) -> None:
        check_owner(_to_uuid(self._fetch_value(on_file.OWNED_BY)), tenancy, self._where)

    def _follow_mapping(self, compiled: Compiled, policy: ChangePolicy) -> Iterator[str]:
        """Make a copy of an older mapping one of this, as far as the policy says so; yields what was done."""
        columns = {name for name, *_ in self._execute(self.COLUMNS, compiled.mapping.target).fetchall()}
        cursor = self._fetch_value(on_file.CURSOR, compiled.mapping.name)
        change = plan_change(compiled, self.read_record(compiled), cursor=cursor, columns=columns,
                             database=self._database, policy=policy)  # fmt: skip
        for statement in change.statements:
            self._execute(statement)
        if change.record is not None:
            self.write_record(compiled, change.record)
            if cursor is not None:
                self.advance_cursor(compiled, cursor)  # whoever has read ahead must see that somebody wrote
        if change.description is not None:
            yield change.description

    # -- as it stands

    def read_state(self, compiled: Sequence[Compiled] = ()) -> TargetState:
        state = self._read_state()
        with self._translate_errors():
            return add_foreign_tables(state, compiled, self._holds_rows, self._database, self._where)

    def _holds_rows(self, compiled: Compiled) -> bool:
        return self._has_table(compiled.mapping.target) and self._has_rows(compiled)

    def _has_table(self, name: str) -> bool:
        return self._fetch_value(self.HAS_TABLE, name) is not None

    def _has_rows(self, compiled: Compiled) -> bool:
        return self._fetch_value(f"SELECT 1 FROM {quote(compiled.mapping.target)} LIMIT 1") is not None

    def is_empty(self, compiled: Compiled) -> bool:
        return not self._has_rows(compiled)

    def _read_state(self) -> TargetState:
        with self._translate_errors():
            if not self._has_table("_stack_sync_metadata"):
                return TargetState(None, {})
            cursors = {name: Cursor(at, _to_time(updated)) for name, at, updated in self._fetch_all(on_file.CURSORS)}
            owner = self._fetch_value(on_file.OWNED_BY) if self._has_table("_stack_sync_owner") else None
            places = dict(self._fetch_all(on_file.PLACES)) if self._has_table("_stack_sync_place") else {}
            self._has_records = self._has_table("_stack_sync_mapping")
            records = self._fetch_all(on_file.RECORDS) if self._has_records else []
        copies = {name: CopyRecord(*record) for name, *record in records}
        return TargetState(_to_uuid(owner), cursors, places=places, copies=copies)

    def _fetch_all(self, statement: str) -> list[tuple[Any, ...]]:
        return self._execute(statement).fetchall()

    # -- under the cursor's lock

    @contextmanager
    def lock_cursor(self, compiled: Compiled, *, adopt: bool = False, rebuild: bool = False) -> Iterator[int]:
        with self._translate_errors(), self._transaction():
            self._refuse_replaced_file()
            cursor = self._fetch_value(on_file.CURSOR, compiled.mapping.name)
            self._check_fingerprint(compiled, rebuild=rebuild)
            if cursor is None:
                if not adopt and self._has_rows(compiled):
                    raise not_ours_error(compiled, self._database, self._where)
                self._execute(on_file.ADD_CURSOR, compiled.mapping.name, _now())
            yield NEVER_SYNCED if cursor is None else cursor

    def _check_fingerprint(self, compiled: Compiled, *, rebuild: bool) -> None:
        if self._has_records and not rebuild and (record := self.read_record(compiled)) is not None:
            prepared = compiled.mapping.name in self._checked
            check_fingerprint(compiled, record.fingerprint, self._database, prepared=prepared)

    def advance_cursor(self, compiled: Compiled, cursor: int) -> None:
        self._written += 1
        with self._translate_errors():
            self._execute(on_file.ADVANCE, cursor, _now(), compiled.mapping.name)

    def record_place(self, compiled: Compiled, identity: str) -> None:
        with self._translate_errors():
            self._execute(on_file.RECORD_PLACE, compiled.mapping.name, identity)

    def read_record(self, compiled: Compiled) -> CopyRecord | None:
        with self._translate_errors():
            row = self._execute(on_file.RECORD, compiled.mapping.name).fetchone()
        return CopyRecord(*row) if row else None

    def write_record(self, compiled: Compiled, record: CopyRecord) -> None:
        with self._translate_errors():
            self._execute(on_file.WRITE_RECORD, compiled.mapping.name, *astuple(record))


def _to_uuid(value: object) -> UUID | None:
    return UUID(str(value)) if value else None


def _to_time(value: object) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))


def _now() -> str:
    """In UTC, as both kinds of file take it."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
