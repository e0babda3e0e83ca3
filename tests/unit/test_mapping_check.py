from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import ConfigError
from stackctl.mapping import files
from stackctl.mapping.check import check_mappings

GOOD = """\
name: things
source: Thing
target: things
key: {id: id}
columns: {id: uuid, label: text null}
select: |
  SELECT
    t."id" AS id,
    t."label" AS label
  FROM "Thing" AS t
  WHERE t."tenancyId" = :tenancy_id
depends_on:
  Part: {thingId: id}
"""


def write(directory: Path, text: str, name: str = "things") -> Path:
    path = directory / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_good_mapping_has_no_finding(tmp_path: Path) -> None:
    assert check_mappings([write(tmp_path, GOOD)]) == ()
    mapping = files.load_mapping(tmp_path / "things.yaml")
    assert mapping.deleted_as == "Thing"
    assert mapping.depends_on[0].on == {"thingId": '"id"'}


def test_bundled_mappings_have_no_finding() -> None:
    assert check_mappings(files.list_mapping_files(find_bundled("mappings"))) == ()
    assert len(files.load_mappings(find_bundled("mappings")).mappings) == 11


def test_the_digests_of_sound_files_are_those_of_the_bundled_mappings() -> None:
    """When this fails, a bundled mapping was edited: `cd mappings && sha256sum *.yaml > sound.sha256`."""
    folder = find_bundled("mappings")
    current = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in files.list_mapping_files(folder)}
    assert files.read_sound_digests() == current


def test_a_file_that_is_no_longer_the_bundled_one_is_checked(tmp_path: Path) -> None:
    text = (find_bundled("mappings") / "teams.yaml").read_text(encoding="utf-8")
    write(tmp_path, text, "teams")
    assert list(files.load_mappings(tmp_path).mappings) == ["teams"]
    write(tmp_path, text.replace(":tenancy_id", "NULL"), "teams")
    with pytest.raises(ConfigError, match="tenancy_id"):
        files.load_mappings(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "rule", "line", "column"),
    [
        ("depends_on:", "depend_on:", "unknown-key", 12, 1),
        ("source: Thing\n", "", "missing-key", 1, 1),
        ("key: {id: id}", "key: {id: id", "yaml", 5, 8),
        ("name: things", "name: others", "name-differs", 1, 7),
        ("target: things", "target: Things", "bad-identifier", 3, 9),
        ("target: things", f"target: {'t' * 50}", "bad-identifier", 3, 9),
        ("target: things", "target: _stack_x", "bad-identifier", 3, 9),
        ("{id: uuid,", "{id: uid,", "unknown-type", 5, 15),
        ("label: text null", "label: text nul", "unknown-type", 5, 28),
        ("key: {id: id}", "key: {ident: id}", "key-column", 4, 7),
        ("{id: uuid,", "{id: uuid null,", "key-column", 4, 7),
        ('t."label" AS label', "t.*", "star", 9, 5),
        ('t."label" AS label', "upper(t.label)", "output-columns", 9, 5),
        ('t."label" AS label', 't."label" AS lable', "output-columns", 9, 18),
        ('t."label" AS label', 't."label" AS label, 1 AS id', "output-columns", 9, 30),
        (',\n    t."label" AS label', "", "output-columns", 5, 21),
        (":tenancy_id\n", ":tenancy_id;\n  SELECT 1\n", "one-statement", 12, 3),
        ("  SELECT\n", "  SELECTT\n", "syntax", 8, 6),
        ("  SELECT\n", '  WITH x AS (DELETE FROM "Thing" RETURNING 1) SELECT\n', "write", 7, 14),
        ('  FROM "Thing"', '  INTO copied FROM "Thing"', "write", 10, 3),
        (":tenancy_id\n", ":tenancy_id FOR UPDATE\n", "write", 11, 37),
        ('t."label" AS label', "pg_sleep(1)::text AS label", "side-effect", 9, 5),
        ('t."label" AS label', "pg_catalog.set_config('a', 'b', false) AS label", "side-effect", 9, 16),
        ('t."label" AS label', "\"nextval\"('s')::text AS label", "side-effect", 9, 5),
        ('t."label" AS label', "now()::text AS label", "clock", 9, 5),
        (":tenancy_id\n", ":tenancy_id LIMIT 5\n", "shape", 11, 37),
        ('t."label" AS label', 'max(t."label") AS label', "shape", 9, 5),
        (":tenancy_id\n", ":tenancy_id UNION ALL SELECT NULL, NULL\n", "not-select", 8, 5),
        ('FROM "Thing" AS t', 'FROM "Other" AS t', "source", 10, 8),
        ('FROM "Thing" AS t', "FROM Thing AS t", "source", 10, 8),
        ('FROM "Thing" AS t', 'FROM "Thing"', "source", 10, 8),
        ("AS t\n", 'AS t RIGHT JOIN "Part" AS p ON TRUE\n', "shape", 10, 32),
        ("AS t\n", 'AS t JOIN "Else" AS e ON TRUE\n', "dependency", 10, 26),
        ('WHERE t."tenancyId" = :tenancy_id', "WHERE TRUE", "tenancy", 6, 9),
        (":tenancy_id\n", ":tenancy_id OR TRUE\n", "tenancy", 11, 3),
        ('t."label" AS label', ":label AS label", "parameter", 9, 5),
        ("{thingId: id}", "{thingId: '(SELECT 1)'}", "expression", 13, 19),
        ("{thingId: id}", "{thingId: ':tenancy_id'}", "parameter", 13, 20),
        ("depends_on:", "filter: 'x.kind = 1'\ndepends_on:", "expression", 12, 10),
        ("depends_on:", "filter: '1) FROM a WHERE (1'\ndepends_on:", "expression", 12, 9),
        ("depends_on:", "filter: kind = 1\ndepends_on:", "filter", 12, 9),
        ("Part: {thingId: id}", "Thing: {id: id}", "cycle", 13, 3),
    ],
)
def test_finding_names_its_place(tmp_path: Path, old: str, new: str, rule: str, line: int, column: int) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    found = [(f.rule, f.line, f.column) for f in check_mappings([path])]
    assert (rule, line, column) in found


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ("kind = 1", 'AND t."kind" = 1'),
        ('"kind" = 1 and ("label" LIKE \'a%\')', "AND (t.label LIKE 'a%' AND (T.kind = 1))"),
        ("kind = 1 OR kind IS NULL", "AND (t.kind = 1 OR t.kind IS NULL)"),
    ],
)
def test_a_filter_stands_in_the_where_of_the_select(tmp_path: Path, written: str, where: str) -> None:
    filtered = GOOD.replace("depends_on:", f"filter: {json.dumps(written)}\ndepends_on:")
    (finding, *_) = check_mappings([write(tmp_path, filtered)])
    assert (finding.rule, finding.severity) == ("filter", "error")
    assert check_mappings([write(tmp_path, filtered.replace(":tenancy_id\n", f":tenancy_id {where}\n"))]) == ()


