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
from stackctl.migrate.schema.dump import dump_schema
from stackctl.migrate.schema.things import read_schema
from stackctl.postgres.binaries import find_binaries
from tests.schema_generator import ROLE, SchemaGenerator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.conftest import Connect, Databases

SEED = int(os.environ.get("STACKCTL_DIFF_SEED", random.SystemRandom().randrange(10**6)))


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


def compare_random_pairs(databases: Databases, connect: Connect, pairs: int) -> None:
    print(f"STACKCTL_DIFF_SEED={SEED}")
    changes = 0
    for number in range(pairs):
        choose = random.Random(f"{SEED}-{number}")
        with databases.one() as first, databases.one() as second:
            conns = [connect(url, autocommit=True) for url in (first, second)]
            for conn in conns:
                for statement in SchemaGenerator(choose).generate():
                    run(conn, statement)
            changes += len(bring_over(conns[0], first, conns[1]).changes)
            for conn in conns:
                run(conn, f"DROP OWNED BY {ROLE}")
                conn.close()
    assert changes > 20 * pairs


def test_random_pairs(role: None, databases: Databases, connect: Connect) -> None:
    compare_random_pairs(databases, connect, 8)


@pytest.mark.long
def test_many_random_pairs(role: None, databases: Databases, connect: Connect) -> None:
    compare_random_pairs(databases, connect, 150)


_PARTS = """CREATE TABLE parts (id int, k int, PRIMARY KEY (id, k)) PARTITION BY HASH (k);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
"""


@pytest.mark.parametrize(
    "text",
    [
        f"{_PARTS} CREATE TABLE a (id int, k int, FOREIGN KEY (id, k) REFERENCES parts)",
        """CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY, k int) PARTITION BY LIST (k);
        CREATE TABLE a_1 PARTITION OF a FOR VALUES IN (1)""",
        f"""{_PARTS} CREATE TABLE a (id int, k int) PARTITION BY LIST (k);
        CREATE TABLE a_1 PARTITION OF a FOR VALUES IN (1); CREATE INDEX own ON a_1 (id);
        ALTER TABLE a_1 ADD FOREIGN KEY (id, k) REFERENCES parts; CREATE INDEX ON a (k)""",
        "CREATE TYPE numbers AS RANGE (subtype = int); CREATE TABLE a (one numbers, more nummultirange)",
        "CREATE DOMAIN z AS text; CREATE DOMAIN a AS z[]; CREATE DOMAIN y AS a[]; CREATE TABLE t (one a, more y)",
    ],
    ids=[
        "key onto partitions",
        "identity of partitions",
        "own things of a partition",
        "range type",
        "array of domains",
    ],
)
def test_made_from_nothing_and_unmade(databases: Databases, connect: Connect, text: str) -> None:
    with databases.one() as first, databases.one() as second:
        full, empty = connect(first, autocommit=True), connect(second, autocommit=True)
        run(full, text)
        bring_over(empty, second, full)
        with databases.one() as third:
            nothing = connect(third, autocommit=True)
            load(dump_schema(full, "public"), third)
            assert compare(nothing, full).is_empty
            nothing.close()
        run(empty, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        assert bring_over(full, first, empty).omitted == ()
        full.close()
        empty.close()


def test_what_leaves_a_column_that_goes_for_one_that_its_going_lets_change(
    role: None, databases: Databases, connect: Connect
) -> None:
    """A right and a sequence's owner: they leave first, the column is dropped, the other is altered, they come."""
    generated = "bigint GENERATED ALWAYS AS (id * 2) STORED"
    rest = f"GRANT UPDATE ({{0}}) ON t TO {ROLE}; CREATE SEQUENCE s OWNED BY t.{{0}}"
    for column, others in (("id", ""), ("h", f", h {generated}")):
        with databases.one() as first, databases.one() as second:
            one, other = connect(first, autocommit=True), connect(second, autocommit=True)
            run(one, f"CREATE TABLE t (id int, g {generated}); {rest.format('g')}")
            run(other, f"CREATE TABLE t (id bigint{others}); {rest.format(column)}")
            assert bring_over(one, first, other).omitted == ()
            one.close()
            other.close()


def test_values_come_to_an_enum_that_others_can_not_leave(databases: Databases, connect: Connect) -> None:
    with databases.one() as first, databases.one() as second:
        one, other = connect(first, autocommit=True), connect(second, autocommit=True)
        run(one, "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE t (m mood DEFAULT 'b')")
        run(other, "CREATE TYPE mood AS ENUM ('x', 'y', 'b', 'c'); CREATE TABLE t (m mood DEFAULT 'c')")
        assert "has the values 'a'" in bring_over(one, first, other).omitted[0]
        found = one.execute("SELECT enum_range(NULL::mood)::text").fetchone()
        assert found == ("{a,x,y,b,c}",)
        one.close()
        other.close()


def test_the_bundled_set_step_by_step_and_back(databases: Databases, connect: Connect) -> None:
    """From what all files make to what the first few make, and the other way where stackctl's own schema is there."""
    migrations = discover(find_bundled("migrations"))
    with databases.one() as whole:
        complete = connect(whole, autocommit=True)
        apply_migrations(complete, migrations)
        for count in (0, 1, 2, 4, 7, len(migrations)):
            with databases.one() as part, databases.one() as other:
                conn, rest = connect(part, autocommit=True), connect(other, autocommit=True)
                if count:
                    apply_migrations(conn, migrations[:count])
                else:
                    load(dump_schema(complete, "stackctl"), part)
                apply_migrations(rest, migrations)
                back = bring_over(rest, other, conn)
                assert [text for text in back.omitted if "has the values" not in text] == []
                assert back.is_empty is (count == len(migrations))
                if count in (0, len(migrations)):
                    assert bring_over(conn, part, complete).omitted == ()
                conn.close()
                rest.close()
