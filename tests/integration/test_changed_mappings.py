"""A mapping that is changed after its copies were made: every kind of target."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest

from stackctl.sync import service
from stackctl.sync.engine import resend
from stackctl.sync.engine.database_sync import DatabaseResult, SyncOptions
from stackctl.sync.stop import Stop
from tests.backend import (
    MINE,
    Connection,
    Project,
    add_many_users,
    add_user,
    failures,
    one,
    poll,
    sequence,
    sync,
)

if TYPE_CHECKING:
    from pathlib import Path

MAPPING = """
name: people
source: ProjectUser
target: people
key: {key}
columns: {{id: uuid, name: text null{columns}}}
select: |
  SELECT u."projectUserId" AS id, {name} AS name{selected}
  FROM "ProjectUser" AS u
  WHERE u."tenancyId" = :tenancy_id{where}
"""
PLAIN: dict[str, str] = {
    "key": "{id: projectUserId}", "columns": "", "name": 'u."displayName"', "selected": "", "where": ""
}  # fmt: skip
UPPER = {"name": 'upper(u."displayName")'}
CREATED = {"columns": ", created: timestamp null", "selected": ', u."createdAt" AS created'}


class Copy:
    """The only external database of MINE, with one mapping of its own, as its consumer sees it."""

    def __init__(self, project: Project, external_db: str, kind: str) -> None:
        self.project, self.kind, self._url = project, kind, external_db
        if kind == "postgres":
            project.postgres(MINE, external_db)
        elif kind == "sqlite":
            project.sqlite(MINE)
        else:
            pytest.importorskip("duckdb", reason="the extra stackctl[duckdb] is not installed")
            project.duckdb(MINE)
        self.write()
        project.settings["mappings_dir"] = "./maps"
        self.name = {"postgres": "analytics", "sqlite": "local", "duckdb": "duck"}[kind]

    @property
    def file(self) -> Path:
        return self.project.directory / "maps" / "people.yaml"

    def write(self, **parts: str) -> None:
        """The mapping's file, with these parts of another kind than PLAIN's."""
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(MAPPING.format(**PLAIN | parts))

    def settle(self) -> DatabaseResult:
        """One pass of a new process."""
        pipeline = self.project.pipeline()
        sequence(pipeline)
        (result,) = sync(pipeline)
        return result

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement; all of them are committed."""
        if self.kind == "postgres":
            with psycopg.connect(self._url, autocommit=True) as conn:
                cursor = [conn.execute(cast("LiteralString", statement)) for statement in statements][-1]
                return cursor.fetchall() if cursor.description else []
        if self.kind == "sqlite":
            path = self.project.directory / "copy.db"
            with closing(sqlite3.connect(path, isolation_level=None)) as file:
                return [file.execute(statement).fetchall() for statement in statements][-1]
        import duckdb

        with duckdb.connect(str(self.project.directory / "copy.duckdb")) as file:
            return [file.execute(statement).fetchall() for statement in statements][-1]

    def names(self) -> list[str]:
        return [name for (name,) in self.run("SELECT name FROM people ORDER BY id")]

    def record(self) -> tuple[Any, ...]:
        """Fingerprint, and which rows are still to be sent again."""
        (found,) = self.run("SELECT fingerprint, resend_after, resend_up_to FROM _stack_sync_mapping")
        return found

    def equals_source(self) -> bool:
        outcome = self.project.run("verify", "--json")
        return outcome.code == 0


@pytest.fixture(params=["postgres", "sqlite", "duckdb"])
def copy(request: pytest.FixtureRequest, project: Project, external_db: str) -> Copy:
    return Copy(project, external_db, request.param)


@pytest.fixture
def loaded(copy: Copy, source: Connection) -> Copy:
    """Three users, sent."""
    add_many_users(source, 3)
    assert copy.settle().error is None
    return copy


def test_a_copy_says_what_it_was_made_from(loaded: Copy) -> None:
    (definition,) = loaded.run("SELECT definition FROM _stack_sync_mapping")[0]
    found = json.loads(definition)
    assert (found["columns"], found["key"]) == ({"id": "uuid", "name": "text null"}, {"id": "projectUserId"})
    assert loaded.record()[1:] == (None, None)


def test_comments_and_white_space_send_nothing(loaded: Copy) -> None:
    before = loaded.record()
    loaded.write(where=" -- of this tenancy\n", name='\n  u."displayName"')
    result = loaded.settle()
    assert [m.upserted for m in result.mappings] == [0]
    assert (result.error, result.remarks, loaded.record()) == (None, [], before)


