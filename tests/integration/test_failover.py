"""A standby is promoted that lacks the last transactions: ids that copies have seen are given again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.sync.changes.sequencer import Sequencer, SequenceResult
from stackctl.sync.changes.source_identity import find_last_common_id
from tests.backend import MINE, add_team, add_user, differences, fetch, one, poll, sequence, settle
from tests.standby import Standby

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackctl.postgres.embedded import EmbeddedServer
    from tests.backend import Connection, Project
    from tests.conftest import Connect

RENAME = 'UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s'
STAMPS_SINCE = 'SELECT count(*) FROM "ProjectUser" WHERE "sequenceId" > %s'


@pytest.fixture
def follower(server: EmbeddedServer, environment: Path) -> Iterator[Standby]:
    """A standby of this test's own."""
    with Standby(server.url(), environment) as running:
        yield running


class Lost:
    """Three users and a team, copied; then changes that reach the copies and not the standby."""

    def __init__(self, project: Project, source: Connection, external_db: str, follower: Standby) -> None:
        self.project = project.postgres(MINE, external_db).sqlite(MINE).duckdb(MINE)
        self.follower = follower
        self.changed, self.deleted, self.kept = (add_user(source) for _ in range(3))
        add_team(source)
        settle(project.pipeline())
        self.primary = source

    def cut_off(self) -> None:
        self.follower.catch_up(self.primary)
        self.follower.cut_off()

    def change(self) -> None:
        self.cut_off()
        self.primary.execute(RENAME, ("lost", self.changed))
        self.primary.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (self.deleted,))
        add_user(self.primary, displayName="lost, too")
        settle(self.project.pipeline())

    def promote(self, connect: Connect) -> Connection:
        """From here on the project's database is what was the standby; returns an application's connection to it."""
        self.follower.promote()
        self.project.settings["database"]["url"] = self.follower.url(self.primary.info.dbname)
        return connect(self.project.settings["database"]["url"], autocommit=True)


@pytest.fixture
def lost(project: Project, source: Connection, external_db: str, follower: Standby) -> Lost:
    return Lost(project, source, external_db, follower)


def pass_the_cursors(new: Connection, primary: Connection, project: Project) -> None:
    """The new server gives ids until they are above those that the copies have seen."""
    highest = one(primary, 'SELECT max("sequenceId") FROM "DeletedRow"')
    while not one(new, STAMPS_SINCE, highest):
        add_user(new)
        sequence(project.pipeline())


def test_copies_stay_refused_until_they_are_compared(lost: Lost, connect: Connect) -> None:
    lost.change()
    new = lost.promote(connect)
    pass_the_cursors(new, lost.primary, lost.project)
    add_team(new, displayName="the others go on")
    polled = lost.project.run("sequence"), lost.project.run("poll")
    assert [outcome.code for outcome in polled] == [0, 1]
    status = lost.project.run("status", "--json", "--check")
    databases = status.json["tenancies"][0]["databases"]
    assert status.code == 1
    assert all("the copy of users" in database["error"] for database in databases)
    copies = [{copy["mapping"]: copy for copy in database["mappings"]} for database in databases]
    assert [(copy["users"]["cursor"], copy["teams"]["backlog"]) for copy in copies] == [(-2, 0)] * 3

    assert lost.project.run("verify").code == 1
    repaired = lost.project.run("verify", "--repair", "--json")
    assert repaired.code == 0, repaired.stderr
    assert {c["database"]: c["repaired"] for c in repaired.json["checks"] if c["mapping"] == "users"} == {
        name: one(new, 'SELECT count(*) FROM "ProjectUser"') for name in ("analytics", "local", "duck")
    }
    add_user(new)
    settle(lost.project.pipeline())
    assert differences(lost.project.pipeline()) == []


