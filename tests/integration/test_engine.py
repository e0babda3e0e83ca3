"""What arrives in an external database: the mapping's rows as they are now, and nothing else."""

from __future__ import annotations

import json
import sqlite3
import uuid
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from stackctl.sync.targets import sqlite
from tests.backend import (
    MAPPINGS,
    MINE,
    OTHER,
    Connection,
    Project,
    add_account,
    add_channel,
    add_invitation,
    add_many_users,
    add_team,
    add_user,
    differences,
    fetch,
    no_capture,
    populate,
    sequence,
    settle,
    sync,
)

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.sync.engine.database_sync import DatabaseResult
    from stackctl.sync.pipeline import Pipeline

BOTH = pytest.mark.parametrize("copy", ["postgres", "sqlite"], indirect=True)


def rows(url: str | Path, query: str) -> list[tuple[Any, ...]]:
    """What a consumer reads: from a PostgreSQL (url) or a SQLite file (path)."""
    if isinstance(url, str):
        with psycopg.connect(url) as conn:
            return fetch(conn, query)
    conn = sqlite3.connect(url)
    try:
        return conn.execute(query).fetchall()
    finally:
        conn.close()


class Copy:
    """One external database of MINE, of either kind."""

    def __init__(self, project: Project, external_db: str, kind: str) -> None:
        self.place = external_db if kind == "postgres" else project.directory / "copy.db"
        project.postgres(MINE, external_db) if kind == "postgres" else project.sqlite(MINE)
        self.project = project
        self.pipeline: Pipeline = project.pipeline()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self.place, query)

    def column(self, query: str) -> list[Any]:
        return [row[0] for row in self.rows(query)]


@pytest.fixture
def copy(request: pytest.FixtureRequest, project: Project, external_db: str) -> Copy:
    return Copy(project, external_db, getattr(request, "param", "postgres"))


@pytest.mark.quick
def test_each_tenancy_sees_only_its_own_rows(project: Project, source: Connection, external_db: str) -> None:
    mine, other = populate(source, MINE), populate(source, OTHER)
    # The same ids in both tenancies: only the tenancy tells them apart.
    add_user(source, MINE, uuid.UUID(int=1), displayName="mine")
    add_user(source, OTHER, uuid.UUID(int=1), displayName="theirs")
    pipeline = project.postgres(MINE, external_db).sqlite(OTHER).pipeline()
    settle(pipeline)
    path = project.directory / "copy.db"
    for name in MAPPINGS:
        expected = 2 if name == "users" else 1
        assert rows(external_db, f"SELECT count(*) FROM {name}") == [(expected,)], name
        assert rows(path, f"SELECT count(*) FROM {name}") == [(expected,)], name
    assert rows(external_db, "SELECT id::text, display_name FROM users ORDER BY 2") == [
        (str(uuid.UUID(int=1)), "mine"),
        (str(mine.user), f"user of {MINE}"),
    ]
    assert {row[0] for row in rows(path, "SELECT id FROM users")} == {str(uuid.UUID(int=1)), str(other.user)}
    assert differences(pipeline) == []
    # Changes and deletes of one do not show at the other.
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\' WHERE "tenancyId" = %s', (OTHER,))
    source.execute(
        'DELETE FROM "ProjectUser" WHERE "tenancyId" = %s AND "projectUserId" = %s', (OTHER, uuid.UUID(int=1))
    )
    settle(pipeline)
    assert rows(external_db, "SELECT count(*) FROM users WHERE display_name = 'new'") == [(0,)]
    assert rows(external_db, "SELECT count(*) FROM users") == [(2,)]
    assert rows(path, "SELECT display_name FROM users") == [("new",)]


