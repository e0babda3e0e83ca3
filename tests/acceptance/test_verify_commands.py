"""The installed `verify` and `backfill`: documents, exit codes, what is said."""

from __future__ import annotations

import sqlite3
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.backend import MAPPINGS, MINE, OTHER, Connection, Project, add_many_users, populate, settle

if TYPE_CHECKING:
    from tests.conftest import Connect

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"
CHECK = {"tenancy", "database", "mapping", "source_rows", "target_rows", "missing", "extra", "different", "repaired"}


@pytest.fixture
def both(project: Project, source: Connection, external_db: str) -> Project:
    """A PostgreSQL for one tenancy, a SQLite file for the other, both in step."""
    project.postgres(MINE, external_db).sqlite(OTHER)
    populate(source, MINE)
    populate(source, OTHER)
    settle(project.pipeline())
    return project


@pytest.mark.quick
def test_verify_and_repair(both: Project, external_db: str, connect: Connect) -> None:
    equal = both.run("verify", "--json")
    assert (equal.code, equal.json["ok"], equal.stderr) == (0, True, "")
    assert [c["mapping"] for c in equal.json["checks"]] == [*MAPPINGS, *MAPPINGS]
    assert all(set(check) >= CHECK for check in equal.json["checks"])
    connect(external_db, autocommit=True).execute("DELETE FROM users")
    file = sqlite3.connect(both.directory / "copy.db")
    with file:
        file.execute("UPDATE teams SET display_name = 'damaged'")
    file.close()
    found = both.run("verify", "--json")
    assert (found.code, found.json["ok"]) == (1, False)
    differing = {
        (c["tenancy"], c["mapping"]): (c["source_rows"], c["target_rows"], c["missing"], c["different"], c["repaired"])
        for c in found.json["checks"]
        if c["status"] != "ok"
    }
    assert differing == {(str(MINE), "users"): (1, 0, 1, 0, 0), (str(OTHER), "teams"): (1, 1, 0, 1, 0)}
    text = both.run("verify", MINE, "--mapping", "users")
    assert text.code == 1
    assert "1 row in 1 copy compared: 1 difference" in text.stdout
    assert "--repair" in text.stderr
    narrowed = both.run("verify", OTHER, "--database", "local", "--mapping", "teams", "--repair", "--json")
    assert (narrowed.code, [c["repaired"] for c in narrowed.json["checks"]]) == (0, [1])
    names = ["--mapping", "teams", "--database", "local", "--mapping", "users", "--database", "analytics"]
    assert [c["mapping"] for c in both.run("verify", *names, "--json").json["checks"]] == ["teams", "users"] * 2
    rest = both.run("verify", "--repair")
    assert rest.code == 0
    assert "22 rows in 22 copies compared: 1 difference, 1 repaired" in rest.stdout
    assert both.run("verify").code == 0


def test_one_database_that_is_away(both: Project) -> None:
    both.postgres(OTHER, UNREACHABLE, name="away")
    outcome = both.run("verify", "--json")
    assert (outcome.code, outcome.json["ok"]) == (1, False)
    by_database: dict[str, set[tuple[str, str | None]]] = {}
    for check in outcome.json["checks"]:
        by_database.setdefault(check["database"], set()).add((check["status"], check["error_code"]))
    assert by_database == {
        "analytics": {("ok", None)}, "local": {("ok", None)}, "away": {("error", "unreachable")},
    }  # fmt: skip
    text = both.run("verify")
    assert text.stderr.count("can't be reached") == 1, "once for the database, not for each mapping"
    shown = both.run("status", "--tenancy", OTHER).stdout
    assert shown.count("mapping\tcursor") == 1, "no headings without rows"
    sent = both.run("backfill", "users", "--json")
    assert (sent.code, sent.json["ok"], sent.json["rows"]) == (1, False, 2)
    assert [(d["database"], d["status"]) for d in sent.json["databases"]] == [
        ("analytics", "ok"), ("local", "ok"), ("away", "error"),
    ]  # fmt: skip


def test_the_operated_database_is_away(both: Project) -> None:
    both.settings["database"]["url"] = UNREACHABLE
    for command in (["verify"], ["backfill", "users"]):
        outcome = both.run(*command, "--json")
        assert (outcome.code, outcome.json["error"]["code"]) == (4, "unreachable")


def test_a_database_of_another_tenancy(both: Project, external_db: str) -> None:
    both.settings["tenancies"] = {}
    both.postgres(OTHER, external_db)
    for command in (["verify", "--repair"], ["backfill", "users"]):
        outcome = both.run(*command)
        assert outcome.code == 5, outcome
        assert "already holds the data of tenancy" in outcome.stderr


def test_bad_usage(both: Project) -> None:
    for arguments, code in (
        (("verify", "no-uuid"), "unknown-tenancy"),
        (("verify", uuid.UUID(int=99)), "unknown-tenancy"),
        (("verify", "--database", "analitics"), "unknown-database"),
        (("verify", "--database", "local", "--database", "analitics"), "unknown-database"),
        (("verify", "--mapping", "user"), "unknown-mapping"),
        (("verify", "--mapping", "users", "--mapping", "user"), "unknown-mapping"),
        (("backfill", "user"), "unknown-mapping"),
        (("backfill", "users", "--tenancy", uuid.UUID(int=99)), "unknown-tenancy"),
        (("backfill", "users", "--rate", "fast"), "usage"),
        (("backfill", "users", "--rate", "0"), "usage"),
        (("backfill",), "usage"),
    ):
        outcome = both.run(*arguments, "--json")
        assert (outcome.code, outcome.json["error"]["code"]) == (2, code), arguments


def test_backfill(both: Project, source: Connection) -> None:
    add_many_users(source, 20)
    settle(both.pipeline())
    planned = both.run("backfill", "users", "--dry-run", "--json").json
    assert (planned["ok"], planned["rows"], [d["status"] for d in planned["databases"]]) == (
        True, 22, ["planned", "planned"],
    )  # fmt: skip
    outcome = both.run("backfill", "users", "--tenancy", MINE, "--rate", "1000/s", "--json")
    assert outcome.code == 0
    (database,) = outcome.json.pop("databases")
    assert outcome.json | {"databases": []} == {"ok": True, "mapping": "users", "rows": 21, "databases": []}
    assert database | {"duration_ms": 0} == {
        "tenancy": str(MINE), "database": "analytics", "rows": 21, "batches": 1, "resumed": False, "status": "ok",
        "error": None, "error_code": None, "duration_ms": 0,
    }  # fmt: skip
    text = both.run("backfill", "teams")
    assert (text.code, text.stderr) == (0, "")
    assert text.stdout.splitlines()[-1] == "2 rows of teams sent"


def test_without_any_external_database(project: Project) -> None:
    assert project.run("verify").stdout == "no external database is configured\n"
    assert project.run("verify", "--json").json == {"ok": True, "checks": [], "unfed": []}
    assert project.run("backfill", "users").stdout == "no external database takes users\n"
