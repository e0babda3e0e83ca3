"""`verify` finds what was damaged by hand, repairs exactly that, and takes nothing that is on its way for damage."""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stackctl.core.errors import StackctlError, UsageError
from stackctl.mapping.checksums import Hasher, compile_checksums, compile_table_checksums
from stackctl.mapping.model import Column, Mapping
from stackctl.sync import service
from stackctl.sync.check import verify
from stackctl.sync.engine.comparison import CopyComparison
from stackctl.sync.engine.source import Source
from stackctl.sync.stop import Stop
from tests.backend import (
    MAPPINGS,
    MINE,
    OTHER,
    Connection,
    Project,
    add_channel,
    add_invitation,
    add_many_users,
    add_team,
    add_user,
    differences,
    fetch,
    insert,
    no_capture,
    one,
    poll,
    populate,
    sequence,
    settle,
    sync,
    wait_until_blocked,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stackctl.sync.engine.comparison import VerifyResult
    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

BOTH = pytest.mark.parametrize("copy", ["postgres", "sqlite"], indirect=True)


class Copy:
    """One external database of MINE, of either kind, and a way to damage it."""

    def __init__(self, project: Project, external_db: str, kind: str) -> None:
        self.kind = kind
        self._url = external_db
        self._path = project.directory / "copy.db"
        self._project = project.postgres(MINE, external_db) if kind == "postgres" else project.sqlite(MINE)
        self.pipeline: Pipeline = project.pipeline()

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement there; `now()` and casts in PostgreSQL's spelling are not for SQLite."""
        if self.kind == "postgres":
            with psycopg.connect(self._url) as conn:
                cursor = conn.execute(statement.encode())
                return cursor.fetchall() if cursor.description else []
        conn = sqlite3.connect(self._path)
        try:
            with conn:
                return conn.execute(statement).fetchall()
        finally:
            conn.close()


@pytest.fixture
def copy(request: pytest.FixtureRequest, project: Project, external_db: str) -> Copy:
    return Copy(project, external_db, getattr(request, "param", "postgres"))


def checked(
    pipeline: Pipeline, *, repair: bool = False, mapping: str | None = None, tenancies: list[uuid.UUID] | None = None
) -> dict[str, VerifyResult]:
    """The checks by mapping, of a pipeline with one database."""
    checks = verify.verify(pipeline, service.Scope(tenancies, None, mapping and [mapping]), Stop(), repair=repair)
    return {check.mapping: check for check in checks}


def counts(check: VerifyResult) -> tuple[int, int, int, int]:
    assert check.error is None, check.error
    return check.missing, check.extra, check.different, check.repaired


def damaged(checks: dict[str, VerifyResult]) -> dict[str, tuple[int, int, int, int]]:
    return {name: counts(check) for name, check in checks.items() if counts(check) != (0, 0, 0, 0)}


@pytest.mark.quick
@BOTH
def test_equal_copies_of_every_mapping(copy: Copy, source: Connection) -> None:
    populate(source)
    populate(source, OTHER)
    settle(copy.pipeline)
    checks = checked(copy.pipeline)
    assert tuple(checks) == MAPPINGS
    assert damaged(checks) == {}
    assert {(c.source_rows, c.target_rows, c.in_flight, c.ok) for c in checks.values()} == {(1, 1, 0, True)}


@BOTH
def test_damage_of_every_kind_is_found_and_exactly_that_is_repaired(copy: Copy, source: Connection) -> None:
    kept, first, second = (populate(source) for _ in range(3))
    settle(copy.pipeline)
    untouched = "SELECT last_synced_sequence_id FROM _stack_sync_metadata ORDER BY mapping_name"
    cursors = copy.execute(untouched)
    # Missing, in a mapping with a key of two columns, one of three, and one that is found by a lookup.
    copy.execute(f"DELETE FROM team_member_profiles WHERE team_id = '{first.team}'")
    copy.execute("DELETE FROM team_permissions")
    copy.execute(f"DELETE FROM contact_channels WHERE id = '{first.channel}'")
    # Extra: a row nobody ever had.
    stranger = uuid.uuid4()
    copy.execute(
        f"INSERT INTO contact_channels SELECT '{stranger}', user_id, type, value, is_primary, is_verified,"
        f" used_for_auth, created_at FROM contact_channels WHERE id = '{kept.channel}'"
    )
    copy.execute(f"UPDATE team_invitations SET id = '{uuid.uuid4()}' WHERE id = '{first.invitation}'")
    # Different: text, null for a text, a text for null, JSON, a boolean, a time.
    copy.execute(f"UPDATE users SET display_name = 'damaged' WHERE id = '{first.user}'")
    copy.execute(f"UPDATE users SET profile_image_url = '' WHERE id = '{second.user}'")
    copy.execute(f"UPDATE teams SET client_metadata = '[]' WHERE team_id = '{first.team}'".replace("team_id", "id"))
    copy.execute("UPDATE refresh_tokens SET is_impersonation = (id IS NOT NULL)")
    copy.execute(f"UPDATE connected_accounts SET created_at = '2001-01-01' WHERE id = '{second.account}'")
    found = {
        "team_member_profiles": (1, 0, 0), "team_permissions": (3, 0, 0), "contact_channels": (1, 1, 0),
        "team_invitations": (1, 1, 0), "users": (0, 0, 2), "teams": (0, 0, 1), "refresh_tokens": (0, 0, 3),
        "connected_accounts": (0, 0, 1),
    }  # fmt: skip
    assert damaged(checked(copy.pipeline)) == {name: (*n, 0) for name, n in found.items()}
    # Looking changes nothing.
    assert damaged(checked(copy.pipeline)) == {name: (*n, 0) for name, n in found.items()}
    repaired = checked(copy.pipeline, repair=True)
    assert damaged(repaired) == {name: (*n, sum(n)) for name, n in found.items()}
    assert all(check.ok for check in repaired.values())
    assert differences(copy.pipeline) == []
    assert damaged(checked(copy.pipeline)) == {}
    assert copy.execute(untouched) == cursors


@BOTH
def test_null_is_not_an_empty_text(copy: Copy, source: Connection) -> None:
    user = add_user(source, displayName="", profileImageUrl=None)
    settle(copy.pipeline)
    copy.execute("UPDATE users SET display_name = NULL, profile_image_url = ''")
    assert counts(checked(copy.pipeline)["users"]) == (0, 0, 1, 0)
    copy.execute(f"UPDATE users SET display_name = '', profile_image_url = NULL WHERE id = '{user}'")
    assert damaged(checked(copy.pipeline)) == {}
    # The same characters, cut elsewhere.
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'a|1:b\', "profileImageUrl" = \'c\'')
    settle(copy.pipeline)
    copy.execute("UPDATE users SET display_name = 'a', profile_image_url = '1:b|c'")
    assert counts(checked(copy.pipeline)["users"]) == (0, 0, 1, 0)


