"""What a mapping file says, and what a check finds in one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from pathlib import Path

ColumnType = Literal[
    "uuid", "text", "boolean", "integer", "bigint", "double", "numeric", "date", "timestamp", "timestamptz", "json"
]
COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)
Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Column:
    """A column of the copy."""

    name: str
    type: ColumnType
    nullable: bool


@dataclass(frozen=True)
class Dependency:
    """Rows of `table` whose change must re-send source rows.

    `on` maps a column of `table` to a SQL expression over the source row, names quoted and without an alias; a
    plain column of the source stands as its quoted identifier.
    """

    table: str
    on: dict[str, str]


@dataclass(frozen=True)
class TenancyJoin:
    """How a source without a `tenancyId` reaches its tenancy: columns of `table` to columns of the source."""

    table: str
    on: dict[str, str]


@dataclass(frozen=True)
class Mapping:
    """One table in an external database, made from one sequenced source table.

    `key` maps key columns of the copy to source columns, `lookup` (usually empty) the column by which an index of
    the source finds its rows when the key alone is not the front of an index. `filter` is a SQL condition over the
    source's own columns, which the WHERE of `select` holds as well: it yields no other row. `deleted_as` is the
    table name under which deletes of this source are recorded.
    """

    name: str
    source: str
    target: str
    key: dict[str, str]
    columns: tuple[Column, ...]
    select: str
    depends_on: tuple[Dependency, ...]
    filter: str | None
    deleted_as: str
    tenancy: TenancyJoin | None
    file: Path
    lookup: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def sent_filter(self) -> str | None:
        """Which rows are looked at when they change; None: all.

        A row that leaves `filter` must go outside. Where deletes are recorded under a name of the filter's own, so is
        that; elsewhere the row is looked at, and not found.
        """
        return self.filter if self.deleted_as != self.source else None

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """The key's columns in the order of `key`."""
        by_name = {column.name: column for column in self.columns}
        return tuple(by_name[name] for name in self.key)


@dataclass(frozen=True)
class Finding:
    """One thing wrong in a file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    rule: str
    severity: Severity
    message: str
    suggestion: str | None = None
