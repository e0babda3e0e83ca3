"""`run` as a service: what it says, what it survives, and that instances share the work."""

from __future__ import annotations

import ast
import json
import signal
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import stackctl.sync
from stackctl import __version__
from stackctl.core.bundled import find_bundled
from stackctl.sync import reports as reporting
from stackctl.sync import service
from stackctl.sync.queue import retries
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    OTHER,
    QUEUED,
    Connection,
    Project,
    add_user,
    differences,
    fetch,
    one,
    populate,
    settle,
    wait_for,
    wait_until_blocked,
)

if TYPE_CHECKING:
    import pytest

    from tests.conftest import Connect

CLAIMED = 'SELECT 1 FROM "OutgoingRequest" WHERE "startedFulfillingAt" IS NOT NULL'
NOTHING_LISTENS = "postgresql://nobody:geheim99@127.0.0.1:1/nothing"


class Service:
    """`stackctl run` in the background; its stdout as it comes."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.process = project.start("run", *arguments)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def events(self, *stages: str) -> list[dict[str, Any]]:
        """What it said of these stages, so far."""
        return [event for line in list(self.lines) if (event := json.loads(line))["stage"] in stages]

    def heard(self, stage: str, count: int = 1) -> list[dict[str, Any]]:
        return wait_for(lambda: found if len(found := self.events(stage)) >= count else None)

    def end(self) -> int:
        self.process.terminate()
        return self.reap()

    def reap(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


# -- what it says


def test_every_object_has_time_level_and_stage(project: Project, source: Connection) -> None:
    running = Service(project.sqlite(OTHER), "--json")
    add_user(source, OTHER)
    running.heard("sync")
    assert running.end() == 0
    events = [json.loads(line) for line in running.lines]
    for event in events:
        assert event["time"].endswith("Z")
        assert event["level"] == "info"
    assert (events[0]["stage"], events[-1]["stage"]) == ("start", "end")
    assert events[0]["version"] == __version__
    assert (events[0]["tenancies"], events[0]["databases"], len(events[0]["mappings"])) == (1, 1, 11)
    assert events[-1]["stopped_by"] == "signal"
    assert {event["stage"] for event in events} == {"start", "sequence", "sync", "end"}


def test_lines_have_times_and_quiet_leaves_the_warnings(project: Project, source: Connection) -> None:
    project.sqlite(OTHER).postgres(MINE, NOTHING_LISTENS, "broken")
    populate(source)
    said = project.run("run", "--max-duration", "3s")
    assert said.code == 0
    lines = said.stdout.splitlines()
    assert all(line[4] == line[7] == "-" and line[10] == "T" and line[19] == "Z" for line in lines), lines
    assert f" stackctl {__version__} runs: 2 external databases of 2 tenancies, 11 mappings;" in lines[0]
    assert lines[-1].endswith(" stopped by max-duration")
    assert " broken: failing since " in said.stderr
    assert ", next attempt " in said.stderr
    quiet = project.run("run", "--max-duration", "300ms", "--quiet")
    assert (quiet.code, quiet.stdout) == (0, "")
    assert "geheim99" not in said.stdout + said.stderr + quiet.stderr


def test_a_failing_database_is_told_once_and_so_is_its_recovery(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    settle(project.postgres(MINE, external_db).pipeline())
    outside = connect(external_db, autocommit=True)
    outside.execute("ALTER TABLE users RENAME COLUMN display_name TO other_name")
    running = Service(project, "--json")
    add_user(source)
    (failing,) = running.heard("failing")
    assert (failing["level"], failing["database"], failing["dead"]) == ("warning", "analytics", False)
    assert failing["next_attempt_at"] > failing["failing_since"]
    # Several attempts more, each due at once; nothing is said of them.
    for attempts in (2, 3, 4):
        source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
        wait_for(lambda n=attempts: fetch(source, "SELECT 1 FROM stackctl.delivery WHERE attempts >= %s", n))
    outside.execute("ALTER TABLE users RENAME COLUMN other_name TO display_name")
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now()")
    running.heard("recovered")
    assert running.end() == 0
    assert [event["stage"] for event in running.events("failing", "recovered")] == ["failing", "recovered"]
    assert differences(project.pipeline()) == []


def test_the_loss_of_the_operated_database_is_told_once(project: Project, source: Connection) -> None:
    running = Service(project.sqlite(OTHER), "--json")
    running.heard("start")
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stackctl' AND datname = current_database()"
        " AND query LIKE '%%sequencerEnabled%%'"
    )
    wait_for(lambda: one(source, sessions) >= 2)
    source.execute(sessions.replace("count(*)", "pg_terminate_backend(pid)"))
    running.heard("trouble")
    running.heard("regained")
    add_user(source, OTHER)
    running.heard("sync")
    assert running.end() == 0
    assert [e["error_code"] for e in running.events("trouble")] == ["connection-lost"]
    assert len(running.events("regained")) == 1


# -- several instances


def test_two_processes_share_the_work_and_outlive_a_killed_one(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """One is killed with a batch in hand; the other has the rest at once, and that batch when its lease is over."""
    settle(project.postgres(MINE, external_db).sqlite(OTHER).pipeline())
    blocker = connect(external_db)
    blocker.execute("LOCK TABLE users IN SHARE MODE")
    first = Service(project, "--json")
    populate(source)
    wait_until_blocked(connect(external_db, autocommit=True), "stackctl sync")
    second = Service(project, "--json")
    second.heard("start")
    first.process.send_signal(signal.SIGKILL)
    assert first.reap() == -signal.SIGKILL
    user = add_user(source, OTHER)
    second.heard("sync")
    copy = sqlite3.connect(project.directory / "copy.db")
    wait_for(lambda: copy.execute("SELECT 1 FROM users WHERE id = ?", (str(user),)).fetchone())
    copy.close()
    blocker.rollback()
    # The lease, and the hold on a database that did not answer, is the dead one's until its time is over.
    for statement in (
        "UPDATE stackctl.pending_delivery SET leased_at = leased_at - interval '61 s'",
        "UPDATE stackctl.delivery SET next_attempt_at = next_attempt_at - interval '61 s'",
    ):
        source.execute(statement)
    outside = connect(external_db, autocommit=True)
    wait_for(lambda: one(outside, "SELECT count(*) FROM users") == 1)
    wait_for(lambda: not fetch(source, QUEUED))
    assert second.end() == 0
    assert differences(project.pipeline()) == []


def test_a_live_claim_is_left_alone(project: Project, source: Connection, external_db: str, connect: Connect) -> None:
    settle(project.postgres(MINE, external_db).pipeline())
    retries.claim_sweep(source)
    add_user(source)
    assert project.run("sequence").code == 0
    source.execute('UPDATE "OutgoingRequest" SET "startedFulfillingAt" = now() AT TIME ZONE \'UTC\'')
    assert project.run("run", "--max-duration", "2s").code == 0
    assert fetch(source, CLAIMED) == [(1,)]
    assert one(connect(external_db), "SELECT count(*) FROM users") == 0


# -- files and clocks


def test_a_mapping_that_changes_under_it_is_told_and_not_taken_up(
    project: Project, source: Connection, external_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even after the connection was lost and found again, when everything else begins anew."""
    monkeypatch.setattr(reporting, "FILES_INTERVAL", 0.0)
    monkeypatch.setattr(service, "FIRST_PAUSE", 0.01)
    folder = project.directory / "mappings"
    folder.mkdir()
    for path in sorted(find_bundled("mappings").glob("*.yaml")):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    project.settings["mappings_dir"] = "./mappings"
    project.postgres(MINE, external_db, mappings=["users"])
    pipeline = project.pipeline()
    stop = Stop()
    warnings: list[str] = []
    lost: list[str] = []
    back = threading.Event()
    reports = service.Reports(warned=warnings.append, trouble=lambda error: lost.append(error.code), regained=back.set)
    thread = threading.Thread(target=service.run, args=(pipeline, stop), kwargs={"claim_limit": 2, "reports": reports})
    thread.start()
    outside = connect(external_db, autocommit=True)
    try:
        first = add_user(source)
        wait_for(lambda: fetch(outside, "SELECT 1 FROM pg_class WHERE relname = 'users'"))
        wait_for(lambda: fetch(outside, "SELECT 1 FROM users WHERE id = %s", first))
        (folder / "users.yaml").write_text("name: users\nthis is: no mapping\n", encoding="utf-8")
        wait_for(lambda: warnings)
        source.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'stackctl' AND datname = current_database()"
        )
        assert back.wait(30)
        second = add_user(source)
        wait_for(lambda: fetch(outside, "SELECT 1 FROM users WHERE id = %s", second))
    finally:
        stop.set()
        thread.join()
    assert lost
    assert [warning.split(" was changed")[0] for warning in warnings] == [str(folder / "users.yaml")]
    assert "restart to use it" in warnings[0]


def test_nothing_in_the_pipeline_is_decided_by_the_wall_clock() -> None:
    """Only what is shown, or written into a copy for people, may ask it."""
    shown = {"status.py", "target_sqlite.py", "target_duckdb.py"}
    for path in Path(stackctl.sync.__path__[0]).glob("*.py"):
        calls = {ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)}
        assert path.name in shown or not calls & {"time.time", "datetime.now", "datetime.utcnow", "date.today"}, path
