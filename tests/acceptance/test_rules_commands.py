"""stackctl rules, as an operator and a CI job run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.backend import Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.quick

RULES = """\
default_action: allow
rules:
  block-disposable: {display_name: Disposable mail, priority: 100, condition: 'emailDomain in ["tempmail.com"]',
    action: {type: reject, message: internal note}}
  risky: {priority: 50, condition: riskScores.bot > 80, action: {type: restrict}}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Project:
    (tmp_path / "sign-up-rules.yaml").write_text(RULES)
    return Project(tmp_path)


def test_one_user_is_judged_and_told_why(rules: Project) -> None:
    arguments = ("rules", "eval", "--email", "Bob@TempMail.com", "--risk", "bot=90")
    document = rules.run(*arguments, "--json").json
    assert document["context"]["emailDomain"] == "tempmail.com"
    assert document["evaluations"] == [
        {
            "rule_id": "block-disposable",
            "display_name": "Disposable mail",
            "enabled": True,
            "condition": 'emailDomain in ["tempmail.com"]',
            "status": "matched",
            "action": "reject",
        }
    ]
    assert document["outcome"] == {
        "should_allow": False,
        "decision": "reject",
        "decision_rule_id": "block-disposable",
        "restricted_because_of_rule_id": None,
    }
    shown = rules.run(*arguments)
    assert shown.code == 0
    assert "emailDomain = 'tempmail.com'" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "rejected by block-disposable"


def test_a_file_of_users_is_judged_row_by_row(rules: Project, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("email,auth_method,bot\na@tempmail.com,password,0\nb@x.io,otp,99\n")
    document = rules.run("rules", "eval", "--users", "users.csv", "--json").json
    assert document == {
        "users": [
            {
                "row": 2,
                "email": "a@tempmail.com",
                "decision": "reject",
                "rule": "block-disposable",
                "restricted_by": None,
            },
            {"row": 3, "email": "b@x.io", "decision": "default-allow", "rule": None, "restricted_by": "risky"},
        ],
        "summary": {"allow": 0, "reject": 1, "default-allow": 1, "default-reject": 0, "restricted": 1},
    }
    (tmp_path / "sign-up-rules.yaml").write_text(RULES.replace("priority: 50", "priority: 500"))
    (tmp_path / "users.csv").write_text("email,auth_method,bot\na@tempmail.com,password,99\n")
    summary = rules.run("rules", "eval", "--users", "users.csv", "--json").json["summary"]
    assert (summary["reject"], summary["restricted"]) == (1, 0)  # who is let in restricted, as backtest counts


def test_check_is_content_with_what_is_right_and_exits_1_otherwise(rules: Project, tmp_path: Path) -> None:
    good = rules.run("rules", "check")
    assert (good.code, good.stdout) == (0, "2 rules: nothing found\n")
    bad = tmp_path / "bad.yaml"
    bad.write_text("rules:\n  a:\n    condition: emailDomian == 'x'\n    action: {type: log}\n")
    shown = rules.run("rules", "check", "--rules", bad)
    assert shown.code == 1
    assert shown.stdout.splitlines()[1:5] == [
        "  there is no field emailDomian",
        "    emailDomian == 'x'",
        "    ^",
        "  suggestion: emailDomain",
    ]
    (finding,) = rules.run("rules", "check", "--rules", bad, "--json").json["findings"]
    assert {"file", "line", "column", "rule", "severity", "message", "suggestion"} <= set(finding)
    github = rules.run("rules", "check", "--rules", bad, "--format", "github")
    assert github.stdout.startswith("::error file=bad.yaml,line=3,title=unknown-field::a: ")


def test_check_of_a_file_that_holds_no_rules_has_findings(rules: Project, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("rules:\n  a: {priority: 1.5, conditon: x, action: {type: log}}\n")
    result = rules.run("rules", "check", "--rules", bad.name, "--json")
    assert result.code == 1
    assert result.json["findings"][1] == {
        "file": "bad.yaml", "line": 2, "column": 1, "rule": "invalid-rules", "rule_id": None, "severity": "error",
        "message": "rule a has no key conditon; did you mean condition?", "suggestion": None,
    }  # fmt: skip
    shown = rules.run("rules", "check", "--rules", bad.name)
    assert (shown.code, shown.stdout.splitlines()[0]) == (1, "bad.yaml:2: error invalid-rules")
    assert shown.stdout.endswith("\n2 findings\n")
    bad.write_bytes(b"rules:\n  a: \xff")
    github = rules.run("rules", "check", "--rules", bad.name, "--format", "github")
    assert (github.code, github.stdout) == (1, "::error file=bad.yaml,line=2,title=rules-unreadable::not UTF-8\n")


def test_list_is_in_the_order_of_evaluation(rules: Project) -> None:
    document = rules.run("rules", "list", "--json").json
    assert [rule["id"] for rule in document["rules"]] == ["block-disposable", "risky"]
    assert "otherwise allow" in rules.run("rules", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("eval", "--risk", "bot=x"), 2),
        (("eval", "--risk", "bot=101"), 2),
        (("eval", "--auth-method", "oatuh"), 2),
        (("eval", "--country-code", "GER"), 2),
        (("eval", "--users", "nowhere.csv", "--email", "a@b.c"), 2),
        (("eval", "--tenancy", "x"), 2),
        (("eval", "--user", "a@b.c", "--auth-method", "oatuh"), 2),
        (("eval", "--rules", "nowhere.yaml"), 3),
        (("eval", "--users", "nowhere.csv"), 3),
        (("eval", "--risk", "bot=5", "--risk", "bot=80"), 2),
        (("eval", "--risk", f"bot={'9' * 5000}"), 2),
        (("eval", "--email", "\udcff"), 2),
        (("check", "--rules", "nowhere.yaml"), 3),
        (("check", "--json", "--format", "github"), 2),
    ],
)
def test_bad_input_is_one_error(rules: Project, arguments: tuple[str, ...], code: int) -> None:
    outcome = rules.run("rules", *arguments)
    assert (outcome.code, outcome.stderr.count("error:")) == (code, 1)