@pytest.mark.parametrize(
    "expression",
    [
        "':other'",
        "'a'::text",
        "$$:other$$",
        "(ARRAY['a','b'])[1:n.x]::text",
        '(SELECT max(p."x") FROM "Part" AS p)::text',
        "'50%'",
    ],
)
def test_what_only_looks_wrong_passes(tmp_path: Path, expression: str) -> None:
    assert check_mappings([write(tmp_path, GOOD.replace('t."label" AS', f"{expression} AS"))]) == ()


def test_nearest_name_is_suggested(tmp_path: Path) -> None:
    findings = check_mappings([write(tmp_path, GOOD.replace("depends_on:", "dependson:").replace("uuid,", "uid,"))])
    assert [f.suggestion for f in findings] == ["did you mean uuid?", "did you mean depends_on?"]


def test_mappings_are_checked_together(tmp_path: Path) -> None:
    one = write(tmp_path, GOOD)
    two = write(
        tmp_path, GOOD.replace("name: things", "name: parts").replace("Part:", "Thing:").replace("Thing\n", "Part\n")
        .replace('"Thing"', '"Part"'), "parts",
    )  # fmt: skip
    rules = {(Path(f.file).name, f.rule) for f in check_mappings([one, two])}
    assert rules == {("parts.yaml", "duplicate-target"), ("parts.yaml", "cycle"), ("things.yaml", "cycle")}


def test_load_refuses_with_the_place(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace("{id: uuid,", "{id: uid,"))
    with pytest.raises(ConfigError, match=f"{path}:5:15: unknown type uid") as caught:
        files.load_mappings(tmp_path)
    assert (caught.value.exit_code, caught.value.code) == (3, "mapping-invalid")


def test_directory_without_mappings(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError) as caught:
            files.load_mappings(directory)
        assert caught.value.code == "mappings-missing"
