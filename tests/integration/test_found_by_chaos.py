"""What the randomised convergence test found, each reduced to its cause."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ServiceError
from tests.backend import (
    DEADLINE,
    MINE,
    Connection,
    Project,
    add_user,
    ended,
    fetch,
    settle,
    wait_for,
    wait_until_blocked,
)
from tests.chaos.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Connect


def test_a_run_outlives_a_server_that_hangs_up_on_it(
    project: Project, source: Connection, external_db: str, connect: Connect
) -> None:
    """A crashing server, or a proxy whose server is away, takes the connection and closes it without a word."""
    add_user(source)
    target = connect(external_db, autocommit=True)
    with Proxy(project.settings["database"]["url"]) as proxy:
        project.settings["database"]["url"] = proxy.url(project.settings["database"]["url"])
        running = project.postgres(MINE, external_db).start("run", "--max-duration", "60s")
        try:
            wait_for(
                lambda: running.poll() is not None or fetch(target, "SELECT 1 FROM pg_tables WHERE tablename = 'users'")
            )
            wait_for(lambda: fetch(target, "SELECT 1 FROM users"))
            proxy.refuse()
            proxy.cut()
            # It has knocked and was turned away.
            wait_for(lambda: proxy.refused >= 2 or running.poll() is not None)
            proxy.heal()
            add_user(source)
            wait_for(lambda: len(fetch(target, "SELECT 1 FROM users")) == 2 or running.poll() is not None)
            running.terminate()
        finally:
            outcome = ended(running)
    assert outcome.code == 0, outcome.stderr


@contextmanager
def deadlock(source: Connection, application: Connection) -> Iterator[None]:
    """Whoever reads "Team" meanwhile is the victim of a deadlock with the application, which truncates, say."""
    application.execute("SET deadlock_timeout = '60s'")  # so that it is not the victim itself
    application.execute('LOCK TABLE "Team" IN ACCESS EXCLUSIVE MODE')

    def lock_what_they_read() -> None:
        wait_until_blocked(source)
        for (table,) in fetch(
            source,
            "SELECT DISTINCT l.relation::regclass::text FROM pg_locks AS l JOIN pg_stat_activity USING (pid)"
            " JOIN pg_class AS c ON c.oid = l.relation AND c.relkind = 'r' AND relnamespace = 'public'::regnamespace"
            " WHERE application_name LIKE 'stackctl%%' AND datname = current_database() AND granted",
        ):
            application.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        application.rollback()

    thread = threading.Thread(target=lock_what_they_read)
    thread.start()
    try:
        yield
    finally:
        thread.join(DEADLINE)


def test_a_deadlock_while_mappings_are_checked_is_no_fault_of_the_file(
    project: Project, source: Connection, migrated_db: str, connect: Connect
) -> None:
    """It ended a service that had just found its database again, with the exit code of a bad configuration."""
    pipeline = project.pipeline()
    with (
        deadlock(source, connect(migrated_db)),
        pytest.raises(ServiceError) as caught,
        pipeline.open_session() as conn,
    ):
        pipeline.check_ready(conn)
    assert caught.value.code == "deadlock"


def test_a_deadlock_while_news_are_looked_for_is_no_fault_of_the_mapping(
    project: Project, source: Connection, migrated_db: str, external_db: str, connect: Connect
) -> None:
    add_user(source)
    pipeline = project.postgres(MINE, external_db).pipeline()
    settle(pipeline)
    (database,) = pipeline.databases[MINE]
    compiled = pipeline.compile_mappings(database)
    reader = pipeline.open_source()
    try:
        with deadlock(source, connect(migrated_db)), pytest.raises(ServiceError) as caught:
            reader.find_changed_mappings(compiled, MINE, {one.mapping.name: 0 for one in compiled})
    finally:
        reader.close()
    assert caught.value.code == "deadlock"
