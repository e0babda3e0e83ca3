"""stackctl migrate lint, as a developer and a CI job run it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from tests.backend import Project

if TYPE_CHECKING:
    from pathlib import Path

CLEAN = "CREATE TABLE team (id bigint PRIMARY KEY);\n"
BAD = "CREATE INDEX team_slug ON team (slug);\nDROP TABLE person;\n"
ADVICE = "CREATE TABLE seen (at timestamp);\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without a database, whose migrations are in its own folder."""
    made = Project(tmp_path)
    made.settings["migrations_dir"] = "db"
    (tmp_path / "db").mkdir()
    write(made, 1, "team", CLEAN)
    return made


def write(project: Project, number: int, name: str, text: str) -> Path:
    path = project.directory / "db" / f"2026010100000{number}_{name}.sql"
    path.write_text(text, encoding="utf-8")
    return path


def git(project: Project, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=project.directory, check=True, capture_output=True)


def rules(document: dict[str, list[dict[str, str]]]) -> list[tuple[str, str]]:
    return [(finding["file"].split("_")[-1], finding["rule"]) for finding in document["findings"]]


@pytest.mark.quick
def test_findings_make_it_fail_and_are_told_with_place_reason_and_safe_way(project: Project) -> None:
    clean = project.run("migrate", "lint")
    assert (clean.code, clean.stdout) == (0, "1 file: nothing found\n")
    write(project, 2, "bad", BAD)
    found = project.run("migrate", "lint")
    assert found.code == 1
    assert found.stdout == (
        "db/20260101000002_bad.sql:1:1: error index-not-concurrent\n"
        "  CREATE INDEX team_slug on team\n"
        "  why: until it is done, every INSERT, UPDATE and DELETE on the table waits\n"
        "  safe way:\n"
        "    -- stackctl:split\n"
        "    -- stackctl:outside-transaction\n"
        "    CREATE INDEX CONCURRENTLY team_slug ON team (slug);\n"
        "\n"
        "db/20260101000002_bad.sql:2:12: error drop-table\n"
        "  table person is dropped\n"
        "  why: the previous version of the application runs until the new one has taken over, and still uses it\n"
        "  safe way:\n"
        "    -- one release later:\n"
        "    -- stackctl:allow drop-table no released version uses it: …\n"
        "    DROP TABLE person;\n"
        "\n"
        "2 files: 2 errors. To let one pass: -- stackctl:allow RULE reason\n"
    )
    assert found.stderr == ""


def test_advice_does_not_fail(project: Project) -> None:
    write(project, 2, "advice", ADVICE)
    found = project.run("migrate", "lint", "--json")
    assert found.code == 0
    assert found.json["ok"] is True
    assert [finding["severity"] for finding in found.json["findings"]] == ["advice"]


@pytest.mark.parametrize("flags", [("--json",), ("--format", "json"), ("--json", "--format", "json")])
def test_json_is_one_document_of_the_promised_shape(project: Project, flags: tuple[str, ...]) -> None:
    write(project, 2, "bad", BAD)
    found = project.run("migrate", "lint", *flags)
    assert found.code == 1
    assert set(found.json) == {"ok", "findings"}
    assert found.json["ok"] is False
    first = found.json["findings"][0]
    assert list(first) == ["file", "line", "column", "rule", "severity", "message", "suggestion"]
    assert (first["file"], first["line"], first["column"]) == ("db/20260101000002_bad.sql", 1, 1)


def test_github_gets_a_command_a_finding_and_nothing_else_on_stdout(project: Project) -> None:
    write(project, 2, "bad", BAD)
    write(project, 3, "advice", ADVICE)
    found = project.run("migrate", "lint", "--format", "github")
    assert found.code == 1
    lines = found.stdout.splitlines()
    assert lines[0].startswith(
        "::error file=db/20260101000002_bad.sql,line=1,col=1,title=index-not-concurrent::CREATE INDEX team_slug on team"
    )
    assert "%0A" in lines[0]
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::notice"]
    assert "2 errors, 1 advice" in found.stderr


def test_the_bundled_set_is_clean_where_no_configuration_is(tmp_path: Path) -> None:
    assert Project(tmp_path).run("migrate", "lint").code == 0


