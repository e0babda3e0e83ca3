"""stackctl rules test: suites of sample users, as a CI job runs them."""

from __future__ import annotations

import codecs
import json
import signal
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from stackctl.core.errors import StateError
from stackctl.rules import suites
from tests.backend import DEADLINE, Project
from tests.growth import LINEAR, growth

if TYPE_CHECKING:
    from pathlib import Path

RULES = """\
default_action: allow
rules:
  block-disposable: {priority: 100, condition: 'emailDomain in ["tempmail.com"]', action: {type: reject}}
  risky: {priority: 50, condition: riskScores.bot > 80, action: {type: restrict}}
  broken: {priority: 10, condition: 1 / riskScores.bot > 3, action: {type: log}}
"""
SUITE = """\
rules: ./sign-up-rules.yaml
tests:
  - {name: "😀 disposable", user: {email: A@TempMail.com, auth_method: otp},
     expect: {decision: reject, matched: [block-disposable]}}
  - name: risky   # why
    user:
      email: x@y.de
      auth_method: password
      risk_scores: {bot: 90}   # high

  # the next
  - name: as it is
    user: {email: x@y.de, auth_method: oauth, oauth_provider: github}
    expect: {allowed: true, rule: null}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Project:
    (tmp_path / "sign-up-rules.yaml").write_text(RULES)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.rules-test.yaml").write_text(SUITE)
    return Project(tmp_path)


def test_suites_are_found_and_pass(suite: Project, tmp_path: Path) -> None:
    (tmp_path / "sub" / "b.rules-test.yml").write_text(SUITE.replace("./sign", "../sign"))
    result = suite.run("rules", "test", "--json")
    assert result.code == 0
    assert (result.json["passed"], result.json["failed"]) == (6, 0)
    assert {one["file"] for one in result.json["tests"]} == {"a.rules-test.yaml", "sub/b.rules-test.yml"}
    first = result.json["tests"][0]
    assert first["expected"] == {"decision": "reject", "matched": ["block-disposable"]}
    assert first["trace"] == [{"rule_id": "block-disposable", "status": "matched", "action": "reject"}]


def test_a_failure_shows_the_difference_and_why(suite: Project, tmp_path: Path) -> None:
    path = tmp_path / "a.rules-test.yaml"
    path.write_text(SUITE.replace("decision: reject", "decision: allow"))
    result = suite.run("rules", "test", "--junit", "report.xml")
    assert result.code == 1
    for line in (
        "FAILED a.rules-test.yaml:3: 😀 disposable",
        "  - decision: allow",
        "  + decision: reject",
        "emailDomain = 'tempmail.com'",
        "3 tests: 2 passed, 1 failed",
    ):
        assert line in result.stdout
    cases = list(ElementTree.parse(tmp_path / "report.xml").iter("testcase"))
    assert [(case.get("line"), len(case)) for case in cases] == [("3", 1), ("5", 0), ("12", 0)]
    assert suite.run("rules", "test", "--junit", "report.xml").code == 1  # an older report is replaced
    before = path.read_text()
    assert suite.run("rules", "test", "--junit", path.name).code == 2
    assert path.read_text() == before


def test_strict_refuses_errors_holes_and_tests_that_cannot_fail(suite: Project, tmp_path: Path) -> None:
    assert suite.run("rules", "test").code == 0
    strict = suite.run("rules", "test", "--strict", "--json")
    assert strict.code == 1
    assert strict.json["strict"] == ["risky expects nothing", "broken can't be evaluated in 1 of the tests"]
    (tmp_path / "a.rules-test.yaml").write_text("".join(SUITE.splitlines(keepends=True)[:4]))
    assert "risky is matched by no test" in suite.run("rules", "test", "--strict", "--json").json["strict"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_record_writes_what_happens_and_leaves_the_rest(suite: Project, tmp_path: Path, newline: str) -> None:
    path = tmp_path / "a.rules-test.yaml"
    before = SUITE.replace("decision: reject", "decision: allow").replace("\n", newline)
    path.write_bytes(codecs.BOM_UTF8 + before.encode())
    planned = suite.run("rules", "test", "--record", "--dry-run")
    assert planned.code == 0
    assert path.read_bytes() == codecs.BOM_UTF8 + before.encode()
    assert suite.run("rules", "test", "--record").code == 0
    recorded = "    expect: {decision: default-allow, rule: null, restricted_by: risky, matched: [risky]}\n"
    after = SUITE.replace("# high\n", f"# high\n{recorded}").replace("\n", newline)
    assert path.read_bytes() == codecs.BOM_UTF8 + after.encode()
    assert suite.run("rules", "test", "--record").stdout.strip() == "nothing to record"
    read = suites.load_suite(path, None)
    path.write_text(SUITE)
    with pytest.raises(StateError) as caught:
        suites.write_suite(read, "mine")
    assert (caught.value.code, path.read_text()) == ("changed-meanwhile", SUITE)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("allowed: true", "alowed: true", "did you mean allowed?"),
        ("allowed: true", "allowed: maybe", "allowed is true or false"),
        ("decision: reject", "decision: deny", "deny is unknown"),
        ("auth_method: otp", "auth_method: otop", "'otop' is not an auth method"),
        ("risk_scores: {bot: 90}", "risk_scores: {bot: 190}", "from 0 to 100"),
        ("name: as it is", "name: risky", "is the name of the test in line 5"),
        ("./sign-up-rules.yaml", "./nowhere.yaml", "nowhere.yaml can't be read"),
        ("tests:", "test:", "did you mean tests?"),
        (SUITE, "", "the suite is empty"),
        (SUITE, "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_suite_is_one_error(suite: Project, tmp_path: Path, old: str, new: str, says: str) -> None:
    (tmp_path / "a.rules-test.yaml").write_text(SUITE.replace(old, new))
    result = suite.run("rules", "test", "--json")
    assert result.code == 3
    assert says in result.json["error"]["message"]


def test_a_test_that_names_a_rule_which_is_not_there_fails(suite: Project, tmp_path: Path) -> None:
    path = tmp_path / "a.rules-test.yaml"
    path.write_text(SUITE.replace("rule: null", "rule: brokn"))
    result = suite.run("rules", "test")
    assert result.code == 1
    assert "  there is no rule brokn in sign-up-rules.yaml; did you mean broken?\n" in result.stdout
    document = suite.run("rules", "test", "--json").json
    assert [one["name"] for one in document["tests"] if one["unknown_rules"] == ["brokn"]]
    assert suite.run("rules", "test", "--record").code == 0
    assert suite.run("rules", "test").code == 0


def test_no_suite_at_all_is_an_error(tmp_path: Path) -> None:
    assert Project(tmp_path).run("rules", "test", "--json").json["error"]["code"] == "no-suites"


def test_many_cases_are_quick(suite: Project, tmp_path: Path) -> None:
    """The goal is one second for five hundred (bench/rules.py measures it); here it must not grow faster than they."""
    path = tmp_path / "a.rules-test.yaml"

    def passed(size: int) -> None:
        cases = "".join(
            f"  - name: case {number}\n    user: {{email: u{number}@x.de, auth_method: otp, risk_scores: {{bot: 9}}}}\n"
            "    expect: {decision: default-allow}\n"
            for number in range(size)
        )
        path.write_text(f"rules: sign-up-rules.yaml\ntests:\n{cases}")
        assert len(suites.run_suites([suites.load_suite(path, None)]).results) == size

    assert growth(passed, 125) < LINEAR
    assert suite.run("rules", "test", "--json").json["passed"] == 500


def test_only_the_tests_of_a_name_are_run(suite: Project) -> None:
    result = suite.run("rules", "test", "--run", "^(risky|as) ?")
    assert (result.code, result.stdout) == (0, "2 tests: 2 passed\n")
    assert [one["name"] for one in suite.run("rules", "test", "--run", "sky", "--json").json["tests"]] == ["risky"]
    wrong = (["--run", "("], ["--run", "nothing"], ["--run", "a", "--strict"], ["--record", "--coverage"])
    for options in wrong:
        assert suite.run("rules", "test", *options).code == 2, options


def test_coverage_is_that_of_the_parts_of_conditions(suite: Project, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("tempmail.com\n")
    (tmp_path / "sign-up-rules.yaml").write_text("""lists: {bad: bad.txt}
