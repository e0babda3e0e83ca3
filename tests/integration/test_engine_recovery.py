"""What an operator does to a copy or its source by hand, and what the next sync makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest
from psycopg import sql

from tests.backend import (
    MINE,
    OTHER,
    Project,
    add_channel,
    add_invitation,
    add_team,
    add_user,
    differences,
    failures,
    fetch,
    one,
    poll,
    populate,
    sequence,
    settle,
    sync,
    wait_for,
)

if TYPE_CHECKING:
    from stackctl.postgres.embedded import EmbeddedServer
    from tests.backend import Connection
    from tests.conftest import Connect


def test_a_dropped_table_is_filled_again(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).sqlite(MINE).pipeline()
    populate(source)
    settle(pipeline)
    connect(external_db, autocommit=True).execute("DROP TABLE users")
    for database in pipeline.databases[MINE]:
        if database.type == "sqlite":
            target = cast("Any", pipeline.open_target(database))
            target._conn.execute("DROP TABLE users")
            target.close()
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_deleted_cursor_means_from_the_beginning(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    populate(source)
    settle(pipeline)
    consumer = connect(external_db, autocommit=True)
    consumer.execute("DELETE FROM _stack_sync_metadata WHERE mapping_name = 'teams'; DELETE FROM teams")
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_source_that_was_set_back_stays_refused_when_its_ids_catch_up(
    project: Project, source: Connection, external_db: str
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_user(source)
    source.execute("SELECT setval('global_seq_id', 1001)")
    settle(pipeline)
    source.execute("SELECT setval('global_seq_id', 101)")
    source.execute('UPDATE "ProjectUser" SET "sequenceId" = 90, "shouldUpdateSequenceId" = false')
    assert [result.error.code for result in sync(pipeline) if result.error] == ["cursor-ahead"]
    source.execute("SELECT setval('global_seq_id', 100001)")
    add_user(source)
    sequence(pipeline)
    poll(pipeline)
    assert [result.error.code for result in sync(pipeline) if result.error] == ["cursor-ahead"]
    assert [result.error for result in sync(pipeline, full=True)] == [None]
    assert differences(pipeline) == []
    assert failures(pipeline) == []


def test_one_mapping_that_can_not_be_sent_does_not_hold_up_the_others(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    populate(source)
    settle(pipeline)
    consumer = connect(external_db, autocommit=True)
    consumer.execute("ALTER TABLE contact_channels ADD CHECK (value <> 'poison')")
    user = add_user(source, displayName="after")
    add_channel(source, user, "poison")
    sequence(pipeline)
    (result,) = sync(pipeline)
    assert result.error is not None
    assert [m.mapping for m in result.mappings if m.upserted] == ["users"]
    assert {c.mapping for c in differences(pipeline)} == {"contact_channels"}


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_target_of_another_encoding_holds_the_same_text(
    project: Project, source: Connection, server: EmbeddedServer, encoding: str, connect: Connect
) -> None:
    name = f"enc_{encoding.lower()}"
    admin = connect(server.url(), autocommit=True)
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
    create = "CREATE DATABASE {} ENCODING {} LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    admin.execute(sql.SQL(create).format(sql.Identifier(name), sql.Literal(encoding)))
    pipeline = project.postgres(MINE, server.url(name)).pipeline()
    user = add_user(source, displayName="Zoë", clientMetadata={"née": "Ünal"})
    settle(pipeline)
    with psycopg.connect(server.url(name), client_encoding="UTF8") as consumer:
        row = consumer.execute(
            "SELECT display_name::bytea, client_metadata FROM users WHERE id = %s", [user]
        ).fetchone()
    assert row is not None
    assert row[0].decode("latin1" if encoding == "LATIN1" else "utf8") == "Zoë"
    admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_invitations_go_with_their_tenancy(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_invitation(source, add_team(source))
    settle(pipeline)
    source.execute('DELETE FROM "Tenancy" WHERE id = %s', [MINE])
    source.execute('DELETE FROM "VerificationCode"')
    settle(pipeline)
    assert differences(pipeline) == []


def test_truncate_is_refused_where_it_could_lose_deletes(source: Connection) -> None:
    add_user(source)
    with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"), source.transaction():
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        source.execute('TRUNCATE "ProjectUser" CASCADE')
    assert one(source, 'SELECT count(*) FROM "ProjectUser"') == 1


def test_locked_parents_of_one_tenancy_do_not_hold_up_another(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    pipeline = project.pipeline()
    for number in range(12):
        add_channel(source, add_user(source), f"{number}@example.com")
    theirs = add_user(source, OTHER)
    add_channel(source, theirs, "other@example.com", OTHER)
    sequence(pipeline)
    source.execute('UPDATE "ContactChannel" SET "isVerified" = false')
    application = connect(migrated_db)
    application.execute('SELECT 1 FROM "ProjectUser" WHERE "tenancyId" = %s FOR UPDATE', [MINE])
    sequence(pipeline, batch_size=3)
    marked = 'SELECT "tenancyId" FROM "ContactChannel" WHERE "shouldUpdateSequenceId"'
    assert {tenancy for (tenancy,) in fetch(source, marked)} == {MINE}
    application.rollback()
    sequence(pipeline, batch_size=3)
    assert fetch(source, marked) == []


def test_an_application_that_queues_first_and_changes_then_is_not_told_of_a_deadlock(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    pipeline = project.pipeline()
    mine, theirs = add_user(source), add_user(source, OTHER)
    application = connect(migrated_db)
    application.execute("SELECT enqueue_tenant_sync(%s)", [MINE])
    result = sequence(pipeline)
    assert (result.rows, result.touched) == (1, {OTHER})
    application.execute('UPDATE "ProjectUser" SET "displayName" = \'x\' WHERE "projectUserId" = %s', [mine])
    application.commit()
    assert wait_for(lambda: sequence(project.pipeline()).touched) == {MINE}
    assert theirs is not None
    queued = 'SELECT "deduplicationKey" FROM "OutgoingRequest" WHERE "startedFulfillingAt" IS NULL'
    assert len(fetch(source, cast("LiteralString", queued))) == 2