def test_a_file_is_judged_after_those_it_follows(project: Project) -> None:
    write(project, 2, "check", "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID;")
    write(project, 3, "validate", "ALTER TABLE t VALIDATE CONSTRAINT c;")
    last = write(project, 4, "set", "ALTER TABLE t ALTER a SET NOT NULL;")
    assert project.run("migrate", "lint", last).code == 0
    elsewhere = project.directory / "draft.sql"
    elsewhere.write_text(last.read_text(encoding="utf-8"), encoding="utf-8")
    alone = project.run("migrate", "lint", "draft.sql", "--json")
    assert rules(alone.json) == [("draft.sql", "set-not-null")]


def test_folders_of_the_other_layout_are_read_too(project: Project) -> None:
    folder = project.directory / "prisma" / "20260101000000_first"
    folder.mkdir(parents=True)
    (folder / "migration.sql").write_text(BAD, encoding="utf-8")
    for argument in ("prisma", "prisma/20260101000000_first/migration.sql"):
        found = project.run("migrate", "lint", argument, "--json")
        assert [finding["file"] for finding in found.json["findings"]] == [
            "prisma/20260101000000_first/migration.sql"
        ] * 2


# -- --base


def test_base_keeps_what_the_branch_added_or_changed(project: Project) -> None:
    write(project, 2, "old", BAD)
    write(project, 3, "edited", CLEAN)
    write(project, 4, "deleted", BAD)
    git(project, "init", "-b", "main")
    git(project, "add", ".")
    git(project, "commit", "-m", "base")
    git(project, "checkout", "-b", "work")
    write(project, 3, "edited", BAD)
    (project.directory / "db" / "20260101000004_deleted.sql").unlink()
    write(project, 5, "committed ü", BAD)
    git(project, "add", ".")
    git(project, "commit", "-m", "work")
    write(project, 6, "untracked", BAD)
    # What the other branch did since is not this branch's doing.
    git(project, "checkout", "-q", "main")
    write(project, 7, "theirs", BAD)
    git(project, "add", "db/20260101000007_theirs.sql")
    git(project, "commit", "-m", "theirs")
    git(project, "checkout", "-q", "work")

    found = project.run("migrate", "lint", "--base", "main", "--json")
    assert found.code == 1
    assert {name for name, _ in rules(found.json)} == {"edited.sql", "committed ü.sql", "untracked.sql"}
    one = project.run("migrate", "lint", "db/20260101000002_old.sql", "--base", "main")
    assert (one.code, one.stdout) == (0, "no file to look at\n")


def test_base_says_what_is_wrong_with_the_repository(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.directory.parent))
    none = project.run("migrate", "lint", "--base", "main", "--json")
    assert (none.code, none.json["error"]["code"]) == (5, "not-a-git-repository")
    git(project, "init", "-b", "main")
    git(project, "add", ".")
    git(project, "commit", "-m", "base")
    for ref in ("nowhere", "--output=x", "", "HEAD:db"):
        unknown = project.run("migrate", "lint", f"--base={ref}", "--json")
        assert (unknown.code, unknown.json["error"]["code"]) == (2, "unknown-git-ref"), ref
    git(project, "checkout", "--orphan", "island")
    git(project, "commit", "-m", "island")
    apart = project.run("migrate", "lint", "--base", "main", "--json")
    assert (apart.code, apart.json["error"]["code"]) == (5, "no-merge-base")
    monkeypatch.setenv("PATH", str(project.directory))
    missing = project.run("migrate", "lint", "--base", "main", "--json")
    assert (missing.code, missing.json["error"]["code"]) == (5, "git-missing")


# -- which rules are asked


def ids(project: Project, *arguments: str) -> list[str]:
    return [finding["rule"] for finding in project.run("migrate", "lint", "--json", *arguments).json["findings"]]


def test_rules_are_chosen_by_flags(project: Project) -> None:
    write(project, 2, "bad", BAD)
    write(project, 3, "advice", ADVICE)
    assert ids(project) == ["index-not-concurrent", "drop-table", "timestamp-without-time-zone"]
    assert ids(project, "--rule", "drop-table", "--rule", "json-type") == ["drop-table"]
    assert ids(project, "--exclude", "drop-table", "--exclude", "index-not-concurrent") == [
        "timestamp-without-time-zone"
    ]
    assert project.run("migrate", "lint", "--rule", "json-type").code == 0
    for flag in ("--rule", "--exclude"):
        unknown = project.run("migrate", "lint", flag, "drop-tabel", "--json")
        assert (unknown.code, unknown.json["error"]["code"]) == (2, "unknown-rule")
        assert unknown.json["error"]["hint"] == "did you mean drop-table?"


