"""An external database that takes connections and never answers: it costs itself, and nobody else."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from stackctl.sync import service
from stackctl.sync.engine import workers
from stackctl.sync.queue import retries
from stackctl.sync.stop import Stop
from stackctl.sync.targets import protocol
from tests.backend import (
    MINE,
    QUEUED,
    Connection,
    Project,
    add_user,
    differences,
    failures,
    fetch,
    one,
    poll,
    sequence,
    settle,
    wait_for,
)
from tests.chaos.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.sync.pipeline import Pipeline
    from tests.conftest import Connect


@pytest.fixture
def proxy(external_db: str) -> Iterator[Proxy]:
    with Proxy(external_db) as proxy:
        yield proxy


@pytest.fixture
def pipeline(project: Project, external_db: str, proxy: Proxy, source: Connection) -> Pipeline:
    """One worker; MINE has a database behind the proxy and a healthy one."""
    project.sync_settings(workers=1).postgres(MINE, proxy.url(external_db), name="a_hung").sqlite(MINE)
    pipeline = project.pipeline()
    settle(pipeline)
    return pipeline


class Polling:
    """`poll --loop` in a thread."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.stop = Stop()
        self._thread = threading.Thread(target=self._work, args=(pipeline,))
        self._thread.start()

    def _work(self, pipeline: Pipeline) -> None:
        interval = pipeline.settings.get("sync.poller_interval")
        service.poll(pipeline, self.stop, claim_limit=2, interval=interval, reports=service.Reports())

    def end(self) -> float:
        """Stop it; returns how many seconds that took."""
        started = time.monotonic()
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        return time.monotonic() - started


@pytest.fixture
def polling(pipeline: Pipeline) -> Iterator[Polling]:
    polling = Polling(pipeline)
    yield polling
    polling.end()


def arrived(project: Project, name: str) -> bool:
    import sqlite3

    with sqlite3.connect(project.directory / "copy.db") as conn:
        return conn.execute("SELECT 1 FROM users WHERE display_name = ?", (name,)).fetchone() is not None


def test_others_go_on_while_one_hangs(
    project: Project, pipeline: Pipeline, proxy: Proxy, source: Connection, polling: Polling
) -> None:
    for number in range(3):
        # Also the changes that come while the first attempt hangs, of the same tenancy, with the only worker.
        if number == 0:
            proxy.swallow()
        add_user(source, MINE, displayName=f"user {number}")
        sequence(pipeline)
        wait_for(lambda number=number: arrived(project, f"user {number}"))
    (failure,) = wait_for(lambda: failures(pipeline))
    assert (failure.database, failure.code) == ("a_hung", "no-answer")
    proxy.heal()
    wait_for(lambda: not failures(pipeline) and not fetch(source, QUEUED))
    polling.end()
    assert differences(pipeline) == []


def test_what_never_answers_is_broken_off(
    project: Project, pipeline: Pipeline, proxy: Proxy, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE", 1.5)
    polling = Polling(pipeline)
    try:
        add_user(source, MINE, displayName="before")
        sequence(pipeline)
        wait_for(lambda: arrived(project, "before") and not fetch(source, QUEUED))
        proxy.swallow()
        add_user(source, MINE, displayName="after")
        sequence(pipeline)
        failure = wait_for(lambda: next((f for f in failures(pipeline) if f.code == "connection-lost"), None))
        assert failure.attempts == 1
        assert failure.next_attempt_at is not None
        assert arrived(project, "after")
        proxy.heal()
        # Coming back needs no command.
        wait_for(lambda: not failures(pipeline))
    finally:
        polling.end()
    assert differences(pipeline) == []


def test_a_stop_does_not_wait_for_what_hangs(
    project: Project, pipeline: Pipeline, proxy: Proxy, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STOP_GRACE", 0.5)
    polling = Polling(pipeline)
    proxy.swallow()
    add_user(source, MINE, displayName="user")
    sequence(pipeline)
    wait_for(lambda: arrived(project, "user"))
    wait_for(lambda: failures(pipeline))
    assert polling.end() < 10
    # Nothing is forgotten: the next attempt is planned.
    (failure,) = failures(pipeline)
    assert not failure.dead
    proxy.heal()
    with pipeline.open_session() as conn:
        retries.retry_now(conn, None)
    poll(pipeline)
    assert differences(pipeline) == []


def test_a_target_that_does_not_let_in_is_left_alone(
    project: Project, external_db: str, proxy: Proxy, source: Connection
) -> None:
    project.sync_settings(workers=1).postgres(
        MINE, make_conninfo(proxy.url(external_db), connect_timeout=2), name="a_hung"
    )
    project.sqlite(MINE)
    pipeline = project.pipeline()
    proxy.swallow()
    add_user(source, MINE, displayName="user")
    sequence(pipeline)
    result = poll(pipeline)
    assert result.failed == 1
    assert arrived(project, "user")
    assert failures(pipeline)[0].code == "unreachable"


def test_a_lock_held_by_a_consumer_delays_only_that_database(
    project: Project, pipeline: Pipeline, external_db: str, source: Connection, connect: Connect, polling: Polling
) -> None:
    reader = connect(external_db)
    reader.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
    add_user(source, MINE, displayName="first")
    sequence(pipeline)
    wait_for(lambda: arrived(project, "first"))
    add_user(source, MINE, displayName="second")
    sequence(pipeline)
    wait_for(lambda: arrived(project, "second"))
    reader.rollback()
    wait_for(lambda: not failures(pipeline) and not fetch(source, QUEUED))
    polling.end()
    assert one(source, "SELECT count(*) FROM stackctl.delivery") == 0
    assert differences(pipeline) == []
