"""DuckDB files as external databases: values, locks, kills, and what a person finds in the file."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from stackctl.sync.targets import duckdb as target_duckdb
from stackctl.sync.targets import duckdb_csv
from stackctl.sync.targets.mapping_changes import ChangePolicy
from tests.backend import (
    MINE,
    OTHER,
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.core.errors import StackctlError
    from stackctl.sync.pipeline import Pipeline

VALUES = """
name: values
source: ProjectUser
target: values
key: {id: projectUserId}
columns:
  note: text null
  id: uuid
  flag: boolean null
  small: integer null
  large: bigint null
  ratio: double null
  amount: numeric null
  day: date null
  at: timestamp null
  at_zone: timestamptz null
  document: json null
select: |
  SELECT u."displayName" AS note, u."projectUserId" AS id, (u."clientMetadata"->>'flag')::boolean AS flag,
    (u."clientMetadata"->>'small')::integer AS small, (u."clientMetadata"->>'large')::bigint AS large,
    (u."clientMetadata"->>'ratio')::float8 AS ratio, (u."clientMetadata"->>'amount')::numeric AS amount,
    (u."clientMetadata"->>'day')::date AS day, (u."clientMetadata"->>'at')::timestamp AS at,
    (u."clientMetadata"->>'at_zone')::timestamptz AS at_zone, u."clientMetadata"->'document' AS document
  FROM "ProjectUser" AS u
  WHERE u."tenancyId" = :tenancy_id
