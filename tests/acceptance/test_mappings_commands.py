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


def test_a_table_that_does_not_exist_stops_it_too(project: Project, own: Path) -> None:
    (own / "people.yaml").write_text(GOOD.replace("ProjectUser", "ProjectUsers"))
    project.sqlite(MINE)
    for command in (("sync", "--all"), ("sequence",), ("poll",), ("run",)):
        outcome = project.run(*command)
        assert (outcome.code, "ProjectUsers" in outcome.stderr) == (3, True), command


def test_an_unknown_mapping_has_a_nearest_one(project: Project) -> None:
    outcome = project.run("mappings", "show", "userz")
    assert outcome.code == 2
    assert "did you mean users?" in outcome.stderr
