"""What `status` says, and that it only looks."""

from __future__ import annotations

import signal
import socket
import sqlite3
import time
import uuid
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ServiceError
from stackctl.sync import status as status_module
from stackctl.sync import target_states
from stackctl.sync.queue import entries, retries
from stackctl.sync.status import MappingStatus, Status, read_status
from tests.backend import (
    MAPPINGS,
    MINE,
    OTHER,
    Connection,
    Project,
    add_channel,
    add_many_users,
    add_user,
    ended,
    fetch,
    one,
    populate,
    sequence,
    settle,
    sync,
    wait_for,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"


def read(pipeline: Pipeline, tenancy: uuid.UUID | None = None) -> Status:
    with pipeline.open_session() as conn:
        return read_status(pipeline, conn, tenancy)


def copy_of(found: Status, mapping: str = "users", tenancy: uuid.UUID = MINE) -> MappingStatus:
    (database,) = found.tenancies[tenancy]
    return next(copy for copy in database.mappings if copy.mapping == mapping)


@pytest.mark.quick
def test_the_document_of_the_command(project: Project, source: Connection, external_db: str) -> None:
    project.postgres(MINE, external_db.replace("postgres@", "postgres:geheim99@")).sqlite(OTHER, mappings=["users"])
    populate(source)
    add_user(source, OTHER)
    settle(project.pipeline())
    add_user(source, OTHER)  # not stamped yet
    entries.enqueue(source, [OTHER])
    outcome = project.run("status", "--json")
    assert outcome.code == 0
    assert "geheim99" not in outcome.stdout + outcome.stderr
    document = outcome.json
    assert set(document) >= {"generated_at", "fuses", "sequencer", "queue", "tenancies"}
    assert datetime.fromisoformat(document["generated_at"]).tzinfo is not None
    assert document["fuses"] == {"sequencer": True, "poller": True}
    assert document["change_capture"] == "triggers"
    tables = document["sequencer"]["tables"]
    assert len(tables) == 12
    lowest, highest = (one(source, f'SELECT {which}("sequenceId") FROM "ProjectUser"') for which in ("min", "max"))
    assert 0 < lowest < highest
    assert tables["ProjectUser"] == {
        "total": 3, "pending": 1, "min_sequence_id": lowest, "max_sequence_id": highest,
    }  # fmt: skip
    assert tables["DeletedRow"] == {"total": 0, "pending": 0, "min_sequence_id": None, "max_sequence_id": None}
    assert set(document["queue"]) == {"pending", "in_flight", "stale", "dead", "oldest_age_ms"}
    assert (document["queue"]["pending"], document["queue"]["dead"]) == (2, 0)
    assert document["queue"]["oldest_age_ms"] >= 0
    assert [t["tenancy"] for t in document["tenancies"]] == [str(MINE), str(OTHER)]
    (analytics,), (local,) = (t["databases"] for t in document["tenancies"])
    assert {k: analytics[k] for k in ("database", "type", "status", "error")} == {
        "database": "analytics", "type": "postgres", "status": "ok", "error": None,
    }  # fmt: skip
    assert [m["mapping"] for m in analytics["mappings"]] == list(MAPPINGS)
    for mapping in analytics["mappings"]:
        assert set(mapping) >= {"mapping", "cursor", "max_sequence_id", "backlog", "lag_ms", "updated_at"}
        assert mapping["cursor"] == mapping["max_sequence_id"] > 0
        assert (mapping["backlog"], mapping["lag_ms"]) == (0, 0)
        assert datetime.fromisoformat(mapping["updated_at"])
    assert local["type"] == "sqlite"
    assert local["connection"].endswith("copy.db")


def test_it_creates_nothing(project: Project, source: Connection, external_db: str, connect: Connect) -> None:
    populate(source)
    found = read(project.postgres(MINE, external_db).sqlite(OTHER, "no/copy.db").pipeline())
    assert fetch(connect(external_db), "SELECT 1 FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
    assert not (project.directory / "no").exists()
    for tenancy in (MINE, OTHER):
        (database,) = found.tenancies[tenancy]
        assert (database.status, database.error) == ("ok", None)
        assert {copy.cursor for copy in database.mappings} == {-1}
    assert copy_of(found).backlog == 1
    (project.directory / "no").mkdir()
    sqlite3.connect(project.directory / "no" / "copy.db").close()
    read(project.pipeline())
    assert not (project.directory / "no" / "copy.db").exists() or (
        (project.directory / "no" / "copy.db").stat().st_size == 0
    )


def test_backlog_counts_what_is_still_to_send(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_many_users(source, 10)
    add_many_users(source, 5, OTHER, first=100)
    assert copy_of(read(pipeline)).backlog == 10  # nothing is stamped
    sequence(pipeline)
    assert copy_of(read(pipeline)).backlog == 10
    settle(pipeline)
    assert copy_of(read(pipeline)).backlog == 0
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'x\' WHERE "projectUserId" < %s', (uuid.UUID(int=4),))
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (uuid.UUID(int=9),))
    add_user(source)
    assert copy_of(read(pipeline)).backlog == 5
    sequence(pipeline)
    found = copy_of(read(pipeline))
    assert found.backlog == 5
    assert found.max_sequence_id == one(
        source, 'SELECT max("sequenceId") FROM "ProjectUser" WHERE "tenancyId" = %s', MINE
    )
    sync(pipeline)
    assert copy_of(read(pipeline)).backlog == 0
    assert {copy.backlog for copy in read(pipeline).tenancies[MINE][0].mappings} == {0}


def test_lag_is_of_the_stamp_itself(project: Project, source: Connection, external_db: str) -> None:
    """The only row of an older batch, not the batch after it."""
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    add_user(source)
    sequence(pipeline)
    source.execute("UPDATE stackctl.stamp_log SET stamped_at = stamped_at - interval '10 minutes'")
    add_user(source)
    sequence(pipeline)
    lag = copy_of(read(pipeline)).lag_ms
    assert lag is not None
    assert 600_000 <= lag < 660_000


def test_lag_is_the_age_of_the_oldest_unsent_stamp(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, external_db).pipeline()
    user = add_user(source)
    settle(pipeline)
    assert copy_of(read(pipeline)).lag_ms == 0
    add_channel(source, user, "a@example.com")
    sequence(pipeline)
    add_channel(source, user, "b@example.com", isPrimary=None)
    sequence(pipeline)
    source.execute("UPDATE stackctl.stamp_log SET stamped_at = stamped_at - interval '10 min'"
                   " WHERE up_to_sequence_id < (SELECT max(up_to_sequence_id) FROM stackctl.stamp_log)")  # fmt: skip
    lag = copy_of(read(pipeline), "contact_channels").lag_ms
    assert lag is not None
    assert 600_000 <= lag < 660_000
    assert copy_of(read(pipeline), "teams").lag_ms == 0
    sync(pipeline)
    assert copy_of(read(pipeline), "contact_channels").lag_ms == 0


def test_one_tenancy_only(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, external_db).sqlite(OTHER).pipeline()
    add_many_users(source, 3)
    add_many_users(source, 2, OTHER, first=100)
    found = read(pipeline, OTHER)
    assert list(found.tenancies) == [OTHER]
    assert (found.tables["ProjectUser"].total, found.tables["ProjectUser"].pending) == (2, 2)
    assert read(pipeline).tables["ProjectUser"].total == 5


def test_a_failing_database(project: Project, source: Connection, external_db: str) -> None:
    pipeline = project.postgres(MINE, UNREACHABLE, "broken").postgres(MINE, external_db).pipeline()
    retries.record_failure(source, MINE, "analytics", ServiceError("it was down", code="unreachable"), scheduled=True)
    broken, analytics = read(pipeline).tenancies[MINE]
    assert broken.status == "error"
    assert broken.mappings == ()
    assert "127.0.0.1:1" in (broken.error or "")
    assert (analytics.status, analytics.error, analytics.attempts) == ("error", "it was down", 1)
    assert len(analytics.mappings) == 11


def test_check(project: Project, source: Connection, external_db: str) -> None:
    project.postgres(MINE, external_db)
    add_many_users(source, 10)
    settle(project.pipeline())
    assert project.run("status", "--check", "--max-backlog", 0, "--max-lag", "0s").code == 0
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'x\'')
    sequence(project.pipeline())
    source.execute("UPDATE stackctl.stamp_log SET stamped_at = stamped_at - interval '10 min'")
    assert project.run("status", "--check", "--max-backlog", 10, "--max-lag", "15m").code == 0
    behind = project.run("status", "--check", "--max-backlog", 9, "--json")
    assert (behind.code, behind.json["ok"]) == (1, False)
    assert "10 rows" in behind.json["problems"][0]
    late = project.run("status", "--check", "--max-lag", "5m")
    assert late.code == 1
    assert late.stderr.startswith("error: ")
    sync(project.pipeline())
    project.run("fuse", "off", "poller")
    assert "poller" in project.run("status", "--check", "--json").json["problems"][0]
    project.run("fuse", "on", "poller")
    source.execute(
        "INSERT INTO stackctl.delivery VALUES (%s, 'analytics', 12, now(), now(), 'gone', 'x', NULL)", (MINE,)
    )
    dead = project.run("status", "--check", "--json")
    assert (dead.code, dead.json["queue"]["dead"]) == (1, 1)
    assert project.run("status", "--max-lag", "5m").code == 2
    assert project.run("status", "--tenancy", uuid.UUID(int=5)).code == 2