@BOTH
def test_text_of_every_alphabet(copy: Copy, source: Connection) -> None:
    add_user(source, displayName="Zoë 山田 👩‍🚀\n\t\\\"' %s :x", clientMetadata={"ключ": ["é", 1.5, None]})
    settle(copy.pipeline)
    assert damaged(checked(copy.pipeline)) == {}
    copy.execute("UPDATE users SET display_name = 'Zoe'")
    assert counts(checked(copy.pipeline, repair=True)["users"]) == (0, 0, 1, 1)


def test_a_file_with_ids_that_are_none(project: Project, source: Connection) -> None:
    copy = Copy(project, "", "sqlite")
    user = populate(source).user
    populate(source)
    settle(copy.pipeline)
    copy.execute("UPDATE teams SET id = 'nonsense' WHERE id = (SELECT max(id) FROM teams)")
    copy.execute(f"UPDATE users SET id = upper(id) WHERE id = '{user}'")
    # Upper case is another text, but the same id to the source.
    expected = {"teams": (1, 1, 0, 0)} | ({"users": (1, 1, 0, 0)} if str(user) != str(user).upper() else {})
    assert damaged(checked(copy.pipeline)) == expected
    assert all(check.ok for check in checked(copy.pipeline, repair=True).values())
    assert differences(copy.pipeline) == []
    assert copy.execute("SELECT count(*) FROM users") == [(2,)]