@BOTH
def test_update_delete_cascade_and_recreation(copy: Copy, source: Connection) -> None:
    first = populate(source)
    second = populate(source)
    settle(copy.pipeline)
    assert differences(copy.pipeline) == []
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'x\' WHERE "projectUserId" = %s', (second.user,))
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (first.user,))
    settle(copy.pipeline)
    assert copy.column("SELECT display_name FROM users") == ["x"]
    for cascaded in ("contact_channels", "team_member_profiles", "team_permissions", "project_permissions",
                     "notification_preferences", "connected_accounts"):  # fmt: skip
        assert copy.column(f"SELECT count(*) FROM {cascaded}") == [1], cascaded
    # Again with the same id and the same address, once before and once after the delete was sent.
    add_user(source, MINE, first.user, displayName="again")
    add_channel(source, first.user, f"{first.user}@example.com", usedForAuth="TRUE")
    settle(copy.pipeline)
    assert copy.column("SELECT primary_email FROM users WHERE display_name = 'again'") == [f"{first.user}@example.com"]
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (first.user,))
    add_user(source, MINE, first.user, displayName="at last")
    settle(copy.pipeline)
    assert sorted(copy.column("SELECT display_name FROM users")) == ["at last", "x"]
    assert differences(copy.pipeline) == []


@BOTH
def test_a_row_deleted_before_the_first_sync_never_appears(copy: Copy, source: Connection) -> None:
    gone, kept = populate(source), populate(source)
    sequence(copy.pipeline)
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (gone.user,))
    # An observer inside the target would see the row even if it were inserted and deleted again at once.
    settle(copy.pipeline)
    (users,) = [m for r in sync(copy.pipeline, full=True) for m in r.mappings if m.mapping == "users"]
    assert (users.upserted, users.deleted) == (1, 0)
    assert copy.column("SELECT id FROM users") == [kept.user if isinstance(copy.place, str) else str(kept.user)]
    assert differences(copy.pipeline) == []


@BOTH
def test_three_updates_before_one_sync_are_one_row(copy: Copy, source: Connection) -> None:
    user = add_user(source)
    settle(copy.pipeline)
    for name in ("one", "two", "three"):
        source.execute('UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s', (name, user))
    sequence(copy.pipeline)
    (users,) = [m for r in sync(copy.pipeline) for m in r.mappings if m.mapping == "users"]
    assert (users.upserted, users.deleted) == (1, 0)
    assert copy.column("SELECT display_name FROM users") == ["three"]


TEXTS = [
    "it's \"quoted\"", "back\\slash \\n \\N \\. \\", "\\x00 and \\u0000 and \\0", "\x01\x02\x1f\x7f",
    "tab\tnew\nline\r\n",
    "emoji 🎉👩‍👩‍👧 and ÅØß", "日本語 العربية עברית हिन्दी", "NaN", "null", "", " ",
    "%s %(a)s {} $1 :tenancy_id", "x" * 300_000,
    "\ufeff\u200b\u202e", "\U0010ffff",
]  # fmt: skip
DOCUMENTS = [
    {"a\"b\\": "\u0001", "🎉": ["日本", None, True, 1.5, -0.1, 1e15, "NaN", "Infinity"]},
    {"n": 12345678901234567890123456789, "deep": {"er": [[[]]]}, "": ""}, [], "text", 0, None,
]  # fmt: skip


@BOTH
def test_values_arrive_as_they_are(copy: Copy, source: Connection) -> None:
    expected = {}
    for number, text in enumerate(TEXTS, 1):
        expected[add_user(source, id=uuid.UUID(int=number), displayName=text, serverMetadata={"text": text})] = text
    documents = {}
    for number, document in enumerate(DOCUMENTS, 100):
        value = Jsonb(document)
        documents[add_user(source, id=uuid.UUID(int=number), clientMetadata=value)] = document
    for again in ("load", "batch"):
        settle(copy.pipeline)
        found = {uuid.UUID(str(id_)): text for id_, text in copy.rows("SELECT id, display_name FROM users")}
        assert {id_: found[id_] for id_ in expected} == expected, again
        assert differences(copy.pipeline) == [], again
        source.execute('UPDATE "ProjectUser" SET "updatedAt" = now()')  # all again, by way of a batch
    text = "::text" if isinstance(copy.place, str) else ""
    stored = {
        uuid.UUID(str(id_)): json.loads(v) for id_, v in copy.rows(f"SELECT id, client_metadata{text} FROM users")
    }
    assert {id_: stored[id_] for id_ in documents} == documents


