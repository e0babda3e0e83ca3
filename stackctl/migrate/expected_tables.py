"""What migrations say a database holds: the tables they plainly create, and the columns of those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.migrate.parser import facts as f
from stackctl.migrate.parser import statements
from stackctl.migrate.parser.token_reader import QualifiedName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.session import Session


@dataclass(frozen=True)
class MissingTables:
    """What the database lacks, as people say it; `all_tables`: not one of the tables is there."""

    names: tuple[str, ...]
    all_tables: bool


def find_missing(session: Session, migrations: Sequence[Migration]) -> MissingTables:
    """Tables, and columns of tables that are there, which the database lacks although the files make them.

    Only what stands in the files as plain SQL is seen. Nothing is said where they hold SQL that can't be read: it may
    have dropped what is missing.
    """
    claimed = _collect_expected(migrations, session.schema) or {}
    there = {(row["schema"], row["table"]): set(row["columns"] or ()) for row in session.fetch_named("read_columns")}
    found: list[str] = []
    for table, columns in claimed.items():
        held = there.get((table.schema, table.name))
        if held is None:
            found.append(f"table {table}")
        else:
            found += [f"column {table}.{column}" for column in sorted(columns - held)]
    return MissingTables(tuple(found), bool(claimed) and not any((t.schema, t.name) in there for t in claimed))


def _collect_expected(migrations: Sequence[Migration], schema: str) -> dict[QualifiedName, set[str]] | None:
    tables: dict[QualifiedName, set[str]] = {}
    for migration in migrations:
        for piece in migration.pieces:
            for statement in piece.statements:
                for fact in statements.parse_statement(statement.sql, schema).facts:
                    if isinstance(fact, f.DynamicSql | f.UnknownStatement):
                        return None
                    _apply_fact(tables, fact)
    return tables


def _apply_fact(tables: dict[QualifiedName, set[str]], fact: f.Fact) -> None:
    match fact:
        case f.ObjectCreated(kind="table", name=name, temporary=False):
            tables[name] = set()
        case f.ObjectDropped(kind="table", name=name):
            tables.pop(name, None)
        case f.ObjectDropped(kind="schema", name=name):
            for table in [table for table in tables if table.schema == name.name]:
                del tables[table]
        case f.ObjectRenamed(kind="table", name=name, to=to, moved=moved) if name in tables:
            tables[QualifiedName(to, name.name, str(name)) if moved else name.sibling(to)] = tables.pop(name)
        case f.ColumnAdded(table=table, column=column) if table in tables:
            tables[table].add(column.name)
        case f.ColumnDropped(table=table, column=column) if table in tables:
            tables[table].discard(column)
        case f.ColumnRenamed(table=table, column=column, to=to) if table in tables:
            tables[table].discard(column)
            tables[table].add(to)
        case _:
            pass
