"""A table of a PostgreSQL given its mapping's new shape and rows, while its readers go on.

The table stays the same one, so that grants, foreign keys, triggers, publications and views that have nothing to do
with the change are not touched. Columns of another type are filled beside the old ones, under names of ours, and take
their places in the end, in one transaction with everything else: that is when readers wait, for as long as it takes to
check for nulls. With another key the old rows can't be told from the new ones, and a CHECK may want a value in a column
that goes: then readers wait while rows are written, too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import errors as pg
from psycopg import sql

from stackctl.mapping.definition import list_shape
from stackctl.mapping.target_statements import POSTGRES_TYPES
from stackctl.postgres.errors import to_one_line
from stackctl.postgres.statements import load_statements
from stackctl.sync.targets.mapping_changes import not_rebuilt_error
from stackctl.sync.targets.table_check import to_postgres_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.model import Mapping
    from stackctl.sync.targets.protocol import CopyRecord

BESIDE = "_stack_new_"  # columns under construction, numbered
LOCK_ATTEMPTS = 30  # to get the table for ourselves, after each of which readers that have queued up go first
LOCK_PAUSE = 1.0  # seconds between them

_SQL = load_statements(__file__)


@dataclass(frozen=True)
class TableShape:
    """What a table has besides, or lacks of, what its mapping wants.

    `beside` has, by column, the name of the one that is to replace it. `gone`: columns that go, or make way. `unset`:
    columns that must not be null, and may be; `required`: the other way round. `quiet`: rows can be written before the
    exchange, while readers go on.
    """

    beside: dict[str, str]
    gone: tuple[str, ...]
    unset: tuple[str, ...]
    required: tuple[str, ...]
    same_key: bool
    quiet: bool

    def get_name(self, column: str) -> str:
        """Where the values of a column go until the exchange."""
        return self.beside.get(column, column)


class TableRebuild:
    """One table on its way to the shape of `compiled`; `execute` runs on its connection."""

    def __init__(self, compiled: Compiled, record: CopyRecord | None, execute: Any, where: str) -> None:
        self._compiled = compiled
        self._mapping: Mapping = compiled.mapping
        self._execute: Callable[..., psycopg.Cursor[tuple[Any, ...]]] = execute
        self._where = where
        self._known = list_shape(record.definition if record else None)
        self._named: dict[str, Any] = {"table": self._mapping.target}
        self._table = sql.Identifier(self._mapping.target)

    def add_columns(self) -> None:
        """In a transaction of its own: columns of new names and types, which nobody reads yet; nothing is lost."""
        found = self._read_columns()
        changes = [sql.SQL("DROP COLUMN {}").format(sql.Identifier(name)) for name in found if name.startswith(BESIDE)]
        for number, column in enumerate(self._mapping.columns):
            type_, required = found.get(column.name, (None, False))
            if type_ == to_postgres_type(POSTGRES_TYPES[column.type]):
                loosened = column.nullable
            else:
                name = column.name if type_ is None else f"{BESIDE}{number}"
                wanted = sql.SQL(cast("LiteralString", POSTGRES_TYPES[column.type]))
                changes.append(sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(name), wanted))
                loosened = True
            if required and loosened and column.name not in self._get_old_key():
                changes.append(sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(sql.Identifier(column.name)))
        changes += [
            sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(sql.Identifier(name))
            for name in self._list_gone(found)
            if found[name][1] and name not in self._get_old_key()
        ]
        if changes:
            self._lock_table()
            self._execute(sql.SQL("ALTER TABLE {} ").format(self._table) + sql.SQL(", ").join(changes))

    def drop_leftovers(self) -> None:
        """What an exchange that was cut short has left."""
        self._lock_table()
        self._alter_each("DROP COLUMN {}", [name for name in self._read_columns() if name.startswith(BESIDE)])

    def read_shape(self) -> TableShape:
        """After `add_columns`."""
        found = self._read_columns()
        beside = {
            column.name: f"{BESIDE}{number}"
            for number, column in enumerate(self._mapping.columns)
            if f"{BESIDE}{number}" in found
        }
        gone = (*(name for name in self._list_gone(found) if not name.startswith(BESIDE)), *beside)
        unset = tuple(
            column.name
            for column in self._mapping.columns
            if not column.nullable and not found.get(beside.get(column.name, column.name), ("", False))[1]
        )
        required = tuple(c.name for c in self._mapping.columns if c.nullable and found.get(c.name, ("", False))[1])
        same_key = self._has_same_key(found)
        checks = self._execute(_SQL["has_checks"], self._named | {"columns": list(gone)}).fetchone()
        return TableShape(beside, gone, unset, required, same_key, quiet=same_key and checks == (False,))

    def exchange(self, shape: TableShape, write_rows: Callable[[], None] | None) -> None:
        """Put the new columns in the places of the old ones, then `write_rows` if that has yet to be done.

        Raises StateError `mapping-changed` for what could not be kept.
        """
        self._lock_table()
        try:
            again = self._take_off(shape)
            for name in self._find_key_constraints() if not shape.same_key else ():
                self._alter(sql.SQL("DROP CONSTRAINT {}").format(sql.Identifier(name)))
            self._alter_each("DROP COLUMN {}", shape.gone)
        except pg.DependentObjectsStillExist as error:
            reason = error.diag.message_detail or error.diag.message_primary or str(error)
            raise not_rebuilt_error(self._compiled, self._where, to_one_line(reason)) from error
        for name, beside in shape.beside.items():
            self._alter(sql.SQL("RENAME COLUMN {} TO {}").format(sql.Identifier(beside), sql.Identifier(name)))
        self._alter_each("ALTER COLUMN {} DROP NOT NULL", set(shape.required) - set(shape.beside))
        if write_rows is not None:
            write_rows()
        if not shape.same_key:
            key = sql.SQL(", ").join(map(sql.Identifier, self._mapping.key))
            self._alter(sql.SQL("ADD PRIMARY KEY ({})").format(key))
        self._alter_each("ALTER COLUMN {} SET NOT NULL", shape.unset)
        for name, statement in again:
            try:
                self._execute(cast("LiteralString", statement))
            except psycopg.Error as error:
                reason = f"{name}, which is not stackctl's, would be lost: {to_one_line(str(error))}"
                raise not_rebuilt_error(self._compiled, self._where, reason) from error

    def _take_off(self, shape: TableShape) -> list[tuple[Any, ...]]:
        """Drop the views that are in the way; what makes them, and what goes with columns, again."""
        replaced = self._named | {"columns": list(shape.beside)}
        again: list[tuple[Any, ...]] = self._execute(_SQL["list_attached"], replaced).fetchall()
        views = self._execute(_SQL["list_views"], self._named | {"columns": list(shape.gone)}).fetchall()
        for name, drop, _, more in views:
            if more:
                reason = f"{name} reads what changes, and has triggers or rules"
                raise not_rebuilt_error(self._compiled, self._where, reason)
            self._execute(drop)
        return again + [(f"the view {name}", statement) for name, _, made, _ in reversed(views) for statement in made]

    def _lock_table(self) -> None:
        """The table for ourselves; whoever waits for that holds up all that come after, so never for long."""
        for attempt in range(LOCK_ATTEMPTS):
            try:
                self._execute("SAVEPOINT _stack_lock")
                self._execute(_SQL["lock_table"])
                self._execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(self._table))
            except pg.LockNotAvailable:
                self._execute("ROLLBACK TO SAVEPOINT _stack_lock")
                if attempt == LOCK_ATTEMPTS - 1:
                    raise
                time.sleep(LOCK_PAUSE)
            else:
                return

    def _alter_each(self, change: LiteralString, columns: Iterable[str]) -> None:
        changes = [sql.SQL(change).format(sql.Identifier(name)) for name in columns]
        if changes:
            self._alter(sql.SQL(", ").join(changes))

    def _alter(self, change: sql.Composable) -> None:
        self._execute(sql.SQL("ALTER TABLE {} {}").format(self._table, change))

    def _read_columns(self) -> dict[str, tuple[str, bool]]:
        return {name: (type_, required) for name, type_, required in self._execute(_SQL["read_shape"], self._named)}

    def _find_key_constraints(self) -> list[str]:
        return [name for (name,) in self._execute(_SQL["find_key_constraints"], self._named)]

    def _list_gone(self, found: Iterable[str]) -> list[str]:
        """Columns of the copy's older mapping that this one does not have."""
        ours = {column.name for column in self._mapping.columns}
        return [name for name in (self._known[0] if self._known else ()) if name in found and name not in ours]

    def _get_old_key(self) -> Sequence[str]:
        return self._known[1] if self._known else list(self._mapping.key)

    def _has_same_key(self, found: dict[str, tuple[str, bool]]) -> bool:
        types = {column.name: to_postgres_type(POSTGRES_TYPES[column.type]) for column in self._mapping.key_columns}
        return set(self._get_old_key()) == set(types) and all(
            name in found and found[name][0] == type_ for name, type_ in types.items()
        )