"""


@pytest.fixture
def duck(project: Project) -> Project:
    return configure(project)


def configure(project: Project, tenancy: uuid.UUID = MINE, path: str = "copy.duckdb", **options: Any) -> Project:
    tenancies = project.settings.setdefault("tenancies", {})
    databases = tenancies.setdefault(str(tenancy), {"external_databases": {}})["external_databases"]
    databases["duck"] = {"type": "duckdb", "path": path} | options
    return project


@pytest.fixture
def values(duck: Project) -> Pipeline:
    """A pipeline with one mapping that has a column of every type."""
    folder = duck.directory / "mappings"
    folder.mkdir()
    (folder / "values.yaml").write_text(VALUES)
    duck.settings["mappings_dir"] = "mappings"
    return duck.pipeline()


def read(project: Project, query: str) -> list[tuple[Any, ...]]:
    """As a person would, with the file to themselves."""
    with duckdb.connect(str(project.directory / "copy.duckdb"), read_only=True) as file:
        return file.execute(query).fetchall()


def refusal(pipeline: Pipeline) -> StackctlError:
    errors = [result.error for result in sync(pipeline) if result.error is not None]
    assert len(errors) == 1
    return errors[0]


@pytest.fixture
def holder(duck: Project) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(duck.directory / "copy.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.communicate()


@pytest.mark.quick
def test_all_mappings_and_every_kind_of_change(duck: Project, source: Connection) -> None:
    made = populate(source)
    populate(source, OTHER)
    pipeline = duck.pipeline()
    settle(pipeline)
    assert differences(pipeline) == []
    assert read(duck, "SELECT id FROM users") == [(made.user,)]
    first = add_user(source, displayName="first")
    second = add_user(source, displayName="second")
    settle(pipeline)
    source.execute('UPDATE "ProjectUser" SET "displayName" = %s WHERE "projectUserId" = %s', ("new", first))
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (second,))
    source.execute('DELETE FROM "Team" WHERE "teamId" = %s', (made.team,))
    again = add_user(source, id=second, displayName="re-created")
    third = add_user(source)
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId" = %s', (third,))
    settle(pipeline)
    assert differences(pipeline) == []
    found = dict(read(duck, "SELECT id, display_name FROM users"))
    assert (found[first], found[again], third in found) == ("new", "re-created", False)
    assert read(duck, "SELECT count(*) FROM team_member_profiles") == [(0,)]
    sync(pipeline, full=True)
    assert differences(pipeline) == []


def test_the_same_rows_many_times_over_in_batches(duck: Project, source: Connection) -> None:
    add_many_users(source, 300)
    pipeline = configure(duck, mappings=["users"]).pipeline()
    settle(pipeline)
    for turn in range(3):
        source.execute('UPDATE "ProjectUser" SET "displayName" = %s || "projectUserId"', (f"{turn} ",))
        sequence(pipeline)
        (result,) = sync(pipeline, batch_size=50)
        assert (result.error, result.mappings[0].upserted, result.mappings[0].batches) == (None, 300, 6)
        assert read(duck, "SELECT count(*), count(DISTINCT id), min(display_name)[1] FROM users") == [
            (300, 300, str(turn))
        ]
    source.execute('DELETE FROM "ProjectUser" WHERE "projectUserId"::text < %s', (str(uuid.UUID(int=101)),))
    sequence(pipeline)
    (result,) = sync(pipeline, batch_size=50)
    assert (result.mappings[0].deleted, result.error) == (100, None)
    assert differences(pipeline) == []


TEXTS = [
    "", " a ", "\\N", "NULL", "\\.", "\n", "\r", "\r\n", "a\r\nb", 'he said "no", twice', "'", "\\", "\t", "#x", ",",
    "\ufeffmark", "\u2028", "é", "\U0001f600", "\x01\x7f", "NaN", "x" * 3_000_000, "-- ;",
]  # fmt: skip
KEPT: dict[str, list[object]] = {
    "flag": [True, False],
    "small": [-(2**31), 2**31 - 1],
    "large": [-(2**63), 2**63 - 1],
    "ratio": ["0.1", "-0", "1e308", "5e-324", "Infinity", "-Infinity"],
    "amount": ["1.5", "-0.0000000001", "9999999999999999999999999999.0123456789", "0", "100"],
    "day": ["2024-02-29", "0001-01-01", "9999-12-31", "12345-01-01", "infinity", "-infinity"],
    "at": ["2024-02-29 12:34:56.789", "1970-01-01 00:00:00.000001", "12345-01-01 00:00:00", "infinity", "-infinity"],
    "at_zone": ["2024-02-29 12:34:56.789+02", "0001-01-01 00:00:00+00", "infinity", "-infinity"],
    "document": [None, [], {"a": None}, "text", 'quo"te\\', "\r\n", 1e300, 12345678901234567890, {"k": ["\\N", ""]}],
}  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 20_000])
def test_values_arrive_as_they_are(batch_size: int, values: Pipeline, duck: Project, source: Connection) -> None:
    sequence(values)
    settle(values)  # what follows are batches, not a first load
    for note in [None, *TEXTS]:
        add_user(source, displayName=note)
    for name, kept in KEPT.items():
        for value in kept:
            add_user(source, clientMetadata={name: value})
    sequence(values)
    assert [result.error for result in sync(values, batch_size=batch_size)] == [None]
    assert differences(values) == []
    assert read(duck, "SELECT count(*) FROM values WHERE note = ''") == [(1,)]
    assert read(duck, "SELECT count(*) FROM values WHERE note IS NULL") == [(1,)]
    assert read(duck, "SELECT count(*) FROM values WHERE document::VARCHAR = 'null'") == [(1,)]
    texts = {note for (note,) in read(duck, "SELECT note FROM values")}
    assert texts == {*TEXTS, None, "user"}
    sync(values, full=True)
    assert differences(values) == []


@pytest.mark.parametrize("when", ["first load", "later"])
def test_not_a_number_stays_one(when: str, values: Pipeline, duck: Project, source: Connection) -> None:
    if when == "later":
        settle(values)
    add_user(source, clientMetadata={"ratio": "NaN"})
    settle(values)
    assert read(duck, "SELECT isnan(ratio) FROM values") == [(True,)]


REFUSED = {
    "amount": ["NaN", "Infinity", "12345678901234567890123456789", "0.12345678905"],
    "day": ["0044-03-15 BC"],
    "at": ["0044-03-15 12:00:00 BC", "294276-01-01"],
    "at_zone": ["0044-03-15 12:00:00+00 BC"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, found in REFUSED.items() for value in found])
def test_what_it_can_not_hold_is_refused(
    name: str, value: str, values: Pipeline, duck: Project, source: Connection
) -> None:
    """Never rounded or shifted; the other rows arrive."""
    settle(values)
    poison = add_user(source, clientMetadata={name: value, "document": "secret of a customer"})
    good = [add_user(source) for _ in range(20)]
    sequence(values)
    error = refusal(values)
    assert str(poison) in error.message
    assert "secret" not in error.message
    assert {id_ for (id_,) in read(duck, "SELECT id FROM values")} == set(good)


def test_a_row_that_is_too_large_is_refused(values: Pipeline, duck: Project, source: Connection) -> None:
    settle(values)
    poison = add_user(source, displayName="x" * (duckdb_csv.LARGEST_ROW + 1))
    fits = add_user(source, displayName="x" * (duckdb_csv.LARGEST_ROW // 2))
    sequence(values)
    error = refusal(values)
    assert str(poison) in error.message
    assert len(error.message) < 500
    assert read(duck, "SELECT id FROM values") == [(fits,)]


def test_two_rows_for_one_key(values: Pipeline, duck: Project, source: Connection) -> None:
    add_user(source)
    text = VALUES.replace("WHERE u.", "CROSS JOIN (VALUES (1), (2)) AS twice (n)\n  WHERE u.")
    (duck.directory / "mappings" / "values.yaml").write_text(text)
    pipeline = duck.pipeline()
    sequence(pipeline)
    assert refusal(pipeline).code == "two-rows-for-a-key"


def test_another_table_of_that_name(duck: Project, source: Connection) -> None:
    populate(source)
    with duckdb.connect(str(duck.directory / "copy.duckdb")) as file:
        file.execute("CREATE TABLE users (id VARCHAR PRIMARY KEY, display_name BLOB, extra INTEGER NOT NULL)")
    pipeline = duck.duckdb(MINE, mappings=["users"]).pipeline()
    sequence(pipeline)
    error = refusal(pipeline)
    assert error.code == "table-differs"
    for difference in ("id is VARCHAR, not UUID", "primary_email is missing", "extra must not be null"):
        assert difference in error.message
    assert read(duck, "SELECT table_name FROM duckdb_tables()") == [("users",)]
    with duckdb.connect(str(duck.directory / "copy.duckdb")) as file:
        file.execute("DROP TABLE users")
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_table_that_was_dropped_is_filled_again(duck: Project, source: Connection) -> None:
    populate(source)
    pipeline = duck.pipeline()
    settle(pipeline)
    with duckdb.connect(str(duck.directory / "copy.duckdb")) as file:
        file.execute("DROP TABLE users")
        file.execute("ALTER TABLE teams ADD COLUMN note VARCHAR")
    settle(pipeline)
    assert differences(pipeline) == []


def test_two_tenancies_on_one_file(duck: Project, source: Connection) -> None:
    settle(duck.pipeline())
    del duck.settings["tenancies"]
    (duck.directory / "hard.duckdb").hardlink_to(duck.directory / "copy.duckdb")
    error = refusal(configure(duck, OTHER, "hard.duckdb").pipeline())
    assert error.code == "other-tenancy"


def test_a_file_that_another_process_holds(
    duck: Project, source: Connection, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_duckdb, "BUSY_TIMEOUT", 0.1)
    populate(source)
    pipeline = duck.pipeline()
    sequence(pipeline)
    error = refusal(pipeline)
    assert (error.code, error.exit_code) == ("lock-timeout", 5)
    assert str(holder.pid) in error.message
    holder.communicate()
    settle(pipeline)
    assert differences(pipeline) == []


def test_it_waits_for_a_process_that_is_done_soon(
    duck: Project, source: Connection, holder: subprocess.Popen[str]
) -> None:
    populate(source)
    pipeline = duck.pipeline()
    sequence(pipeline)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.extend(sync(pipeline)))
    thread.start()
    holder.communicate()
    thread.join()
    assert [result.error for result in results] == [None]
    assert differences(pipeline) == []


def test_engines_on_one_file_wait_for_each_other(duck: Project, source: Connection) -> None:
    add_many_users(source, 500)
    pipeline = duck.pipeline()
    settle(pipeline)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'changed\'')
    sequence(pipeline)
    results: list[Any] = []
    pipelines = [duck.pipeline() for _ in range(3)]
    threads = [
        threading.Thread(target=lambda each=each: results.extend(sync(each, batch_size=50))) for each in pipelines
    ]
    other = duck.start("sync", "--all", "--json")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out, err = other.communicate()
    assert other.returncode == 0, (out, err)
    assert [result.error for result in results] == [None] * 3
    assert differences(pipeline) == []


def test_a_new_copy_and_the_file_beside_it_are_private(duck: Project, source: Connection) -> None:
    add_many_users(source, 100)
    pipeline = duck.pipeline()
    (database,) = pipeline.databases[MINE]
    before = os.umask(0o022)
    try:
        target = pipeline.open_target(database)
        target.prepare(MINE, [], ChangePolicy())
        found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in duck.directory.glob("copy.duckdb*")}
        assert found == {"copy.duckdb": 0o600, "copy.duckdb.wal": 0o600}
        target.close()
        settle(pipeline)
        (duck.directory / "after").touch()
    finally:
        os.umask(before)
    assert stat.S_IMODE((duck.directory / "copy.duckdb").stat().st_mode) == 0o600
    assert stat.S_IMODE((duck.directory / "after").stat().st_mode) == 0o644


def test_status_beside_a_program_that_reads(duck: Project, source: Connection) -> None:
    populate(source)
    settle(duck.pipeline())
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1], read_only=True); print('open', flush=True); input()"
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(duck.directory / "copy.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    status = duck.run("status", "--json")
    reader.communicate("\n")
    (database,) = status.json["tenancies"][0]["databases"]
    assert (database["status"], database["error"]) == ("ok", None)
    assert database["mappings"][0]["cursor"] >= 0


@pytest.mark.parametrize("when", ["load", "batches"])
def test_a_kill_leaves_a_batch_whole_or_absent(when: str, duck: Project, source: Connection) -> None:
    add_many_users(source, 20_000)
    pipeline = configure(duck, mappings=["users"]).pipeline()
    sequence(pipeline, batch_size=20_000)
    duck.sync_settings(batch_size=500)
    if when == "batches":
        settle(pipeline)
        source.execute('UPDATE "ProjectUser" SET "displayName" = \'changed\'')
        sequence(pipeline, batch_size=20_000)
    process = duck.start("sync", "--all")
    wal = duck.directory / "copy.duckdb.wal"
    while process.poll() is None and not wal.exists():
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    cursor, changed = _progress(duck)
    sent = source.execute('SELECT count(*) FROM "ProjectUser" WHERE "sequenceId" <= %s', (cursor,)).fetchone()
    if when == "batches":
        assert sent is not None and changed == sent[0]
    settle(pipeline)
    assert differences(pipeline) == []


def _progress(project: Project) -> tuple[int, int]:
    tables = {name for (name,) in read(project, "SELECT table_name FROM duckdb_tables()")}
    if "users" not in tables:
        return -1, 0
    ((cursor,),) = read(project, "SELECT last_synced_sequence_id FROM _stack_sync_metadata")
    ((changed,),) = read(project, "SELECT count(*) FROM users WHERE display_name = 'changed'")
    return cursor, changed


def test_a_disk_that_is_full(duck: Project, source: Connection) -> None:
    """The limit on the size of a file stands in for the disk's."""
    populate(source)
    pipeline = duck.pipeline()
    settle(pipeline)
    add_many_users(source, 2_000)
    source.execute(
        'UPDATE "ProjectUser" SET "displayName" = (SELECT string_agg(md5(n || "projectUserId"::text), \'\')'
        " FROM generate_series(1, 200) AS n)"
    )
    sequence(pipeline, batch_size=20_000)
    size = (duck.directory / "copy.duckdb").stat().st_size // 1024 + 64
    code = f"ulimit -f {size}; exec {sys.executable} -m stackctl sync --all --json"
    limited = subprocess.run(["bash", "-c", code], cwd=duck.directory, capture_output=True, text=True)
    assert limited.returncode == 1, limited.stderr
    assert "out-of-resources" in limited.stdout
    assert read(duck, "SELECT count(*) FROM users") == [(1,)]
    settle(pipeline)
    assert differences(pipeline) == []


