"""What a schema holds, read from the server's catalog: tables, types, functions, rights. Names are as stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from psycopg.rows import dict_row

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

Connection: TypeAlias = "psycopg.Connection[Any]"

_SQL = load_statements(__file__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Column:
    """`expression`: its default, or what it is generated from. `identity`: `a`lways, by `d`efault, or empty.
    `generated`: `s`tored, `v`irtual, or empty.
    """

    name: str
    type: str
    not_null: bool
    expression: str | None
    identity: str
    generated: str
    collation: str | None
    is_local: bool

    @property
    def default(self) -> str | None:
        """What a row gets when an INSERT leaves the column out, unless null."""
        return f"generated ({self.identity or self.generated})" if self.identity or self.generated else self.expression


@dataclass(frozen=True)
class Relation:
    """A table (`r`, partitioned `p`) or a view (`v`, materialized `m`), with its columns by name, in order."""

    oid: int
    name: str
    kind: str
    unlogged: bool
    row_security: bool
    force_row_security: bool
    options: tuple[str, ...]
    partition_key: str | None
    partition_bound: str | None
    parents: tuple[str, ...]
    query: str | None
    columns: Mapping[str, Column]

    @property
    def is_table(self) -> bool:
        return self.kind in "rp"


@dataclass(frozen=True)
class Constraint:
    """`kind`: `p`rimary key, `u`nique, e`x`clusion, `c`heck, `f`oreign key. `inherited`: from a partitioned table."""

    name: str
    kind: str
    table: str
    columns: tuple[str, ...]
    definition: str
    referenced: str | None
    referenced_columns: tuple[str, ...]
    on_delete: str
    inherited: bool


@dataclass(frozen=True)
class Index:
    """An index that is not a constraint's. `inherited`: from a partitioned table's."""

    name: str
    table: str
    definition: str
    inherited: bool
    unique: bool
    valid: bool
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Type:
    """`kind`: `e`num, `d`omain, `c`omposite, `r`ange. `labels`: an enum's, in order; `definition`: of the others.

    The rest are a domain's parts, a check as ALTER DOMAIN … ADD takes it.
    """

    oid: int
    name: str
    kind: str
    labels: tuple[str, ...]
    definition: str | None
    base: str | None
    default: str | None
    not_null: bool
    checks: tuple[str, ...]


@dataclass(frozen=True)
class Routine:
    """`kind`: `f`unction, `p`rocedure, `a`ggregate, `w`indow. `defaults`: how many of the last arguments have one."""

    oid: int
    name: str
    kind: str
    arguments: tuple[str, ...]
    argument_names: tuple[str, ...]
    defaults: int
    result: str | None
    definition: str
    identity: str  # name and arguments as GRANT takes them

    @property
    def signature(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"


@dataclass(frozen=True)
class Trigger:
    """`enabled`: `O`rigin (the usual), `D`isabled, `R`eplica, `A`lways."""

    name: str
    table: str
    definition: str
    enabled: str


@dataclass(frozen=True)
class Policy:
    """A row-level security policy."""

    name: str
    table: str
    definition: str


@dataclass(frozen=True)
class Sequence:
    """`identity`: it belongs to an identity column, and has no life of its own."""

    oid: int
    name: str
    type: str
    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int
    cycle: bool
    owner_table: str | None
    owner_column: str | None
    identity: bool


@dataclass(frozen=True)
class Grant:
    """A right that somebody other than the owner has; names are quoted as SQL needs them.

    `kind`: SCHEMA, TABLE, SEQUENCE, FUNCTION or PROCEDURE. `usual`: PostgreSQL gives it on creation.
    """

    kind: str
    name: str
    column: str | None
    grantee: str
    privilege: str
    grantable: bool
    usual: bool


@dataclass(frozen=True)
class Comment:
    """`words`: TABLE, COLUMN, FUNCTION…; `name` as COMMENT ON takes it, `relation` behind its ON. Both are quoted."""

    words: str
    name: str
    relation: str | None
    text: str
    thing: tuple[str, ...]  # as in things.py


@dataclass(frozen=True)
class Catalog:
    """One schema at one moment. What an extension brought is left out."""

    schema: str
    relations: Mapping[str, Relation]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]
    types: Mapping[str, Type]
    routines: tuple[Routine, ...]
    triggers: tuple[Trigger, ...]
    policies: tuple[Policy, ...]
    sequences: Mapping[str, Sequence]
    grants: tuple[Grant, ...]
    comments: tuple[Comment, ...]
    extensions: tuple[tuple[str, str], ...]  # of the whole database, with the schema of each


def read_catalog(conn: Connection, schema: str) -> Catalog:
    """Read a schema, on a connection in autocommit mode: a statement for each kind of thing, whatever their number.

    A schema that does not exist is empty.
    """
    with conn.transaction():
        conn.execute(_SQL["set_output_format"], {"schema": schema})
        columns: dict[int, dict[str, Column]] = {}
        for row in _read_rows(conn, "columns", schema):
            relation = row.pop("relation")
            columns.setdefault(relation, {})[row["name"]] = Column(**row)
        relations = [
            Relation(**_freeze_lists(row), columns=columns.get(row["oid"], {}))
            for row in _read_rows(conn, "relations", schema)
        ]
        return Catalog(
            schema=schema,
            relations={relation.name: relation for relation in relations},
            constraints=_read_all(Constraint, conn, "constraints", schema),
            indexes=_read_all(Index, conn, "indexes", schema),
            types={type_.name: type_ for type_ in _read_all(Type, conn, "types", schema)},
            routines=_read_all(Routine, conn, "routines", schema),
            triggers=_read_all(Trigger, conn, "triggers", schema),
            policies=_read_all(Policy, conn, "policies", schema),
            sequences={sequence.name: sequence for sequence in _read_all(Sequence, conn, "sequences", schema)},
            grants=_read_all(Grant, conn, "grants", schema),
            comments=_read_all(Comment, conn, "comments", schema),
            extensions=tuple((row["name"], row["schema"]) for row in _read_rows(conn, "extensions", schema)),
        )


def list_tables(conn: Connection, schema: str) -> list[tuple[str, str]]:
    """Schema and name of each table that we may read."""
    return [(schema, row["name"]) for row in _read_rows(conn, "readable_tables", schema)]


def read_dependencies(conn: Connection) -> tuple[tuple[int, int], ...]:
    """Pairs of oids: the first can't be created before the second exists."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return tuple((row["object"], row["needed"]) for row in cursor.execute(_SQL["dependencies"]))


def read_needed_schemas(conn: Connection, schema: str) -> tuple[str, ...]:
    """Other schemas that something in this one needs: a trigger's function, a key's table, a column's type."""
    return tuple(row["schema"] for row in _read_rows(conn, "needed_schemas", schema))


def unquote_name(name: str) -> str:
    """A name as it is stored, from one that the server quoted where SQL needs it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') and name.endswith('"') else name


def _read_all(kind: type[_T], conn: Connection, statement: str, schema: str) -> tuple[_T, ...]:
    return tuple(kind(**_freeze_lists(row)) for row in _read_rows(conn, statement, schema))


def _freeze_lists(row: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _read_rows(conn: Connection, statement: str, schema: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[statement], {"schema": schema}).fetchall()