def test_another_select_sends_all_rows_again(loaded: Copy) -> None:
    loaded.write(**UPPER)
    result = loaded.settle()
    assert result.remarks == [
        "the copy of people follows its mapping: the select has changed; all its rows are sent again"
    ]
    assert loaded.names() == ["USER 1", "USER 2", "USER 3"]
    assert loaded.record()[1:] == (None, None)
    assert loaded.settle().remarks == []
    assert loaded.equals_source()


def test_rows_that_left_the_condition_go(loaded: Copy, source: Connection) -> None:
    loaded.write(where=" AND u.\"displayName\" <> 'user 2'")
    assert loaded.settle().error is None
    assert loaded.names() == ["user 1", "user 3"]
    loaded.write()
    assert loaded.settle().error is None
    assert loaded.names() == ["user 1", "user 2", "user 3"]


def test_columns_that_may_be_null_are_added_and_filled(loaded: Copy) -> None:
    loaded.write(**CREATED)
    result = loaded.settle()
    assert (result.error, len(result.remarks)) == (None, 1)
    assert loaded.run("SELECT count(*) FROM people WHERE created IS NULL") == [(0,)]
    assert loaded.equals_source()


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"columns": ", created: timestamp", "selected": ', u."createdAt" AS created'}, "created is new, and may not"),
        ({"columns": ", guest: boolean", "selected": ', u."isAnonymous" AS guest'}, "guest is new, and may not"),
        ({"key": "{id: projectUserId, name: displayName}"}, "the key was (id)"),
    ],
)  # fmt: skip
def test_what_readers_would_lose_is_refused_by_name(loaded: Copy, parts: dict[str, str], reason: str) -> None:
    loaded.write(**parts)
    if "name" in parts.get("key", ""):
        loaded.file.write_text(loaded.file.read_text().replace("name: text null", "name: text"))
    error = loaded.settle().error
    assert error is not None
    assert (error.code, error.exit_code) == ("mapping-changed", 5)
    assert reason in error.message
    assert f"`stackctl sync {MINE} --database {loaded.name} --rebuild people`" in (error.hint or "")
    assert loaded.names() == ["user 1", "user 2", "user 3"]


def test_refuse_follows_nothing(loaded: Copy, source: Connection) -> None:
    loaded.project.sync_settings(schema_changes="refuse")
    before = loaded.record()
    loaded.write(**UPPER)
    error = loaded.settle().error
    assert error is not None
    assert error.code == "mapping-changed"
    assert (loaded.names(), loaded.record()) == (["user 1", "user 2", "user 3"], before)
    loaded.write()
    add_user(source, displayName="user 4")
    assert loaded.settle().error is None  # taken back, it goes on
    assert len(loaded.names()) == 4


@pytest.mark.parametrize("wrong", ["DELETE FROM _stack_sync_mapping", "DROP TABLE _stack_sync_mapping",
                                   "UPDATE _stack_sync_mapping SET definition = '{', fingerprint = 'x'"])  # fmt: skip
def test_what_is_not_known_is_sent_again(loaded: Copy, wrong: str) -> None:
    before = loaded.record()
    loaded.run(wrong, "UPDATE people SET name = 'of another select'")
    result = loaded.settle()
    assert (result.error, len(result.remarks)) == (None, 1)
    assert loaded.names() == ["user 1", "user 2", "user 3"]
    assert loaded.record() == before


def test_an_older_copy_gets_its_new_columns(loaded: Copy) -> None:
    loaded.run("DROP TABLE _stack_sync_mapping")
    loaded.write(**CREATED)
    assert loaded.settle().error is None
    assert loaded.run("SELECT count(*) FROM people WHERE created IS NULL") == [(0,)]


def test_a_record_of_a_later_version_is_refused(loaded: Copy) -> None:
    loaded.run("""UPDATE _stack_sync_mapping SET fingerprint = 'x', definition = '{"format": 9, "stackctl": "9.9"}'""")
    error = loaded.settle().error
    assert error is not None
    assert (error.code, error.hint) == ("newer-stackctl", "use stackctl 9.9 or later")


def test_a_column_of_the_consumers_is_not_taken(loaded: Copy) -> None:
    type_ = "TEXT" if loaded.kind == "sqlite" else "TIMESTAMP"
    loaded.run(f"ALTER TABLE people ADD COLUMN created {type_}", "UPDATE people SET created = '2001-01-01 00:00:00'")
    loaded.write(**CREATED)
    error = loaded.settle().error
    assert error is not None
    assert "a column created that is not stackctl's" in error.message
    assert loaded.run("SELECT count(*) FROM people WHERE created IS NULL") == [(0,)]