@BOTH
def test_missing_metadata_is_an_empty_object(copy: Copy, source: Connection) -> None:
    add_user(source, clientMetadata=None)
    add_team(source)
    settle(copy.pipeline)
    text = "::text" if isinstance(copy.place, str) else ""
    columns = ", ".join(f"{name}{text}" for name in ("client_metadata", "client_read_only_metadata", "server_metadata"))
    for table in ("users", "teams"):
        assert copy.rows(f"SELECT {columns} FROM {table}") == [("{}", "{}", "{}")]


@BOTH
def test_a_row_enters_and_leaves_the_filter(copy: Copy, source: Connection) -> None:
    user, team = add_user(source), add_team(source)
    account = add_account(source, None)
    invitation = add_invitation(source, team, type="PASSWORD_RESET")
    settle(copy.pipeline)

    def present() -> tuple[int, int]:
        settle(copy.pipeline)
        assert differences(copy.pipeline) == []
        return (len(copy.rows("SELECT 1 FROM connected_accounts")), len(copy.rows("SELECT 1 FROM team_invitations")))

    assert present() == (0, 0)
    for _ in range(2):
        source.execute('UPDATE "ProjectUserOAuthAccount" SET "projectUserId" = %s WHERE id = %s', (user, account))
        source.execute("UPDATE \"VerificationCode\" SET type = 'TEAM_INVITATION' WHERE id = %s", (invitation,))
        assert present() == (1, 1)
        source.execute('UPDATE "ProjectUserOAuthAccount" SET "projectUserId" = NULL WHERE id = %s', (account,))
        source.execute("UPDATE \"VerificationCode\" SET type = 'MFA_ATTEMPT' WHERE id = %s", (invitation,))
        assert present() == (0, 0)


VERIFIED_CHANNELS = """
name: verified
source: ContactChannel
target: verified
key: {id: id}
columns: {id: uuid, value: text}
select: |
  SELECT c."id" AS id, c."value" AS value FROM "ContactChannel" AS c
  WHERE c."tenancyId" = :tenancy_id AND c."isVerified"
"""


def test_a_mapping_of_ones_own_with_a_condition(copy: Copy, source: Connection) -> None:
    folder = copy.project.directory / "mine"
    folder.mkdir()
    (folder / "verified.yaml").write_text(VERIFIED_CHANNELS)
    copy.project.settings["mappings_dir"] = "./mine"
    pipeline = copy.project.pipeline()
    channel = add_channel(source, add_user(source), "a@example.com", isVerified=False)
    settle(pipeline)
    assert copy.rows("SELECT value FROM verified") == []
    for verified, expected in ((True, ["a@example.com"]), (False, []), (True, ["a@example.com"])):
        source.execute('UPDATE "ContactChannel" SET "isVerified" = %s WHERE id = %s', (verified, channel))
        settle(pipeline)
        assert copy.column("SELECT value FROM verified") == expected


@BOTH
def test_a_dependency_sends_its_parents_again(copy: Copy, source: Connection) -> None:
    made = populate(source)
    settle(copy.pipeline)
    source.execute("UPDATE \"ContactChannel\" SET value = 'new@example.com' WHERE id = %s", (made.channel,))
    source.execute('UPDATE "Team" SET "displayName" = \'renamed\' WHERE "teamId" = %s', (made.team,))
    settle(copy.pipeline)
    assert copy.column("SELECT primary_email FROM users") == ["new@example.com"]
    assert copy.column("SELECT team_display_name FROM team_invitations") == ["renamed"]
    source.execute('DELETE FROM "ContactChannel" WHERE id = %s', (made.channel,))
    settle(copy.pipeline)
    assert copy.rows("SELECT primary_email, primary_email_verified FROM users") == [(None, 0)]
    source.execute('DELETE FROM "Team" WHERE "teamId" = %s', (made.team,))
    settle(copy.pipeline)
    assert copy.rows("SELECT * FROM team_invitations") == []
    assert differences(copy.pipeline) == []