def test_a_change_that_was_sent_before_it_had_an_id_is_corrected_when_that_is_asked_for(
    lost: Lost, connect: Connect
) -> None:
    """Its row was sent by reason of an older change: no cursor tells that the copy is ahead."""
    lost.primary.execute(RENAME, ("known to both", lost.kept))
    sequence(lost.project.pipeline())
    lost.cut_off()
    lost.primary.execute(RENAME, ("lost", lost.kept))
    assert poll(lost.project.pipeline()).failed == 0
    lost.project.sync_settings(on_failover="repair")
    new = lost.promote(connect)
    add_user(new)
    assert [lost.project.run(command).code for command in ("sequence", "poll")] == [0, 0]
    assert differences(lost.project.pipeline()) == []


def test_copies_are_corrected_by_themselves(lost: Lost, connect: Connect) -> None:
    lost.change()
    lost.project.sync_settings(on_failover="repair")
    new = lost.promote(connect)
    pass_the_cursors(new, lost.primary, lost.project)
    died = lost.project.run("poll", point="repaired, counted")
    assert died.code < 0
    outcome = lost.project.run("sync", "--all", "--json")
    assert outcome.code == 0, outcome.stderr
    assert differences(lost.project.pipeline()) == []


def test_a_planned_switch_loses_nothing_and_refuses_nothing(
    project: Project, source: Connection, external_db: str, follower: Standby, connect: Connect
) -> None:
    project.postgres(MINE, external_db)
    add_user(source)
    settle(project.pipeline())
    place = fetch(connect(external_db), "SELECT DISTINCT identity FROM _stack_sync_place")
    follower.catch_up(source)
    follower.promote()
    project.settings["database"]["url"] = follower.url(source.info.dbname)
    new = connect(project.settings["database"]["url"], autocommit=True)
    add_user(new)
    settle(project.pipeline())
    assert differences(project.pipeline()) == []
    [(moved,)] = fetch(connect(external_db), "SELECT DISTINCT identity FROM _stack_sync_place")
    assert [(moved,)] != place
    assert find_last_common_id(new, place[0][0]) == one(new, 'SELECT min("sequenceId") FROM "ProjectUser"')


def test_a_copy_of_a_database_that_never_lived_where_it_was_fed_from(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """Another environment's dump was restored: its ids may be above the copies' and mean other rows."""
    project.postgres(MINE, external_db)
    add_user(source)
    settle(project.pipeline())
    connect(external_db, autocommit=True).execute("UPDATE _stack_sync_place SET identity = 'another/1/5'")
    outcome = project.run("sync", "--all", "--json")
    assert outcome.code == 1
    assert "is ahead of the operated database" in outcome.json["databases"][0]["error"]


def test_a_sequencer_whose_connection_outlives_the_server(project: Project, source: Connection) -> None:
    """As behind a pooler. The highest id of before is written down before another one is given."""
    pipeline = project.pipeline()
    add_user(source)
    with pipeline.open_session() as conn:
        sequencer = Sequencer(conn, list(pipeline.mappings.values()), batch_size=100)
        assert sequencer.stamp_batch(SequenceResult()) == "stamped"
        highest = one(source, 'SELECT max("sequenceId") FROM "ProjectUser"')
        source.execute(
            "CREATE OR REPLACE FUNCTION stackctl.source_identity() RETURNS text LANGUAGE sql AS $$SELECT 'elsewhere'$$"
        )
        add_user(source)
        assert sequencer.stamp_batch(SequenceResult()) == "stamped"
    history = fetch(source, "SELECT identity, last_sequence_id FROM stackctl.source_history ORDER BY id")
    assert [(identity == "elsewhere", last) for identity, last in history] == [(False, 0), (True, highest)]


def test_a_server_that_does_not_tell_where_it_is(project: Project, source: Connection, external_db: str) -> None:
    project.postgres(MINE, external_db)
    source.execute(
        "CREATE OR REPLACE FUNCTION stackctl.source_identity() RETURNS text LANGUAGE sql AS 'SELECT NULL::text'"
    )
    add_user(source)
    settle(project.pipeline())
    assert differences(project.pipeline()) == []
    assert one(source, "SELECT count(*) FROM stackctl.source_history") == 0
