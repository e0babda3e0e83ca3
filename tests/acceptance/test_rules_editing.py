"""stackctl rules add, edit, move, enable, disable, remove, tree, pull and push, in a terminal-less shell."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from stackctl.core.errors import StateError
from stackctl.rules import editing
from stackctl.rules.model import Action, Rule
from tests import forked
from tests.backend import MINE, OTHER, Project

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
# ours
default_action: allow
rules:
  # mail that lasts ten minutes
  block-disposable: {priority: 100, condition: 'emailDomain in ["tempmail.com"]', action: {type: reject}}  # keep
  risky: {priority: 50, condition: riskScores.bot > 80, action: {type: restrict}}
"""
SUITE = """\
rules: ./sign-up-rules.yaml
tests:
  - {name: disposable, user: {email: a@tempmail.com, auth_method: otp}, expect: {decision: reject}}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Project:
    (tmp_path / "sign-up-rules.yaml").write_text(RULES)
    return Project(tmp_path)


def text(project: Project) -> str:
    return (project.directory / "sign-up-rules.yaml").read_text()


def test_from_an_empty_folder_to_a_set_of_rules(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.settings["sign_up_rules"] = "./mine.yaml"
    project.write()
    steps: list[tuple[str, ...]] = [
        ("add", "a", "--condition", 'emailDomain == "x.com"', "--action", "reject", "--message", "why"),
        ("add", "b", "--where", "riskScores.bot > 80", "--or", 'email == ""', "--action", "restrict"),
        ("add", "c", "--condition", "riskScores.bot > 90", "--action", "log", "--before", "b", "--disabled"),
        ("move", "b", "--first"),
        ("enable", "c"),
        ("edit", "a", "--action", "log", "--message", ""),
    ]
    said = "mine.yaml written, a new file\n"
    for step in steps:
        result = project.run("rules", *step)
        assert result.code == 0, result
        assert result.stdout.endswith(said)
        said = "mine.yaml written\n"
    listed = project.run("rules", "list", "--json").json["rules"]
    assert [(one["id"], one["enabled"], one["action"]) for one in listed] == [
        ("b", True, {"type": "restrict", "message": None}),
        ("a", True, {"type": "log", "message": None}),
        ("c", True, {"type": "log", "message": None}),
    ]
    assert listed[0]["condition"] == 'riskScores.bot > 80 || email == ""'


def test_a_change_touches_its_own_line_alone(rules: Project) -> None:
    assert rules.run("rules", "disable", "risky").code == 0
    assert text(rules) == RULES.replace("{type: restrict}}", "{type: restrict}, enabled: false}")
    assert rules.run("rules", "remove", "risky", "--dry-run").stdout.endswith("nothing was written\n")
    assert rules.run("rules", "enable", "risky").code == 0
    assert rules.run("rules", "enable", "risky").stdout == "nothing to change\n"
    document = rules.run("rules", "move", "risky", "--before", "block-disposable", "--json").json
    assert document["diff"].splitlines()[-1] == (
        "+  risky: {priority: 110, condition: riskScores.bot > 80, action: {type: restrict}, enabled: true}"
    )


def test_bytes_of_the_rest_stay(rules: Project) -> None:
    path, link = rules.directory / "sign-up-rules.yaml", rules.directory / "link.yaml"
    before = b"\xef\xbb\xbf" + RULES.replace("\n", "\r\n").rstrip().encode()
    path.write_bytes(before)
    path.chmod(0o600)
    link.symlink_to(path)
    assert rules.run("rules", "disable", "risky", "--rules", link).code == 0
    assert path.read_bytes() == before.replace(b"restrict}}", b"restrict}, enabled: false}")
    assert (path.stat().st_mode & 0o777, link.is_symlink()) == (0o600, True)


def test_what_tests_say_stops_a_change(rules: Project, tmp_path: Path) -> None:
    (tmp_path / "a.rules-test.yaml").write_text(SUITE)
    refused = rules.run("rules", "disable", "block-disposable")
    assert refused.code == 5
    assert "a.rules-test.yaml:3: disposable" in refused.stdout
    assert text(rules) == RULES
    assert rules.run("rules", "disable", "block-disposable", "--yes").code == 0


def test_a_rule_that_a_test_names_can_be_removed(rules: Project, tmp_path: Path) -> None:
    (tmp_path / "a.rules-test.yaml").write_text(SUITE.replace("{decision: reject}", "{rule: block-disposable}"))
    (tmp_path / "b.rules-test.yaml").write_text("tests: 5\n")
    shown = rules.run("rules", "remove", "block-disposable", "--dry-run")
    assert shown.code == 0
    assert "-  block-disposable:" in shown.stdout
    assert "/a.rules-test.yaml:3: disposable\n" in shown.stdout
    assert "/b.rules-test.yaml:1: tests is a list\n" in shown.stdout
    refused = rules.run("rules", "remove", "block-disposable")
    assert (refused.code, "1 test fails and 1 suite can't be run" in refused.stderr) == (5, True)
    assert text(rules) == RULES
    assert rules.run("rules", "remove", "block-disposable", "--yes").code == 0
    assert "block-disposable" not in text(rules)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("add", "a.b", "--condition", "true", "--action", "log"), 2, "has a dot"),
        (("add", "my rule", "--condition", "true", "--action", "log"), 2, "the id is none"),
        (("add", "x" * 64, "--condition", "true", "--action", "log", "--dry-run"), 2, "up to 63"),
        (("edit", "risky", "--condition", "riskScores.bots > 3"), 3, "riskScores has no bots"),
        (("edit", "risky", "--condition", "riskScores.bot >"), 3, "ends too early"),
        (("edit", "risk", "--action", "log"), 2, "there is no rule risk in"),
        (("add", "risky", "--condition", "true", "--action", "log"), 2, "there is a rule risky already"),
        (("add", "new", "--action", "log"), 2, "say when it matches"),
        (("add", "new", "--action", "log", "--or", "true"), 2, "--or is an alternative"),
        (("add", "new", "--action", "log", "--where", "a ||"), 2, "--where 'a ||': column"),
        (("add", "new", "--action", "log", "--where", "true", "--condition", "true"), 2, "the whole condition"),
        (("add", "new", "--action", "deny", "--condition", "true"), 2, "deny"),
        (("add", "new", "--action", "log", "--condition", "true", "--priority", "-1"), 2, "greater than or equal to 0"),
        (("move", "risky"), 2, "say where"),
        (("move", "risky", "--after", "risky"), 2, "beside itself"),
        (("tree", "nope"), 2, "there is no rule nope"),
        (("tree",), 2, "name a rule"),
    ],
)
def test_bad_input_changes_nothing(rules: Project, arguments: tuple[str, ...], code: int, says: str) -> None:
    result = rules.run("rules", *arguments)
    assert result.code == code
    assert says in result.stderr
    assert text(rules) == RULES


def test_a_tree_is_drawn_and_built(rules: Project, tmp_path: Path) -> None:
    condition = 'riskScores.bot > 80 && (emailDomain == "a" || !(email == ""))'
    assert rules.run("rules", "edit", "risky", "--condition", condition).code == 0
    assert "   ├─ emailDomain" in rules.run("rules", "tree", "risky").stdout
    (tmp_path / "tree.json").write_text(rules.run("rules", "tree", "risky", "--json").stdout)
    assert rules.run("rules", "tree", "--from", "tree.json").stdout.strip() == condition
    for bad in ("{", "5", '{"all": ["true"]}', '"a &&"'):
        (tmp_path / "tree.json").write_text(bad)
        assert rules.run("rules", "tree", "--from", "tree.json").code == 3


# -- the tenancy's configuration


def configure(url: str, table: LiteralString, config: Any) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            sql.SQL(
                'INSERT INTO {} ("projectId", "branchId", "updatedAt", config) '
                'SELECT "projectId", "branchId", now(), %s FROM "Tenancy" WHERE id = %s '
                'ON CONFLICT ("projectId", "branchId") DO UPDATE SET config = EXCLUDED.config'
            ).format(sql.Identifier(table)),
            (json.dumps(config), MINE),
        )


def configured(url: str) -> Any:
    with psycopg.connect(url) as conn:
        row = conn.execute(
            'SELECT e.config FROM "EnvironmentConfigOverride" AS e '
            'JOIN "Tenancy" AS t USING ("projectId", "branchId") WHERE t.id = %s',
            (MINE,),
        ).fetchone()
    return row and row[0]


RULE = {"enabled": True, "displayName": "A", "priority": 1, "condition": "true", "action": {"type": "log"}, "more": 7}


def test_rules_go_to_the_backend_and_back(rules: Project, migrated_db: str, tmp_path: Path) -> None:
    configure(migrated_db, "BranchConfigOverride", {"auth": {"signUpRules": {"old": RULE}, "passkey": True}})
    config = {
        "auth": {"signUpRules.risky": RULE, "otp": {"x": 1}},
        "auth.signUpRules.risky.priority": 9,
        "auth.signUpRulesDefaultAction": "reject",
        "payments": {"testMode": False},
    }
    configure(migrated_db, "EnvironmentConfigOverride", config)
    where = ("--database-url", migrated_db, "--tenancy", str(MINE))

    pulled = rules.run("rules", "pull", "--rules", "pulled.yaml", *where)
    assert pulled.code == 0, pulled
    document = rules.run("rules", "list", "--rules", "pulled.yaml", "--json").json
    assert document["default_action"] == "reject"
    assert [(one["id"], one["priority"]) for one in document["rules"]] == [("risky", 9)]

    assert rules.run("rules", "push", *where).code == 5
    assert configured(migrated_db) == config
    shown = rules.run("rules", "push", "--dry-run", *where)
    assert "+  block-disposable:" in shown.stdout
    assert configured(migrated_db) == config
    assert rules.run("rules", "push", "--yes", *where).code == 0
    pushed = configured(migrated_db)
    assert pushed.pop("auth.signUpRules")["risky"] == {
        **RULE, "displayName": "risky", "priority": 50, "condition": "riskScores.bot > 80",
        "action": {"type": "restrict"},
    }  # fmt: skip
    assert pushed == {
        "auth": {"otp": {"x": 1}}, "auth.signUpRulesDefaultAction": "allow", "payments": {"testMode": False},
    }  # fmt: skip
    assert rules.run("rules", "push", *where).stdout == "nothing to change\n"
    (tmp_path / "again.yaml").write_text(RULES)
    assert rules.run("rules", "pull", "--rules", "again.yaml", *where).stdout == "nothing to change\n"


def test_a_list_is_written_out_for_the_backend_and_comes_back_by_name(tmp_path: Path, migrated_db: str) -> None:
    project = Project(tmp_path)
    project.write()
    where = ("--database-url", migrated_db, "--tenancy", str(MINE), "--rules", "r.yaml", "--yes")
    text = "lists: {bad: bad.txt}\nrules: {a: {priority: 1, condition: emailDomain in bad, action: {type: reject}}}\n"
    (tmp_path / "r.yaml").write_text(text)
    domains = [f"d{number:02}.com" for number in range(12)]
    (tmp_path / "bad.txt").write_text("\n".join(domains))
    assert project.run("rules", "push", *where).code == 0
    condition = configured(migrated_db)["auth.signUpRules"]["a"]["condition"]
    assert condition == f"emailDomain in {json.dumps(domains)}"
    assert project.run("rules", "pull", *where).stdout == "nothing to change\n"
    (tmp_path / "bad.txt").write_text("\n".join([*domains, "new.com"]))
    shown = project.run("rules", "push", "--dry-run", *where).stdout.splitlines()
    assert [line for line in shown if line[0] in "+-" and line[:3] not in ("+++", "---")][-1].startswith('+"new.com"]')
    assert project.run("rules", "pull", *where).code == 0
    assert "d00.com" in (tmp_path / "r.yaml").read_text()


def test_push_refuses_what_is_wrong(rules: Project, migrated_db: str, tmp_path: Path) -> None:
    path = tmp_path / "sign-up-rules.yaml"
    where = ("--database-url", migrated_db, "--yes")
    assert rules.run("rules", "push", *where, "--tenancy", "00000000-0000-0000-0000-0000000000ff").code == 2
    path.write_text("rules: {a.b: {condition: 'true', action: {type: log}}}\n")
    assert "has a dot" in rules.run("rules", "push", *where, "--tenancy", str(OTHER)).stderr
    path.write_text("rules: {a: {condition: nope, action: {type: log}}}\n")
    result = rules.run("rules", "push", *where, "--tenancy", str(OTHER))
    assert (result.code, "there is no field nope" in result.stderr) == (3, True)
    # A file that was cut would take all rules away.
    path.write_text("\n")
    result = rules.run("rules", "push", *where, "--tenancy", str(OTHER))
    assert (result.code, "is empty; nothing was written" in result.stderr) == (3, True)
    path.write_text("rules: {}\n")
    assert rules.run("rules", "push", *where, "--tenancy", str(OTHER)).code == 0


def test_push_fixes_what_breaks_the_schema_and_pull_tells_it(rules: Project, migrated_db: str, tmp_path: Path) -> None:
    configure(migrated_db, "BranchConfigOverride", {"auth": {"signUpRules": {"b": RULE}}})
    config = {
        "auth": {"signUpRules": {"my rule": RULE, "risky": {**RULE, "priority": 2.0}, "bare": {"enabled": True}}},
        "auth.signUpRules.left.enabled": True,
    }
    configure(migrated_db, "EnvironmentConfigOverride", config)
    where = ("--database-url", migrated_db, "--tenancy", str(MINE))
    pulled = rules.run("rules", "pull", "--rules", "pulled.yaml", "--dry-run", "--json", *where)
    assert (pulled.code, len(pulled.json["warnings"])) == (0, 5)
    assert "refuses the key auth.signUpRules.my rule of the environment" in pulled.stderr
    assert "risky.priority is not a whole number" in pulled.stderr
    assert all(f"+  {id_}:" in pulled.json["diff"] for id_ in ("bare", "left", "risky"))
    path = tmp_path / "sign-up-rules.yaml"
    path.write_text(RULES.replace("riskScores.bot > 80", "nope"))
    shown = rules.run("rules", "push", "--dry-run", *where)
    assert (shown.code, "+  block-disposable:" in shown.stdout) == (3, True)
    assert "error unknown-field: risky: there is no field nope" in shown.stdout
    path.write_text(RULES)
    fixed = rules.run("rules", "push", "--yes", *where)
    assert (fixed.code, fixed.stderr.count("corrected by this")) == (0, 5)
    assert sorted(configured(migrated_db)["auth.signUpRules"]) == ["block-disposable", "risky"]
    assert rules.run("rules", "push", *where).stdout == "nothing to change\n"
    configure(migrated_db, "EnvironmentConfigOverride", {"auth": None})
    assert rules.run("rules", "push", "--yes", *where).code == 0
    assert sorted(configured(migrated_db)["auth"]) == ["signUpRules", "signUpRulesDefaultAction"]


def test_a_dry_run_of_a_wrong_rule_says_so_by_its_exit_code(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write()
    step = ("rules", "add", "a", "--condition", "nobody.knows == 1", "--action", "reject", "--rules", "r.yaml")
    assert (project.run(*step).code, project.run(*step, "--dry-run").code) == (3, 3)
    assert not (tmp_path / "r.yaml").exists()


@pytest.mark.parametrize("before", [RULES, None])
def test_what_was_saved_meanwhile_is_not_overwritten(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "sign-up-rules.yaml"
    if before is not None:
        path.write_text(before)
    held = editing.read_rules_file(path)
    change = editing.plan_change(
        held, editing.replace_rules(held.rules, [Rule("new", "new", True, 1, "true", Action("log"))])
    )
    path.write_text(RULES + "# by somebody else\n")
    with pytest.raises(StateError) as caught:
        editing.write_change(change)
    assert caught.value.code == "changed-meanwhile"
    assert path.read_text() == RULES + "# by somebody else\n"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_conditions_and_differences_are_shown_as_they_are(tmp_path: Path) -> None:
    condition = 'email == "https://u:pw@h/\\t:x: sk_live_abc"\t|| emailDomain == "é\u202e"'
    project = Project(tmp_path)
    added = project.run("rules", "add", "a", "--condition", condition, "--action", "log")
    assert added.code == 0, added
    file = tmp_path / "sign-up-rules.yaml"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n") + b"  # no end")
    before = file.read_bytes()
    (rule,) = project.run("rules", "list", "--json").json["rules"]
    assert rule["condition"] == condition
    assert "sk_live_abc" in project.run("rules", "list").stdout
    (tmp_path / "tree.json").write_text(json.dumps(condition))
    assert "https://u:pw@h/" in project.run("rules", "tree", "--from", "tree.json").stdout
    assert "https://u:pw@h/" in json.dumps(project.run("rules", "tree", "a", "--json").json)
    diff = tmp_path / "x.diff"
    with diff.open("wb") as stream:
        forked.run(["rules", "disable", "a", "--dry-run"], cwd=tmp_path, stdout=stream)
    assert file.read_bytes() == before
    shown = project.run("rules", "disable", "a", "--dry-run", "--json").json["diff"]
    assert diff.read_bytes() == shown.encode() + b"\nnothing was written\n"
    assert project.run("rules", "disable", "a", "--yes").code == 0
    wanted = file.read_bytes()
    file.write_bytes(before)
    subprocess.run(["patch", "--binary", "-s", "sign-up-rules.yaml", "x.diff"], cwd=tmp_path, check=True)
    assert file.read_bytes() == wanted


def test_a_wrong_condition_is_said_once_and_where(project: Project) -> None:
    result = project.run("rules", "add", "x", "--action", "log", "--condition", 'email == "a" && emaildomain == "b"')
    assert (result.code, result.stdout) == (3, "")
    assert "error: x: column 17: there is no field emaildomain; nothing was written\n" in result.stderr
    assert "hint: suggestion: emailDomain\n" in result.stderr
