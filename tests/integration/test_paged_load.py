"""First loads in pages: cut, gone on with, and beside changes; into every kind of target."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.core.errors import ServiceError
from stackctl.sync.engine import paged_load
from tests.backend import (
    MINE,
    Connection,
    Project,
    add_many_users,
    add_user,
    differences,
    populate,
    sequence,
    settle,
    sync,
)
from tests.chaos.proxy import Proxy
from tests.integration.test_filters import PEOPLE

if TYPE_CHECKING:
    from stackctl.sync.pipeline import Pipeline

KINDS = ("postgres", "sqlite", "duckdb")
ROWS, WHOLE, PAGE = 500, 100, 50
TARGETS = {"postgres": "PostgresTarget", "sqlite": "SqliteTarget", "duckdb": "DuckdbTarget"}


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_load, "WHOLE_ROWS", WHOLE)
    monkeypatch.setattr(paged_load, "PAGE_ROWS", PAGE)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "duckdb":
        pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")
    return request.param


@pytest.fixture
def pipeline(kind: str, project: Project, external_db: str) -> Pipeline:
    if kind == "postgres":
        project.postgres(MINE, external_db, mappings=["users"])
    elif kind == "sqlite":
        project.sqlite(MINE, mappings=["users"])
    else:
        project.duckdb(MINE, mappings=["users"])
    return project.pipeline()


def count_appended(monkeypatch: pytest.MonkeyPatch, kind: str) -> list[int]:
    """The rows of each page that goes straight into the table, as they go."""
    target: Any = getattr(__import__(f"stackctl.sync.targets.{kind}", fromlist=["x"]), TARGETS[kind])
    original, pages = target.append_rows, list[int]()

    def append_rows(self: Any, compiled: Any, rows: Any) -> Any:
        applied = original(self, compiled, rows)
        pages.append(applied.rows)
        return applied

    monkeypatch.setattr(target, "append_rows", append_rows)
    return pages


def test_pages_go_straight_into_the_table(
    kind: str, pipeline: Pipeline, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that have no id yet go first, and come again when they have one. Windows follow each other."""
    monkeypatch.setattr(paged_load, "WINDOW_ROWS", 4 * PAGE)
    add_many_users(source, ROWS)
    sequence(pipeline)
    add_user(source, displayName="unstamped")
    pages = count_appended(monkeypatch, kind)
    (result,) = sync(pipeline)
    assert result.error is None
    assert pages == [1, *[PAGE] * (ROWS // PAGE)]
    assert differences(pipeline) == []
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_load_that_is_cut_goes_on_where_it_was(
    kind: str, pipeline: Pipeline, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile rows change, go and come back, of those that were sent and of those that were not."""
    add_many_users(source, ROWS)
    sequence(pipeline)
    pages = count_appended(monkeypatch, kind)
    original = paged_load.PagedLoad.send_page
    left = [4]

    def send_page(self: Any, cursor: int) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise ServiceError("cut", code="connection-lost")
        return original(self, cursor)

    monkeypatch.setattr(paged_load.PagedLoad, "send_page", send_page)
    (result,) = sync(pipeline)
    assert result.error is not None and result.error.code == "connection-lost"
    assert sum(pages) == 3 * PAGE
    assert [each.cursor > 0 for each in result.mappings] == [True]
    for number in (1, 2, ROWS - 1, ROWS):
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (uuid.UUID(int=number),))
    for number in (2, ROWS):
        add_user(source, id=uuid.UUID(int=number), displayName="back")
    for number in (3, ROWS - 3):
        source.execute(
            'UPDATE "ProjectUser" SET "displayName" = \'new\' WHERE "projectUserId" = %s', (uuid.UUID(int=number),)
        )
    sequence(pipeline)
    before = len(pages)
    (result,) = sync(pipeline, batch_size=20)
    assert result.error is None
    assert result.mappings[0].upserted < ROWS - 2 * PAGE, "it did not begin anew"
    assert len(pages) > before, "what is left goes straight into the table, too"
    assert differences(pipeline) == []


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_load_whose_connection_a_proxy_cuts_goes_on_where_it_was(
    side: str, project: Project, source: Connection, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_many_users(source, ROWS)
    database = project.settings["database"]
    original, sent = paged_load.PagedLoad.send_page, list[int]()
    with Proxy(database["url"] if side == "source" else external_db) as proxy:
        if side == "source":
            database["url"] = proxy.url(database["url"])
        project.postgres(MINE, proxy.url(external_db) if side == "target" else external_db, mappings=["users"])
        pipeline = project.pipeline()
        sequence(pipeline)

        def send_page(self: Any, cursor: int) -> Any:
            if len(sent) == 3:
                proxy.cut()
            sent.append(cursor)
            return original(self, cursor)

        monkeypatch.setattr(paged_load.PagedLoad, "send_page", send_page)
        with suppress(ServiceError):  # of a lost source
            (result,) = sync(pipeline)
            assert result.error is not None and result.error.code == "connection-lost"
        assert len(sent) >= 4, "it was cut in the middle"
        (result,) = sync(project.pipeline())
        assert result.error is None
        assert sent == sorted(sent), "it did not begin anew"
        assert differences(project.pipeline()) == []


def test_changes_while_it_is_loaded(
    kind: str, pipeline: Pipeline, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is stamped anew between two pages, one that goes, one that comes back."""
    add_many_users(source, ROWS)
    sequence(pipeline)
    original = paged_load.PagedLoad.send_page
    other = iter(range(1, ROWS))

    def send_page(self: Any, cursor: int) -> Any:
        sent = original(self, cursor)
        near, far = uuid.UUID(int=next(other)), uuid.UUID(int=ROWS - next(other))
        for user in (near, far):
            source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\' WHERE "projectUserId" = %s', (user,))
        user = uuid.UUID(int=100 + next(other))
        source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (user,))
        if user.int % 2:
            add_user(source, id=user, displayName="back")
        sequence(pipeline)
        return sent

    monkeypatch.setattr(paged_load.PagedLoad, "send_page", send_page)
    (result,) = sync(pipeline)
    assert result.error is None
    monkeypatch.undo()
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_row_that_is_refused_ends_up_alone(
    pipeline: Pipeline, source: Connection, external_db: str, kind: str
) -> None:
    """A page that meets it is sent the ordinary way."""
    settle(pipeline)
    if kind != "postgres":
        pytest.skip("the consumer of a PostgreSQL adds what refuses")
    with psycopg.connect(external_db, autocommit=True) as consumer:
        consumer.execute("ALTER TABLE users ADD CHECK (display_name <> 'user 77')")
        consumer.execute("UPDATE _stack_sync_metadata SET last_synced_sequence_id = -1")
    add_many_users(source, ROWS)
    sequence(pipeline)
    (result,) = sync(pipeline)
    assert result.error is not None and result.error.code == "rows-refused"
    assert [row["key"] for row in result.error.details["rows"]] == [[str(uuid.UUID(int=77))]]
    with psycopg.connect(external_db) as consumer:
        assert consumer.execute("SELECT count(*) FROM users").fetchone() == (ROWS - 1,)


@pytest.mark.parametrize("point", ["append_rows:after", "advance_cursor:after", "lock_cursor:left"])
def test_a_kill_leaves_pages_whole(
    point: str, kind: str, pipeline: Pipeline, project: Project, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-9 in the third page, or between two: the next run sends the others."""
    add_many_users(source, ROWS)
    sequence(pipeline)
    code = (
        "from stackctl.sync.engine import paged_load\n"
        f"paged_load.WHOLE_ROWS, paged_load.PAGE_ROWS = {WHOLE}, {PAGE}\n"
        "from tests.chaos import faults\n"
        f"faults.arm('stackctl.sync.targets.{kind}:{TARGETS[kind]}.{point}', 4)\n"
        "from stackctl.__main__ import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "sync", "--all"], cwd=project.directory, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    (result,) = sync(pipeline, batch_size=20)
    assert result.error is None
    sent = result.mappings[0].upserted
    assert 0 < sent < ROWS, "it went on where it stopped"
    assert sent % PAGE == 0, "a page is whole or absent"
    assert differences(pipeline) == []


def count_merged(monkeypatch: pytest.MonkeyPatch, kind: str) -> list[int]:
    """The rows of each page that is merged, as they go."""
    target: Any = getattr(__import__(f"stackctl.sync.targets.{kind}", fromlist=["x"]), TARGETS[kind])
    original, pages = target.apply_batch, list[int]()

    def apply_batch(self: Any, compiled: Any, batch: Any, on_read: Any = None) -> Any:
        applied = original(self, compiled, batch, on_read)
        pages.append(applied.rows)
        return applied

    monkeypatch.setattr(target, "apply_batch", apply_batch)
    return pages


def test_a_bulk_of_changes_comes_in_pages_of_one_window(
    kind: str, pipeline: Pipeline, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were deleted among them, came back or are new."""
    add_many_users(source, ROWS)
    settle(pipeline)
    deleted = 'DELETE FROM "ProjectUser" WHERE "projectUserId" = %s'
    for number in range(1, ROWS, 50):
        source.execute(deleted, (uuid.UUID(int=number),))
    sequence(pipeline)
    add_user(source, id=uuid.UUID(int=51), displayName="back")
    source.execute('UPDATE "ProjectUser" SET "displayName" = "displayName" || \'!\'')
    add_many_users(source, 20, first=ROWS + 1)
    sequence(pipeline)
    for number in (ROWS - 1, ROWS):
        source.execute(deleted, (uuid.UUID(int=number),))
    sequence(pipeline)
    add_user(source, id=uuid.UUID(int=ROWS), displayName="back")
    sequence(pipeline)
    pages, straight = count_merged(monkeypatch, kind), count_appended(monkeypatch, kind)
    (result,) = sync(pipeline, batch_size=20)
    assert result.error is None
    assert (max(pages), straight) == (PAGE, [])
    assert sum(pages) == ROWS + 20 + 1, "each once, but for one whose deletion was of the page before"
    assert differences(pipeline) == []


def test_a_bulk_of_new_rows_takes_those_along_that_have_left(
    project: Project, source: Connection, external_db: str
) -> None:
    """Rows that the mapping yields no more have to go, whatever else goes straight into the table."""
    folder = project.directory / "mine"
    folder.mkdir()
    (folder / "people.yaml").write_text(PEOPLE.format(name="people", anonymous="false"))
    project.settings["mappings_dir"] = "./mine"
    pipeline = project.postgres(MINE, external_db).pipeline()
    add_many_users(source, 30)
    settle(pipeline)
    add_many_users(source, 150, first=100)
    sequence(pipeline)
    source.execute('UPDATE "ProjectUser" SET "isAnonymous" = true WHERE "projectUserId" = %s', (uuid.UUID(int=7),))
    sequence(pipeline)
    add_many_users(source, 100, first=300)
    sequence(pipeline)
    (result,) = sync(pipeline, batch_size=20)
    assert result.error is None
    assert differences(pipeline) == []


def test_a_bulk_of_changes_in_every_table(
    project: Project, source: Connection, external_db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of several columns, and keys that are found by another column."""
    monkeypatch.setattr(paged_load, "PAGE_ROWS", 2)
    pipeline = project.postgres(MINE, external_db).pipeline()
    made = [populate(source) for _ in range(8)]
    settle(pipeline)
    for mapping in pipeline.mappings.values():
        touch = sql.SQL('UPDATE {} SET "shouldUpdateSequenceId" = true').format(sql.Identifier(mapping.source))
        source.execute(touch)
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (made[3].user,))
    source.execute('DELETE FROM "Team" WHERE "teamId" = %s', (made[4].team,))
    sequence(pipeline)
    pages = count_merged(monkeypatch, "postgres")
    (result,) = sync(pipeline, batch_size=2)
    assert result.error is None
    assert {one.mapping for one in result.mappings if one.batches} == pipeline.mappings.keys()
    assert max(pages) == 2
    assert differences(pipeline) == []