@BOTH
def test_a_key_that_changes_leaves_nothing_behind(copy: Copy, source: Connection) -> None:
    made = populate(source)
    settle(copy.pipeline)
    source.execute('DELETE FROM "ProjectUserDirectPermission"')
    source.execute('UPDATE "ProjectUserOAuthAccount" SET id = %s', (uuid.UUID(int=5),))
    source.execute('UPDATE "ProjectUserRefreshToken" SET "tenancyId" = %s', (OTHER,))
    source.execute('UPDATE "Team" SET "teamId" = %s WHERE false', (made.team,))
    source.execute('UPDATE "TeamMemberDirectPermission" SET "permissionId" = \'write\'')
    source.execute('UPDATE "VerificationCode" SET "branchId" = \'other\'')
    settle(copy.pipeline)
    assert [str(id_) for id_ in copy.column("SELECT id FROM connected_accounts")] == [str(uuid.UUID(int=5))]
    assert copy.column("SELECT permission_id FROM team_permissions") == ["write"]
    assert copy.rows("SELECT * FROM refresh_tokens") == copy.rows("SELECT * FROM team_invitations") == []
    assert differences(copy.pipeline) == []


@BOTH
def test_truncate_empties_the_copy(copy: Copy, source: Connection) -> None:
    populate(source)
    populate(source)
    settle(copy.pipeline)
    source.execute(
        'TRUNCATE "ProjectUser", "Team", "VerificationCode", "ProjectUserRefreshToken", "EmailOutbox" CASCADE'
    )
    settle(copy.pipeline)
    for name in MAPPINGS:
        assert copy.rows(f"SELECT * FROM {name}") == [], name


@BOTH
def test_many_batches_with_deletes_at_their_boundaries(copy: Copy, source: Connection) -> None:
    size = 1000
    add_user(source, id=uuid.UUID(int=10**9))
    settle(copy.pipeline)  # from here on in batches, not in one load
    with source.transaction(), no_capture(source, "ProjectUser"):
        add_many_users(source, 10 * size)
        # Stamped by hand, so that everything that is odd lies exactly at the ends of the batches.
        source.execute(
            'UPDATE "ProjectUser" SET "shouldUpdateSequenceId" = false,'
            ' "sequenceId" = 1000000 + 10 * (\'x\' || substr("projectUserId"::text, 30))::bit(28)::int'
            ' WHERE "projectUserId" <> %s',
            (uuid.UUID(int=10**9),),
        )
        for batch in range(1, 11):
            # With the rows before it, key `last` ends a batch; it is deleted, and the first of the next is both
            # deleted and there again, with its tombstone in one batch and its row in the next.
            last = batch * size
            for key, stamp, gone in ((last, 10 * last, True), (last + 1, 10 * last + 1, False)):
                id_ = str(uuid.UUID(int=key))
                if gone:
                    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (id_,))
                source.execute(
                    'INSERT INTO "DeletedRow" (id, "tenancyId", "tableName", "sequenceId", "primaryKey",'
                    " \"shouldUpdateSequenceId\") VALUES (gen_random_uuid(), %s, 'ProjectUser', %s,"
                    " jsonb_build_object('tenancyId', %s::text, 'projectUserId', %s::text), false)",
                    (MINE, 1000000 + stamp, str(MINE), id_),
                )
        source.execute("SELECT setval('global_seq_id', 10000000)")
    (result,) = sync(copy.pipeline, batch_size=size)
    assert result.error is None
    (users,) = [m for m in result.mappings if m.mapping == "users"]
    assert users.batches in (11, 12)
    assert copy.column("SELECT count(*) FROM users") == [10 * size + 1 - 10]
    # Now by the triggers: a few, exactly one batch, and all of the rest.
    source.execute('DELETE FROM "ProjectUser" WHERE substr("projectUserId"::text, 34) = \'388\'')
    source.execute(
        'DELETE FROM "ProjectUser" WHERE "projectUserId" IN (SELECT "projectUserId" FROM "ProjectUser" LIMIT %s)',
        (size,),
    )
    sequence(copy.pipeline, batch_size=size)
    (result,) = sync(copy.pipeline, batch_size=size)
    assert result.error is None
    assert differences(copy.pipeline) == []
    (result,) = sync(copy.pipeline, batch_size=size)
    assert sum(m.batches for m in result.mappings) == 0