def test_a_file_that_can_t_be_read_is_reported_whichever_rules_are_asked(project: Project) -> None:
    write(project, 2, "bad", "SELECT 'never closed")
    assert ids(project, "--rule", "drop-table") == ["unreadable-file"]
    assert ids(project, "--exclude", "unreadable-file") == []


def test_rules_are_chosen_by_the_configuration(project: Project) -> None:
    write(project, 2, "bad", BAD)
    write(project, 3, "advice", ADVICE * 2)
    severity = {"index-not-concurrent": "advice", "timestamp-without-time-zone": "error"}
    project.settings["migrations"] = {"lint": {"disable": ["drop-table"], "severity": severity}}
    found = project.run("migrate", "lint", "--json")
    assert [(f["rule"], f["severity"]) for f in found.json["findings"]] == [
        ("index-not-concurrent", "advice"),
        ("timestamp-without-time-zone", "error"),
        ("timestamp-without-time-zone", "error"),
    ]
    assert found.code == 1
    assert ids(project, "--rule", "drop-table") == ["drop-table"]
    shown = project.run("config", "show", "--json").json["settings"]
    assert [(one["key"], one["value"]) for one in shown if one["key"].startswith("migrations.lint")] == [
        ("migrations.lint.disable", "drop-table"),
        ("migrations.lint.severity", "index-not-concurrent: advice, timestamp-without-time-zone: error"),
        ("migrations.lint.from", None),
    ]


def test_a_comment_about_a_rule_that_is_not_asked_is_not_unused(project: Project) -> None:
    write(project, 2, "commented", "-- stackctl:allow drop-table of a test\nDROP TABLE person;\n")
    project.settings["migrations"] = {"lint": {"disable": ["drop-table"]}}
    assert ids(project) == []
    assert ids(project, "--rule", "allow-unused") == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"disable": ["drop-tabel"]}, "stackctl.yaml:5: migrations.lint.disable: there is no rule drop-tabel"),
        ({"severity": {"drop-tabel": "error"}}, "migrations.lint.severity: there is no rule drop-tabel"),
        ({"severity": {"drop-table": "loud"}}, "migrations.lint.severity: drop-table: expected one of error, warning"),
        ({"severity": ["drop-table"]}, "migrations.lint.severity: expected a block of names, got a list"),
        ({"disable": "drop-table"}, "migrations.lint.disable: expected a list of names"),
        ({"from": "the first"}, "migrations.lint.from: expected a version, got 'the first'"),
    ],
)
def test_a_configuration_that_is_wrong_is_named_by_its_place(
    project: Project, settings: dict[str, object], says: str
) -> None:
    project.settings["migrations"] = {"lint": settings}
    wrong = project.run("migrate", "lint")
    assert (wrong.code, wrong.stdout) == (3, "")
    assert says in wrong.stderr
    if "there is no rule" in says:
        assert "hint: did you mean drop-table?" in wrong.stderr


def test_older_files_are_read_and_not_reported(project: Project) -> None:
    write(
        project, 2, "old", "CREATE INDEX i ON t (a);\nALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID;"
    )
    write(project, 3, "validate", "ALTER TABLE t VALIDATE CONSTRAINT c;")
    write(project, 4, "set", "ALTER TABLE t ALTER a SET NOT NULL;\nDROP TABLE person;\n")
    project.settings["migrations"] = {"lint": {"from": 20260101000004}}
    assert ids(project) == ["drop-table"]
    assert project.run("migrate", "lint").stdout.endswith(
        "1 file: 1 error. To let one pass: -- stackctl:allow RULE reason\n"
    )
    assert "index-not-concurrent" in ids(project, "db/20260101000002_old.sql")


def test_the_version_of_the_server_is_a_flag_s_or_the_database_s(project: Project, migrated_db: str) -> None:
    write(project, 2, "default", "ALTER TABLE person ADD COLUMN age int DEFAULT 1;")
    assert ids(project) == []
    assert ids(project, "--server-version", "10") == ["volatile-default"]
    assert ids(project, "--database-url", migrated_db) == []
    assert ids(project, "--database-url", migrated_db, "--server-version", "10") == ["volatile-default"]
    assert project.run("migrate", "lint", "--server-version", "9").code == 2


# -- for other programs


