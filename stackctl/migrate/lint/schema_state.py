"""What the migrations up to here have done: what a file made itself, and what is certain by then."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from stackctl.migrate.parser.facts import (
    ColumnAdded,
    ColumnDropped,
    ColumnGenerated,
    ColumnRenamed,
    ConstraintAdded,
    ConstraintDropped,
    ConstraintValidated,
    DefaultDropped,
    DefaultSet,
    DomainDefined,
    EnumValueAdded,
    Fact,
    GenerationDropped,
    IndexBuilt,
    NotNullDropped,
    NotNullSet,
    ObjectCreated,
    ObjectDropped,
    ObjectRenamed,
    ObjectReplaced,
    PolicyChanged,
    RowSecurityChanged,
    RowsWritten,
    TableLocked,
    TableRewritten,
    TableTruncated,
    TriggerChanged,
    TypeChanged,
    TypeDefinitionChanged,
)
from stackctl.migrate.parser.token_reader import QualifiedName
from stackctl.migrate.parser.volatility import find_most_volatile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stackctl.migrate.lint.database_facts import DatabaseFacts
    from stackctl.migrate.parser.facts import DataType

# Their table is locked against everything else, or against writes, until the transaction ends.
_LOCKING = (
    ColumnAdded, ColumnDropped, ColumnGenerated, ColumnRenamed, ConstraintAdded, ConstraintDropped, DefaultDropped,
    DefaultSet, GenerationDropped, IndexBuilt, NotNullDropped, NotNullSet, PolicyChanged, RowSecurityChanged,
    TableLocked, TableRewritten, TableTruncated, TriggerChanged, TypeChanged,
)  # fmt: skip


@dataclass(frozen=True)
class _NotNullCheck:
    columns: frozenset[str]
    valid: bool


@dataclass(frozen=True)
class KnownIndex:
    """An index that a file of the folder made, and the columns that it begins with."""

    table: QualifiedName
    columns: tuple[str, ...]


@dataclass
class KnownTable:
    """What files of the folder made of a table: its checks that keep columns from being null, columns that are NOT NULL
    by now, whether a column has a default, and the columns that its indexes begin with.
    """

    checks: dict[str, _NotNullCheck] = field(default_factory=dict)
    not_null: set[str] = field(default_factory=set)
    defaults: dict[str, bool] = field(default_factory=dict)
    keys: set[tuple[str, ...]] = field(default_factory=set)

    def forget_column(self, column: str) -> None:
        """It is another one from now on."""
        self.forget_not_null(column)
        self.defaults.pop(column, None)

    def forget_not_null(self, column: str) -> None:
        self.not_null.discard(column)
        self.checks = {name: check for name, check in self.checks.items() if column not in check.columns}


def _begin_with(columns: tuple[str, ...], keys: Iterable[tuple[str, ...]]) -> bool:
    return any(set(key[: len(columns)]) == set(columns) for key in keys)


@dataclass
class SchemaState:
    """What outlives a file: tables, which of them have partitions, domains that ask something of their values, indexes,
    and triggers with their tables. `server_version`: the major one, None where nobody has said.
    """

    server_version: int | None = None
    tables: dict[QualifiedName, KnownTable] = field(default_factory=lambda: defaultdict(KnownTable))
    partitioned: set[QualifiedName] = field(default_factory=set)
    strict_domains: set[QualifiedName] = field(default_factory=set)
    indexes: dict[QualifiedName, KnownIndex] = field(default_factory=dict)
    triggers: set[tuple[QualifiedName, str]] = field(default_factory=set)

    def is_older_than(self, version: int) -> bool:
        """The server lacks what came with that version; one that nobody has named is taken for the newest."""
        return self.server_version is not None and self.server_version < version

    def is_known_to_have(self, version: int) -> bool:
        """The server is said to have what came with that version, so that it may be advised."""
        return self.server_version is not None and self.server_version >= version

    def is_never_null(self, table: QualifiedName, column: str) -> bool:
        """A validated constraint says that the column holds no null."""
        return any(check.valid and column in check.columns for check in self.tables[table].checks.values())

    def has_index(self, table: QualifiedName, columns: tuple[str, ...]) -> bool:
        """One that begins with these columns, in whatever order."""
        return _begin_with(columns, self.tables[table].keys)


class WholeFile:
    """What a file does from its first statement to its last, for rules that have to know what comes later."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.created: Counter[tuple[str, QualifiedName]] = Counter()
        self.dropped_tables: set[QualifiedName] = set()
        self.constraints: set[tuple[QualifiedName, str]] = set()
        self.policies: set[tuple[QualifiedName, str]] = set()
        self.triggers: set[tuple[QualifiedName, str]] = set()
        self.indexes: dict[QualifiedName, set[tuple[str, ...]]] = {}
        for fact in facts:
            match fact:
                case ObjectCreated(kind=kind, name=name) | ObjectReplaced(kind=kind, name=name):
                    self.created[kind, name] += 1
                case ObjectDropped(kind="table", name=name):
                    self.dropped_tables.add(name)
                case ConstraintAdded(table=table, constraint=constraint):
                    self.constraints.add((table, constraint.name))
                    if constraint.kind in ("unique", "primary key"):
                        self.indexes.setdefault(table, set()).add(constraint.columns)
                case IndexBuilt(table=table, columns=columns, partial=False):
                    self.indexes.setdefault(table, set()).add(columns)
                case PolicyChanged(how="CREATE", table=table, name=name):
                    self.policies.add((table, name))
                case TriggerChanged(how="CREATE" | "CREATE OR REPLACE", table=table, name=name):
                    self.triggers.add((table, name))
                case _:
                    pass

    def has_index(self, table: QualifiedName, columns: tuple[str, ...]) -> bool:
        """It makes one that begins with these columns, in whatever order."""
        return _begin_with(columns, self.indexes.get(table, ()))


