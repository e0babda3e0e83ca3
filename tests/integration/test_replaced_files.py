"""A file that is deleted or replaced while it is open: what is at its place now is the copy."""

from __future__ import annotations

import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ServiceError
from stackctl.sync import service
from stackctl.sync.stop import Stop
from tests.backend import MINE, Connection, Project, add_user, differences, fetch, sequence, settle, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackctl.sync.pipeline import Pipeline


@pytest.fixture(params=["sqlite", "duckdb"])
def copied(request: pytest.FixtureRequest, project: Project, source: Connection) -> Path:
    """The file of a project's only external database, in which one user is."""
    if request.param == "duckdb":
        pytest.importorskip("duckdb")
    getattr(project, request.param)(MINE, "copy.db", mappings=["users", "teams"])
    add_user(source)
    settle(project.pipeline())
    return project.directory / "copy.db"


@pytest.fixture
def running(copied: Path, project: Project, source: Connection) -> Iterator[Pipeline]:
    """A service that has the file open, if it keeps it open: one user more has gone through."""
    pipeline, stop, synced = project.pipeline(), Stop(), threading.Event()
    reports = service.Reports(synced=lambda result: synced.set() if result.mappings[0].batches else None)
    options = {"claim_limit": 2, "reports": reports}
    thread = threading.Thread(target=service.run, args=(pipeline, stop), kwargs=options)
    thread.start()
    add_user(source)
    try:
        assert synced.wait(30)
        yield pipeline
    finally:
        stop.set()
        thread.join()


def wait_until_sent(source: Connection) -> None:
    """Until nothing is marked, queued or in hand."""
    waiting = ('"ProjectUser" WHERE "shouldUpdateSequenceId"', '"OutgoingRequest"', "stackctl.pending_delivery")
    for rows in waiting:
        wait_for(lambda rows=rows: not fetch(source, f"SELECT 1 FROM {rows}"))


def remove(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def test_one_that_is_deleted_is_made_and_filled_again(
    copied: Path, running: Pipeline, project: Project, source: Connection
) -> None:
    remove(copied)
    add_user(source)
    wait_until_sent(source)
    assert differences(project.pipeline()) == []


def test_one_that_is_replaced_by_an_older_copy_catches_up(
    project: Project, source: Connection, tmp_path: Path, copied: Path
) -> None:
    older = tmp_path / "older"
    shutil.copy(copied, older)
    pipeline = project.pipeline()
    stop = Stop()
    thread = threading.Thread(
        target=service.run, args=(pipeline, stop), kwargs={"claim_limit": 2, "reports": service.Reports()}
    )
    thread.start()
    try:
        add_user(source)
        wait_until_sent(source)
        remove(copied)
        older.replace(copied)
        add_user(source)
        wait_until_sent(source)
    finally:
        stop.set()
        thread.join()
    assert differences(project.pipeline()) == []


def test_one_that_goes_between_two_pages_is_no_success(project: Project, source: Connection, copied: Path) -> None:
    """What is written into a file that has no name any more is lost with it."""
    pipeline = project.pipeline()
    (database,) = pipeline.databases[MINE]
    users = pipeline.compile_mappings(database, ["users"])
    target = pipeline.open_target(database)
    try:
        with target.lock_cursor(users[0]):
            pass
        remove(copied)
        with pytest.raises(ServiceError, match="was replaced") as caught, target.lock_cursor(users[0]):
            raise AssertionError("it was locked")
        assert caught.value.code == "connection-lost"
    finally:
        target.close()
    sequence(pipeline)
