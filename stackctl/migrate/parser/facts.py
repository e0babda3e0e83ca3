"""What one statement does, as far as rules ask. A statement gives one fact or several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from stackctl.migrate.parser.token_reader import QualifiedName

ConstraintKind = Literal["check", "not null", "unique", "primary key", "foreign key", "exclude"]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """`at`: its offset in the statement, in characters. `text`: the statement, or one that does this alone."""

    at: int = 0
    text: str = ""


@dataclass(frozen=True)
class DataType:
    """A column's type. `base` is PostgreSQL's own name of it (`integer`, `varchar`, `timestamp`), in lower case, or
    the quoted name of an own type; `modifier` what stands in its brackets.
    """

    text: str
    base: str
    modifier: str = ""
    name: QualifiedName | None = None  # unless it is an array


@dataclass(frozen=True)
class ColumnDefinition:
    """A column's definition; its constraints are facts of their own."""

    name: str
    shown: str
    type: DataType
    default: str | None = None
    calls: tuple[str, ...] = ()  # the functions that the default calls
    not_null: bool = False
    identity: bool = False
    stored: bool = False  # GENERATED ALWAYS AS … STORED
    key: bool = False  # it alone is the primary key

    @property
    def serial(self) -> bool:
        return self.type.base in ("serial", "bigserial", "smallserial")

    @property
    def filled(self) -> bool:
        """Whether existing rows get a value."""
        has_default = self.default is not None and self.default.upper() != "NULL"
        return has_default or self.identity or self.serial or self.stored


@dataclass(frozen=True)
class ConstraintDefinition:
    """`not_null_columns`: the columns that a check (or NOT NULL) makes certain. `name` may be PostgreSQL's guess."""

    kind: ConstraintKind
    name: str
    named: bool
    columns: tuple[str, ...] = ()
    not_valid: bool = False
    using_index: str = ""  # its name
    not_null_columns: frozenset[str] = frozenset()
    body: str = ""
    references: QualifiedName | None = None
    on_delete: str = ""  # CASCADE, SET NULL, …


@dataclass(frozen=True)
class ObjectCreated(Fact):
    """An object comes into being. `kind`: table, index, view, type, function, sequence, schema, …"""

    kind: str
    name: QualifiedName
    arguments: tuple[str, ...] | None = None  # of a function
    partitioned: bool = False
    temporary: bool = False
    parent: QualifiedName | None = None  # of a partition


@dataclass(frozen=True)
class ObjectReplaced(Fact):
    """By CREATE OR REPLACE: it may have been there before."""

    kind: str
    name: QualifiedName


@dataclass(frozen=True)
class DomainDefined(Fact):
    """`strict`: a check or NOT NULL holds for its values. `base`: the type that it is made of."""

    name: QualifiedName
    base: DataType
    strict: bool
    calls: tuple[str, ...] = ()  # the functions that its default calls


@dataclass(frozen=True)
class RoutineDefined(Fact):
    """`definer`: it runs with the rights of its owner. `path_set`: with a search_path of its own."""

    name: QualifiedName
    definer: bool
    path_set: bool


@dataclass(frozen=True)
class IndexBuilt(Fact):
    name: QualifiedName | None
    table: QualifiedName
    concurrently: bool
    only: bool
    unique: bool = False
    columns: tuple[str, ...] = ()  # those before the first expression
    partial: bool = False


@dataclass(frozen=True)
class ObjectDropped(Fact):
    kind: str
    name: QualifiedName
    concurrently: bool = False
    arguments: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ObjectRenamed(Fact):
    kind: str
    name: QualifiedName
    to: str
    moved: bool = False  # into another schema
    table: QualifiedName | None = None  # of a constraint


@dataclass(frozen=True)
class ColumnAdded(Fact):
    """By ADD COLUMN, or in CREATE TABLE."""

    table: QualifiedName
    column: ColumnDefinition


@dataclass(frozen=True)
class ColumnDropped(Fact):
    table: QualifiedName
    column: str


@dataclass(frozen=True)
class ColumnRenamed(Fact):
    table: QualifiedName
    column: str
    to: str


@dataclass(frozen=True)
class TypeChanged(Fact):
    table: QualifiedName
    column: str
    type: DataType
    using: str | None


@dataclass(frozen=True)
class NotNullSet(Fact):
    table: QualifiedName
    column: str


@dataclass(frozen=True)
class NotNullDropped(Fact):
    table: QualifiedName
    column: str


@dataclass(frozen=True)
class DefaultSet(Fact):
    table: QualifiedName
    column: str


@dataclass(frozen=True)
class DefaultDropped(Fact):
    table: QualifiedName
    column: str


@dataclass(frozen=True)
class ColumnGenerated(Fact):
    """It becomes GENERATED ALWAYS: who writes it is refused."""

    table: QualifiedName
    column: str


@dataclass(frozen=True)
class GenerationDropped(Fact):
    """DROP IDENTITY or DROP EXPRESSION."""

    table: QualifiedName
    column: str
    how: str


