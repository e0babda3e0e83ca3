"""How a tenancy is named, and what reaches the operated database: `tenancies list`, `db url`, `db psql`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stackctl.core.errors import ServiceError
from stackctl.sync.queue import retries
from tests.backend import BRANCHES, MINE, OTHER, add_user, insert

if TYPE_CHECKING:
    from pathlib import Path

    from tests.backend import Project

Connection = psycopg.Connection[Any]
LONE = "c0ffee00-0000-4000-8000-000000000001"
COUSIN = "c0ffee11-0000-4000-8000-000000000001"


@pytest.fixture
def named(project: Project, source: Connection) -> Project:
    """A project of one tenancy, beside the two of project p; and one whose id begins like the first's."""
    for project_id, tenancy in (("lone", LONE), ("c0", COUSIN)):
        values = {"updatedAt": "now", "displayName": f"The {project_id}", "isProductionMode": False}
        insert(source, "Project", {"id": project_id} | values)
        insert(source, "Tenancy", {"id": tenancy, "updatedAt": "now", "projectId": project_id, "branchId": "main",
                                   "hasNoOrganization": "TRUE"})  # fmt: skip
    source.commit()
    return project.sqlite(MINE)


def test_a_tenancy_is_named_by_its_id_the_beginning_of_it_or_its_project(named: Project) -> None:
    for name, found in (
        (LONE, LONE),
        (LONE.upper(), LONE),
        ("C0FFEE0", LONE),
        ("c0ffee00-00", LONE),
        ("lone", LONE),
        ("c0", COUSIN),
    ):
        done = named.run("enqueue", name, "--dry-run", "--json")
        assert (name, done.json["tenancies"]) == (name, [found])
    both = named.run("enqueue", str(MINE), "--tenancy", "lone", "--tenancy", LONE, "--dry-run", "--json").json
    assert both["tenancies"] == sorted([str(MINE), LONE])


@pytest.mark.parametrize("name", ["", " ", "%", "_", "c0ffee%", "c0ffee00-0000-4000-8000-00000000000_", "zz", "c0f-fee",
                                  "p%", "P", "c0ffee00-0000-4000-8000-0000000000010", "\u00e9", "c0\x01"])  # fmt: skip
def test_what_fits_nothing_is_refused(named: Project, name: str) -> None:
    for line in (("enqueue", name), ("users", "show", "ada@example.com", "--tenancy", name),
                 ("refunds", "list", "--tenancy", name), ("verify", "--tenancy", name)):  # fmt: skip
        done = named.run(*line, "--json")
        assert (done.code, done.json["error"]["code"]) == (2, "unknown-tenancy"), line


def test_a_beginning_that_fits_two_and_a_project_of_two_are_told_apart_by_nobody(named: Project) -> None:
    several = {"c0ffee": {LONE, COUSIN}, "p": {str(MINE), str(OTHER)}}
    for name, fits in several.items():
        for line in (("status", "--tenancy", name), ("sync", name), ("fuse", "off", "--tenancy", name),
                     ("queue", "list", "--tenancy", name), ("backfill", "users", "--tenancy", name),
                     ("rules", "backtest", "--tenancy", name, "--rules", "rules.yaml")):  # fmt: skip
            (named.directory / "rules.yaml").write_text("rules: {}")
            error = named.run(*line, "--json").json["error"]
            assert (error["code"], set(error["details"]["tenancies"])) == ("ambiguous-tenancy", fits), line
    done = named.run("payments", "test-mode")
    assert done.code == 2
    assert f"\n  {LONE} (project lone, branch main)\n" in done.stderr
    assert "hint: say which with --tenancy\n" in done.stderr


def test_the_list_has_projects_branches_and_external_databases(named: Project) -> None:
    found = {one["tenancy"]: one for one in named.run("tenancies", "list", "--json").json["tenancies"]}
    assert set(found) == {LONE, COUSIN, str(MINE), str(OTHER)}
    assert found[str(MINE)]["databases"] == ["local"] and found[LONE]["databases"] == []
    assert found[LONE] | {"databases": 0} == {"tenancy": LONE, "project": "lone", "project_name": "The lone",
                                              "branch": "main", "organization": None, "databases": 0}  # fmt: skip
    assert found[str(OTHER)]["branch"] == BRANCHES[OTHER]
    shown = named.run("tenancies", "list", "--limit", "1")
    assert COUSIN in shown.stdout and LONE not in shown.stdout and "--limit" in shown.stderr


