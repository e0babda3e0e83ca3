"""`verify` and `--repair` on a DuckDB file; skipped where the extra is not installed."""

from __future__ import annotations

import os
import threading
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stackctl.sync import service
from stackctl.sync.check import verify
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    OTHER,
    Connection,
    Project,
    add_many_users,
    add_user,
    differences,
    ended,
    one,
    populate,
    settle,
    wait_for,
)

if TYPE_CHECKING:
    from stackctl.sync.pipeline import Pipeline

duckdb = pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")


def execute(project: Project, statement: str) -> None:
    """As a person would, with the file to themselves."""
    with duckdb.connect(str(project.directory / "copy.duckdb")) as file:
        file.execute(statement)


def read(project: Project, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(project.directory / "copy.duckdb"), read_only=True) as file:
        return file.execute(query).fetchall()


def found(pipeline: Pipeline, *, repair: bool = False) -> dict[str, tuple[int, int, int, int]]:
    """Missing, extra, different and repaired, by mapping, where there is any."""
    checks = verify.verify(pipeline, service.Scope(None), Stop(), repair=repair)
    assert [check.error for check in checks if check.error] == []
    counted = {check.mapping: (check.missing, check.extra, check.different, check.repaired) for check in checks}
    return {name: count for name, count in counted.items() if any(count)}


def test_damage_of_every_kind_is_found_and_exactly_that_is_repaired(project: Project, source: Connection) -> None:
    kept, first, second = (populate(source) for _ in range(3))
    populate(source, OTHER)
    pipeline = project.duckdb(MINE).pipeline()
    settle(pipeline)
    assert found(pipeline) == {}
    cursors = read(project, "SELECT mapping_name, last_synced_sequence_id FROM _stack_sync_metadata ORDER BY 1")
    execute(project, f"DELETE FROM team_member_profiles WHERE team_id = '{first.team}'")
    execute(project, "DELETE FROM team_permissions")
    execute(
        project,
        f"INSERT INTO contact_channels SELECT '{uuid.uuid4()}', * EXCLUDE (id) FROM contact_channels"
        f" WHERE id = '{kept.channel}'",
    )
    execute(project, f"UPDATE team_invitations SET id = '{uuid.uuid4()}' WHERE id = '{first.invitation}'")
    execute(project, f"UPDATE users SET display_name = NULL WHERE id = '{first.user}'")
    execute(project, f"UPDATE teams SET client_metadata = '[]' WHERE id = '{first.team}'")
    execute(project, f"UPDATE connected_accounts SET created_at = '2001-01-01' WHERE id = '{second.account}'")
    damage = {
        "team_member_profiles": (1, 0, 0), "team_permissions": (3, 0, 0), "contact_channels": (0, 1, 0),
        "team_invitations": (1, 1, 0), "users": (0, 0, 1), "teams": (0, 0, 1), "connected_accounts": (0, 0, 1),
    }  # fmt: skip
    assert found(pipeline) == {name: (*count, 0) for name, count in damage.items()}
    assert found(pipeline, repair=True) == {name: (*count, sum(count)) for name, count in damage.items()}
    assert found(pipeline) == {}
    assert differences(pipeline) == []
    assert read(project, "SELECT mapping_name, last_synced_sequence_id FROM _stack_sync_metadata ORDER BY 1") == cursors


KEYED = """
name: keyed
source: ProjectUser
target: keyed
key: {{key: key}}
columns: {{key: {type}, note: text null}}
select: |
  SELECT u."key" AS key, u."displayName" AS note FROM "ProjectUser" AS u WHERE u."tenancyId" = :tenancy_id
"""


