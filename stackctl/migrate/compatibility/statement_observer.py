"""What each statement of a migration does while it runs: locks, tables rewritten, indexes built, time."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from stackctl.migrate.lock_modes import MODES
from stackctl.postgres import lexer
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from stackctl.migrate.files import Migration, Statement

Connection: TypeAlias = "psycopg.Connection[Any]"

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class MeasuredLock:
    """A relation, and the strongest mode in which the statement locked it."""

    relation: str
    mode: str


@dataclass(frozen=True)
class MeasuredStatement:
    """One statement, run. Only what was there before its file began counts.

    `locks`: those that the statement added to what the transaction held; none are known for a statement outside a
    transaction. `rewrites`: tables whose rows were rewritten. `indexes`: built or rebuilt on such tables.
    `ms`: over all passes of a file that repeats.
    """

    migration: Migration
    statement: Statement
    locks: tuple[MeasuredLock, ...]
    rewrites: tuple[str, ...]
    indexes: tuple[str, ...]
    ms: float
    outside_transaction: bool


@dataclass(frozen=True)
class _Relation:
    oid: int
    kind: str
    file: int
    table: int | None
    name: str


class StatementObserver:
    """Measures the statements of a connection: pass `measure` to `apply_migrations`, and read `measured` afterwards."""

    def __init__(self, conn: Connection, schema: str) -> None:
        self._conn = conn
        self._schema = schema
        self._measured: dict[tuple[str, int, int], MeasuredStatement] = {}
        self._of = ""
        self._known: dict[int, _Relation] = {}

    @property
    def measured(self) -> tuple[MeasuredStatement, ...]:
        """In the order in which the statements first ran."""
        return tuple(self._measured.values())

    @contextmanager
    def measure(self, migration: Migration, statement: Statement) -> Iterator[None]:
        """Measure what runs inside; a statement that fails leaves no trace."""
        inside = self._conn.info.transaction_status == TransactionStatus.INTRANS
        before = self._read_relations()
        if self._of != migration.name:
            self._of, self._known = migration.name, before
        held = self._read_locks() if inside else {}
        started = time.perf_counter()
        yield
        ms = (time.perf_counter() - started) * 1000
        if inside and self._conn.info.transaction_status != TransactionStatus.INTRANS:
            return  # it ended the transaction; the runner refuses that
        taken = self._read_locks() if inside else {}
        after = self._read_relations()
        key = (migration.name, statement.line, statement.column)
        earlier = self._measured.get(key)
        self._measured[key] = MeasuredStatement(
            migration,
            statement,
            earlier.locks if earlier else self._find_added_locks(held, taken),
            _merge(earlier and earlier.rewrites, self._find_rewritten(statement, before, after)),
            _merge(earlier and earlier.indexes, self._find_built(before, after)),
            ms + (earlier.ms if earlier else 0),
            not inside,
        )

    def _find_added_locks(self, held: dict[int, int], taken: dict[int, int]) -> tuple[MeasuredLock, ...]:
        """Locks on what was there. An index counts where it is locked harder than its table."""
        found: list[MeasuredLock] = []
        for oid, mode in taken.items():
            relation = self._known.get(oid)
            if relation is None or mode <= held.get(oid, -1):
                continue
            if relation.table is not None and mode <= taken.get(relation.table, -1):
                continue
            found.append(MeasuredLock(relation.name, MODES[mode]))
        return tuple(sorted(found, key=lambda lock: (-MODES.index(lock.mode), lock.relation)))

    def _find_rewritten(
        self, statement: Statement, before: dict[int, _Relation], after: dict[int, _Relation]
    ) -> tuple[str, ...]:
        first = [token for token in lexer.tokenize(statement.sql) if token.kind != "comment"][:1]
        if lexer.first_words(first, 1) == ["TRUNCATE"]:  # a new, empty file: nothing was written
            return ()
        return tuple(
            sorted(
                relation.name
                for oid, relation in before.items()
                if oid in self._known and relation.kind in "rm" and oid in after and after[oid].file != relation.file
            )
        )

    def _find_built(self, before: dict[int, _Relation], after: dict[int, _Relation]) -> tuple[str, ...]:
        return tuple(
            sorted(
                relation.name
                for oid, relation in after.items()
                if relation.table in self._known and (oid not in before or before[oid].file != relation.file)
            )
        )

    def _read_relations(self) -> dict[int, _Relation]:
        with self._conn.cursor(row_factory=class_row(_Relation)) as cursor:
            return {row.oid: row for row in cursor.execute(_SQL["relations"], {"schema": self._schema})}

    def _read_locks(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for oid, mode in self._conn.execute(_SQL["locks"]):
            found[oid] = max(found.get(oid, -1), MODES.index(mode))
        return found


def _merge(earlier: tuple[str, ...] | None, now: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*(earlier or ()), *now}))