def test_gitlab_gets_a_list_whose_fingerprints_outlive_lines_that_are_added(project: Project) -> None:
    assert project.run("migrate", "lint", "--format", "gitlab").json == []
    write(project, 2, "bad", BAD + "DROP TABLE person;\n")
    found = project.run("migrate", "lint", "--format", "gitlab")
    assert found.code == 1
    assert "3 errors" in found.stderr
    assert list(found.json[0]) == ["description", "check_name", "fingerprint", "severity", "location"]
    assert found.json[1]["location"] == {"path": "db/20260101000002_bad.sql", "lines": {"begin": 2}}
    assert {one["severity"] for one in found.json} == {"critical"}
    prints = [one["fingerprint"] for one in found.json]
    assert len(set(prints)) == 3
    write(project, 2, "bad", "\n\n" + BAD + "DROP TABLE person;\n")
    again = project.run("migrate", "lint", "--format", "gitlab").json
    assert [one["fingerprint"] for one in again] == prints
    assert again[0]["location"]["lines"] == {"begin": 3}


def test_junit_gets_a_case_a_finding_and_one_for_each_file_without(project: Project) -> None:
    write(project, 2, 'bad ]]> <&" ü', BAD.replace("person", '"a<b>\x07"'))
    write(project, 3, "advice", ADVICE)
    found = project.run("migrate", "lint", "--format", "junit")
    assert found.code == 1
    suite = ElementTree.fromstring(found.stdout)[0]
    assert suite.attrib == {"name": "stackctl migrate lint", "tests": "4", "failures": "2", "errors": "0"}
    assert [[part.tag for part in case] for case in suite] == [[], ["failure"], ["failure"], ["system-out"]]
    assert suite[1].attrib["name"] == "index-not-concurrent at 1:1"
    assert "a<b>\\x07" in suite[2][0].attrib["message"]


def test_sarif_names_rules_places_levels_and_fingerprints(project: Project) -> None:
    write(project, 2, "bad ü", BAD)
    write(project, 3, "advice", ADVICE)
    found = project.run("migrate", "lint", "--format", "sarif", "--exclude", "json-type")
    assert found.code == 1
    assert found.json["version"] == "2.1.0"
    (run,) = found.json["runs"]
    driver, results = run["tool"]["driver"], run["results"]
    assert driver["name"] == "stackctl"
    assert "json-type" not in {rule["id"] for rule in driver["rules"]}
    for result in results:
        rule = driver["rules"][result["ruleIndex"]]
        assert (rule["id"], rule["defaultConfiguration"]["level"]) == (result["ruleId"], result["level"])
        assert rule["shortDescription"]["text"]
        assert "safe way:" in result["message"]["text"]
    assert [result["level"] for result in results] == ["error", "error", "note"]
    assert results[1]["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "db/20260101000002_bad%20%C3%BC.sql"},
                "region": {"startLine": 2, "startColumn": 12},
            }
        }
    ]
    assert len({result["partialFingerprints"]["finding/v1"] for result in results}) == 3


# -- bad usage, and the database


def test_bad_usage(project: Project) -> None:
    absent = project.run("migrate", "lint", "absent.sql", "--json")
    assert (absent.code, absent.json["error"]["code"]) == (2, "no-such-file")
    for other in ("github", "gitlab", "junit", "sarif"):
        assert project.run("migrate", "lint", "--json", "--format", other).code == 2
    assert project.run("migrate", "lint", "--format", "xml").code == 2


def test_no_database_is_touched_unless_it_is_to_be_asked(project: Project, tmp_path: Path) -> None:
    project.settings["database"] = {"url": "postgresql://nobody@127.0.0.1:1/none"}
    assert project.run("migrate", "lint").code == 0
    asked = project.run("migrate", "lint", "--ask-database", "--json")
    assert (asked.code, asked.json["error"]["code"]) == (4, "unreachable")
    given = project.run("migrate", "lint", "--database-url", "postgresql://nobody@127.0.0.1:1/none", "--json")
    assert (given.code, given.json["error"]["code"]) == (4, "unreachable")


def test_a_database_that_is_given_is_asked(project: Project, migrated_db: str) -> None:
    write(project, 2, "index", 'CREATE INDEX ON "Team" ("displayName");\n')
    assert project.run("migrate", "lint").code == 1
    asked = project.run("migrate", "lint", "--database-url", migrated_db, "--json")
    assert asked.code == 0
    assert asked.json["findings"][0]["severity"] == "advice"
    assert '"Team" (' in asked.json["findings"][0]["message"]