@dataclass
class FileState:
    """The state of one file while its statements are read in order.

    `transaction` counts the transactions of the file: a piece outside has one of its own, and commits what came before.
    `read_file` reads the facts of all its statements, which only few files need.
    """

    schema: SchemaState
    database: DatabaseFacts | None = None
    transaction: int = 0
    outside: bool = False
    repeat: bool = False
    read_file: Callable[[], Iterable[Fact]] = tuple
    _created: dict[tuple[str, QualifiedName], int] = field(default_factory=dict)
    _seen: Counter[tuple[str, QualifiedName]] = field(default_factory=Counter)
    _routines: list[tuple[QualifiedName, tuple[str, ...]]] = field(default_factory=list)
    _columns: set[tuple[QualifiedName, str]] = field(default_factory=set)
    _constraints: dict[tuple[QualifiedName, str], int] = field(default_factory=dict)
    _not_valid: dict[tuple[QualifiedName, str], int] = field(default_factory=dict)
    _locked: dict[QualifiedName, int] = field(default_factory=dict)
    _secured: set[QualifiedName] = field(default_factory=set)
    _parts_dropped: set[tuple[QualifiedName, str]] = field(default_factory=set)
    _filled: set[QualifiedName] = field(default_factory=set)
    dropped_constraints: set[tuple[QualifiedName, str]] = field(default_factory=set)
    enum_values: dict[str, tuple[QualifiedName, int]] = field(default_factory=dict)

    @cached_property
    def whole(self) -> WholeFile:
        """The whole file, what comes later included."""
        return WholeFile(self.read_file())

    def begin_piece(self, *, outside: bool, repeat: bool) -> None:
        """The next piece begins."""
        if outside or self.outside:
            self.transaction += 1
        self.outside, self.repeat = outside, repeat

    def has_created(self, kind: str, name: QualifiedName) -> bool:
        """The file itself created it."""
        return (kind, name) in self._created

    def creates_later(self, kind: str, name: QualifiedName) -> bool:
        """A later statement of the file creates, or replaces, an object of that name."""
        return self.whole.created[kind, name] > self._seen[kind, name]

    def is_live(self, table: QualifiedName) -> bool:
        """The table was there before the file, and is there after it."""
        return not self.has_created("table", table) and table not in self.whole.dropped_tables

    def has_created_function(self, name: QualifiedName, arguments: tuple[str, ...] | None) -> bool:
        return any(known == name and arguments in (None, of) for known, of in self._routines)

    def has_added_column(self, table: QualifiedName, column: str) -> bool:
        return (table, column) in self._columns or self.has_created("table", table)

    def has_added_constraint(self, table: QualifiedName, constraint: str) -> bool:
        return (table, constraint) in self._constraints or self.has_created("table", table)

    def has_added_not_valid(self, table: QualifiedName, constraint: str) -> bool:
        """It was added NOT VALID in the transaction that runs now."""
        return self._not_valid.get((table, constraint)) == self.transaction

    def has_secured(self, table: QualifiedName) -> bool:
        """The file itself enabled row security on it."""
        return table in self._secured

    def has_dropped_part(self, table: QualifiedName, name: str) -> bool:
        """The file itself dropped the table's policy or trigger of that name, or disabled the trigger."""
        return (table, name) in self._parts_dropped

    def has_filled(self, table: QualifiedName) -> bool:
        """The file itself wrote rows into it from another table."""
        return table in self._filled

    def holds_lock(self, table: QualifiedName | None = None) -> bool:
        """An earlier statement of the transaction keeps others from the table, or from any."""
        locked = self._locked.values() if table is None else (self._locked.get(table),)
        return not self.outside and self.transaction in locked

    def is_never_null(self, table: QualifiedName, column: str) -> bool:
        """The column is NOT NULL, or a validated check says the same."""
        if self.schema.is_never_null(table, column) or column in self.schema.tables[table].not_null:
            return True
        return bool(self.database and self.database.is_never_null(table, column))

    def is_replaced_by_not_null(self, table: QualifiedName, constraint: str) -> bool:
        """The constraint says no more than NOT NULL, which its columns are by now."""
        known = self.schema.tables[table]
        check = known.checks.get(constraint)
        return check is not None and check.columns <= known.not_null

    def is_partitioned(self, table: QualifiedName) -> bool | None:
        """None: neither the files nor a database tell."""
        if table in self.schema.partitioned:
            return True
        return self.database.is_partitioned(table) if self.database else None

    def is_strict_domain(self, type_: DataType) -> bool:
        """A domain that asks something of its values, or gives each a volatile default."""
        if type_.name is None:
            return False
        return type_.name in self.schema.strict_domains or bool(
            self.database and self.database.is_strict_domain(type_.name)
        )

    def apply_fact(self, fact: Fact) -> None:
        """The fact has happened."""
        if isinstance(fact, _LOCKING) and not self.has_created("table", fact.table):
            self._locked[fact.table] = self.transaction
        self._apply_to_objects(fact)
        self._apply_to_tables(fact)

    def _apply_to_objects(self, fact: Fact) -> None:
        if isinstance(fact, (ObjectCreated, ObjectReplaced)):
            self._seen[fact.kind, fact.name] += 1
        match fact:
            case ObjectCreated(kind="function", name=name, arguments=arguments):
                self._routines.append((name, arguments or ()))
            case ObjectCreated(kind=kind, name=name, partitioned=partitioned):
                self._created[kind, name] = self.transaction
                if kind == "table":
                    self.schema.tables.pop(name, None)
                if partitioned:
                    self.schema.partitioned.add(name)
            case ObjectDropped(kind=kind, name=name):
                self._created.pop((kind, name), None)
                if kind == "index" and (known := self.schema.indexes.pop(name, None)):
                    self.schema.tables[known.table].keys.discard(known.columns)
                elif kind == "table":
                    self.schema.partitioned.discard(name)
                    self.schema.tables.pop(name, None)
                elif kind == "type":
                    self.schema.strict_domains.discard(name)
            case ObjectRenamed(kind=kind, name=name, to=to, moved=moved):
                new = QualifiedName(to, name.name, name.name) if moved else QualifiedName(name.schema, to, to)
                if (kind, name) in self._created:
                    self._created[kind, new] = self._created.pop((kind, name))
                if kind == "table" and name in self.schema.tables:
                    self.schema.tables[new] = self.schema.tables.pop(name)
                for names in (self.schema.partitioned, self.schema.strict_domains):
                    if name in names:
                        names.remove(name)
                        names.add(new)
            case DomainDefined(name=name, base=base, strict=strict, calls=calls):
                asked = self.database.is_volatile if self.database else None
                if strict or find_most_volatile(calls, asked)[1] is not False or self.is_strict_domain(base):
                    self.schema.strict_domains.add(name)
            case TypeDefinitionChanged(type=type_, how=how):
                if how.upper().startswith(("ADD CONSTRAINT", "ADD CHECK", "ADD NOT NULL", "SET NOT NULL")):
                    self.schema.strict_domains.add(type_)
            case EnumValueAdded(type=type_, value=value):
                # The values of a type that the same transaction made may be used at once.
                if self._created.get(("type", type_)) != self.transaction:
                    self.enum_values[value] = (type_, self.transaction)
            case IndexBuilt(name=name, table=table, columns=columns, partial=partial):
                if name:
                    self.schema.indexes[name] = KnownIndex(table, columns)
                if not partial:
                    self.schema.tables[table].keys.add(columns)
            case PolicyChanged(how="DROP", table=table, name=name):
                self._parts_dropped.add((table, name))
            case TriggerChanged(how="DROP" | "DISABLE" as how, table=table, name=name):
                self._parts_dropped.add((table, name))
                if how == "DROP":
                    self.schema.triggers.discard((table, name))
            case TriggerChanged(how="CREATE" | "CREATE OR REPLACE", table=table, name=name):
                self.schema.triggers.add((table, name))
            case RowSecurityChanged(how="ENABLE", table=table):
                self._secured.add(table)
            case RowsWritten(how="INSERT", table=table):
                self._filled.add(table)
            case _:
                pass

    def _apply_to_tables(self, fact: Fact) -> None:
        match fact:
            case ColumnAdded(table=table, column=column):
                self._columns.add((table, column.name))
                self.schema.tables[table].defaults[column.name] = column.filled
            case ColumnDropped(table=table, column=column):
                self._columns.discard((table, column))
                self.schema.tables[table].forget_column(column)
            case NotNullDropped(table=table, column=column):
                self.schema.tables[table].forget_not_null(column)
            case DefaultSet(table=table, column=column):
                self.schema.tables[table].defaults[column] = True
            case DefaultDropped(table=table, column=column):
                self.schema.tables[table].defaults[column] = False
            case ColumnRenamed(table=table, column=column, to=to):
                if (table, column) in self._columns:
                    self._columns.remove((table, column))
                    self._columns.add((table, to))
                self.schema.tables[table].forget_column(column)
            case ConstraintAdded(table=table, constraint=constraint):
                self._constraints[table, constraint.name] = self.transaction
                if constraint.not_valid:
                    self._not_valid[table, constraint.name] = self.transaction
                known = self.schema.tables[table]
                if constraint.not_null_columns:
                    known.checks[constraint.name] = _NotNullCheck(constraint.not_null_columns, not constraint.not_valid)
                if constraint.kind in ("unique", "primary key"):
                    known.keys.add(constraint.columns)
            case ConstraintValidated(table=table, name=name):
                known = self.schema.tables[table]
                if name in known.checks:
                    known.checks[name] = _NotNullCheck(known.checks[name].columns, True)
            case ConstraintDropped(table=table, name=name):
                self.schema.tables[table].checks.pop(name, None)
                self._constraints.pop((table, name), None)
                self.dropped_constraints.add((table, name))
            case NotNullSet(table=table, column=column):
                self.schema.tables[table].not_null.add(column)
            case _:
                pass
