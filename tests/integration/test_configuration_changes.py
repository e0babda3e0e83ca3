"""External databases that come, go and return while the pipeline runs, or between two runs of cron."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.core.errors import ServiceError
from stackctl.sync import configuration, service
from stackctl.sync.queue import retries
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    OTHER,
    Connection,
    Project,
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
    from collections.abc import Iterator

    from stackctl.sync.configuration import Reload

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"


def count_users(path: Path) -> int:
    if not path.exists():
        return 0
    with sqlite3.connect(path) as conn:
        try:
            return conn.execute("SELECT count(*) FROM users").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            return 0


def remove(project: Project, *names: str) -> None:
    for name in names:
        for tenancy in project.settings["tenancies"].values():
            tenancy["external_databases"].pop(name, None)


# -- between two passes


@pytest.mark.quick
def test_a_new_database_is_filled_by_the_next_pass(project: Project, source: Connection) -> None:
    add_user(source)
    project.sqlite(MINE)
    assert project.run("sequence").code == project.run("poll").code == 0
    project.sqlite(MINE, "second.db", "second").sqlite(OTHER, "other.db", "third")
    assert project.run("sequence").code == 0
    assert project.run("poll", "--json").json["delivered"] == 2
    assert differences(project.pipeline()) == []
    assert count_users(project.directory / "second.db") == 1
    assert (project.directory / "other.db").exists()
    assert project.run("poll", "--json").json["claimed"] == 0


def test_a_database_that_was_filled_by_hand_is_not_new(project: Project, source: Connection) -> None:
    add_user(source)
    project.sqlite(MINE)
    settle(project.pipeline())
    source.execute('DELETE FROM "OutgoingRequest"')
    assert poll(project.pipeline()).claimed == 0


def test_one_that_returns_gets_what_it_missed(project: Project, source: Connection) -> None:
    add_user(source)
    project.sqlite(MINE).sqlite(MINE, "second.db", "second")
    sequence(project.pipeline())
    poll(project.pipeline())
    remove(project, "second")
    poll(project.pipeline())
    add_user(source)
    sequence(project.pipeline())
    poll(project.pipeline())
    assert count_users(project.directory / "second.db") == 1
    project.sqlite(MINE, "second.db", "second")
    assert poll(project.pipeline()).delivered == 1
    assert count_users(project.directory / "second.db") == 2


def test_more_mappings_and_another_place_are_taken_up(project: Project, source: Connection) -> None:
    add_user(source)
    project.sqlite(MINE, mappings=["teams"])
    sequence(project.pipeline())
    poll(project.pipeline())
    project.sqlite(MINE, mappings=["teams", "users"])
    assert poll(project.pipeline()).delivered == 1
    assert count_users(project.directory / "copy.db") == 1
    project.sqlite(MINE, "elsewhere.db", mappings=["teams", "users"])
    assert poll(project.pipeline()).delivered == 1
    assert count_users(project.directory / "elsewhere.db") == 1


def test_one_that_is_gone_leaves_no_dead_letter(project: Project, source: Connection) -> None:
    project.postgres(MINE, UNREACHABLE, "broken").sqlite(MINE)
    poll(project.pipeline())
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = NULL")
    assert project.run("status", "--json").json["queue"]["dead"] == 1
    remove(project, "broken", "local")
    poll(project.pipeline())
    assert failures(project.pipeline()) == []
    assert fetch(source, "SELECT 1 FROM stackctl.known_database") == []


def test_who_knows_no_configuration_forgets_nothing(project: Project, source: Connection, migrated_db: str) -> None:
    retries.record_failure(source, MINE, "broken", ServiceError("no", code="unreachable"), scheduled=True)
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = NULL")
    path = project.write()
    path.rename(path.with_name("elsewhere.yaml"))
    outcome = subprocess.run([sys.executable, "-m", "stackctl", "poll", "--database-url", migrated_db],
                             cwd=project.directory, check=False)  # fmt: skip
    assert outcome.returncode == 0
    assert [one.database for one in retries.list_failures(source)] == ["broken"]


def test_a_new_database_does_not_wait_for_the_pause_of_another_place(project: Project, source: Connection) -> None:
    """What failed elsewhere says nothing of here; that a database fails at all does not make it new."""
    add_user(source)
    project.postgres(MINE, UNREACHABLE, "moved")
    sequence(project.pipeline())
    assert poll(project.pipeline()).failed == 1
    source.execute("UPDATE stackctl.delivery SET next_attempt_at = now() + interval '1 hour'")
    assert poll(project.pipeline()).failed == 0
    project.sqlite(MINE, name="moved")
    poll(project.pipeline())
    assert failures(project.pipeline()) == []
    assert count_users(project.directory / "copy.db") == 1


# -- under a loop


class Loop:
    """`service.run` in a thread, and what it has told."""

    def __init__(self, project: Project) -> None:
        self.stop = Stop()
        self.reloads: list[Reload] = []
        reports = service.Reports(reloaded=self.reloads.append)
        self._thread = threading.Thread(
            target=service.run, args=(project.pipeline(), self.stop), kwargs={"claim_limit": 2, "reports": reports}
        )

    @contextmanager
    def running(self) -> Iterator[Loop]:
        self._thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            self._thread.join()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "LOOK_INTERVAL", 0.02)


def test_an_edit_is_taken_up_and_a_bad_one_is_told(project: Project, source: Connection, fast: None) -> None:
    add_user(source)
    project.sqlite(MINE)
    with Loop(project).running() as loop:
        wait_for(lambda: count_users(project.directory / "copy.db") == 1)
        project.sqlite(MINE, "second.db", "second").write()
        wait_for(lambda: count_users(project.directory / "second.db") == 1)
        assert [(r.error, [d.id for d in r.changes.altered]) for r in loop.reloads] == [(None, ["second"])]
        for number, (text, says) in enumerate([
            ("version: 1\ntenances: {}\n", "tenances"),
            ("", "stackctl.yaml is empty"),
            ("# tenancies:\n", "stackctl.yaml is empty"),
            (project.write().read_text() + "\n  nonsense: [", "stackctl.yaml"),
            (project.write().read_text().replace("second.db", "third.db\n        mappings: [userz]"), "userz"),
        ]):  # fmt: skip
            (project.directory / "stackctl.yaml").write_text(text)
            wait_for(lambda number=number: len(loop.reloads) == 2 + number)
            error = loop.reloads[-1].error
            assert error is not None
            assert says in str(error.message)
        (project.directory / "stackctl.yaml").unlink()
        wait_for(lambda: len(loop.reloads) == 7)
        assert loop.reloads[-1].error is not None
        add_user(source)
        wait_for(lambda: count_users(project.directory / "second.db") == 2)
        remove(project, "second")
        project.sync_settings(workers=2).sqlite(MINE, "fourth.db", "fourth").write()
        wait_for(lambda: count_users(project.directory / "fourth.db") == 2)
        last = loop.reloads[-1]
        assert [d.id for d in last.changes.gone] == ["second"]
        assert last.restart_for == ("sync.workers",)
        add_user(source)
        wait_for(lambda: count_users(project.directory / "copy.db") == 3)
        assert count_users(project.directory / "second.db") == 2


def test_one_that_goes_takes_its_failure_along(project: Project, source: Connection, fast: None) -> None:
    project.postgres(MINE, UNREACHABLE, "broken").sqlite(OTHER)
    with Loop(project).running():
        wait_for(lambda: fetch(source, "SELECT 1 FROM stackctl.delivery"))
        remove(project, "broken")
        project.write()
        wait_for(lambda: not fetch(source, "SELECT 1 FROM stackctl.delivery"))


@pytest.mark.parametrize("command", [("run",), ("poll", "--loop"), ("sequence", "--loop")])
def test_a_hangup_reads_the_configuration_again(project: Project, source: Connection, command: tuple[str, ...]) -> None:
    project.sqlite(MINE).write()
    process = project.start(*command)
    wait_for(lambda: fetch(source, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'stackctl'"
                           " AND datname = current_database()"))  # fmt: skip
    wait_for(lambda: int(status_line(process.pid, "SigCgt"), 16) & (1 << (signal.SIGHUP - 1)))
    (project.directory / "stackctl.yaml").write_text("tenances: {}\n")
    process.send_signal(signal.SIGHUP)
    assert process.stderr is not None
    assert "what was loaded stays in use" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (0, "")


def status_line(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name}:"))


def test_what_is_read_again_is_an_event(project: Project, source: Connection) -> None:
    project.sqlite(MINE)
    process = project.start("run", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["stage"] == "start"
    project.sqlite(OTHER, "other.db", "other").write()
    process.send_signal(signal.SIGHUP)
    event: dict[str, Any] = {"stage": ""}
    while event["stage"] != "configuration":
        event = json.loads(process.stdout.readline())
    assert (event["altered"], event["gone"], event["restart_for"]) == ([f"{OTHER} other"], [], [])
    process.terminate()
    assert ended(process).code == 0


def test_a_terminal_that_is_closed_ends_a_loop(project: Project, source: Connection) -> None:
    project.sqlite(MINE).write()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "stackctl", "run"], cwd=project.directory, stdin=slave, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    with process:
        os.close(slave)
        assert process.stdout is not None
        assert b" runs: " in process.stdout.readline()
        os.close(master)
        assert process.wait(timeout=30) == 0


# -- queue forget


def test_failures_are_forgotten_when_that_is_confirmed(project: Project, source: Connection) -> None:
    for name in ("gone", "other", "third"):
        retries.record_failure(source, MINE, name, ServiceError("no", code="unreachable"), scheduled=True)
    project.write()
    refused = project.run("queue", "forget", "gone", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (5, "confirmation-required")
    assert one(source, "SELECT count(*) FROM stackctl.delivery") == 3
    assert project.run("queue", "forget", "nobody", "--yes").code == 2
    assert project.run("queue", "forget", "--yes").code == 2
    forgotten = project.run("queue", "forget", f"{MINE}/gone", "--yes", "--json").json
    assert forgotten == {"forgotten": [{"tenancy": str(MINE), "database": "gone"}], "dry_run": False}
    assert project.run("queue", "forget", "--all", "--yes").stdout == "2 databases forgotten\n"
    assert project.run("queue", "forget", "--all").code == 0  # nothing to ask about
    assert fetch(source, "SELECT 1 FROM stackctl.delivery") == []