def test_a_folder_that_is_missing_and_a_file_that_is_none(duck: Project, source: Connection) -> None:
    path: Path = duck.directory / "copy.duckdb"
    path.write_text("just some text, and long enough to be taken for a header of something else" * 100)
    assert refusal(duck.pipeline()).code == "unreachable"
    assert path.read_text().startswith("just some text")
    assert "no/such" in refusal(configure(duck, path="no/such/copy.duckdb").pipeline()).message


def test_without_the_extra(duck: Project, source: Connection) -> None:
    (duck.directory / "duckdb.py").write_text("raise ImportError('not installed')")
    outcome = duck.run("sync", "--all", "--json", fresh=True)
    assert outcome.json["databases"][0]["error_code"] == "missing-extra"
    assert "pip install 'stackctl[duckdb]'" in duck.run("sync", "--all", fresh=True).stderr


def test_what_breaks_a_stream_is_what_is_raised() -> None:
    """Not what a reader makes of a stream that ends too early; and one that leaves early breaks nothing."""

    def broken() -> Iterator[bytes]:
        yield b"a,b\n"
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"), duckdb_csv.open_pipe(broken()) as path:
        assert Path(path).read_bytes() == b"a,b\n"
    with duckdb_csv.open_pipe(b"x" * 65536 for _ in range(100)) as path, Path(path).open("rb") as file:
        assert file.read(1) == b"x"