def test_two_that_have_different_files_do_not_take_turns(loaded: Copy, source: Connection) -> None:
    """The one that runs with the older file stops at once, until it is started anew."""
    older = loaded.project.pipeline()
    assert [r.error for r in sync(older)] == [None]
    loaded.write(**UPPER)
    assert loaded.settle().error is None
    add_user(source, displayName="user 4")
    sequence(older)
    for _ in range(2):
        (result,) = sync(older)
        assert result.error is not None
        assert (result.error.code, "another stackctl" in result.error.message) == ("mapping-changed", True)
    assert loaded.settle().error is None
    assert sorted(loaded.names()) == ["USER 1", "USER 2", "USER 3", "USER 4"]


def test_one_that_comes_late_with_older_files_changes_nothing_back(loaded: Copy) -> None:
    """It has not seen the copy yet, and its files are older than the copy's last change."""
    older = loaded.project.pipeline()
    assert older.change_policy.evolve and older.mappings
    loaded.write(**UPPER)
    assert loaded.settle().error is None
    (result,) = sync(older)
    assert result.error is not None
    assert (result.error.code, "another stackctl" in result.error.message) == ("mapping-changed", True)
    assert loaded.names() == ["USER 1", "USER 2", "USER 3"]


def test_a_reader_that_holds_the_table_delays_its_own_mapping_alone(loaded: Copy, external_db: str) -> None:
    if loaded.kind != "postgres":
        pytest.skip("readers of files hold no table")
    text = loaded.file.read_text()
    loaded.write(**CREATED)
    loaded.file.with_name("humans.yaml").write_text(text.replace("people", "humans"))
    with psycopg.connect(external_db) as reader:
        reader.execute("SELECT * FROM people")
        result = loaded.settle()
        assert {m.mapping: m.error and m.error.code for m in result.mappings} == {
            "people": "table-in-use", "humans": None
        }  # fmt: skip
        assert loaded.run("SELECT count(*) FROM humans") == [(3,)]
    assert loaded.settle().error is None
    assert loaded.run("SELECT count(*) FROM people WHERE created IS NULL") == [(0,)]


def test_a_walk_that_is_cut_goes_on(loaded: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "PAGE", 1)
    loaded.write(**UPPER)
    pipeline = loaded.project.pipeline()
    stop = Stop()
    options = SyncOptions(batch_size=1000, on_rows=lambda mapping, rows: stop.set())
    (result,) = service.sync(pipeline, service.Scope(None), options, stop, service.Reports())
    assert result.interrupted
    assert loaded.names() == ["USER 1", "user 2", "user 3"]
    after, up_to = loaded.record()[1:]
    assert 0 < after < up_to
    outcome = loaded.project.run("verify", "--json")
    assert [check["error_code"] for check in outcome.json["checks"]] == ["resend-unfinished"]
    (result,) = sync(pipeline)
    assert [m.upserted for m in result.mappings] == [2]  # and not the first one again
    assert loaded.names() == ["USER 1", "USER 2", "USER 3"]


def test_what_changes_meanwhile_goes_first(loaded: Copy, source: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resend, "PAGE", 1)
    loaded.write(**UPPER)
    pipeline = loaded.project.pipeline()
    seen: list[list[str]] = []
    between = resend.Resend._send_page  # type: ignore[attr-defined]

    def send_page(self: resend.Resend, limit: int) -> Any:
        left = between(self, limit)
        if not seen:
            source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\' WHERE "displayName" = \'user 3\'')
            sequence(pipeline)
        seen.append(loaded.names() if loaded.kind != "duckdb" else [])  # which nobody else may open meanwhile
        return left

    monkeypatch.setattr(resend.Resend, "_send_page", send_page)
    assert [r.error for r in sync(pipeline)] == [None]
    if loaded.kind != "duckdb":
        assert seen[:2] == [["USER 1", "user 2", "user 3"], ["USER 1", "USER 2", "NEW"]]
    assert loaded.names() == ["USER 1", "USER 2", "NEW"]


