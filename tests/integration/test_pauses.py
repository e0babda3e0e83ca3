"""A tenancy, an external database or a mapping that is switched off: not tried, not failed, and nothing is lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.sync import service
from stackctl.sync.engine import poller as poller_module
from stackctl.sync.queue import pauses
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    OTHER,
    Connection,
    Outcome,
    Project,
    add_many_users,
    add_team,
    add_user,
    differences,
    ended,
    failures,
    fetch,
    one,
    poll,
    sequence,
    settle,
    wait_for,
)

if TYPE_CHECKING:
    from tests.conftest import Connect

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def both(project: Project, source: Connection) -> Project:
    """MINE has two files and OTHER one, all up to date; they take users and teams."""
    mappings = ["users", "teams"]
    project.sqlite(MINE, "a.db", "a", mappings=mappings).sqlite(MINE, "b.db", "b", mappings=mappings)
    project.sqlite(OTHER, "a2.db", "a", mappings=mappings)
    settle(project.pipeline())
    return project


def fuse(project: Project, *arguments: object) -> Outcome:
    outcome = project.run("fuse", *arguments)
    assert outcome.code == 0, outcome.stderr
    return outcome


def change(source: Connection) -> None:
    for tenancy in (MINE, OTHER):
        add_user(source, tenancy)
        add_team(source, tenancy)


def list_behind(project: Project) -> list[tuple[str, str]]:
    """Which copies differ, as tenancy's last digit and database, with the mapping."""
    found = project.run("status", "--json").json["tenancies"]
    return [
        (f"{tenancy['tenancy'][-1]}/{database['database']}", copy["mapping"])
        for tenancy in found
        for database in tenancy["databases"]
        for copy in database["mappings"]
        if copy["backlog"]
    ]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("scope", "held"),
    [
        (("--tenancy", MINE), [("a/a", "users"), ("a/a", "teams"), ("a/b", "users"), ("a/b", "teams")]),
        (("--database", "a"), [("a/a", "users"), ("a/a", "teams"), ("b/a", "users"), ("b/a", "teams")]),
        (("--mapping", "users"), [("a/a", "users"), ("a/b", "users"), ("b/a", "users")]),
        (("--tenancy", MINE, "--database", "a"), [("a/a", "users"), ("a/a", "teams")]),
        (("--tenancy", OTHER, "--mapping", "teams"), [("b/a", "teams")]),
        (("--tenancy", MINE, "--database", "b", "--mapping", "teams"), [("a/b", "teams")]),
    ],
)
def test_what_is_paused_waits_and_is_sent_when_it_is_switched_on(
    both: Project, source: Connection, scope: tuple[Any, ...], held: list[tuple[str, str]]
) -> None:
    fuse(both, "off", *scope, "--reason", "it moves")
    change(source)
    sequence(both.pipeline())
    result = poll(both.pipeline())
    assert (result.failed, result.paused > 0) == (0, True)
    assert fetch(source, 'SELECT 1 FROM "OutgoingRequest"') == []  # it does not go round in circles
    assert fetch(source, "SELECT 1 FROM stackctl.pending_delivery") == []
    assert list_behind(both) == held
    assert failures(both.pipeline()) == []
    fuse(both, "on", *scope)
    result = poll(both.pipeline())
    assert (result.failed, result.paused) == (0, 0)
    assert differences(both.pipeline()) == []


