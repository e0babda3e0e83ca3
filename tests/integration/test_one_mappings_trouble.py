"""One mapping's trouble is its own: the others of its database go on at once with each change."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from stackctl.sync import service
from stackctl.sync.queue import retries
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    QUEUED,
    Connection,
    Project,
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
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Connect


@pytest.fixture
def hour_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY", timedelta(hours=1))
    monkeypatch.setattr(retries, "LONGEST_DELAY", timedelta(hours=1))


@pytest.mark.usefixtures("hour_long_pauses")
@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_changed_target_table(
    kind: str, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    project = project.postgres(MINE, external_db) if kind == "postgres" else project.sqlite(MINE)
    pipeline = project.pipeline()
    populate(source)
    settle(pipeline)

    def alter(before: str, after: str) -> None:
        statement = f"ALTER TABLE users RENAME COLUMN {before} TO {after}"
        if kind == "postgres":
            connect(external_db, autocommit=True).execute(statement.encode())
        else:
            import sqlite3

            with sqlite3.connect(project.directory / "copy.db") as conn:
                conn.execute(statement)

    alter("display_name", "other_name")
    add_user(source)
    team = add_team(source)
    sequence(pipeline)
    assert poll(pipeline).failed == 1
    (failure,) = failures(pipeline)
    assert (failure.mapping, failure.code, failure.attempts) == ("users", "table-differs", 1)
    # While it rests, what changes is sent, and counts as delivered; so does what no process has looked at before.
    for used in (pipeline, project.pipeline()):
        source.execute('UPDATE "Team" SET "displayName" = \'new\' WHERE "teamId" = %s', (team,))
        add_user(source)
        sequence(used)
        done = poll(used)
        assert (done.claimed, done.delivered, done.failed) == (1, 1, 0)
    assert [f.attempts for f in failures(pipeline)] == [1]
    alter("other_name", "display_name")
    assert differences(pipeline) != []
    with pipeline.open_session() as conn:
        assert retries.retry_now(conn, None) == [(MINE, "analytics" if kind == "postgres" else "local")]
    assert poll(pipeline).failed == 0
    assert failures(pipeline) == []
    assert differences(pipeline) == []


@pytest.mark.usefixtures("hour_long_pauses")
@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ('ALTER TABLE "ProjectUser" RENAME COLUMN "displayName" TO gone', 'RENAME COLUMN gone TO "displayName"'),
        ('ALTER TABLE "ProjectUser" RENAME TO gone', 'RENAME TO "ProjectUser"'),
    ],
)
def test_a_source_without_its_column_or_its_table(
    wrong: str, right: str, project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    project.postgres(MINE, external_db, mappings=["users", "refresh_tokens", "team_permissions"])
    pipeline = project.pipeline()
    rows = populate(source)
    settle(pipeline)
    source.execute(
        'UPDATE "ProjectUserRefreshToken" SET "lastActiveAt" = now() WHERE "projectUserId" = %s', (rows.user,)
    )
    source.execute('UPDATE "ProjectUser" SET "profileImageUrl" = \'x\'')
    sequence(pipeline)
    with pipeline.open_session() as conn:  # a poller that has been at work for long
        service.OneTimeCheck(pipeline).run_once(conn)
    source.execute(wrong.encode())
    check = service.OneTimeCheck(pipeline)
    check._done = True  # pyright: ignore[reportPrivateUsage]
    done = service.poll(pipeline, Stop(), claim_limit=8, interval=None, reports=service.Reports(), check=check)
    assert (done.claimed, done.failed) == (1, 1)
    assert [(f.mapping, f.code) for f in failures(pipeline)] == [("users", "mapping-failed")]
    cursors = dict(
        fetch(connect(external_db), "SELECT mapping_name, last_synced_sequence_id FROM _stack_sync_metadata")
    )
    highest = one(source, 'SELECT max("sequenceId") FROM "ProjectUserRefreshToken"')
    assert cursors["refresh_tokens"] == highest
    table = "gone" if "TABLE" in wrong and "COLUMN" not in wrong else '"ProjectUser"'
    source.execute(f"ALTER TABLE {table} {right}".encode())
    with pipeline.open_session() as conn:
        retries.retry_now(conn, None)
    assert poll(pipeline).failed == 0
    assert differences(pipeline) == []


@pytest.fixture
def running(project: Project, source: Connection, external_db: str) -> Iterator[list[str]]:
    """`run` in the background, all settled; what it complained of so far."""
    populate(source)
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    stop = Stop()
    heard: list[str] = []
    failed: list[BaseException] = []
    reports = service.Reports(trouble=lambda error: heard.append(error.code), warned=heard.append)

    def work() -> None:
        try:
            service.run(pipeline, stop, claim_limit=8, reports=reports)
        except BaseException as error:  # noqa: BLE001 - raised by the test
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    add_user(source, displayName="first")
    wait_for(lambda: failed or not fetch(source, 'SELECT FROM "ProjectUser" WHERE "shouldUpdateSequenceId"'))
    wait_for(lambda: failed or not fetch(source, QUEUED))
    yield heard
    stop.set()
    thread.join()
    if failed:
        raise failed[0]


def test_run_outlives_a_source_table_that_is_gone_for_a_while(
    running: list[str], project: Project, source: Connection, external_db: str, connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(service, "FIRST_PAUSE", 0.05)
    outside = connect(external_db, autocommit=True)
    source.execute('ALTER TABLE "EmailOutbox" RENAME TO gone')
    wait_for(lambda: running)
    source.execute('ALTER TABLE gone RENAME TO "EmailOutbox"')
    add_user(source, displayName="back again")
    wait_for(lambda: fetch(outside, "SELECT FROM users WHERE display_name = 'back again'"))
    wait_for(lambda: not fetch(source, QUEUED))
    assert differences(project.pipeline()) == []