def test_the_loop_takes_turns(loaded: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time a walk is queued again, and nothing is forgotten."""
    monkeypatch.setattr(resend, "PAGE", 1)
    monkeypatch.setattr(service, "RESEND_TIME", 0.0)
    loaded.write(**UPPER)
    pipeline = loaded.project.pipeline()
    with pipeline.open_session() as conn:
        service.entries.enqueue(conn, [MINE])
    monkeypatch.setattr(resend.Resend, "run", _one_page(resend.Resend.run))
    result = poll(pipeline)
    assert result.claimed == 3
    assert loaded.names() == ["USER 1", "USER 2", "USER 3"]
    assert (loaded.record()[1:], failures(pipeline)) == ((None, None), [])


def _one_page(run: Any) -> Any:
    def run_one_page(self: resend.Resend, between_pages: Any, deadline: float) -> bool:
        left = self._send_page(1)  # type: ignore[attr-defined]
        return left is None or (not left and run(self, between_pages, float("inf")))

    return run_one_page


def test_a_poller_that_starts_follows_a_change_at_once(loaded: Copy) -> None:
    """Nothing has changed in the source that would wake it."""
    poll(loaded.project.pipeline())
    loaded.write(**UPPER)
    outcome = loaded.project.run("poll")
    assert (outcome.code, "follows its mapping: the select has changed" in outcome.stderr) == (0, True)
    assert loaded.names() == ["USER 1", "USER 2", "USER 3"]


def test_a_mapping_that_waits_for_its_rebuild_holds_up_no_other(loaded: Copy, source: Connection) -> None:
    loaded.file.with_name("humans.yaml").write_text(loaded.file.read_text().replace("people", "humans"))
    assert loaded.settle().error is None
    loaded.write(columns=", created: timestamp", selected=', u."createdAt" AS created')
    add_user(source, displayName="user 4")
    result = loaded.settle()
    assert [(m.mapping, m.error and m.error.code) for m in result.mappings if m.error] == [
        ("people", "mapping-changed")
    ]
    assert loaded.run("SELECT count(*) FROM humans") == [(4,)]
    assert len(loaded.names()) == 3
    assert [failure.code for failure in failures(loaded.project.pipeline())] == ["mapping-changed"]


@pytest.mark.parametrize(
    "point", ["Resend._send_page:after", "BatchSender.remove_extra_rows:before", "Resend._finish:before"]
)
def test_a_kill_between_two_steps_costs_nothing(loaded: Copy, point: str) -> None:
    module = "stackctl.sync.engine.batches" if "Batch" in point else "stackctl.sync.engine.resend"
    loaded.write(where=" AND u.\"displayName\" <> 'user 2'", **UPPER)
    assert loaded.project.run("sync", "--all", point=f"{module}:{point}").code == -9
    assert loaded.record()[2] is not None
    assert loaded.project.run("sync", "--all").code == 0
    assert loaded.names() == ["USER 1", "USER 3"]
    assert loaded.record()[1:] == (None, None)


def test_a_row_that_is_refused_on_the_way_is_named_and_tried_again(loaded: Copy, source: Connection) -> None:
    if loaded.kind != "postgres":
        pytest.skip("the files have no table to add a check to")
    loaded.run("ALTER TABLE people ADD CHECK (name <> 'USER 2')")
    loaded.write(**UPPER)
    error = loaded.settle().error
    assert error is not None
    assert (error.code, "USER" in error.message, loaded.record()[1:]) == ("rows-refused", False, (None, None))
    assert loaded.names() == ["USER 1", "user 2", "USER 3"]
    loaded.run("ALTER TABLE people DROP CONSTRAINT people_name_check")
    assert loaded.settle().error is None
    assert loaded.names() == ["USER 1", "USER 2", "USER 3"]
    assert one(source, "SELECT count(*) FROM stackctl.refused_row") == 0


def test_a_table_that_is_changed_in_the_middle_of_a_page(
    loaded: Copy, source: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is whole or absent, the trouble is the mapping's own, and ends with it."""
    if loaded.kind == "duckdb":
        pytest.skip("nobody else may open the file meanwhile")
    changes = iter(["ALTER TABLE people RENAME COLUMN name TO nom"])
    apply = type(_open(loaded)).apply_batch

    def apply_batch(self: Any, *arguments: Any) -> Any:
        for change in changes:
            (loaded.run if loaded.kind == "postgres" else self._conn.execute)(change)
        return apply(self, *arguments)

    monkeypatch.setattr(type(_open(loaded)), "apply_batch", apply_batch)
    source.execute('UPDATE "ProjectUser" SET "displayName" = \'new\'')
    result = loaded.settle()
    assert [m.error and m.error.code for m in result.mappings] == ["table-differs"]
    if loaded.kind == "postgres":
        assert loaded.run("SELECT nom FROM people ORDER BY id") == [("user 1",), ("user 2",), ("user 3",)]
        loaded.run("ALTER TABLE people RENAME COLUMN nom TO name")
    assert loaded.settle().error is None  # SQLite's change went with the page
    assert loaded.names() == ["new", "new", "new"]


def _open(copy: Copy) -> Any:
    pipeline = copy.project.pipeline()
    target = pipeline.open_target(pipeline.databases[MINE][0])
    target.close()
    return target


# -- what the commands say


def test_the_files_are_compared_with_the_copies(loaded: Copy) -> None:
    run = loaded.project.run
    assert run("mappings", "diff").stdout == "1 copy, all the same\n"
    loaded.write(**UPPER)
    outcome = run("mappings", "diff")
    assert (outcome.code, "the select has changed" in outcome.stdout) == (1, True)
    (found,) = run("mappings", "diff", "--database", loaded.name, "--json").json["copies"]
    assert (found["mapping"], found["change"], found["reasons"]) == ("people", "resend", ["the select has changed"])
    assert loaded.names() == ["user 1", "user 2", "user 3"]
    loaded.run("DROP TABLE _stack_sync_mapping")
    assert run("mappings", "diff", "--json").json["copies"][0]["change"] == "unknown"
    text = loaded.file.read_text()
    loaded.file.unlink()
    loaded.file.with_name("other.yaml").write_text(text.replace("people", "other"))
    found = run("mappings", "diff", "--json").json["copies"]
    assert [(one["mapping"], one["change"]) for one in found] == [("other", "new"), ("people", "unfed")]


def test_a_change_that_is_not_followed_yet_is_told(loaded: Copy) -> None:
    run = loaded.project.run
    assert run("status", "--check").code == 0
    loaded.write(**UPPER)
    (database,) = run("status", "--json").json["tenancies"][0]["databases"]
    assert [copy["change"] for copy in database["mappings"]] == ["the select has changed"]
    outcome = run("status", "--check")
    assert (outcome.code, "the select has changed" in outcome.stderr) == (1, True)
    assert "the mapping people has changed: the select has changed" in run("doctor").stdout
    (check,) = run("verify", "--json").json["checks"]
    assert check["error_code"] == "mapping-changed"
    loaded.write(columns=", created: timestamp", selected=', u."createdAt" AS created')
    found = [one for one in run("doctor", "--json").json["checks"] if "has changed" in one["message"]]
    assert [(one["status"], "--rebuild people" in one["hint"]) for one in found] == [("error", True)]


def test_how_much_is_left_to_send_again(loaded: Copy) -> None:
    loaded.write(**UPPER)
    loaded.project.run("sync", "--all", point="stackctl.sync.engine.resend:Resend._send_page:before")
    (database,) = loaded.project.run("status", "--json").json["tenancies"][0]["databases"]
    assert [(copy["change"], copy["resend_left"]) for copy in database["mappings"]] == [(None, 3)]
    assert "sending again: people: 3 rows left" in loaded.project.run("status").stdout
    assert loaded.project.run("status", "--check", "--max-backlog", "2").code == 1


def test_a_copy_that_nothing_feeds_is_named(loaded: Copy) -> None:
    """By a mapping's file that is gone, and by a shorter list of mappings."""
    run = loaded.project.run
    loaded.file.with_name("humans.yaml").write_text(loaded.file.read_text().replace("people", "humans"))
    assert loaded.settle().error is None
    loaded.file.unlink()
    for shorter in (False, True):
        if shorter:
            loaded.write()
            loaded.project.settings["tenancies"][str(MINE)]["external_databases"][loaded.name]["mappings"] = ["humans"]
        assert "nothing feeds the copy of people" in run("doctor").stdout
        assert "fed by no mapping: people" in run("status").stdout
        assert run("status", "--json").json["tenancies"][0]["databases"][0]["unfed"] == ["people"]
        outcome = run("verify", "--json")
        assert (outcome.code, [one["mapping"] for one in outcome.json["unfed"]]) == (0, ["people"])
        assert "nothing feeds the copy of people" in run("verify").stderr
        assert "nothing feeds the copy of people" in run("sync", "--all").stderr
    with loaded.project.pipeline().open_session() as conn:
        service.entries.enqueue(conn, [MINE])
    outcome = run("run", "--max-duration", "1500ms")
    assert (outcome.code, "nothing feeds the copy of people" in outcome.stderr) == (0, True)
