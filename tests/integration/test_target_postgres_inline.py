"""A page of a few rows, which goes to PostgreSQL without a staging table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.sync.targets.postgres_inline import MAX_ROWS, InlineBatch
from tests.backend import MINE, Project, add_channel, add_user, differences, one, settle

if TYPE_CHECKING:
    from stackctl.postgres.connect import Connection
    from tests.conftest import Connect

ROWS = "SELECT n::bigint, n %% 2 = 0, CASE WHEN n > 1 THEN repeat('x', n) END FROM generate_series(1, %s) AS n"


def copied(conn: Connection, rows: int) -> bytes:
    with conn.cursor() as cursor, cursor.copy(f"COPY ({ROWS}) TO STDOUT (FORMAT binary)", (rows,)) as copy:
        return b"".join(bytes(piece) for piece in copy)


def _field(value: bytes | None) -> bytes:
    return (-1 if value is None else len(value)).to_bytes(4, signed=True) + (value or b"")


@pytest.mark.parametrize("rows", [0, 1, 2, MAX_ROWS])
def test_the_stream_is_read_field_by_field(source: Connection, rows: int) -> None:
    page = InlineBatch.from_copy_stream(copied(source, rows))
    assert page is not None
    assert page.rows == rows
    if rows:
        assert page.columns[2] == [_field(b"x" * n if n > 1 else None) for n in range(1, rows + 1)]
        assert page.deleted == rows // 2
        assert page.highest == rows


def test_a_page_of_more_rows_is_none(source: Connection) -> None:
    assert InlineBatch.from_copy_stream(copied(source, MAX_ROWS + 1)) is None


@pytest.mark.parametrize("changes", [1, MAX_ROWS, MAX_ROWS + 1])
def test_upserts_and_deletes_arrive_whatever_the_size(
    project: Project, source: Connection, external_db: str, connect: Connect, changes: int
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    users = [add_user(source, displayName=f"100 % {number}") for number in range(3 * changes)]
    for user in users:
        add_channel(source, user, f"{user}@example.com")
    settle(pipeline)
    for user in users[:changes]:
        source.execute('UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s', ("100 %s", user))
    settle(pipeline)
    for user in users[changes : 2 * changes]:
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))
    add_user(source, displayName=None, clientMetadata={"%": ["'", None]})
    settle(pipeline)
    target = connect(external_db)
    assert one(target, "SELECT count(*) FROM users WHERE display_name = %s", "100 %s") == changes
    assert one(target, "SELECT count(*) FROM users") == 2 * changes + 1
    assert differences(pipeline) == []


def test_a_page_of_changes_leaves_the_targets_catalog_alone(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    for _ in range(MAX_ROWS // 4):
        add_user(source)
    settle(pipeline)
    target = connect(external_db, autocommit=True)
    target.execute("CREATE TABLE one_more (id int)")
    source.execute('UPDATE "ProjectUser" SET "displayName" = %s', ("new",))
    settle(pipeline)
    target.execute("CREATE TABLE and_another (id int)")
    target.execute("CREATE TABLE the_last (id int)")
    gaps = "SELECT b::regclass::oid::bigint - a::regclass::oid::bigint FROM (VALUES (%s, %s)) AS pair (a, b)"
    assert one(target, gaps, "one_more", "and_another") == one(target, gaps, "and_another", "the_last")
