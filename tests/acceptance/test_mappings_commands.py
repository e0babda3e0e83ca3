"""stackctl mappings: the bundled ones, and a bad file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import forked
from tests.backend import MAPPINGS, MINE, Project

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: people
source: ProjectUser
target: people
key: {id: projectUserId}
columns: {id: uuid, name: text null}
select: |
  SELECT u."projectUserId" AS id, u."displayName" AS name
  FROM "ProjectUser" AS u WHERE u."tenancyId" = :tenancy_id
"""


@pytest.fixture
def own(project: Project) -> Path:
    """The folder of the project's own mappings."""
    folder = project.directory / "mappings"
    folder.mkdir()
    (folder / "people.yaml").write_text(GOOD)
    project.settings["mappings_dir"] = "./mappings"
    return folder


@pytest.mark.quick
def test_the_bundled_set_is_listed_and_checks_clean_against_the_database(project: Project) -> None:
    listed = project.run("mappings", "list", "--json").json["mappings"]
    assert tuple(mapping["name"] for mapping in listed) == MAPPINGS
    assert project.run("mappings", "check", "--json").json == {"ok": True, "findings": []}


def test_a_mapping_of_ones_own(project: Project, own: Path) -> None:
    assert project.run("mappings", "check").code == 0
    compiled = project.run("mappings", "compile", "people", "--dialect", "sqlite", "--json").json
    assert 'CREATE TABLE IF NOT EXISTS "people"' in compiled["target"]["create_table"]
    odd = "# \t:x: postgresql://u:pw@h/d é \r\n" + GOOD + "# no end"
    (own / "people.yaml").write_bytes(odd.encode())
    with (project.directory / "shown").open("wb") as file:
        forked.run(["mappings", "show", "people"], cwd=project.directory, stdout=file)
    assert (project.directory / "shown").read_bytes() == odd.encode()
    assert project.run("mappings", "show", "people", "--json").json["text"] == odd


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ('u."projectUserId" AS id, u."displayName" AS name', "*", 7),
        (":tenancy_id\n", ":tenancy_id; SELECT 1\n", 8),
        ('u."projectUserId" AS id, ', "", 5),
        ("id: uuid", "id: uid", 5),
        ("source: ProjectUser", "source: ProjectUsers", 8),
        ("SELECT u.", "DELETE FROM u; SELECT u.", 7),
        ("key: {id: projectUserId}", "key: {}", 4),
    ],
)
def test_a_bad_file_is_named_with_its_line(project: Project, own: Path, old: str, new: str, line: int) -> None:
    assert old in GOOD
    (own / "people.yaml").write_text(GOOD.replace(old, new))
    checked = project.run("mappings", "check", "--json")
    assert checked.code == 1
    assert not checked.json["ok"]
    findings = checked.json["findings"]
    for finding in findings:
        assert set(finding) == {"file", "line", "column", "rule", "severity", "message", "suggestion"}
        assert finding["file"].endswith("people.yaml")
    assert line in {finding["line"] for finding in findings}


def test_a_bad_file_stops_a_sync_before_it_begins(project: Project, own: Path) -> None:
    (own / "people.yaml").write_text(GOOD.replace("id: uuid", "id: uid"))
    outcome = project.run("sync", "--all", "--json")
    assert (outcome.code, outcome.json["error"]["code"]) == (3, "mapping-invalid")
    assert f"{own / 'people.yaml'}:5:" in outcome.json["error"]["message"]


def test_a_table_that_does_not_exist_is_named(project: Project, own: Path) -> None:
    (own / "people.yaml").write_text(GOOD.replace("ProjectUser", "ProjectUsers"))
    project.sqlite(MINE)
    for command, code in ((("sync", "--all"), 3), (("sequence",), 5)):
        outcome = project.run(*command)
        assert (outcome.code, "ProjectUsers" in outcome.stderr) == (code, True), command


def test_an_unknown_mapping_has_a_nearest_one(project: Project) -> None:
    outcome = project.run("mappings", "show", "userz")
    assert outcome.code == 2
    assert "did you mean users?" in outcome.stderr


def test_own_mappings_beside_the_bundled_ones(project: Project, own: Path) -> None:
    project.settings["mappings_dir"] = ["bundled", "./mappings"]
    listed = project.run("mappings", "list", "--json").json["mappings"]
    assert [mapping["name"] for mapping in listed] == sorted([*MAPPINGS, "people"])
    assert project.run("mappings", "check", "--json").json == {"ok": True, "findings": []}
    assert "bundled" in project.run("config", "show").stdout
    assert f"{len(MAPPINGS) + 1} mappings in " in project.run("doctor").stdout


def test_names_that_clash_are_refused_by_file(project: Project, own: Path) -> None:
    project.settings["mappings_dir"] = ["bundled", "./mappings"]
    assert project.run("mappings", "export", "users", "--to", "mappings").code == 0
    outcome = project.run("mappings", "list")
    assert outcome.code == 3
    assert str(project.directory / "mappings" / "users.yaml") in outcome.stderr
    assert "the name users is also that of " in outcome.stderr


@pytest.mark.parametrize("folders", [[], ["bundled", 5], {"a": "b"}])
def test_folders_that_are_none(project: Project, folders: object) -> None:
    project.settings["mappings_dir"] = folders
    outcome = project.run("mappings", "list")
    assert (outcome.code, "mappings_dir: expected" in outcome.stderr) == (3, True)


def test_a_mapping_to_begin_with_works_as_it_is(project: Project) -> None:
    outcome = project.run("mappings", "new", "active_users", "--dir", "mappings")
    assert outcome.stdout == "mappings/active_users.yaml\n"
    assert "mappings_dir: mappings" in outcome.stderr
    assert project.run("mappings", "new", "active_users").code == 5  # ./mappings, where none is configured
    assert project.run("mappings", "new", "Active Users").code == 2
    project.settings["mappings_dir"] = ["bundled", "./mappings"]
    assert project.run("mappings", "check", "--json").json == {"ok": True, "findings": []}
    outcome = project.run("mappings", "new", "others")
    assert outcome.stdout == f"{project.directory}/mappings/others.yaml\n"
    assert outcome.stderr == ""
    # A bundled one has the name, another folder's that is in use, a table in the same folder.
    for name, other in (("users", "/mappings/users.yaml"), ("others", "/mappings/others.yaml")):
        outcome = project.run("mappings", "new", name, "--dir", "elsewhere")
        assert outcome.code == 0
        assert other in outcome.stderr
    own = project.directory / "mappings" / "others.yaml"
    own.write_text(own.read_text().replace("target: others", "target: fans"))
    assert project.run("mappings", "new", "fans", "--json").json["namesakes"] == [str(own)]


def test_the_bundled_files_are_exported_to_be_edited(project: Project) -> None:
    outcome = project.run("mappings", "export", "--to", "mine", "--json")
    assert len(outcome.json["written"]) == len(MAPPINGS)
    project.settings["mappings_dir"] = "./mine"
    assert len(project.run("mappings", "list", "--json").json["mappings"]) == len(MAPPINGS)
    assert project.run("mappings", "export", "--to", "mine", "--json").json == {"written": []}
    (project.directory / "mine" / "users.yaml").write_text(GOOD)
    (project.directory / "mine" / "teams.yaml").unlink()
    outcome = project.run("mappings", "export", "--to", "mine")
    assert (outcome.code, "mine/users.yaml exists" in outcome.stderr) == (5, True)
    assert not (project.directory / "mine" / "teams.yaml").exists()
    assert project.run("mappings", "export", "user", "--to", "other").code == 2
