"""The statements that run on a target, per dialect: its table, the staging table, upsert and delete."""

# ruff: noqa: S608 - this module writes SQL: names are quoted, values are parameters.
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, cast

from stackctl.mapping.sql_text import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Column, ColumnType, Mapping

STAGING_PREFIX = "_stack_staging_"

POSTGRES_TYPES: dict[ColumnType, str] = {
    "uuid": "uuid",
    "text": "text",
    "boolean": "boolean",
    "integer": "integer",
    "bigint": "bigint",
    "double": "double precision",
    "numeric": "numeric",
    "date": "date",
    "timestamp": "timestamp",
    "timestamptz": "timestamptz",
    "json": "jsonb",
}
TYPES: dict[Dialect, dict[ColumnType, str]] = {
    "postgres": POSTGRES_TYPES,
    "sqlite": {
        **dict.fromkeys(POSTGRES_TYPES, "TEXT"),
        "boolean": "INTEGER",
        "integer": "INTEGER",
        "bigint": "INTEGER",
        "double": "REAL",
    },
    "duckdb": {
        "uuid": "UUID",
        "text": "VARCHAR",
        "boolean": "BOOLEAN",
        "integer": "INTEGER",
        "bigint": "BIGINT",
        "double": "DOUBLE",
        "numeric": "DECIMAL(38, 10)",
        "date": "DATE",
        "timestamp": "TIMESTAMP",
        "timestamptz": "TIMESTAMPTZ",
        "json": "JSON",
    },
    "mysql": {
        "uuid": "char(36) CHARACTER SET ascii COLLATE ascii_bin",
        "text": "longtext",
        "boolean": "tinyint(1)",
        "integer": "int",
        "bigint": "bigint",
        "double": "double",
        "numeric": "decimal(65, 18)",
        "date": "date",
        "timestamp": "datetime(6)",
        "timestamptz": "datetime(6)",
        "json": "json",
    },
    "clickhouse": {
        "uuid": "UUID",
        "text": "String",
        "boolean": "Bool",
        "integer": "Int32",
        "bigint": "Int64",
        "double": "Float64",
        "numeric": "Decimal(38, 10)",
        "date": "Date32",
        "timestamp": "DateTime64(6, 'UTC')",
        "timestamptz": "DateTime64(6, 'UTC')",
        "json": "String",
    },
}


@dataclass(frozen=True)
class TargetStatements:
    """What `Compiled` says of its target half."""

    create_table: str
    create_staging: str
    staging: str
    upsert: str
    delete: str


def compile_target_statements(mapping: Mapping, dialect: Dialect) -> TargetStatements:
    """The target half of a compiled mapping."""
    if dialect == "mysql":
        return _mysql(mapping)
    if dialect == "clickhouse":
        return _clickhouse(mapping)
    target, staging = quote(mapping.target), quote(STAGING_PREFIX + mapping.target)
    types = TYPES[dialect]
    insert, conflict = _insert(mapping)
    keys = [quote(name) for name in mapping.key]
    # A whole load says nothing of deletes.
    staged = "_stack_sequence_id bigint,\n  _stack_deleted boolean DEFAULT false,\n  " + ",\n  ".join(
        f"{quote(c.name)} {types[c.type]}" for c in mapping.columns
    )
    if dialect == "sqlite":
        staged = ", ".join(f"{quote(c.name)} {types[c.type]}" for c in mapping.key_columns)
        create_staging = f"CREATE TEMP TABLE {staging} ({staged}, PRIMARY KEY ({', '.join(keys)})) WITHOUT ROWID"
        upsert = f"{insert} VALUES ({', '.join('?' for _ in mapping.columns)}) {conflict}"
        delete = f"DELETE FROM {target} WHERE " + " AND ".join(f"{key} = ?" for key in keys)
    elif dialect == "duckdb":
        create_staging = f"CREATE OR REPLACE TEMP TABLE {staging} (\n  {staged}\n)"
        # Its ON CONFLICT and MERGE slow down with every batch.
        same = " AND ".join(f"t.{key} = s.{key}" for key in keys)
        upsert = (
            f"DELETE FROM {target} AS t USING {staging} AS s WHERE NOT s._stack_deleted AND {same};\n"
            f"{insert} SELECT {_names(mapping.columns)} FROM {staging} WHERE NOT _stack_deleted"
        )
        delete = f"DELETE FROM {target} AS t USING {staging} AS s WHERE s._stack_deleted AND {same}"
    else:
        create_staging = f"CREATE TEMP TABLE {staging} (\n  {staged}\n) ON COMMIT DROP"
        # Ordered by the key the target's index grows at its right edge, and writers lock rows in one order.
        upsert = (
            f"{insert} SELECT {_names(mapping.columns)} FROM {staging} WHERE NOT _stack_deleted"
            f" ORDER BY {', '.join(keys)} {conflict}"
        )
        if len(keys) == 1:
            delete = (
                f"DELETE FROM {target} WHERE {keys[0]} = ANY (ARRAY(SELECT {keys[0]} FROM {staging}"
                " WHERE _stack_deleted))"
            )
        else:
            same = " AND ".join(f"t.{key} = s.{key}" for key in keys)
            delete = f"DELETE FROM {target} AS t USING {staging} AS s WHERE s._stack_deleted AND {same}"
    return TargetStatements(
        create_table=f"CREATE TABLE IF NOT EXISTS {target} (\n  "
        + ",\n  ".join(
            [
                *(f"{quote(c.name)} {types[c.type]}{'' if c.nullable else ' NOT NULL'}" for c in mapping.columns),
                f"PRIMARY KEY ({', '.join(keys)})",
            ]
        )
        + "\n)",
        create_staging=create_staging,
        staging=STAGING_PREFIX + mapping.target,
        upsert=upsert,
        delete=delete,
    )