def test_the_url_is_for_other_programs_and_keeps_the_password(
    named: Project, migrated_db: str, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = named.run("db", "url")
    assert connect(done.stdout.strip()).info.dbname == connect(migrated_db).info.dbname
    secret = "postgresql://ada:geheim%2F1@db.example.com:6432/shop?sslmode=require"
    hidden = named.run("db", "url", "--database-url", secret)
    assert hidden.stdout == "postgresql://ada@db.example.com:6432/shop?sslmode=require\n"
    assert "--show-password" in hidden.stderr
    assert named.run("db", "url", "--database-url", secret, "--show-password").stdout == secret + "\n"
    assert named.run("db", "url", "--database-url", secret, "--json").json == {
        "url": hidden.stdout.strip(), "password_hidden": True, "embedded": False}  # fmt: skip
    several = "postgresql://ada@[::1]:1,b:2/shop"
    assert named.run("db", "url", "--database-url", several).stdout == several + "\n"
    monkeypatch.setenv("PGPORT", "7")
    assert named.run("db", "url", "--database-url", "user=ada dbname=shop").stdout == "postgresql://ada@:7/shop\n"


def test_psql_is_told_the_connection_in_its_environment(named: Project, tmp_path: Path, monkeypatch: Any) -> None:
    told = tmp_path / "told.json"
    fake = tmp_path / "bin" / "psql"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n/usr/bin/env | grep ^PG > {told}; printf '%s\\n' \"$@\" >> {told}; exit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    url = "postgresql://ada:geheim@db.example.com:6432/shop?sslmode=require&tcp_user_timeout=9"
    done = named.run("db", "psql", "--database-url", url, "--", "-c", "SELECT 1", fresh=True)
    assert (done.code, done.stdout, done.stderr) == (3, "", "")
    lines = told.read_text().splitlines()
    assert lines[-3:] == ["--dbname=tcp_user_timeout=9", "-c", "SELECT 1"]
    assert set(lines[:-3]) == {"PGUSER=ada", "PGPASSWORD=geheim", "PGHOST=db.example.com", "PGPORT=6432",
                               "PGDATABASE=shop", "PGSSLMODE=require"}  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = named.run("db", "psql", "--database-url", url, "--json")
    assert (missing.code, json.loads(missing.stdout)["error"]["code"]) == (4, "psql-missing")


def test_psql_on_an_embedded_server_that_runs_for_it(project: Project) -> None:
    project.settings["database"] = {"url": "embedded:pg?dbname=shop"}
    done = project.run("db", "psql", "--", "-XAtc", "SELECT current_database()", fresh=True)
    assert (done.code, done.stdout) == (0, "shop\n"), done.stderr
    assert project.run("db", "psql", "--", "-Xc", "SELECT nothing", fresh=True).code == 1


def test_a_dry_run_of_the_pipelines_commands_changes_nothing(project: Project, source: Connection) -> None:
    project.sqlite(MINE)
    add_user(source)
    source.commit()
    assert project.run("sequence").code == project.run("sync", "--all").code == 0
    add_user(source)
    source.commit()
    project.run("sequence")
    retries.record_failure(source, MINE, "gone", ServiceError("no", code="unreachable"), scheduled=True)
    source.commit()
    tables = ("stackctl.delivery", "stackctl.pause", '"OutgoingRequest"', '"ExternalDbSyncMetadata"')

    def state() -> list[Any]:
        rows = [source.execute(f"SELECT * FROM {table}").fetchall() for table in tables]
        source.rollback()
        return [*rows, (project.directory / "copy.db").read_bytes()]

    before = state()
    planned = project.run("sync", MINE, "--mapping", "users", "--dry-run", "--json").json
    assert planned["databases"][0]["mappings"] == [{"mapping": "users", "behind": 1}]
    assert project.run("sync", "--all", "--dry-run").stdout.endswith("\tusers\t1\n")
    assert project.run("sync", "--all", "--dry-run", "--full").code == 2
    assert project.run("verify", "--repair", "--dry-run").code in (0, 1)
    for line in (("fuse", "off", "poller"), ("fuse", "off", "--database", "local"), ("fuse", "on", "poller"),
                 ("fuse", "on", "--database", "local"), ("queue", "retry", "gone"), ("queue", "forget", "--all"),
                 ("queue", "forget", "--tenancy", MINE), ("enqueue", "--all")):  # fmt: skip
        assert project.run(*line, "--dry-run").code == 0, line
    assert project.run("fuse", "off", "--database", "nothing", "--dry-run").code == 2
    assert state() == before
