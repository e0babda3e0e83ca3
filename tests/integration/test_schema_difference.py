"""What `migrate diff` writes, held against the server: applied to the one schema, it gives the other."""

from __future__ import annotations

import os
import random
import subprocess
from typing import TYPE_CHECKING, Any, LiteralString, cast

import pytest

from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from stackctl.migrate.schema.difference import SchemaDifference, compare_schemas, write_difference
from stackctl.migrate.schema.things import read_schema
from stackctl.postgres.binaries import find_binaries
from tests.schema_generator import ROLE, SchemaGenerator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.conftest import Connect, Databases

Connection = "psycopg.Connection[Any]"
SEED = int(os.environ.get("STACKCTL_DIFF_SEED", random.SystemRandom().randrange(10**6)))
PAIRS = int(os.environ.get("STACKCTL_DIFF_PAIRS", "12"))


def run(conn: psycopg.Connection[Any], text: str) -> None:
    conn.execute(cast("LiteralString", text))


def compare(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> SchemaDifference:
    return compare_schemas(read_schema(one, "public"), read_schema(other, "public"))


def load(text: str, url: str) -> None:
    done = subprocess.run(
        [find_binaries() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", url], input=text, capture_output=True, text=True
    )
    assert done.stderr == "", f"{done.stderr}\n{text}"


def bring_over(one: psycopg.Connection[Any], url: str, other: psycopg.Connection[Any]) -> SchemaDifference:
    """Apply what is different to the one, and see that nothing is but what was said not to be done."""
    difference = compare(one, other)
    text = write_difference(difference)
    load(text, url)
    again = compare(one, other)
    assert again.changes == (), f"{write_difference(again)}\nis left after\n{text}"
    assert set(again.omitted) <= set(difference.omitted), text
    return difference


@pytest.fixture
def role(connect: Connect, empty_db: str) -> Iterator[None]:
    conn = connect(empty_db, autocommit=True)
    run(conn, f"CREATE ROLE {ROLE}")
    yield
    run(conn, f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")


def test_random_pairs(role: None, databases: Databases, connect: Connect) -> None:
    print(f"STACKCTL_DIFF_SEED={SEED} STACKCTL_DIFF_PAIRS={PAIRS}")
    changes = 0
    for number in range(PAIRS):
        seed = f"{SEED}-{number}"
        choose = random.Random(seed)
        with databases.one() as first, databases.one() as second:
            conns = [connect(url, autocommit=True) for url in (first, second)]
            for conn in conns:
                for statement in SchemaGenerator(choose).generate():
                    run(conn, statement)
            try:
                changes += len(bring_over(conns[0], first, conns[1]).changes)
            except AssertionError as error:
                raise AssertionError(f"pair {seed}: {error}") from error
            finally:
                for conn in conns:
                    run(conn, f"DROP OWNED BY {ROLE}")
                    conn.close()
    assert changes > 20 * PAIRS