def compose_prune(mapping: Mapping, selected: str = "DELETE") -> LiteralString:
    """Delete (or select) the rows of the target whose keys the staging table lacks, in any dialect of `Target`s."""
    same = " AND ".join(f"s.{quote(key)} = t.{quote(key)}" for key in mapping.key)
    staging = quote(STAGING_PREFIX + mapping.target)
    lacking = f"NOT EXISTS (SELECT 1 FROM {staging} AS s WHERE {same})"
    return cast("LiteralString", f"{selected} FROM {quote(mapping.target)} AS t WHERE {lacking}")


def compose_unwritten(mapping: Mapping) -> LiteralString:
    """The keys of staged rows that this transaction of PostgreSQL has not written, or not deleted."""
    same = " AND ".join(f"t.{quote(key)} = s.{quote(key)}" for key in mapping.key)
    return cast(
        "LiteralString",
        f"SELECT {', '.join(f's.{quote(key)}' for key in mapping.key)}"
        f" FROM {quote(STAGING_PREFIX + mapping.target)} AS s LEFT JOIN {quote(mapping.target)} AS t ON {same}"
        " WHERE CASE WHEN s._stack_deleted THEN t.xmin IS NOT NULL"
        " ELSE t.xmin IS DISTINCT FROM pg_current_xact_id()::xid END",
    )


def compose_exchange_upsert(mapping: Mapping, names: dict[str, str]) -> LiteralString:
    """Upsert what is staged in PostgreSQL, into columns of these names. Without names, into a table without a key."""
    columns = [names.get(column.name, column.name) for column in mapping.columns]
    rest = [name for name, column in zip(columns, mapping.columns, strict=True) if column.name not in mapping.key]
    keys = ", ".join(map(quote, mapping.key))
    update = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in rest)
    conflict = f" ON CONFLICT ({keys}) DO {f'UPDATE SET {update}' if rest else 'NOTHING'}" if names else ""
    return cast(
        "LiteralString",
        f"INSERT INTO {quote(mapping.target)} ({', '.join(map(quote, columns))})"
        f" SELECT {_names(mapping.columns)} FROM {quote(STAGING_PREFIX + mapping.target)} ORDER BY {keys}{conflict}",
    )


def _names(columns: Iterable[Column]) -> str:
    return ", ".join(quote(column.name) for column in columns)


def _insert(mapping: Mapping) -> tuple[str, str]:
    # A row counts as written even where every column is in the key: rows that were sent are compared with these.
    rest = [c.name for c in mapping.columns if c.name not in mapping.key] or list(mapping.key)[:1]
    update = ", ".join(f"{quote(name)} = excluded.{quote(name)}" for name in rest)
    return (
        f"INSERT INTO {quote(mapping.target)} ({_names(mapping.columns)})",
        f"ON CONFLICT ({', '.join(quote(name) for name in mapping.key)}) DO UPDATE SET {update}",
    )