def test_a_copy_without_its_key_that_holds_a_row_twice(copy: Copy, source: Connection) -> None:
    add_many_users(source, 3)
    settle(copy.pipeline)
    copy.execute("ALTER TABLE users DROP CONSTRAINT users_pkey")
    copy.execute("INSERT INTO users SELECT * FROM users LIMIT 1")
    assert counts(checked(copy.pipeline)["users"]) == (0, 0, 1, 0)


def test_a_delete_without_a_tombstone(copy: Copy, source: Connection) -> None:
    """An application that marks changes itself and forgot: nothing else would ever remove these rows."""
    gone, kept = populate(source), populate(source)
    settle(copy.pipeline)
    with no_capture(source, "Team", "ProjectUser"):
        source.execute('DELETE FROM "Team" WHERE "teamId" = %s', (gone.team,))
        source.execute('UPDATE "ProjectUser" SET "displayName" = \'unmarked\'')
    settle(copy.pipeline)
    assert damaged(checked(copy.pipeline, repair=True)) == {
        "teams": (0, 1, 0, 1), "team_invitations": (0, 1, 0, 1), "users": (0, 0, 2, 2),
    }  # fmt: skip
    assert copy.execute("SELECT id::text FROM teams") == [(str(kept.team),)]
    assert differences(copy.pipeline) == []


# -- while changes flow


@BOTH
def test_what_was_not_sent_yet_is_no_difference(copy: Copy, source: Connection) -> None:
    changed, deleted, invited = populate(source), populate(source), populate(source)
    settle(copy.pipeline)
    new = add_user(source)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\' WHERE "projectUserId" = %s', (changed.user,))
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (deleted.user,))
    # Only the row that they depend on is marked.
    source.execute('UPDATE "Team" SET "displayName" = \'new\' WHERE "teamId" = %s', (invited.team,))
    source.execute('UPDATE "ContactChannel" SET value = \'new\' WHERE "projectUserId" = %s', (invited.user,))

    def in_flight() -> dict[str, int]:
        checks = checked(copy.pipeline, repair=True)
        assert damaged(checks) == {}
        return {name: check.in_flight for name, check in checks.items() if check.in_flight}

    users = {"users": 4, "contact_channels": 2, "connected_accounts": 1, "notification_preferences": 1,
             "project_permissions": 1, "team_member_profiles": 1, "team_permissions": 1, "teams": 1,
             "team_invitations": 1}  # fmt: skip
    marked = in_flight()
    sequence(copy.pipeline)
    assert (marked, in_flight()) == (users, users)
    # Damage beside it is still seen.
    copy.execute(f"UPDATE users SET display_name = 'damaged' WHERE id = '{invited.user}'")
    copy.execute("DELETE FROM email_outboxes")
    assert damaged(checked(copy.pipeline)) == {"email_outboxes": (3, 0, 0, 0)}
    sync(copy.pipeline)
    assert damaged(checked(copy.pipeline)) == {"email_outboxes": (3, 0, 0, 0)}
    assert copy.execute(f"SELECT count(*) FROM users WHERE id = '{new}'") == [(1,)]


