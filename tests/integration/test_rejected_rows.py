"""A row that a target refuses: it is found, named and set aside, and everything else goes through."""

from __future__ import annotations

import signal
import sqlite3
import uuid
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.sync import service
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.database_sync import SyncOptions
from stackctl.sync.queue import retries
from stackctl.sync.status import read_status
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    Connection,
    Project,
    add_many_users,
    add_user,
    comparisons,
    differences,
    fetch,
    no_capture,
    one,
    poll,
    sequence,
    settle,
    sync,
)

if TYPE_CHECKING:
    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

BAD = "ALTER TABLE users ADD CONSTRAINT polite CHECK (display_name NOT LIKE 'bad%')"


@pytest.fixture
def target(external_db: str, connect: Connect) -> Connection:
    return connect(external_db, autocommit=True)


@pytest.fixture
def pipeline(project: Project, external_db: str, source: Connection) -> Pipeline:
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    return pipeline


def set_aside(source: Connection) -> list[str]:
    return [key for (key,) in fetch(source, "SELECT key ->> 0 FROM stackctl.refused_row ORDER BY 1")]


def only(results: list[DatabaseResult]) -> DatabaseResult:
    (result,) = results
    return result


def rename(source: Connection, user: uuid.UUID, name: str) -> None:
    source.execute('UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s', (name, user))


def test_the_rest_of_the_page_goes_through(pipeline: Pipeline, source: Connection, target: Connection) -> None:
    target.execute(BAD)
    add_many_users(source, 1000)
    bad = [uuid.UUID(int=17), uuid.UUID(int=18), uuid.UUID(int=900)]
    for user in bad:
        rename(source, user, "bad")
    sequence(pipeline)
    result = only(sync(pipeline))
    assert result.error is not None
    assert (result.status, result.error.code, result.error.exit_code) == ("error", "rows-refused", 1)
    assert sorted(row["key"] for row in result.error.details["rows"]) == [[str(user)] for user in bad]
    assert "polite" in result.error.message
    assert set_aside(source) == [str(user) for user in bad]
    assert one(target, "SELECT count(*) FROM users") == 997
    highest = one(source, 'SELECT max("sequenceId") FROM "ProjectUser"')
    assert (
        one(target, "SELECT last_synced_sequence_id FROM _stack_sync_metadata WHERE mapping_name = 'users'") == highest
    )
    # It shows, and what is done later goes through.
    with pipeline.open_session() as conn:
        (shown,) = read_status(pipeline, conn).tenancies[MINE]
    assert shown.status == "error"
    assert sorted(row.key for row in shown.refused) == [[str(user)] for user in bad]
    add_user(source, displayName="later")
    sequence(pipeline)
    poll(pipeline)
    assert one(target, "SELECT count(*) FROM users WHERE display_name = 'later'") == 1


def test_a_corrected_row_arrives_and_is_forgotten(pipeline: Pipeline, source: Connection, target: Connection) -> None:
    target.execute(BAD)
    first, second, third = (add_user(source, displayName="bad") for _ in range(3))
    sequence(pipeline)
    assert poll(pipeline).failed == 1
    rename(source, first, "good")
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (second,))
    sequence(pipeline)
    sync(pipeline)
    assert set_aside(source) == [str(third)]
    target.execute("ALTER TABLE users DROP CONSTRAINT polite")
    with pipeline.open_session() as conn:
        assert retries.retry_now(conn, None) == [(MINE, "analytics")]
    source.execute("UPDATE stackctl.refused_row SET tried_at = tried_at - interval '1 minute'")
    assert poll(pipeline).failed == 0
    assert set_aside(source) == []
    assert fetch(source, "SELECT FROM stackctl.delivery") == []
    assert differences(pipeline) == []