def test_large_tables_are_estimated(
    project: Project, source: Connection, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_module, "EXACT_TOTAL", 50)
    add_many_users(source, 40)
    add_many_users(source, 30, OTHER, first=100)
    pipeline = project.postgres(MINE, external_db).pipeline()
    sequence(pipeline)
    source.execute('ANALYZE "ProjectUser"')
    found = read(pipeline).tables["ProjectUser"]
    low, high = fetch(source, 'SELECT min("sequenceId"), max("sequenceId") FROM "ProjectUser"')[0]
    assert (found.total, found.min_sequence_id, found.max_sequence_id) == (70, low, high)


def test_watch_writes_an_object_a_line(project: Project, source: Connection) -> None:
    process = project.sqlite(MINE).start("status", "--watch", "--json")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith('{"generated_at"')
    process.terminate()
    stdout, stderr = process.communicate(timeout=30)
    assert "Traceback" not in stderr
    assert process.returncode == 0
    assert all(line.startswith("{") for line in stdout.splitlines())


def test_times_are_utc(project: Project, source: Connection, external_db: str) -> None:
    settle(project.postgres(MINE, external_db).pipeline())
    updated = copy_of(read(project.pipeline())).updated_at
    assert updated is not None
    age = datetime.now(UTC).replace(tzinfo=None) - updated.replace(tzinfo=None)
    assert 0 <= age.total_seconds() < 60


