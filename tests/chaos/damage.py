"""Damage by hand: somebody who changes, deletes and adds rows in a copy, past stackctl."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from .changes import ONCE
from .checks import IDS, TAGGED
from .world import DUCKDB_IS_BUSY, TENANCIES, connect_duckdb

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from stackctl.mapping.model import Mapping

    from .world import Tenancy, World

    Execute = Callable[[str], list[tuple[Any, ...]]]

# It is not there (yet), or another has it: nothing is damaged this time.
IN_THE_WAY = (
    psycopg.OperationalError, errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidCatalogName,
    errors.IntegrityError, sqlite3.OperationalError, sqlite3.IntegrityError, *DUCKDB_IS_BUSY,
)  # fmt: skip
NOBODYS = 900_000  # ids from here on (and below ONCE) are of no row of the source


def damage(world: World, rng: random.Random) -> str | None:
    """Damage one row of one copy; says what was done, or None when there was nothing to do it to.

    What is written carries the tag of the copy's tenancy, so that a row with another tag remains a finding; and no
    user is deleted that must not come back.
    """
    tenancy = rng.choice([t for t in TENANCIES if t.copies])
    kind = rng.choice(tenancy.copies)
    (database,) = (d for d in world.pipeline().databases[tenancy.id] if d.id == kind)
    mapping = rng.choice([compiled.mapping for compiled in world.pipeline().compile_mappings(database)])
    how = rng.choice([_update, _delete, _insert])
    try:
        with _open(world, tenancy, kind) as execute:
            done = how(mapping, tenancy, rng, execute)
    except IN_THE_WAY:
        return None
    return f"{done} in {kind}" if done else None


def empty(world: World, tenancy: Tenancy, kind: str) -> bool:
    """Take all rows and cursors out of a copy, in one transaction; False when another has it, or it is not there."""
    try:
        with _open(world, tenancy, kind) as execute:
            execute("BEGIN")
            # First, as the engine does: who holds a cursor goes on, and who comes finds none.
            execute("DELETE FROM _stack_sync_metadata")
            for table in TAGGED:
                execute(f"DELETE FROM {table}")
            execute("COMMIT")
    except IN_THE_WAY:
        return False
    return True


@contextmanager
def _open(world: World, tenancy: Tenancy, kind: str) -> Iterator[Execute]:
    """The copy, past stackctl, and every statement for itself; raises one of IN_THE_WAY."""
    if kind == "postgres":
        with world.connect("target", f"copy_{tenancy.number}") as conn:
            yield lambda query: _fetched(conn.execute(query.encode()))
    elif kind == "sqlite":
        path = world.path(tenancy, kind)
        if not path.exists():
            raise sqlite3.OperationalError(f"{path} does not exist")
        with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as file:
            yield lambda query: file.execute(query).fetchall()
    else:
        with closing(connect_duckdb(world.path(tenancy, kind), read_only=False)) as file:
            yield lambda query: file.execute(query).fetchall()


def _fetched(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []


def _one_row(mapping: Mapping, rng: random.Random, execute: Execute) -> str | None:
    """A condition that names one row of the table at random."""
    names = ", ".join(f"CAST({key} AS text)" for key in mapping.key)
    rows = execute(f"SELECT {names} FROM {mapping.target} WHERE CAST({next(iter(mapping.key))} AS text)"
                   f" < '{uuid.UUID(int=ONCE)}' ORDER BY {names}")  # fmt: skip
    if not rows:
        return None
    return " AND ".join(f"{key} = '{value}'" for key, value in zip(mapping.key, rng.choice(rows), strict=True))


def _update(mapping: Mapping, tenancy: Tenancy, rng: random.Random, execute: Execute) -> str | None:
    column = TAGGED[mapping.target]
    row = _one_row(mapping, rng, execute)
    if row is None or column in mapping.key:
        return None
    value = tenancy.tagged_id(rng.randrange(10**6)) if mapping.target in IDS else f"{tenancy.tag}damaged"
    execute(f"UPDATE {mapping.target} SET {column} = '{value}' WHERE {row}")
    return "rows changed"


def _delete(mapping: Mapping, tenancy: Tenancy, rng: random.Random, execute: Execute) -> str | None:
    row = _one_row(mapping, rng, execute)
    if row is None:
        return None
    execute(f"DELETE FROM {mapping.target} WHERE {row}")
    return "rows deleted"


def _insert(mapping: Mapping, tenancy: Tenancy, rng: random.Random, execute: Execute) -> str | None:
    row = _one_row(mapping, rng, execute)
    if row is None:
        return None
    extra, first = uuid.UUID(int=NOBODYS + rng.randrange(10**6)), next(iter(mapping.key))
    names = ", ".join(column.name for column in mapping.columns)
    values = ", ".join(f"'{extra}'" if column.name == first else column.name for column in mapping.columns)
    execute(f"INSERT INTO {mapping.target} ({names}) SELECT {values} FROM {mapping.target} WHERE {row}")
    return "rows added"