@dataclass(frozen=True)
class SequenceChanged(Fact):
    """A sequence, or that of a column, draws other numbers. `how`: the words that do it."""

    name: QualifiedName
    how: str
    column: str = ""


@dataclass(frozen=True)
class OptionsChanged(Fact):
    """ALTER of a function, view, role, database, extension or the system, by the words `how`."""

    kind: str
    name: QualifiedName | None
    how: str


@dataclass(frozen=True)
class ReplicaIdentityChanged(Fact):
    table: QualifiedName
    how: str


@dataclass(frozen=True)
class InheritanceDropped(Fact):
    table: QualifiedName
    parent: QualifiedName


@dataclass(frozen=True)
class TypeDefinitionChanged(Fact):
    """A composite type's attribute, or what a domain asks of its values."""

    type: QualifiedName
    how: str


@dataclass(frozen=True)
class ConstraintAdded(Fact):
    """`column`: the column whose definition holds it, if it stands in one. `domain`: it is a domain's."""

    table: QualifiedName
    constraint: ConstraintDefinition
    column: ColumnDefinition | None = None
    added_column: bool = False
    domain: bool = False


@dataclass(frozen=True)
class ConstraintValidated(Fact):
    table: QualifiedName
    name: str


@dataclass(frozen=True)
class ConstraintDropped(Fact):
    table: QualifiedName
    name: str


@dataclass(frozen=True)
class TableRewritten(Fact):
    """A table or index is rewritten under a lock. `how`: the words that do it."""

    table: QualifiedName
    how: str


@dataclass(frozen=True)
class TableCompacted(Fact):
    """VACUUM FULL or CLUSTER. `table` is None for all of them."""

    how: str
    table: QualifiedName | None


@dataclass(frozen=True)
class IndexesRebuilt(Fact):
    """`name` is None for the current database."""

    kind: str
    name: QualifiedName | None
    concurrently: bool


@dataclass(frozen=True)
class ViewRefreshed(Fact):
    name: QualifiedName
    concurrently: bool


@dataclass(frozen=True)
class PartitionMoved(Fact):
    """ATTACH or DETACH PARTITION."""

    how: Literal["attach", "detach"]
    table: QualifiedName
    partition: QualifiedName
    concurrently: bool = False


@dataclass(frozen=True)
class TableTruncated(Fact):
    table: QualifiedName
    cascade: bool


@dataclass(frozen=True)
class TableLocked(Fact):
    table: QualifiedName


@dataclass(frozen=True)
class RowSecurityChanged(Fact):
    table: QualifiedName
    how: Literal["ENABLE", "DISABLE", "FORCE", "NO FORCE"]


@dataclass(frozen=True)
class PolicyChanged(Fact):
    how: Literal["CREATE", "ALTER", "DROP"]
    table: QualifiedName
    name: str


@dataclass(frozen=True)
class TriggerChanged(Fact):
    """`name` is ALL or USER for all of a table's, or all but those of constraints."""

    how: Literal["CREATE", "CREATE OR REPLACE", "ALTER", "DROP", "ENABLE", "DISABLE"]
    table: QualifiedName
    name: str


@dataclass(frozen=True)
class RightsRevoked(Fact):
    """`kind` and `name` of what they were on; without a name where it is more than one table, routine or sequence."""

    kind: str
    name: QualifiedName | None


@dataclass(frozen=True)
class OwnedDropped(Fact):
    role: str


@dataclass(frozen=True)
class RowsWritten(Fact):
    """UPDATE, DELETE, MERGE or INSERT … SELECT. `everything`: no condition holds a row back.

    `value`: the column that is set and its value, as written, where it is one and the value stays the same.
    `narrow`: the columns that a condition holds to a value of its own.
    """

    how: Literal["UPDATE", "DELETE", "MERGE", "INSERT"]
    table: QualifiedName
    everything: bool
    value: tuple[str, str] | None = None
    narrow: frozenset[str] = frozenset()


@dataclass(frozen=True)
class EnumValueAdded(Fact):
    type: QualifiedName
    value: str


@dataclass(frozen=True)
class EnumValueUsed(Fact):
    """A statement holds a value of an enum that the same transaction has added."""

    type: QualifiedName
    value: str


@dataclass(frozen=True)
class EnumValueRenamed(Fact):
    type: QualifiedName
    value: str
    to: str


@dataclass(frozen=True)
class TransactionRefused(Fact):
    """A statement that the server refuses inside a transaction. `how`: its words."""

    how: str


@dataclass(frozen=True)
class TransactionControl(Fact):
    """`in_block`: inside DO, which may commit where no transaction surrounds it."""

    word: str
    in_block: bool = False


@dataclass(frozen=True)
class DynamicSql(Fact):
    """SQL that is put together when it runs."""


@dataclass(frozen=True)
class UnknownStatement(Fact):
    what: str


@dataclass(frozen=True)
class StatementFacts:
    """One statement: its facts in order, and the strings it holds that the server reads as values."""

    facts: tuple[Fact, ...]
    strings: frozenset[str] = field(default_factory=frozenset)