def _backtick(identifier: str) -> str:
    return "`" + identifier.replace("`", "``") + "`"


def _mysql(mapping: Mapping) -> TargetStatements:
    target, staging = _backtick(mapping.target), _backtick(STAGING_PREFIX + mapping.target)
    names = [_backtick(c.name) for c in mapping.columns]
    keys = [_backtick(name) for name in mapping.key]

    def typed(column: Column) -> str:
        # A key needs a bounded length; all key columns of text together stay below InnoDB's 3072 bytes.
        bounded = column.type == "text" and column.name in mapping.key
        kind = f"varchar({700 // len(keys)})" if bounded else TYPES["mysql"][column.type]
        return f"{_backtick(column.name)} {kind}"

    # Nothing to set when every column is in the key: assigning the key to itself leaves the row as it is.
    rest = [_backtick(c.name) for c in mapping.columns if c.name not in mapping.key] or keys[:1]
    same = " AND ".join(f"t.{key} = s.{key}" for key in keys)
    return TargetStatements(
        create_table=f"CREATE TABLE IF NOT EXISTS {target} (\n  "
        + ",\n  ".join(
            [
                *(f"{typed(c)} {'NULL' if c.nullable else 'NOT NULL'}" for c in mapping.columns),
                f"PRIMARY KEY ({', '.join(keys)})",
            ]
        )
        + "\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
        create_staging=f"CREATE TEMPORARY TABLE IF NOT EXISTS {staging} (\n"
        "  _stack_sequence_id bigint NULL,\n  _stack_deleted tinyint(1) NULL,\n  "
        + ",\n  ".join(f"{typed(c)} NULL" for c in mapping.columns)
        + "\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
        staging=STAGING_PREFIX + mapping.target,
        upsert=f"INSERT INTO {target} ({', '.join(names)})"
        f" SELECT {', '.join(names)} FROM {staging} WHERE NOT _stack_deleted ORDER BY {', '.join(keys)}"
        f" ON DUPLICATE KEY UPDATE {', '.join(f'{name} = VALUES({name})' for name in rest)}",
        delete=f"DELETE t FROM {target} AS t JOIN {staging} AS s ON {same} WHERE s._stack_deleted",
    )


def _clickhouse(mapping: Mapping) -> TargetStatements:
    """Rows are versioned by sequence id; a delete is a newer row marked deleted, hidden by FINAL and merged away."""
    target, staging = _backtick(mapping.target), _backtick(STAGING_PREFIX + mapping.target)
    names = [_backtick(c.name) for c in mapping.columns]
    types = TYPES["clickhouse"]
    # A deleted row has null where the column may not be null: its type's default stands in.
    values = [name if c.nullable else f"assumeNotNull({name})" for name, c in zip(names, mapping.columns, strict=True)]

    def insert(deleted: int) -> str:
        return (
            f"INSERT INTO {target} ({', '.join(names)}, _stack_version, _stack_deleted)"
            f" SELECT {', '.join(values)}, toUInt64(_stack_sequence_id), {deleted}"
            f" FROM {staging} WHERE _stack_deleted = {deleted}"
        )

    return TargetStatements(
        create_table=f"CREATE TABLE IF NOT EXISTS {target} (\n  "
        + ",\n  ".join(
            [
                *(
                    f"{_backtick(c.name)} " + (f"Nullable({types[c.type]})" if c.nullable else types[c.type])
                    for c in mapping.columns
                ),
                "_stack_version UInt64",
                "_stack_deleted UInt8",
            ]
        )
        + "\n) ENGINE = ReplacingMergeTree(_stack_version, _stack_deleted)"
        + f" ORDER BY ({', '.join(_backtick(name) for name in mapping.key)})",
        create_staging=f"CREATE TEMPORARY TABLE IF NOT EXISTS {staging} (\n"
        "  _stack_sequence_id Int64,\n  _stack_deleted UInt8,\n  "
        + ",\n  ".join(f"{_backtick(c.name)} Nullable({types[c.type]})" for c in mapping.columns)
        + "\n)",
        staging=STAGING_PREFIX + mapping.target,
        upsert=insert(0),
        delete=insert(1),
    )