def test_it_is_shown_with_who_since_when_and_why(both: Project) -> None:
    fuse(both, "off", "--database", "b", "--reason", "disk is full")
    shown = both.run("fuse", "show", "--json").json
    (pause,) = shown["pauses"]
    assert shown["fuses"] == {"sequencer": True, "poller": True}
    assert {name: pause[name] for name in ("tenancy", "database", "mapping", "reason")} == {
        "tenancy": None, "database": "b", "mapping": None, "reason": "disk is full",
    }  # fmt: skip
    assert "@" in pause["paused_by"]
    for command in (("fuse", "show"), ("status",)):
        assert f"database b: paused by {pause['paused_by']} since " in both.run(*command).stdout
    document = both.run("status", "--json").json
    assert document["pauses"] == [pause]
    a, b = document["tenancies"][0]["databases"]
    assert (a["status"], a["paused"], b["status"], b["paused"]) == ("ok", None, "paused", pause)
    checked = both.run("status", "--check")
    assert (checked.code, "database b: paused by" in checked.stderr) == (0, True)
    doctor = both.run("doctor", "--json")
    (found,) = [check for check in doctor.json["checks"] if check["name"] == "pauses"]
    assert (doctor.code, found["status"]) == (0, "warning")
    command = found["hint"].split("`")[1].split()[1:]
    assert both.run(*command, "--json").json["pauses"] == []


def test_what_fails_and_is_paused_has_not_failed(project: Project, source: Connection) -> None:
    project.postgres(MINE, UNREACHABLE, "broken").sqlite(MINE)
    sequence(project.pipeline())
    assert poll(project.pipeline()).failed == 1
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = NULL")
    assert project.run("status", "--check").code == 1
    fuse(project, "off", "--database", "broken")
    checked = project.run("status", "--check", "--max-lag", "1s", "--json")
    assert (checked.code, checked.json["queue"]["dead"]) == (0, 0)
    doctor = project.run("doctor", "--json")
    assert (doctor.code, [check for check in doctor.json["checks"] if check["status"] == "error"]) == (0, [])
    assert project.run("queue", "list", "--json").json["failing"][0]["paused"] is True
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
    result = poll(project.pipeline())
    assert (result.failed, result.dead) == (0, 0)
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now() + interval '1 hour'")
    fuse(project, "on", "--database", "broken")
    assert poll(project.pipeline()).failed == 1  # at once


def test_a_mapping_that_fails_and_is_paused_leaves_the_database_well(
    both: Project, source: Connection, connect: Connect, external_db: str
) -> None:
    both.postgres(MINE, external_db, "c", mappings=["users", "teams"])
    settle(both.pipeline())
    connect(external_db, autocommit=True).execute("ALTER TABLE users RENAME COLUMN display_name TO theirs")
    add_user(source)
    sequence(both.pipeline())
    assert poll(both.pipeline()).failed == 1
    assert both.run("status", "--check").code == 1
    fuse(both, "off", "--database", "c", "--mapping", "users")
    assert both.run("status", "--check").code == 0
    add_team(source)
    sequence(both.pipeline())
    assert poll(both.pipeline()).failed == 0
    assert list_behind(both) == [("a/c", "users")]


def test_a_sync_by_hand_does_not_ask(both: Project, source: Connection) -> None:
    fuse(both, "off", "--tenancy", MINE)
    change(source)
    sequence(both.pipeline())
    assert both.run("sync", MINE).code == 0
    assert list_behind(both) == [("b/a", "users"), ("b/a", "teams")]


def test_it_stops_after_the_batch_in_hand(both: Project, source: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "PAUSES_INTERVAL", 0.0)
    add_many_users(source, 4000)
    settle(both.pipeline())
    pipeline = both.sync_settings(batch_size=5).pipeline()
    stop = Stop()
    options: dict[str, Any] = {"claim_limit": 2, "reports": service.Reports()}
    thread = threading.Thread(target=service.run, args=(pipeline, stop), kwargs=options)
    thread.start()
    try:
        wait_for(lambda: one(source, "SELECT count(*) FROM stackctl.sweep"))
        source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\'')
        wait_for(lambda: fetch(source, "SELECT 1 FROM stackctl.pending_delivery WHERE leased_by IS NOT NULL"))
        pauses.add(source, MINE, "a", None, reason=None, by="test")
        wait_for(lambda: not fetch(source, "SELECT 1 FROM stackctl.pending_delivery WHERE database_id = 'a'"))
        wait_for(lambda: not fetch(source, 'SELECT 1 FROM "ProjectUser" WHERE "shouldUpdateSequenceId"'))
        assert ("a/a", "users") in list_behind(both)
        pauses.remove(source, MINE, "a", None, [(MINE, "a")])
        wait_for(lambda: not list_behind(both))
    finally:
        stop.set()
        thread.join()
    assert differences(pipeline) == []