rules:
  block-disposable: {priority: 9, condition: 'emailDomain in bad', action: {type: reject}}
  risky:
    condition: riskScores.bot > 80 && !(email == "" || countryCode in ["DE"]) || 1 / riskScores.bot > 3
    action: {type: restrict}
  off: {enabled: false, condition: 'email == "x"', action: {type: log}}
""")
    parts = suite.run("rules", "test", "--coverage", "--json").json["parts"]
    assert [(one["rule_id"], one["part"], one["true"], one["false"], one["errors"]) for one in parts] == [
        ("block-disposable", "emailDomain in bad", 1, 2, 0),
        ("risky", "riskScores.bot > 80", 1, 1, 0),
        ("risky", 'email == ""', 0, 2, 0),
        ("risky", 'countryCode in ["DE"]', 0, 2, 0),
        ("risky", "1 / riskScores.bot > 3", 0, 1, 1),
    ]
    shown = suite.run("rules", "test", "--coverage").stdout.splitlines()
    assert [line.split("\t")[1:4] for line in shown[1:4]] == [
        ['email == ""', "0", "2"], ['countryCode in ["DE"]', "0", "2"], ["1 / riskScores.bot > 3", "0", "1"],
    ]  # fmt: skip
    assert "2 of 5 comparisons came out both true and false" in shown


def test_a_watch_runs_again_when_a_file_changes(suite: Project, tmp_path: Path) -> None:
    rules = tmp_path / "sign-up-rules.yaml"
    with_list = RULES.replace('["tempmail.com"]', "bad").replace("rules:", "lists: {bad: bad.txt}\nrules:")
    process = suite.start("rules", "test", "--watch", "--json")
    with process:
        assert process.stdout is not None

        def read() -> Any:
            assert process.stdout is not None
            return json.loads(process.stdout.readline())

        try:
            assert (read()["passed"], process.poll()) == (3, None)
            rules.write_text(with_list)  # whose list is not there yet
            assert read()["error"]["code"] == "invalid-rules"
            (tmp_path / "bad.txt").write_text("tempmail.com\n")
            assert read()["failed"] == 0
            (tmp_path / "bad.txt").write_text("example.com\n")
            assert read()["failed"] == 1
            (tmp_path / "b.rules-test.yaml").write_text(SUITE)
            assert read()["failed"] == 2
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
        finally:
            process.kill()