def test_a_database_that_refuses_rows_does_not_rest(
    pipeline: Pipeline, source: Connection, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", timedelta(hours=1))
    monkeypatch.setattr(retries, "LONGEST_DELAY", timedelta(hours=1))
    target.execute(BAD)
    add_user(source, displayName="bad")
    sequence(pipeline)
    poll(pipeline)
    (before,) = fetch(source, "SELECT attempts, next_attempt_at FROM stackctl.delivery")
    for number in range(3):
        add_user(source, displayName=f"user {number}")
        sequence(pipeline)
        poll(pipeline)
        assert one(target, "SELECT count(*) FROM users WHERE display_name = %s", f"user {number}") == 1
    # Changes that come do not use up the attempts.
    assert fetch(source, "SELECT attempts, next_attempt_at FROM stackctl.delivery") == [before]


def test_a_first_load_with_a_refused_row(
    project: Project, source: Connection, external_db: str, target: Connection
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_many_users(source, 50)
    rename(source, uuid.UUID(int=7), "bad")
    settle(pipeline)
    target.execute("DELETE FROM users WHERE display_name = 'bad'")
    target.execute(BAD)
    result = only(sync(pipeline, full=True))
    assert result.error is not None
    assert result.error.code == "rows-refused"
    assert set_aside(source) == [str(uuid.UUID(int=7))]
    assert one(target, "SELECT count(*) FROM users") == 49
    # A full load that goes well settles it.
    target.execute("ALTER TABLE users DROP CONSTRAINT polite")
    assert only(sync(pipeline, full=True)).error is None
    assert set_aside(source) == []
    assert differences(pipeline) == []


def test_a_row_that_the_mapping_cannot_read(
    project: Project, source: Connection, external_db: str, target: Connection
) -> None:
    (project.directory / "mine").mkdir()
    (project.directory / "mine" / "users.yaml").write_text("""
name: users
source: ProjectUser
target: users
key: {id: projectUserId}
columns: {id: uuid, number: integer}
select: |
  SELECT u."projectUserId" AS id, u."displayName"::integer AS number FROM "ProjectUser" AS u
  WHERE u."tenancyId" = :tenancy_id
""")
    project.settings["mappings_dir"] = "./mine"
    pipeline = project.postgres(MINE, external_db).pipeline()
    for name in ("1", "2", "three", "4"):
        add_user(source, displayName=name)
    sequence(pipeline)
    result = only(sync(pipeline))
    assert result.error is not None
    assert "three" in result.error.message
    assert fetch(target, "SELECT number FROM users ORDER BY 1") == [(1,), (2,), (4,)]


def test_too_many_refused_rows_are_the_tables_fault(
    pipeline: Pipeline, source: Connection, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejected_rows, "MAX_REJECTED", 3)
    target.execute(BAD)
    for _ in range(5):
        add_user(source, displayName="bad")
    good = add_user(source, displayName="good")
    sequence(pipeline)
    result = only(sync(pipeline))
    assert result.error is not None
    assert result.error.code == "too-many-refused"
    assert len(set_aside(source)) == 3
    sync(pipeline)
    assert len(set_aside(source)) == 5
    assert one(target, "SELECT id FROM users") == good


def test_a_column_that_was_made_too_narrow(pipeline: Pipeline, source: Connection, target: Connection) -> None:
    target.execute("ALTER TABLE users ALTER COLUMN display_name TYPE varchar(5)")
    add_user(source, displayName="a long name")
    sequence(pipeline)
    result = only(sync(pipeline))
    assert result.error is not None
    assert (result.error.code, "display_name" in result.error.message) == ("table-differs", True)
    target.execute("ALTER TABLE users ALTER COLUMN display_name TYPE text")
    assert only(sync(pipeline)).error is None
    assert differences(pipeline) == []


def test_a_kill_between_record_and_cursor_loses_nothing(
    pipeline: Pipeline, source: Connection, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.execute(BAD)
    add_user(source, displayName="bad")
    sequence(pipeline)
    record = rejected_rows.record_row

    class Killed(BaseException):
        pass

    def killed(*arguments: object, **named: object) -> None:
        record(*arguments, **named)  # type: ignore[arg-type]
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(rejected_rows, "record_row", killed)
        with pytest.raises(Killed):
            sync(pipeline)
    assert len(set_aside(source)) == 1
    target.execute("ALTER TABLE users DROP CONSTRAINT polite")
    assert only(sync(pipeline)).error is None
    assert set_aside(source) == []
    assert differences(pipeline) == []


@pytest.mark.parametrize("kind", ["postgres", "sqlite", "duckdb"])
def test_a_full_load_with_a_refused_row_keeps_the_old_rows_in_sight(
    kind: str, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """The table was emptied and committed before the pages came; now only what the source does not have goes."""
    path = project.directory / "copy.db"
    add_many_users(source, 50)
    if kind == "postgres":
        pipeline = project.postgres(MINE, external_db).pipeline()
        settle(pipeline)
        connect(external_db, autocommit=True).execute(BAD)
    elif kind == "sqlite":
        pipeline = project.sqlite(MINE).pipeline()
        settle(pipeline)
        with closing(sqlite3.connect(path)) as file:
            file.execute(
                "CREATE TRIGGER polite BEFORE INSERT ON users WHEN NEW.display_name LIKE 'bad%'"
                " BEGIN SELECT raise(ABORT, 'polite'); END"
            )
            file.execute("UPDATE users SET id = 'nonsense' WHERE id = (SELECT max(id) FROM users)")
            file.commit()
    else:
        pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")
        pipeline = project.duckdb(MINE).pipeline()
        settle(pipeline)
    bad = uuid.UUID(int=7)
    rename(source, bad, "bad")
    source.execute('UPDATE "ProjectUser" SET "signedUpAt" = \'0044-03-15 BC\' WHERE "projectUserId" = %s', (bad,))
    rename(source, uuid.UUID(int=4), "new")
    with no_capture(source, "ProjectUser"):  # a delete without a tombstone
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (uuid.UUID(int=3),))
    sequence(pipeline)
    seen: set[int] = set()

    def look(mapping: str, rows: int) -> None:
        if kind == "postgres":
            seen.add(one(connect(external_db, autocommit=True), "SELECT count(*) FROM users"))
        elif kind == "sqlite":
            with closing(sqlite3.connect(path)) as file:
                seen.update(count for (count,) in file.execute("SELECT count(*) FROM users"))

    options = SyncOptions(batch_size=10, full=True, on_rows=look)
    (result,) = service.sync(pipeline, service.Scope(None, None, ["users"]), options, Stop(), service.Reports())
    assert result.error is not None and result.error.code == "rows-refused"
    assert set_aside(source) == [str(bad)]
    # Of the refused row the old version is left. The file had one row with nonsense for its id.
    assert seen <= ({48, 49} if kind == "sqlite" else {49, 50}) and (seen or kind == "duckdb"), seen
    (users,) = [found for found in comparisons(pipeline) if found.mapping == "users"]
    assert (users.source_rows, users.target_rows, users.missing, users.extra, users.different) == (49, 49, 0, 0, 1)


def test_a_row_beyond_a_limit_of_the_server(pipeline: Pipeline, source: Connection, target: Connection) -> None:
    """An index of the consumer's takes no such long value: SQLSTATE 54000."""
    target.execute("CREATE INDEX ON users (display_name)")
    bad, good = add_user(source), add_user(source)
    source.execute(
        'UPDATE "ProjectUser" SET "displayName" = (SELECT string_agg(md5(n::text), \'\')'
        ' FROM generate_series(1, 500) AS n) WHERE "projectUserId" = %s', (bad,),
    )  # fmt: skip
    sequence(pipeline)
    result = only(sync(pipeline))
    assert result.error is not None
    assert result.error.code == "rows-refused"
    assert set_aside(source) == [str(bad)]
    assert one(target, "SELECT id FROM users") == good


def test_a_full_load_that_is_cut_before_its_commit_forgets_nothing(
    project: Project, pipeline: Pipeline, source: Connection, target: Connection
) -> None:
    """Killed where it forgets the rows that it has loaded: what is forgotten must be committed."""
    target.execute(BAD)
    bad = add_user(source, displayName="bad")
    sequence(pipeline)
    sync(pipeline)
    assert set_aside(source) == [str(bad)]
    target.execute("ALTER TABLE users DROP CONSTRAINT polite")
    killed = project.run("sync", "--all", "--full", "--mapping", "users", point="refused rows forgotten")
    assert killed.code == -signal.SIGKILL
    assert set_aside(source) or one(target, "SELECT count(*) FROM users")
    assert only(sync(pipeline)).error is None
    assert differences(pipeline) == []


def test_a_full_load_that_fails_at_its_commit_is_still_to_be_done(
    pipeline: Pipeline, source: Connection, target: Connection
) -> None:
    add_many_users(source, 20)
    settle(pipeline)
    target.execute(
        "CREATE FUNCTION polite() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.display_name LIKE 'bad%' THEN RAISE 'polite'; END IF; RETURN NULL; END $$"
    )
    target.execute(
        "CREATE CONSTRAINT TRIGGER polite AFTER INSERT OR UPDATE ON users DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION polite()"
    )
    bad, damaged = uuid.UUID(int=7), uuid.UUID(int=3)
    rename(source, bad, "bad")
    target.execute("UPDATE users SET display_name = 'damaged' WHERE id = %s", (damaged,))
    sequence(pipeline)
    result = only(sync(pipeline, full=True))
    assert result.error is not None and result.error.code == "rows-refused"
    assert set_aside(source) == [str(bad)]
    assert one(target, "SELECT display_name FROM users WHERE id = %s", damaged) == "user 3"


@pytest.mark.parametrize("full", [True, False])
def test_a_row_that_another_engine_records_meanwhile_is_not_forgotten(
    full: bool, pipeline: Pipeline, source: Connection, target: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was sent and committed here; then it changed, was refused by another engine, and only now is forgotten."""
    target.execute(BAD)
    bad = add_user(source, displayName="bad")
    sequence(pipeline)
    sync(pipeline)
    target.execute("ALTER TABLE users DROP CONSTRAINT polite")
    forget = rejected_rows.forget_rows

    def forget_late(*arguments: Any) -> None:
        rejected_rows.record_row(
            source, MINE, "analytics", "users", key=[str(bad)], sequence_id=999, error="refused again"
        )
        forget(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rejected_rows, "forget_rows", forget_late)
        sync(pipeline, full=full)
    assert set_aside(source) == [str(bad)]
    assert only(sync(pipeline)).error is None
    assert set_aside(source) == []