def test_a_pause_that_ends_while_its_database_is_passed_over(
    both: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses.add(source, MINE, None, None, reason=None, by="test")
    change(source)
    sequence(both.pipeline())
    read = pauses.list_pauses

    def read_and_end(conn: Any) -> list[pauses.Pause]:
        found = read(conn)
        pauses.remove(source, MINE, None, None, [(MINE, "a"), (MINE, "b")])
        return found

    monkeypatch.setattr(pauses, "list_pauses", read_and_end)
    poll(both.pipeline())
    assert differences(both.pipeline()) == []


# -- bad input, and two operators at once


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("off",), "name a stage"),
        (("off", "poller", "--database", "a"), "name a stage"),
        (("off", "--database", "aa"), "did you mean a?"),
        (("off", "--tenancy", OTHER, "--database", "b"), "there is no external database"),
        (("off", "--mapping", "user"), "did you mean users?"),
        (("off", "--mapping", "contact_channels"), "takes the mapping"),
        (("off", "--tenancy", "00000000-0000-0000-0000-0000000000aa"), f"did you mean {MINE}?"),
        (("off", "--tenancy", "nonsense"), "no tenancy is called"),
        (("off", "--database", "a", "--reason", " "), "--reason"),
        (("off", "--database", "a", "--reason", "two\nlines"), "--reason"),
        (("off", "--database", "a", "--reason", "x" * 501), "--reason"),
        (("off", "poller", "--reason", "why not"), "--reason goes with"),
        (("on", "--database", "aa"), "did you mean a?"),
        (("on", "--database", "a", "--reason", "x"), "--reason"),
    ],
)
def test_what_can_not_be_meant_is_refused(both: Project, arguments: tuple[Any, ...], says: str) -> None:
    outcome = both.run("fuse", *arguments)
    assert outcome.code == 2
    assert says in outcome.stderr
    assert both.run("fuse", "show", "--json").json["pauses"] == []
    assert both.run("fuse", "show", "--json").json["fuses"]["poller"] is True


def test_two_operators_at_once(both: Project, source: Connection) -> None:
    started = [both.start("fuse", "off", "--database", "a", "--reason", f"reason {n}", "--json") for n in range(4)]
    outcomes = [ended(process) for process in started]
    assert [outcome.code for outcome in outcomes] == [0] * 4
    (pause,) = both.run("fuse", "show", "--json").json["pauses"]
    assert sum("was paused already" in outcome.stderr for outcome in outcomes) == 3
    assert all(outcome.json["pauses"] == [pause] for outcome in outcomes)
    started = [both.start("fuse", "on", "--database", "a") for _ in range(4)]
    outcomes = [ended(process) for process in started]
    assert [outcome.code for outcome in outcomes] == [0] * 4
    assert sum("was not paused" in outcome.stderr for outcome in outcomes) == 3


def test_one_operators_pause_is_not_ended_by_a_wider_one(both: Project) -> None:
    fuse(both, "off", "--database", "a", "--tenancy", MINE, "--reason", "first")
    fuse(both, "off", "--tenancy", MINE, "--reason", "second")
    left = both.run("fuse", "on", "--tenancy", MINE, "--json").json["pauses"]
    assert [pause["reason"] for pause in left] == ["first"]


def test_a_pause_of_what_is_no_longer_configured_can_be_ended(both: Project) -> None:
    fuse(both, "off", "--database", "b")
    del both.settings["tenancies"][str(MINE)]["external_databases"]["b"]
    assert fuse(both, "on", "--database", "b").stderr == ""


def test_a_stage_is_stopped_before_the_migrations_are_applied(both: Project, source: Connection) -> None:
    source.execute("DROP TABLE stackctl.pause")
    assert fuse(both, "off", "poller", "--json").json == {
        "fuses": {"sequencer": True, "poller": False}, "pauses": [],
    }  # fmt: skip