# -- what does not answer, or is busy


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of what takes connections and never says a word."""
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(200)
        stack.callback(listening.close)
        yield f"postgresql://u:geheim99@127.0.0.1:{listening.getsockname()[1]}/x"


def test_databases_that_do_not_answer_are_waited_for_side_by_side(
    project: Project, source: Connection, external_db: str, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_states, "ANSWER_LIMIT", 1.0)
    for number in range(5):
        project.postgres(MINE, silent, f"silent{number}")
    pipeline = project.postgres(MINE, external_db, "a").sqlite(OTHER).pipeline()
    started = time.monotonic()
    found = read(pipeline).tenancies
    assert time.monotonic() - started < 3
    assert [one.database for one in found[MINE]] == [*(f"silent{number}" for number in range(5)), "a"]
    assert [one.status for one in found[MINE]] == ["error"] * 5 + ["ok"]
    assert "did not answer in 1 s" in (found[MINE][0].error or "")
    assert "geheim99" not in (found[MINE][0].error or "")
    assert [(one.status, len(one.mappings)) for one in found[OTHER]] == [("ok", 11)]


def test_more_databases_than_are_asked_at_a_time(
    project: Project, source: Connection, external_db: str, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_states, "ANSWER_LIMIT", 0.3)
    monkeypatch.setattr(target_states, "SIDE_BY_SIDE", 2)
    for number in range(3):
        project.postgres(MINE, silent, f"silent{number}")
    for number in range(5):
        project.postgres(MINE, external_db, f"well{number}")
    found = read(project.pipeline()).tenancies[MINE]
    assert [one.status for one in found] == ["error"] * 3 + ["ok"] * 5


def test_an_interrupt_does_not_wait_for_answers(project: Project, source: Connection, silent: str) -> None:
    for number in range(5 * target_states.SIDE_BY_SIDE):  # ten seconds
        project.postgres(MINE, silent, f"silent{number}")
    process = project.start("status", fresh=True)
    asked = one(source, "SELECT current_database()")
    wait_for(lambda: fetch(source, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'stackctl'"
                           " AND datname = %s", asked))  # fmt: skip
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert ended(process).code == 130
    assert time.monotonic() - started < 5


def test_a_file_that_another_process_holds_is_not_waited_for(project: Project, source: Connection) -> None:
    duckdb = pytest.importorskip("duckdb")
    project.duckdb(MINE, mappings=["users"]).sqlite(OTHER, mappings=["users"])
    settle(project.pipeline())
    with duckdb.connect(str(project.directory / "copy.duckdb")), ExitStack() as stack:
        held = sqlite3.connect(project.directory / "copy.db", isolation_level=None)
        stack.callback(held.close)
        held.execute("PRAGMA locking_mode = EXCLUSIVE")
        held.execute("CREATE TABLE theirs (id)")
        started = time.monotonic()
        shown = project.run("status", "--json")
        for tenancy in shown.json["tenancies"]:
            (found,) = tenancy["databases"]
            assert (found["status"], found["error"], found["mappings"]) == ("ok", None, [])
            assert "is locked" in found["busy"]
        assert "how far it is can be read when it is free" in project.run("status").stdout
        assert project.run("status", "--check").code == 0
        late = project.run("status", "--check", "--max-lag", "1h", "--json")
        assert (late.code, len(late.json["problems"])) == (1, 2)
        assert "can't be told" in late.json["problems"][0]
        assert project.run("doctor").code == 0
        assert time.monotonic() - started < 30
    (found,) = project.run("status", "--json").json["tenancies"][0]["databases"]
    assert (found["busy"], len(found["mappings"])) == (None, 1)