def test_a_key_twice_at_the_end_of_a_batch(copy: Copy, source: Connection) -> None:
    add_user(source)
    settle(copy.pipeline)
    for size in (1, 2, 3):
        for _ in range(2):
            user = add_user(source, id=uuid.UUID(int=7))
            sequence(copy.pipeline)
            source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))
            sequence(copy.pipeline)
        add_user(source, id=uuid.UUID(int=7), displayName=str(size))
        sequence(copy.pipeline)
        assert [r.error for r in sync(copy.pipeline, batch_size=size)] == [None]
        assert differences(copy.pipeline) == []
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (uuid.UUID(int=7),))


def failure(results: list[DatabaseResult]) -> tuple[str, str]:
    (result,) = results
    assert result.error is not None
    return result.error.code, result.error.message


@BOTH
def test_a_cursor_from_the_future_is_refused_and_full_repairs_it(copy: Copy, source: Connection) -> None:
    add_user(source)
    settle(copy.pipeline)
    statement = "UPDATE _stack_sync_metadata SET last_synced_sequence_id = 1000000 WHERE mapping_name = 'users'"
    if isinstance(copy.place, str):
        with psycopg.connect(copy.place) as conn:
            conn.execute(statement)
    else:
        with sqlite3.connect(copy.place) as file:
            file.execute(statement)
        file.close()
    add_user(source)
    sequence(copy.pipeline)
    code, message = failure(sync(copy.pipeline))
    assert code == "cursor-ahead"
    assert "users (cursor 1000000)" in message
    assert len(copy.rows("SELECT 1 FROM users")) == 1
    assert [result.error for result in sync(copy.pipeline, full=True)] == [None]
    assert differences(copy.pipeline) == []
    add_user(source)
    settle(copy.pipeline)
    assert len(copy.rows("SELECT 1 FROM users")) == 3


def test_rows_without_stamps_yet_are_sent_by_a_load_and_again_when_stamped(copy: Copy, source: Connection) -> None:
    user = add_user(source, displayName="early")
    assert failure_free(sync(copy.pipeline))
    assert copy.column("SELECT display_name FROM users") == ["early"]
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'later\' WHERE "projectUserId" = %s', (user,))
    settle(copy.pipeline)
    assert copy.column("SELECT display_name FROM users") == ["later"]


def failure_free(results: list[DatabaseResult]) -> bool:
    return all(result.error is None for result in results)


