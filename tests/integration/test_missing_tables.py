"""A source table that is renamed or dropped holds up its own mappings, until it is back, and nobody else."""

from __future__ import annotations

import pytest

from stackctl.core.bundled import find_bundled
from stackctl.mapping import files
from stackctl.sync.changes import sequencer as sequencer_module
from stackctl.sync.changes.sequencer import Sequencer, SequenceResult
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    QUEUED,
    Connection,
    Project,
    add_invitation,
    add_team,
    add_user,
    differences,
    fetch,
    one,
    populate,
    settle,
    wait_for,
)

MARKED = 'SELECT count(*) FROM "{}" WHERE "shouldUpdateSequenceId"'


def marked(source: Connection, table: str) -> int:
    return one(source, MARKED.format(table))


@pytest.mark.parametrize("when", ["before it starts", "while it runs"])
def test_run_goes_on_without_a_table_and_takes_it_up_again(when: str, project: Project, source: Connection) -> None:
    populate(source)
    pipeline = project.sqlite(MINE, "copy.db").pipeline()
    settle(pipeline)
    team = add_team(source)
    settle(pipeline)
    if when == "before it starts":
        source.execute('ALTER TABLE "Team" RENAME TO gone')
    running = project.start("run")
    if when == "while it runs":
        add_user(source)
        wait_for(lambda: not marked(source, "ProjectUser"))
        source.execute('ALTER TABLE "Team" RENAME TO gone')
    source.execute('UPDATE gone SET "displayName" = %s WHERE "teamId" = %s', ("renamed", team))
    add_user(source)
    wait_for(lambda: not marked(source, "ProjectUser"))
    shown = project.run("status", "--json").json
    assert shown["sequencer"]["missing_tables"] == ["Team"]
    assert "Team" not in shown["sequencer"]["tables"]
    assert project.run("status", "--check").code == 1
    source.execute('ALTER TABLE gone RENAME TO "Team"')
    wait_for(lambda: not marked(source, "Team"))
    wait_for(lambda: not fetch(source, QUEUED) and not fetch(source, "SELECT FROM stackctl.delivery"))
    running.terminate()
    _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert '"Team"' in said
    assert differences(pipeline) == []


def test_what_marks_rows_of_a_missing_table_waits_for_it(
    project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stamped now, a team's change would never reach its invitations."""
    monkeypatch.setattr(sequencer_module, "MISSING_INTERVAL", 0)
    pipeline = project.sqlite(MINE, "copy.db").pipeline()
    team = add_team(source)
    gone = add_team(source)
    add_invitation(source, team)
    add_invitation(source, gone)
    settle(pipeline)
    running = Sequencer(source, list(files.load_mappings(find_bundled("mappings")).mappings.values()), batch_size=100)
    source.execute('UPDATE "Team" SET "displayName" = %s WHERE "teamId" = %s', ("renamed", team))
    source.execute('DELETE FROM "Team" WHERE "teamId" = %s', (gone,))
    source.execute('ALTER TABLE "VerificationCode" RENAME TO codes')
    add_user(source)
    assert running.drain(SequenceResult(), Stop(), lambda rows: None) == "drained"
    assert running.missing is not None
    assert (running.missing.code, running.missing.details) == ("table-missing", {"tables": ["VerificationCode"]})
    assert (marked(source, "ProjectUser"), marked(source, "Team"), marked(source, "DeletedRow")) == (0, 1, 1)
    source.execute('ALTER TABLE codes RENAME TO "VerificationCode"')
    running.drain(SequenceResult(), Stop(), lambda rows: None)
    assert running.missing is None
    assert [marked(source, table) for table in ("Team", "DeletedRow", "VerificationCode")] == [0, 0, 0]
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_single_pass_says_what_is_missing_when_it_is_through(project: Project, source: Connection) -> None:
    project.sqlite(MINE, "copy.db")
    source.execute('ALTER TABLE "Team" RENAME TO gone')
    add_user(source)
    outcome = project.run("sequence", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (5, "table-missing")
    assert marked(source, "ProjectUser") == 0
    doctor = project.run("doctor")
    assert 'table "Team" is missing' in doctor.stdout