def test_a_deleted_dependency_that_has_not_marked_its_parent_yet(copy: Copy, source: Connection) -> None:
    mine = populate(source)
    other = populate(source)
    settle(copy.pipeline)
    source.execute('DELETE FROM "ContactChannel" WHERE id = %s', (mine.channel,))
    checks = checked(copy.pipeline, repair=True)
    assert (checks["users"].in_flight, damaged(checks)) == (1, {})
    # The other's user is none of its parents.
    copy.execute(f"UPDATE users SET primary_email = NULL WHERE id = '{other.user}'")
    assert damaged(checked(copy.pipeline)) == {"users": (0, 0, 1, 0)}


def test_marks_of_another_tenancy_excuse_nothing(copy: Copy, source: Connection) -> None:
    twin = uuid.UUID(int=7)
    add_user(source, MINE, twin)
    add_user(source, OTHER, twin)
    settle(copy.pipeline)
    add_channel(source, twin, "other@example.com", OTHER)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'x\' WHERE "tenancyId" = %s', (OTHER,))
    copy.execute("UPDATE users SET display_name = 'damaged'")
    check = checked(copy.pipeline)["users"]
    assert (counts(check), check.in_flight) == ((0, 0, 1, 0), 0)


def test_a_row_that_was_repaired_between_the_passes(
    copy: Copy, source: Connection, connect: Connect, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The candidates are from two moments; only what still differs under the lock counts."""
    add_many_users(source, 20)
    settle(copy.pipeline)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\'')
    seen: list[int] = []

    def candidates(self: Any, *given: Any) -> list[Any]:
        found = original(self, *given)
        seen.append(len(found))
        settle(copy.pipeline)  # the pipeline brings all of them
        return found

    original = CopyComparison._find_candidates  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(CopyComparison, "_find_candidates", candidates)
    check = checked(copy.pipeline, mapping="users")["users"]
    assert seen == [20]
    assert (counts(check), check.in_flight) == ((0, 0, 0, 0), 0)


def test_a_repair_waits_for_whoever_writes_the_copy(
    copy: Copy, source: Connection, connect: Connect, external_db: str
) -> None:
    add_many_users(source, 5)
    settle(copy.pipeline)
    copy.execute("DELETE FROM users")
    holder = connect(external_db)
    fetch(holder, "SELECT 1 FROM _stack_sync_metadata WHERE mapping_name = 'users' FOR UPDATE")
    found: dict[str, VerifyResult] = {}
    thread = threading.Thread(target=lambda: found.update(checked(copy.pipeline, repair=True, mapping="users")))
    thread.start()
    watcher = connect(external_db, autocommit=True)
    wait_until_blocked(watcher)
    assert one(watcher, "SELECT count(*) FROM users") == 0
    holder.rollback()
    thread.join()
    assert counts(found["users"]) == (5, 0, 0, 5)
    version = "SELECT xmin::text FROM _stack_sync_metadata WHERE mapping_name = 'users'"
    before = one(watcher, version)
    copy.execute("DELETE FROM users")
    checked(copy.pipeline, mapping="users")
    assert one(watcher, version) == before, "looking alone writes nothing"
    checked(copy.pipeline, repair=True, mapping="users")
    assert one(watcher, version) != before, "an engine that reads ahead has to see that somebody wrote"


@BOTH
def test_no_false_alarm_while_writers_and_the_pipeline_are_at_work(
    copy: Copy, source: Connection, migrated_db: str
) -> None:
    add_many_users(source, 300)
    team = add_team(source)
    for n in range(50):
        add_channel(source, uuid.UUID(int=n + 1), f"{n}@example.com")
        add_invitation(source, team)
    settle(copy.pipeline)
    over = threading.Event()
    problems: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
                problems.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def write() -> None:
        with psycopg.connect(migrated_db, autocommit=True) as conn:
            n = 0
            while not over.wait(0.002):
                n += 1
                user = uuid.UUID(int=n % 300 + 1)
                conn.execute('UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s', (str(n), user))
                conn.execute('UPDATE "ContactChannel" SET value = %s WHERE "projectUserId" = %s', (f"{n}@x.org", user))
                conn.execute('UPDATE "Team" SET "displayName" = %s', (str(n),))
                extra = add_user(conn, MINE)
                if n % 2:
                    conn.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (extra,))

    stop = Stop()
    pipeline = copy.pipeline
    threads = [
        guarded(write),
        guarded(lambda: service.run(pipeline, stop, claim_limit=4, reports=service.Reports())),
    ]
    moving = 0
    try:
        for _ in range(8):
            checks = checked(pipeline)
            assert damaged(checks) == {}
            moving += sum(check.in_flight for check in checks.values())
    finally:
        over.set()
        threads[0].join()
        stop.set()
        threads[1].join()
    if problems:
        raise problems[0]
    assert moving > 0, "nothing was in flight: the test tested nothing"
    settle(pipeline)
    assert damaged(checked(pipeline)) == {}


# -- what can't be compared, and what can't be repaired


@BOTH
def test_a_copy_that_was_never_loaded_or_is_ahead(copy: Copy, source: Connection) -> None:
    populate(source)
    never = checked(copy.pipeline)
    assert {error_code(check) for check in never.values()} == {"never-loaded"}
    settle(copy.pipeline)
    copy.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = -2 WHERE mapping_name = 'users'")
    copy.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = 99999 WHERE mapping_name = 'teams'")
    copy.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = -1 WHERE mapping_name = 'email_outboxes'")
    checks = checked(copy.pipeline)
    failed = {name: error_code(check) for name, check in checks.items() if check.error}
    assert failed == {"users": "cursor-ahead", "teams": "cursor-ahead", "email_outboxes": "never-loaded"}
    assert all(check.ok for name, check in checks.items() if name not in failed)
    # One that is ahead is compared as any other, and goes on from there.
    left = {name: error_code(check) for name, check in checked(copy.pipeline, repair=True).items() if not check.ok}
    assert left == {"email_outboxes": "never-loaded"}
    add_user(source)
    settle(copy.pipeline)
    assert differences(copy.pipeline) == []


def error_code(check: VerifyResult) -> str | None:
    return check.error.code if check.error else None


def test_looking_creates_nothing(project: Project, source: Connection, external_db: str) -> None:
    project.sqlite(MINE)
    pipeline = project.postgres(MINE, external_db).pipeline()
    checked(pipeline, repair=True)
    assert not (project.directory / "copy.db").exists()
    with psycopg.connect(external_db) as conn:
        assert fetch(conn, "SELECT 1 FROM pg_class WHERE relname LIKE '%%stack%%' OR relname = 'users'") == []


def test_a_database_of_another_tenancy(project: Project, source: Connection, external_db: str) -> None:
    populate(source)
    populate(source, OTHER)
    settle(Project(project.directory, project.settings["database"]["url"]).postgres(MINE, external_db).pipeline())
    pipeline = project.postgres(OTHER, external_db).pipeline()
    checks = checked(pipeline, repair=True)
    assert {error_code(check) for check in checks.values()} == {"other-tenancy"}
    with psycopg.connect(external_db) as conn:
        assert one(conn, "SELECT count(*) FROM users") == 1


def test_a_table_that_was_dropped_or_altered(copy: Copy, source: Connection) -> None:
    populate(source)
    settle(copy.pipeline)
    copy.execute("DROP TABLE teams")
    copy.execute("ALTER TABLE users DROP COLUMN display_name")
    checks = checked(copy.pipeline, repair=True)
    assert {name: error_code(c) for name, c in checks.items() if c.error} == {
        "teams": "table-differs", "users": "table-differs",
    }  # fmt: skip


def test_a_row_that_the_copy_refuses_keeps_no_other_from_being_repaired(copy: Copy, source: Connection) -> None:
    add_many_users(source, 40)
    settle(copy.pipeline)
    copy.execute("DELETE FROM users")
    copy.execute("ALTER TABLE users ADD CHECK (display_name <> 'user 17')")
    check = checked(copy.pipeline, repair=True)["users"]
    assert (check.missing, check.repaired, error_code(check)) == (40, 39, "row-refused")
    assert not check.ok
    assert copy.execute("SELECT count(*) FROM users") == [(39,)]
    copy.execute("ALTER TABLE users DROP CONSTRAINT users_display_name_check")
    assert counts(checked(copy.pipeline, repair=True)["users"]) == (1, 0, 0, 1)


def test_names_that_do_not_exist(copy: Copy, source: Connection) -> None:
    for scope in (
        service.Scope([uuid.UUID(int=99)]),
        service.Scope(None, ["nowhere"]),
        service.Scope(None, None, ["nothing"]),
    ):
        with pytest.raises(UsageError):
            verify.verify(copy.pipeline, scope, Stop())


def test_a_stop_leaves_the_rest_unchecked(copy: Copy, source: Connection) -> None:
    populate(source)
    settle(copy.pipeline)
    stop = Stop()
    checks = verify.verify(copy.pipeline, service.Scope(None), stop, on_rows=lambda rows, mapping: stop.set())
    assert [check.interrupted for check in checks] == [False, *[True] * (len(MAPPINGS) - 1)]


# -- one hash wherever a row is kept


def test_every_type_has_one_hash_in_both_languages(source: Connection, tmp_path: Path) -> None:
    types = {"id": "bigint", "t": "text", "b": "boolean", "i": "integer", "d": "double", "n": "numeric", "day": "date",
             "at": "timestamp", "z": "timestamptz", "j": "json", "u": "uuid"}  # fmt: skip
    columns = tuple(Column(name, type_, True) for name, type_ in types.items())  # pyright: ignore[reportArgumentType]
    mapping = Mapping("m", "S", "sample", {"id": "id"}, columns, "SELECT * FROM sample WHERE :tenancy_id IS NOT NULL",
                      (), None, "S", None, tmp_path)  # fmt: skip
    source.execute(
        "CREATE TABLE sample (id bigint, t text, b boolean, i integer, d double precision, n numeric, day date,"
        " at timestamp, z timestamptz, j jsonb, u uuid)"
    )
    doubles = ["0", "-0", "1", "0.1", "1e15", "1e16", "1e-5", "123456789.123456789", "Infinity", "-Infinity", "5e-324"]
    for n, double in enumerate(doubles):
        source.execute(
            "INSERT INTO sample VALUES (%s, %s, true, 7, %s::float8, 1.50, '2024-02-29', '2024-01-01 00:00:00.12',"
            " '2024-01-01 00:00:00+02', '{\"a\": 1}', %s)",
            (n, f"text {n}", double, uuid.UUID(int=n)),
        )
    source.execute("INSERT INTO sample (id) VALUES (100)")
    source.execute("INSERT INTO sample (id, t, day, at, z) VALUES (101, '', 'infinity', '-infinity', '0044-01-01 BC')")
    kept = ("id", "t", "b::int", "i", "d", "n::text", "day::text", "at::text",
            "(z AT TIME ZONE 'UTC')::text || '+00'", "j::text", "u::text")  # fmt: skip
    source.execute("SET TIME ZONE 'UTC'")
    rows = fetch(source, f"SELECT {', '.join(kept)} FROM sample")
    hasher = Hasher(mapping)
    asked = {"keys": "[]", "wanted": list(range(4096)), "tenancy_id": MINE}
    for side in (compile_table_checksums(mapping), compile_checksums(mapping, "postgres").source):
        there = dict(source.execute(side.hashes, asked).fetchall())
        assert there == {str(row[0]): hasher.hash(row) for row in rows}
        sums = {bucket: (count, int(total)) for bucket, count, total in source.execute(side.sums, asked)}
        assert sums == hasher.sums(rows)
    plain, negative = ((*rows[0][:4], zero, *rows[0][5:]) for zero in (0.0, -0.0))
    assert hasher.hash(plain) == hasher.hash(negative) != hasher.hash((*rows[0][:4], None, *rows[0][5:]))


def test_a_lost_source_is_raised(copy: Copy, source: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    populate(source)
    settle(copy.pipeline)

    def cut(self: Source) -> None:
        source.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid()"
        )

    copy.execute("DELETE FROM users")
    monkeypatch.setattr(Source, "wait_for_replica", cut)
    with pytest.raises(StackctlError) as raised:
        checked(copy.pipeline)
    assert raised.value.exit_code == 4


def test_json_and_numbers_of_the_operated_database_are_read_as_the_copy_keeps_them(
    copy: Copy, source: Connection
) -> None:
    add_user(source, clientMetadata={"b": 1, "a": [1e30, 0.1, "x"], "n": None})
    insert(source, "ProjectUserRefreshToken", {"tenancyId": MINE, "projectUserId": uuid.uuid4(), "id": uuid.uuid4(),
           "updatedAt": "now", "refreshToken": "t", "expiresAt": "infinity"})  # fmt: skip
    settle(copy.pipeline)
    assert damaged(checked(copy.pipeline)) == {}


def test_rejected_rows_are_told_apart_from_what_a_repair_can_fix(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    project.postgres(MINE, external_db, mappings=["users"])
    users = [add_user(source, displayName=name) for name in ("bad", "good", "ugly")]
    settle(project.pipeline())
    target = connect(external_db, autocommit=True)
    target.execute("DELETE FROM users")
    target.execute("ALTER TABLE users ADD CONSTRAINT polite CHECK (display_name <> 'bad')")
    seen = project.run("verify", "--json").json["checks"][0]
    assert (seen["missing"], seen["rejected"]) == (3, 0)  # nobody has tried yet
    repaired = project.run("verify", "--repair", "--json")
    (check,) = repaired.json["checks"]
    assert (repaired.code, check["missing"], check["repaired"], check["rejected"]) == (1, 3, 2, 1)
    (rejected,) = check["rejected_rows"]
    assert rejected["key"] == [str(users[0])]
    assert "polite" in rejected["error"]
    # From then on, the engine knows it as well.
    source.execute('UPDATE "ProjectUser" SET "displayName" = "displayName" WHERE "displayName" = \'bad\'')
    sequence(project.pipeline())
    poll(project.pipeline())
    shown = project.run("verify")
    assert shown.code == 1
    assert "users: 1 difference is a rejected row" in shown.stderr
    assert f"rejected: {users[0]}: " in shown.stderr
    assert "--repair" not in shown.stderr
    target.execute("ALTER TABLE users DROP CONSTRAINT polite")
    repaired = project.run("verify", "--repair", "--json")
    assert (repaired.code, repaired.json["checks"][0]["rejected"]) == (0, 0)


@pytest.mark.parametrize("others", ["nobody has it open", "somebody writes it"])
def test_a_file_that_can_only_be_read_is_compared(
    others: str, project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is for the one who may not write it: root may. Nothing is made beside it."""
    pipeline = project.sqlite(MINE, mappings=["users", "teams"]).pipeline()
    populate(source)
    settle(pipeline)
    writer = sqlite3.connect(project.directory / "copy.db", isolation_level=None)
    if others == "somebody writes it":
        writer.execute("UPDATE users SET display_name = 'in the log'")
    else:
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        writer.execute("DELETE FROM teams")
        writer.close()
    before = {path.name for path in project.directory.glob("copy.db*")}
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    differing = ("users", (0, 0, 1, 0)) if others == "somebody writes it" else ("teams", (1, 0, 0, 0))
    assert damaged(checked(pipeline)) == dict([differing])
    check = checked(pipeline, repair=True)[differing[0]]
    assert check.error is not None
    assert (check.error.code, check.repaired) == ("out-of-resources", 0)
    assert {path.name for path in project.directory.glob("copy.db*")} == before
    writer.close()
    monkeypatch.undo()
    assert sum(map(sum, damaged(checked(pipeline, repair=True)).values())) == 2
