"""The installed command runs the pipeline: documents, exit codes, signals."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stackctl.postgres.server_process import is_served
from tests.backend import (
    DEADLINE,
    MAPPINGS,
    MINE,
    OTHER,
    QUEUED,
    SEQUENCER_LOCK,
    Connection,
    Project,
    add_many_users,
    add_user,
    differences,
    ended,
    fetch,
    one,
    populate,
    settle,
    wait_for,
    wait_until_blocked,
)

if TYPE_CHECKING:
    from tests.conftest import Connect

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"
STRANGER = uuid.UUID(int=0xFF)


@pytest.fixture
def both(project: Project, external_db: str) -> Project:
    """A PostgreSQL for one tenancy, a SQLite file for the other."""
    return project.postgres(MINE, external_db).sqlite(OTHER)


@pytest.mark.quick
def test_from_a_change_to_both_copies(both: Project, source: Connection, external_db: str, connect: Connect) -> None:
    for tenancy in (MINE, OTHER):
        populate(source, tenancy)
    stamped = both.run("sequence", "--json")
    assert stamped.code == 0
    assert stamped.json | {"duration_ms": 0} == {
        "rows": 22, "batches": 1, "tenancies": 2, "by_table": dict.fromkeys(stamped.json["by_table"], 2),
        "enqueued": 2, "duration_ms": 0, "stopped_by": "drained",
    }  # fmt: skip
    assert len(stamped.json["by_table"]) == 11
    polled = both.run("poll", "--json")
    assert polled.code == 0
    assert polled.json | {"duration_ms": 0} == {
        "claimed": 2, "delivered": 2, "failed": 0, "recovered": 0, "dead": 0, "paused": 0, "duration_ms": 0,
        "stopped_by": "drained",
    }  # fmt: skip
    assert differences(both.pipeline()) == []
    source.execute('DELETE FROM "ProjectUser" WHERE "tenancyId" = %s', (MINE,))
    both.run("sequence")
    result = both.run("sync", MINE, "--json")
    assert result.code == 0
    (database,) = result.json["databases"]
    assert result.json["ok"]
    assert {k: database[k] for k in ("tenancy", "database", "type", "status", "error")} == {
        "tenancy": str(MINE), "database": "analytics", "type": "postgres", "status": "ok", "error": None,
    }  # fmt: skip
    assert [m["mapping"] for m in database["mappings"]] == list(MAPPINGS)
    for mapping in database["mappings"]:
        assert set(mapping) == {"mapping", "upserted", "deleted", "batches", "cursor", "duration_ms"}
    deleted = {m["mapping"]: m["deleted"] for m in database["mappings"] if m["deleted"]}
    # Tokens have no foreign key to the user, teams and invitations are nobody's.
    assert deleted == dict.fromkeys(
        ("connected_accounts", "contact_channels", "notification_preferences", "project_permissions",
         "team_member_profiles", "team_permissions", "users"), 1)  # fmt: skip
    assert one(connect(external_db), "SELECT count(*) FROM users") == 0
    again = both.run("sync", "--all", "--json").json
    assert sum(m["batches"] for d in again["databases"] for m in d["mappings"]) == 0


def test_text_output(both: Project, source: Connection) -> None:
    populate(source)
    outcome = both.run("sequence")
    assert outcome.stdout.startswith("stamped 11 rows (")
    assert both.run("sequence").stdout == "nothing to stamp\n"
    assert both.run("poll").stdout.startswith("delivered 2 of 2 entries")  # the other tenancy's database is new
    assert both.run("poll").stdout == "the queue is empty\n"
    shown = both.run("sync", "--all")
    assert (shown.code, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0].split() == [
        "tenancy",
        "database",
        "mapping",
        "upserted",
        "deleted",
        "cursor",
        "ms",
    ]


def test_narrowed_to_a_database_and_a_mapping(both: Project, source: Connection) -> None:
    populate(source, OTHER)
    both.sqlite(OTHER, "second.db", "second", mappings=["teams", "users"])
    both.run("sequence")
    result = both.run("sync", OTHER, "--database", "second", "--mapping", "users", "--json").json
    assert [(d["database"], [m["mapping"] for m in d["mappings"]]) for d in result["databases"]] == [
        ("second", ["users"])
    ]
    assert not (both.directory / "copy.db").exists()
    result = both.run("sync", OTHER, "--mapping", "contact_channels", "--json").json
    assert [d["database"] for d in result["databases"]] == ["local"]
    result = both.run("sync", OTHER, "--json").json
    assert [len(d["mappings"]) for d in result["databases"]] == [11, 2]


def test_one_unreachable_database_beside_a_healthy_one(both: Project, source: Connection, external_db: str) -> None:
    both.postgres(MINE, UNREACHABLE.replace("nobody", "nobody:geheim99"), "broken")
    populate(source)
    both.run("sequence")
    result = both.run("sync", "--all", "--json")
    assert result.code == 1
    assert not result.json["ok"]
    states = {d["database"]: (d["status"], d["error"]) for d in result.json["databases"]}
    assert states["analytics"] == states["local"] == ("ok", None)
    assert states["broken"][0] == "error"
    assert "127.0.0.1:1" in states["broken"][1]
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now() + interval '1 hour'")
    polled = both.run("poll", "--json")
    assert (polled.code, polled.json["claimed"], polled.json["failed"]) == (0, 1, 0)  # it rests
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
    polled = both.run("poll", "--json")
    assert (polled.code, polled.json["failed"]) == (1, 1)
    listed = both.run("queue", "list", "--json").json
    (failing,) = listed["failing"]
    assert (failing["database"], failing["attempts"], failing["dead"]) == ("broken", 2, False)
    shown = both.run("sync", MINE)
    assert shown.code == 1
    assert "broken" in shown.stderr
    status = both.run("status", "--json").json
    broken = next(d for t in status["tenancies"] for d in t["databases"] if d["database"] == "broken")
    assert (broken["status"], broken["mappings"]) == ("error", [])
    # Three attempts by now: two by hand, one by the poller. A person may hurry the next.
    retried = both.run("queue", "retry", "broken", "--json")
    assert retried.json == {
        "retried": [{"tenancy": str(MINE), "database": "broken"}], "queued": [], "dry_run": False
    }  # fmt: skip
    both.postgres(MINE, external_db, "broken")
    both.settings["tenancies"][str(MINE)]["external_databases"].pop("analytics")
    assert both.run("poll", "--json").code == 0
    assert both.run("queue", "list", "--json").json["failing"] == []
    for outcome in (result, polled, shown):
        assert "geheim99" not in outcome.stdout + outcome.stderr


def test_enqueue_and_queue_list(both: Project, source: Connection) -> None:
    assert both.run("queue", "list").stdout == "the queue is empty\n"
    dry = both.run("enqueue", "--all", "--dry-run", "--json").json
    assert (dry["enqueued"], sorted(dry["tenancies"])) == (0, [str(MINE), str(OTHER)])
    assert one(source, 'SELECT count(*) FROM "OutgoingRequest"') == 0
    for _ in range(2):
        assert both.run("enqueue", "--all", "--json").json["enqueued"] == 2
    listed = both.run("queue", "list", "--json").json
    assert sorted(e["tenancy"] for e in listed["entries"]) == [str(MINE), str(OTHER)]
    assert listed["summary"]["pending"] == 2
    assert both.run("poll", "--json").json["delivered"] == 2
    assert both.run("enqueue", OTHER).stdout == "queued 1 tenancy\n"


def test_another_sequencer_holds_the_lock(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    add_user(source)
    connect(migrated_db).execute(SEQUENCER_LOCK)
    outcome = project.run("sequence", "--json")
    assert (outcome.code, outcome.json["stopped_by"], outcome.json["rows"]) == (5, "lock-held", 0)


def test_the_fuses_by_command(both: Project, source: Connection) -> None:
    assert both.run("fuse", "show", "--json").json == {"fuses": {"sequencer": True, "poller": True}, "pauses": []}
    assert one(source, 'SELECT count(*) FROM "ExternalDbSyncMetadata"') == 0
    assert both.run("fuse", "off", "sequencer", "--json").json["fuses"] == {"sequencer": False, "poller": True}
    assert both.run("fuse", "off", "poller", "--json").json["fuses"] == {"sequencer": False, "poller": False}
    assert both.run("fuse", "show").stdout.split() == ["sequencer", "off", "poller", "off"]
    add_user(source)
    both.run("enqueue", "--all")
    for command in ("sequence", "poll"):
        outcome = both.run(command, "--json")
        assert (outcome.code, outcome.json["stopped_by"]) == (0, "fuse")
        assert "fuse" in both.run(command).stderr
    assert both.run("sync", "--all").code == 0
    assert both.run("fuse", "on", "sequencer", "--json").json["fuses"] == {"sequencer": True, "poller": False}
    assert both.run("sequence", "--json").json["rows"] == 1
    both.run("fuse", "on", "poller")
    assert both.run("poll", "--json").json["delivered"] == 2
    assert both.run("fuse", "off", "nothing").code == 2


# -- loops and signals


def delivered(project: Project, user: uuid.UUID) -> Any:
    path = project.directory / "copy.db"
    if not path.exists():
        return False
    conn = sqlite3.connect(path)
    try:
        return conn.execute("SELECT 1 FROM users WHERE id = ?", (str(user),)).fetchone()
    except sqlite3.OperationalError:
        return False
    finally:
        conn.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_on_a_signal(number: signal.Signals, project: Project, source: Connection) -> None:
    project.sqlite(OTHER)
    process = project.start("run", "--json")
    user = add_user(source, OTHER)
    wait_for(lambda: delivered(project, user) and not fetch(source, QUEUED))
    process.send_signal(number)
    outcome = ended(process)
    assert outcome.code == 0
    stages = {line["stage"] for line in outcome.lines}
    assert stages == {"start", "sequence", "sync", "end"}
    assert "error" not in outcome.stderr


@pytest.mark.parametrize(("command", "number"), [("sequence", signal.SIGTERM), ("poll", signal.SIGINT)])
def test_loops_end_on_a_signal(command: str, number: signal.Signals, project: Project, source: Connection) -> None:
    project.sqlite(OTHER)
    process = project.start(command, "--loop", "--json")
    add_user(source, OTHER)
    if command == "poll":
        assert project.run("sequence").code == 0
        wait_for(lambda: not fetch(source, QUEUED))
    else:
        wait_for(lambda: not fetch(source, 'SELECT 1 FROM "ProjectUser" WHERE "shouldUpdateSequenceId"'))
    process.send_signal(number)
    outcome = ended(process)
    assert outcome.code == 0
    assert outcome.lines[-1]["stopped_by"] == "signal"
    # The last line is the pass that the signal ended, and may have done it all.
    assert sum(line["rows" if command == "sequence" else "delivered"] for line in outcome.lines) >= 1


def test_loops_end_after_their_time(project: Project, source: Connection) -> None:
    project.sqlite(OTHER).sync_settings(poller_interval="1h", sequencer_interval="1h")
    for command in (("run",), ("sequence", "--loop"), ("poll", "--loop")):
        outcome = project.run(*command, "--max-duration", "200ms", "--json")
        assert outcome.code == 0, outcome
        assert outcome.lines[-1]["stopped_by"] == "max-duration"


@pytest.mark.parametrize(
    "command", [("status", "--watch"), ("run",), ("sequence", "--loop"), ("poll", "--loop")], ids=lambda words: words[0]
)
def test_a_loop_ends_when_its_reader_leaves(command: tuple[str, ...], project: Project, source: Connection) -> None:
    settle(project.sqlite(OTHER).pipeline())
    process = project.start(*command, "--json")
    assert process.stdout is not None
    process.stdout.close()
    add_user(source, OTHER)
    if command[0] == "poll":
        project.run("sequence")
    assert (process.communicate(timeout=DEADLINE)[1], process.returncode) == ("", 0)


def test_a_long_interval_does_not_delay_the_signal(project: Project, source: Connection) -> None:
    project.sqlite(OTHER).sync_settings(poller_interval="1h", sequencer_interval="1h")
    process = project.start("run")
    wait_for(lambda: one(source, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stackctl'"
                         " AND datname = current_database() AND query LIKE '%%sequencerEnabled%%'"))  # fmt: skip
    process.send_signal(signal.SIGTERM)
    assert ended(process).code == 0


@pytest.fixture
def hanging(project: Project, source: Connection, external_db: str, connect: Connect) -> Connection:
    """Every sync hangs in `users`, with everything before it done, until this connection commits."""
    settle(project.postgres(MINE, external_db).pipeline())
    populate(source)
    assert project.run("sequence").code == 0
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    return blocker


@pytest.mark.parametrize("command", [("run", "--json"), ("poll", "--loop", "--json")], ids=str)
def test_a_loop_finishes_the_batch_in_hand(
    command: tuple[str, ...], hanging: Connection, project: Project, source: Connection, external_db: str,
    connect: Connect,
) -> None:  # fmt: skip
    process = project.start(*command)
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(Exception, match="timed out"):
        process.wait(timeout=0.3)
    hanging.commit()
    assert ended(process).code == 0
    assert one(connect(external_db), "SELECT count(*) FROM users") == 1
    assert project.run("poll").code == 0
    assert differences(project.pipeline()) == []


@pytest.mark.parametrize(
    ("command", "number"),
    [(("run",), signal.SIGTERM), (("poll", "--loop"), signal.SIGINT), (("sync", "--all"), signal.SIGINT)],
)
def test_a_second_signal_ends_it_at_once(
    number: signal.Signals, command: tuple[str, ...], hanging: Connection, project: Project, external_db: str,
    connect: Connect,
) -> None:  # fmt: skip
    process = project.start(*command)
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    process.send_signal(number)
    with pytest.raises(Exception, match="timed out"):
        process.wait(timeout=0.2)
    process.send_signal(number)
    assert ended(process).code == 130
    hanging.commit()
    assert project.run("sync", "--all").code == 0
    assert differences(project.pipeline()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_the_embedded_server(number: signal.Signals, tmp_path: Path, environment: Path) -> None:
    directory = Path(tempfile.mkdtemp(prefix="e-", dir=environment)) / "pg"
    directory.parent.chmod(0o711)
    project = Project(tmp_path, f"embedded:{directory}")
    assert project.run("migrate", "up").code == 0
    process = project.start("sequence", "--loop")
    pid_file = directory / "data" / "postmaster.pid"
    wait_for(lambda: pid_file.exists() and "ready" in pid_file.read_text())
    sockets = pid_file.read_text().splitlines()[4]  # not attached to: it is the command that keeps the server
    with (
        psycopg.connect(host=sockets, user="postgres") as holder,
        psycopg.connect(host=sockets, user="postgres", autocommit=True) as watcher,
    ):
        holder.execute('LOCK TABLE "ProjectUser" IN ACCESS EXCLUSIVE MODE')
        wait_until_blocked(watcher)
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
        process.send_signal(number)
        assert ended(process).code == 130
        holder.close()
        watcher.close()
    assert not is_served(directory / "data")
    assert not pid_file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_single_sync_prints_what_was_done(
    number: signal.Signals, hanging: Connection, project: Project, external_db: str, connect: Connect
) -> None:
    project.sync_settings(batch_size=1)
    process = project.start("sync", "--all", "--json")
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    process.send_signal(number)
    with pytest.raises(Exception, match="timed out"):
        process.wait(timeout=0.2)
    hanging.commit()
    outcome = ended(process)
    assert outcome.code == 130
    (database,) = outcome.json["databases"]
    assert {m["mapping"]: m["upserted"] for m in database["mappings"]} == dict.fromkeys(MAPPINGS, 1)


def test_a_single_sequence_prints_what_was_done(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    """Held up in its first batch, it ends after it."""
    add_many_users(source, 50)
    holder = connect(migrated_db)
    holder.execute('LOCK TABLE "ProjectUser" IN SHARE MODE')
    process = project.start("sequence", "--json", "--batch-size", 10)
    wait_until_blocked(source)
    process.send_signal(signal.SIGINT)
    with pytest.raises(Exception, match="timed out"):
        process.wait(timeout=0.2)
    holder.commit()
    outcome = ended(process)
    assert (outcome.code, outcome.json["stopped_by"], outcome.json["rows"]) == (130, "signal", 10)
    assert project.run("sequence", "--json").json["rows"] == 40


def test_a_dispatch_that_has_no_endpoint_or_key(project: Project) -> None:
    project.sqlite(OTHER).sync_settings(dispatch="http")
    result = project.run("poll", "--json")
    assert (result.code, result.json["error"]["code"]) == (3, "no-endpoint")
    project.sync_settings(dispatch="http", endpoint="http://127.0.0.1:1/sync-engine")
    result = project.run("poll", "--json")
    assert (result.code, result.json["error"]["code"]) == (3, "no-signing-key")
