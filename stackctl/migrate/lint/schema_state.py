"""What the migrations up to here have done: what a file made itself, and what is certain by then."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stackctl.migrate.parser.facts import (
    ColumnAdded,
    ColumnDropped,
    ColumnRenamed,
    ConstraintAdded,
    ConstraintDropped,
    ConstraintValidated,
    Created,
    Dropped,
    EnumValueAdded,
    Fact,
    NotNullDropped,
    NotNullSet,
    Renamed,
)
from stackctl.migrate.parser.token_reader import Name

if TYPE_CHECKING:
    from stackctl.migrate.lint.database_facts import Asked


@dataclass(frozen=True)
class _Check:
    columns: frozenset[str]
    valid: bool


@dataclass
class History:
    """What outlives a file: checks that keep columns from being null, columns that are NOT NULL by now, and tables with
    partitions.
    """

    checks: dict[tuple[Name, str], _Check] = field(default_factory=dict)
    not_null: set[tuple[Name, str]] = field(default_factory=set)
    partitioned: set[Name] = field(default_factory=set)

    def certain(self, table: Name, column: str) -> bool:
        """A validated constraint says that the column holds no null."""
        return any(on == table and check.valid and column in check.columns for (on, _), check in self.checks.items())

    def forget(self, table: Name, column: str | None = None) -> None:
        """The table, or the column, is another one from now on, or may hold nulls."""
        for key in [key for key, check in self.checks.items() if key[0] == table and column in {None, *check.columns}]:
            del self.checks[key]
        self.not_null -= {key for key in self.not_null if key[0] == table and column in (None, key[1])}


@dataclass
class Seen:
    """The state of one file while its statements are read in order.

    `transaction` counts the transactions of the file: a piece outside has one of its own, and commits what came before.
    """

    history: History
    asked: Asked | None = None
    transaction: int = 0
    outside: bool = False
    repeat: bool = False
    _created: dict[tuple[str, Name], int] = field(default_factory=dict)
    _routines: list[tuple[Name, tuple[str, ...]]] = field(default_factory=list)
    _columns: set[tuple[Name, str]] = field(default_factory=set)
    _constraints: dict[tuple[Name, str], int] = field(default_factory=dict)
    _not_valid: dict[tuple[Name, str], int] = field(default_factory=dict)
    enum_values: dict[str, tuple[Name, int]] = field(default_factory=dict)

    def piece(self, *, outside: bool, repeat: bool) -> None:
        """The next piece begins."""
        if outside or self.outside:
            self.transaction += 1
        self.outside, self.repeat = outside, repeat

    def made(self, kind: str, name: Name) -> bool:
        """The file itself created it."""
        return (kind, name) in self._created

    def made_function(self, name: Name, arguments: tuple[str, ...] | None) -> bool:
        return any(known == name and arguments in (None, of) for known, of in self._routines)

    def made_column(self, table: Name, column: str) -> bool:
        return (table, column) in self._columns or self.made("table", table)

    def made_constraint(self, table: Name, constraint: str) -> bool:
        return (table, constraint) in self._constraints or self.made("table", table)

    def added_not_valid_here(self, table: Name, constraint: str) -> bool:
        """It was added NOT VALID in the transaction that runs now."""
        return self._not_valid.get((table, constraint)) == self.transaction

    def replaced_by_not_null(self, table: Name, constraint: str) -> bool:
        """The constraint says no more than NOT NULL, which its columns are by now."""
        check = self.history.checks.get((table, constraint))
        return check is not None and all((table, column) in self.history.not_null for column in check.columns)

    def learn(self, fact: Fact) -> None:
        """The fact has happened."""
        checks = self.history.checks
        match fact:
            case Created(kind="function", name=name, arguments=arguments):
                self._routines.append((name, arguments or ()))
            case Created(kind=kind, name=name, partitioned=partitioned):
                self._created[kind, name] = self.transaction
                if kind == "table":
                    self.history.forget(name)
                if partitioned:
                    self.history.partitioned.add(name)
            case Dropped(kind=kind, name=name):
                self._created.pop((kind, name), None)
                if kind == "table":
                    self.history.partitioned.discard(name)
                    self.history.forget(name)
            case Renamed(kind=kind, name=name, to=to, moved=moved):
                new = Name(to, name.name, name.name) if moved else Name(name.schema, to, to)
                if (kind, name) in self._created:
                    self._created[kind, new] = self._created.pop((kind, name))
                self.history.forget(name)
            case ColumnAdded(table=table, column=column):
                self._columns.add((table, column.name))
            case ColumnDropped(table=table, column=column):
                self._columns.discard((table, column))
                self.history.forget(table, column)
            case NotNullDropped(table=table, column=column):
                self.history.forget(table, column)
            case ColumnRenamed(table=table, column=column, to=to):
                if (table, column) in self._columns:
                    self._columns.remove((table, column))
                    self._columns.add((table, to))
                self.history.forget(table, column)
            case ConstraintAdded(table=table, constraint=constraint):
                key = (table, constraint.name)
                self._constraints[key] = self.transaction
                if constraint.not_valid:
                    self._not_valid[key] = self.transaction
                if constraint.not_null_columns:
                    checks[key] = _Check(constraint.not_null_columns, not constraint.not_valid)
            case ConstraintValidated(table=table, name=name):
                if (table, name) in checks:
                    checks[table, name] = _Check(checks[table, name].columns, True)
            case ConstraintDropped(table=table, name=name):
                checks.pop((table, name), None)
                self._constraints.pop((table, name), None)
            case NotNullSet(table=table, column=column):
                self.history.not_null.add((table, column))
            case EnumValueAdded(type=type_, value=value):
                # The values of a type that the same transaction made may be used at once.
                if self._created.get(("type", type_)) != self.transaction:
                    self.enum_values[value] = (type_, self.transaction)
            case _:
                pass
