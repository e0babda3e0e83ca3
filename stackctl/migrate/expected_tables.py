"""What migrations say a database holds: the tables they plainly create, and the columns of those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.migrate.parser import facts as f
from stackctl.migrate.parser import statements
from stackctl.migrate.parser.token_reader import Name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.session import Session


@dataclass(frozen=True)
class Missing:
    """What the database lacks of it, as people say it; `everything`: not one of the tables is there."""

    what: tuple[str, ...]
    everything: bool


def missing(session: Session, migrations: Sequence[Migration]) -> Missing:
    """Tables, and columns of tables that are there, which the database lacks although the files make them.

    Only what stands in the files as plain SQL is seen. Nothing is said where they hold SQL that can't be read: it may
    have dropped what is missing.
    """
    claimed = _claimed(migrations, session.schema) or {}
    there = {(row["schema"], row["table"]): set(row["columns"] or ()) for row in session.fetch("columns")}
    found: list[str] = []
    for table, columns in claimed.items():
        held = there.get((table.schema, table.name))
        if held is None:
            found.append(f"table {table}")
        else:
            found += [f"column {table}.{column}" for column in sorted(columns - held)]
    return Missing(tuple(found), bool(claimed) and not any((t.schema, t.name) in there for t in claimed))


def _claimed(migrations: Sequence[Migration], schema: str) -> dict[Name, set[str]] | None:
    tables: dict[Name, set[str]] = {}
    for migration in migrations:
        for piece in migration.pieces:
            for statement in piece.statements:
                for fact in statements.read(statement.sql, schema).facts:
                    if isinstance(fact, f.Dynamic | f.Unknown):
                        return None
                    _learn(tables, fact)
    return tables


def _learn(tables: dict[Name, set[str]], fact: f.Fact) -> None:
    match fact:
        case f.Created(kind="table", name=name):
            tables[name] = set()
        case f.Dropped(kind="table", name=name):
            tables.pop(name, None)
        case f.Dropped(kind="schema", name=name):
            for table in [table for table in tables if table.schema == name.name]:
                del tables[table]
        case f.Renamed(kind="table", name=name, to=to, moved=moved) if name in tables:
            tables[Name(to, name.name, str(name)) if moved else name.beside(to)] = tables.pop(name)
        case f.ColumnAdded(table=table, column=column) if table in tables:
            tables[table].add(column.name)
        case f.ColumnDropped(table=table, column=column) if table in tables:
            tables[table].discard(column)
        case f.ColumnRenamed(table=table, column=column, to=to) if table in tables:
            tables[table].discard(column)
            tables[table].add(to)
        case _:
            pass
