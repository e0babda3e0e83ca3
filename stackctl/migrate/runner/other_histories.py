"""What other tools have recorded as applied, told by the names or the numbers of our files.

Sources of the tables: the documentation and source of each tool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql
from psycopg.rows import dict_row

from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.session import Connection

_SQL = load_statements(__file__)

_SQITCHS = "sqitch"  # it keeps its tables in a schema of its own
# How an entry names a file: by its name, by the number it begins with, as the last one that is applied, or not at all.
_Key = Literal["name", "number", "last", "none"]


@dataclass(frozen=True)
class _Tool:
    name: str
    table: str
    statement: str
    key: _Key
    column: str = ""  # that tells it from another tool with a table of that name


# In the order in which they are believed: the backend filled its own table from Prisma's.
_TOOLS = (
    _Tool("the backend", "SchemaMigration", "read_backend", "name"),
    _Tool("Prisma", "_prisma_migrations", "read_prisma", "name"),
    _Tool("golang-migrate", "schema_migrations", "read_golang_migrate", "last", "dirty"),
    _Tool("dbmate or Rails", "schema_migrations", "read_versions", "number"),
    _Tool("goose", "goose_db_version", "read_goose", "number"),
    _Tool("Flyway", "flyway_schema_history", "read_flyway", "number"),
    _Tool("node-pg-migrate", "pgmigrations", "read_node_pg_migrate", "name"),
    _Tool("sql-migrate", "gorp_migrations", "read_sql_migrate", "name"),
    _Tool("tern", "schema_version", "read_versions", "last"),
    _Tool("Alembic", "alembic_version", "read_nothing", "none"),
    _Tool("Django", "django_migrations", "read_nothing", "none"),
    _Tool("Liquibase", "databasechangelog", "read_nothing", "none"),
    _Tool("Knex", "knex_migrations", "read_nothing", "none"),
    _Tool("sqitch", "changes", "read_nothing", "none", "change_id"),
)


@dataclass(frozen=True)
class OtherHistory:
    """One tool's record. `finished`: our files that it has, with the time where that is known. `without_file`: what
    else it has. `failed`: what it began and did not finish. `readable`: whether its entries name files at all.
    `superseded`: those that a baseline of ours stands for, without the last.
    """

    tool: str
    table: str
    finished: dict[str, datetime | None]
    without_file: tuple[str, ...]
    failed: tuple[str, ...]
    readable: bool
    superseded: tuple[str, ...] = ()


def read_other_histories(conn: Connection, migrations: Sequence[Migration], schema: str) -> list[OtherHistory]:
    """The histories of other tools in the schema, those first that are believed first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_SQL["find_tables"], {"schema": schema, "names": [tool.table for tool in _TOOLS]})
        tables = {(row["schema"], row["name"]): row["columns"] for row in cursor}
        found: list[OtherHistory] = []
        for tool in _TOOLS:
            place = (_SQITCHS if tool.name == "sqitch" else schema, tool.table)
            if place not in tables or (tool.column and tool.column not in tables[place]):
                continue
            del tables[place]
            cursor.execute(sql.SQL(_SQL[tool.statement]).format(sql.Identifier(*place)))
            found.append(_match(tool, migrations, cursor.fetchall()))
        return found


def find_history_tables(conn: Connection, schema: str) -> frozenset[str]:
    """The tables of the schema that other tools keep, unread."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_SQL["find_tables"], {"schema": schema, "names": [tool.table for tool in _TOOLS]})
        columns = {row["name"]: row["columns"] for row in cursor if row["schema"] == schema}
    return frozenset(
        tool.table
        for tool in _TOOLS
        if tool.name != _SQITCHS and tool.table in columns and (not tool.column or tool.column in columns[tool.table])
    )


def _match(tool: _Tool, migrations: Sequence[Migration], rows: list[dict[str, Any]]) -> OtherHistory:
    by_number = {int(migration.version): migration.name for migration in migrations}
    # A baseline is applied where the last of what it stands for is.
    names = {migration.name: migration.name for migration in migrations}
    names |= {migration.stands_for[-1]: migration.name for migration in migrations if migration.stands_for}
    earlier = {name for migration in migrations for name in migration.stands_for[:-1]}
    finished: dict[str, datetime | None] = {}
    without_file: list[str] = []
    superseded: list[str] = []
    for row in rows:
        key = row["key"].removesuffix(".sql")
        if not row["done"]:
            continue
        number = int(key) if key.isascii() and key.isdigit() else None
        if tool.key == "last" and number is not None:
            finished |= {name: None for version, name in by_number.items() if version <= number}
            continue
        name = key if tool.key == "name" else by_number.get(number) if number is not None else None
        if name in names:
            finished[names[name]] = row["at"]
        elif key in earlier:
            superseded.append(key)
        else:
            without_file.append(key)
    failed = tuple(row["key"] for row in rows if not row["done"])
    return OtherHistory(
        tool.name, tool.table, finished, tuple(without_file), failed, tool.key != "none", tuple(superseded)
    )
