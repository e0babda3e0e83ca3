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
    EnumValueAdded,
    Fact,
    NotNullDropped,
    NotNullSet,
    ObjectCreated,
    ObjectDropped,
    ObjectRenamed,
)
from stackctl.migrate.parser.token_reader import QualifiedName

if TYPE_CHECKING:
    from stackctl.migrate.lint.database_facts import DatabaseFacts


@dataclass(frozen=True)
class _NotNullCheck:
    columns: frozenset[str]
    valid: bool


@dataclass
class SchemaState:
    """What outlives a file: checks that keep columns from being null, columns that are NOT NULL by now, and tables with
    partitions.
    """

    not_null_checks: dict[QualifiedName, dict[str, _NotNullCheck]] = field(default_factory=dict)
    not_null: dict[QualifiedName, set[str]] = field(default_factory=dict)
    partitioned: set[QualifiedName] = field(default_factory=set)

    def is_never_null(self, table: QualifiedName, column: str) -> bool:
        """A validated constraint says that the column holds no null."""
        return any(check.valid and column in check.columns for check in self.not_null_checks.get(table, {}).values())

    def forget(self, table: QualifiedName, column: str | None = None) -> None:
        """The table, or the column, is another one from now on, or may hold nulls."""
        checks, columns = self.not_null_checks.pop(table, {}), self.not_null.pop(table, set())
        if column is not None:
            kept = {name: check for name, check in checks.items() if column not in check.columns}
            self.not_null_checks[table], self.not_null[table] = kept, columns - {column}


@dataclass
class FileState:
    """The state of one file while its statements are read in order.

    `transaction` counts the transactions of the file: a piece outside has one of its own, and commits what came before.
    """

    schema: SchemaState
    database: DatabaseFacts | None = None
    transaction: int = 0
    outside: bool = False
    repeat: bool = False
    _created: dict[tuple[str, QualifiedName], int] = field(default_factory=dict)
    _routines: list[tuple[QualifiedName, tuple[str, ...]]] = field(default_factory=list)
    _columns: set[tuple[QualifiedName, str]] = field(default_factory=set)
    _constraints: dict[tuple[QualifiedName, str], int] = field(default_factory=dict)
    _not_valid: dict[tuple[QualifiedName, str], int] = field(default_factory=dict)
    enum_values: dict[str, tuple[QualifiedName, int]] = field(default_factory=dict)

    def begin_piece(self, *, outside: bool, repeat: bool) -> None:
        """The next piece begins."""
        if outside or self.outside:
            self.transaction += 1
        self.outside, self.repeat = outside, repeat

    def has_created(self, kind: str, name: QualifiedName) -> bool:
        """The file itself created it."""
        return (kind, name) in self._created

    def has_created_function(self, name: QualifiedName, arguments: tuple[str, ...] | None) -> bool:
        return any(known == name and arguments in (None, of) for known, of in self._routines)

    def has_added_column(self, table: QualifiedName, column: str) -> bool:
        return (table, column) in self._columns or self.has_created("table", table)

    def has_added_constraint(self, table: QualifiedName, constraint: str) -> bool:
        return (table, constraint) in self._constraints or self.has_created("table", table)

    def has_added_not_valid(self, table: QualifiedName, constraint: str) -> bool:
        """It was added NOT VALID in the transaction that runs now."""
        return self._not_valid.get((table, constraint)) == self.transaction

    def is_replaced_by_not_null(self, table: QualifiedName, constraint: str) -> bool:
        """The constraint says no more than NOT NULL, which its columns are by now."""
        check = self.schema.not_null_checks.get(table, {}).get(constraint)
        return check is not None and check.columns <= self.schema.not_null.get(table, set())

    def apply_fact(self, fact: Fact) -> None:
        """The fact has happened."""
        checks = self.schema.not_null_checks
        match fact:
            case ObjectCreated(kind="function", name=name, arguments=arguments):
                self._routines.append((name, arguments or ()))
            case ObjectCreated(kind=kind, name=name, partitioned=partitioned):
                self._created[kind, name] = self.transaction
                if kind == "table":
                    self.schema.forget(name)
                if partitioned:
                    self.schema.partitioned.add(name)
            case ObjectDropped(kind=kind, name=name):
                self._created.pop((kind, name), None)
                if kind == "table":
                    self.schema.partitioned.discard(name)
                    self.schema.forget(name)
            case ObjectRenamed(kind=kind, name=name, to=to, moved=moved):
                new = QualifiedName(to, name.name, name.name) if moved else QualifiedName(name.schema, to, to)
                if (kind, name) in self._created:
                    self._created[kind, new] = self._created.pop((kind, name))
                self.schema.forget(name)
            case ColumnAdded(table=table, column=column):
                self._columns.add((table, column.name))
            case ColumnDropped(table=table, column=column):
                self._columns.discard((table, column))
                self.schema.forget(table, column)
            case NotNullDropped(table=table, column=column):
                self.schema.forget(table, column)
            case ColumnRenamed(table=table, column=column, to=to):
                if (table, column) in self._columns:
                    self._columns.remove((table, column))
                    self._columns.add((table, to))
                self.schema.forget(table, column)
            case ConstraintAdded(table=table, constraint=constraint):
                key = (table, constraint.name)
                self._constraints[key] = self.transaction
                if constraint.not_valid:
                    self._not_valid[key] = self.transaction
                if constraint.not_null_columns:
                    check = _NotNullCheck(constraint.not_null_columns, not constraint.not_valid)
                    checks.setdefault(table, {})[constraint.name] = check
            case ConstraintValidated(table=table, name=name):
                if check := checks.get(table, {}).get(name):
                    checks[table][name] = _NotNullCheck(check.columns, True)
            case ConstraintDropped(table=table, name=name):
                checks.get(table, {}).pop(name, None)
                self._constraints.pop((table, name), None)
            case NotNullSet(table=table, column=column):
                self.schema.not_null.setdefault(table, set()).add(column)
            case EnumValueAdded(type=type_, value=value):
                # The values of a type that the same transaction made may be used at once.
                if self._created.get(("type", type_)) != self.transaction:
                    self.enum_values[value] = (type_, self.transaction)
            case _:
                pass