@pytest.mark.parametrize(
    ("type", "value", "strange"),
    [
        ("text", "plain", ["chr(0)", "'a' || chr(0) || '\"'", "'back\\slash,'", "'NULL'"]),
        ("date", "2024-01-01", ["DATE '5881580-07-10'", "DATE '0044-03-15 (BC)'", "DATE 'infinity'"]),
        ("timestamp", "2024-01-01", ["TIMESTAMP '9000-03-15 (BC) 00:00:00'", "TIMESTAMP '-infinity'"]),
        ("integer", "2147483647", ["-2147483648", "1000000000"]),
        ("bigint", "9223372036854775807", ["-9223372036854775808", "1000000000000000000"]),
    ],
)
def test_extra_rows_with_keys_that_the_source_can_not_have(
    project: Project, source: Connection, type: str, value: str, strange: list[str]
) -> None:
    source.execute(f'ALTER TABLE "ProjectUser" ADD COLUMN key {type}'.encode())
    add_user(source)
    source.execute('UPDATE "ProjectUser" SET key = %s', (value,))
    folder = project.directory / "mappings"
    folder.mkdir()
    (folder / "keyed.yaml").write_text(KEYED.format(type=type))
    project.settings["mappings_dir"] = "mappings"
    pipeline = project.duckdb(MINE).pipeline()
    settle(pipeline)
    for key in strange:
        execute(project, f"INSERT INTO keyed VALUES ({key}, 'nobody')")
    count = len(strange)
    assert found(pipeline) == {"keyed": (0, count, 0, 0)}
    assert found(pipeline, repair=True) == {"keyed": (0, count, 0, count)}
    execute(project, "DELETE FROM keyed")
    assert found(pipeline, repair=True) == {"keyed": (1, 0, 0, 1)}
    assert read(project, "SELECT note FROM keyed") == [("user",)]
    assert differences(pipeline) == []


def test_repair_while_changes_flow(project: Project, source: Connection, migrated_db: str) -> None:
    add_many_users(source, 200)
    pipeline = project.duckdb(MINE, mappings=["users"]).pipeline()
    settle(pipeline)
    over = threading.Event()
    written: list[int] = []

    def write() -> None:
        with psycopg.connect(migrated_db, autocommit=True) as conn:
            while not over.wait(0.002):
                written.append(len(written))
                user = uuid.UUID(int=written[-1] % 200 + 1)
                conn.execute(
                    'UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s', (str(written[-1]), user)
                )
                extra = add_user(conn, MINE)
                conn.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (extra,))

    def damaged(statement: str) -> bool:
        try:
            execute(project, statement)
        except duckdb.IOException:  # `run` has the file
            return False
        return True

    running = project.start("run", "--max-duration", "60s")
    thread = threading.Thread(target=write)
    thread.start()
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stackctl' AND datname = current_database()"
    )
    try:
        wait_for(lambda: one(source, sessions) >= 2)  # it is past its start, and takes a signal
        for _ in range(3):
            add = f"INSERT INTO users SELECT '{uuid.uuid4()}', * EXCLUDE (id) FROM users LIMIT 1"
            wait_for(lambda add=add: damaged(add))
            assert found(pipeline, repair=True) == {"users": (0, 1, 0, 1)}
    finally:
        over.set()
        thread.join()
        running.terminate()
        outcome = ended(running)
    assert outcome.code == 0, outcome.stderr
    assert len(written) > 10
    settle(pipeline)
    assert found(pipeline) == {}
    assert differences(pipeline) == []


def test_rows_of_which_duckdb_holds_few_are_compared_and_repaired(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads 2,048 rows at once, if it has the memory."""
    from stackctl.sync.targets import duckdb as target

    pipeline = project.duckdb(MINE, mappings=["users"]).pipeline()
    add_many_users(source, 50)
    source.execute('UPDATE "ProjectUser" SET "displayName" = repeat(md5("projectUserId"::text), 16384)')
    settle(pipeline)
    monkeypatch.setattr(target, "WINDOW", 20)
    monkeypatch.setitem(target._SETTINGS, "memory_limit", "24MB")  # pyright: ignore[reportPrivateUsage]
    assert found(pipeline) == {}
    execute(project, "UPDATE users SET display_name = 'x' WHERE id IN (SELECT id FROM users ORDER BY id LIMIT 30)")
    execute(project, "DELETE FROM users WHERE id = (SELECT max(id) FROM users)")
    assert found(pipeline, repair=True) == {"users": (1, 0, 30, 31)}
    assert found(pipeline) == {}


def test_a_file_that_can_only_be_read_is_compared(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = project.duckdb(MINE, mappings=["users"]).pipeline()
    populate(source)
    settle(pipeline)
    execute(project, "UPDATE users SET display_name = 'x'")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert found(pipeline) == {"users": (0, 0, 1, 0)}
    (check,) = verify.verify(pipeline, service.Scope(None), Stop(), repair=True)
    assert check.error is not None
    assert check.error.code == "out-of-resources"