def test_two_rows_for_one_key_stop_the_batch(copy: Copy, source: Connection) -> None:
    folder = copy.project.directory / "mine"
    folder.mkdir()
    (folder / "users.yaml").write_text("""
name: users
source: ProjectUser
target: users
key: {id: projectUserId}
columns: {id: uuid, value: text null}
select: |
  SELECT u."projectUserId" AS id, c."value" AS value FROM "ProjectUser" AS u
  LEFT JOIN "ContactChannel" AS c ON c."tenancyId" = u."tenancyId" AND c."projectUserId" = u."projectUserId"
  WHERE u."tenancyId" = :tenancy_id
depends_on:
  ContactChannel: {projectUserId: projectUserId}
""")
    copy.project.settings["mappings_dir"] = "./mine"
    copy.project.sqlite(MINE)
    pipeline = copy.project.pipeline()
    user = add_user(source)
    add_channel(source, user, "a@example.com")
    settle(pipeline)
    add_channel(source, user, "b@example.com", isPrimary=None)
    sequence(pipeline)
    results = sync(pipeline)
    assert [r.error.code for r in results if r.error] == ["two-rows-for-a-key"] * 2
    assert copy.rows("SELECT value FROM users") == [("a@example.com",)]
    assert rows(copy.project.directory / "copy.db", "SELECT value FROM users") == [("a@example.com",)]
    assert [r.error.code for r in sync(pipeline, full=True) if r.error] == ["two-rows-for-a-key"] * 2
    assert copy.rows("SELECT value FROM users") == [("a@example.com",)]


def test_a_failing_target_leaves_the_source_connection_usable(
    project: Project, source: Connection, external_db: str
) -> None:
    """A target that fails in the middle of the stream: the next database is read over the same connection."""
    add_many_users(source, 12_000)
    project.sqlite(MINE, "a.db", "a", mappings=["users"]).sqlite(MINE, "b.db", "b").postgres(MINE, external_db, "c")
    pipeline = project.sync_settings(workers=1).pipeline()
    sequence(pipeline)
    path = project.directory / "a.db"
    assert failure_free(sync(pipeline))
    with sqlite3.connect(path) as file:
        file.execute("CREATE TRIGGER no BEFORE INSERT ON users WHEN new.display_name = 'user 7000'"
                     " BEGIN SELECT raise(ABORT, 'refused'); END")  # fmt: skip
    file.close()
    results = sync(pipeline, full=True)
    assert [(r.database, r.status) for r in results] == [("a", "error"), ("b", "ok"), ("c", "ok")]
    assert "refused" in str(results[0].error)
    assert rows(path, "SELECT count(*) FROM users") == [(12_000,)]  # of the refused one the old version stays
    with sqlite3.connect(path) as file:
        file.execute("DROP TRIGGER no")
    file.close()
    assert failure_free(sync(pipeline, full=True))
    assert differences(pipeline) == []


def test_sqlite_chunks_are_no_boundary(copy: Copy, source: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CHUNK", 7)
    copy.project.sqlite(MINE)
    pipeline = copy.project.pipeline()
    add_many_users(source, 50)
    settle(pipeline)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'x\'')
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (uuid.UUID(int=14),))
    settle(pipeline)
    assert differences(pipeline) == []


def test_one_connection_reads_for_files_and_servers_in_turn(
    project: Project, source: Connection, external_db: str
) -> None:
    """What one kind of reading leaves behind on the source's connection must not disturb the next."""
    project.sqlite(MINE, "a.db", "a").postgres(MINE, external_db, "b").sqlite(MINE, "c.db", "c")
    pipeline = project.sync_settings(workers=1).pipeline()
    populate(source)
    settle(pipeline)
    for _ in range(3):
        populate(source)
        settle(pipeline)
    assert differences(pipeline) == []


@BOTH
def test_full_does_not_set_a_cursor_back(copy: Copy, source: Connection) -> None:
    """The highest stamp may be gone with its row and its tombstone."""
    add_user(source)
    settle(copy.pipeline)
    last = add_user(source)
    settle(copy.pipeline)
    query = "SELECT mapping_name, last_synced_sequence_id FROM _stack_sync_metadata ORDER BY 1"
    cursors = copy.rows(query)
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (last,))
    source.execute('DELETE FROM "DeletedRow"')
    assert [result.error for result in sync(copy.pipeline, full=True)] == [None]
    assert copy.rows(query) == cursors
    assert differences(copy.pipeline) == []
