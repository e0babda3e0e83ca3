"""What rules mean, line by line of what the backend does; and what is refused or found beforehand."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ConfigError
from stackctl.rules.cel import types
from stackctl.rules.cel.evaluate import compile_condition
from stackctl.rules.cel.parse import ConditionSyntaxError, point_at
from stackctl.rules.cel.parse import parse as parse_condition
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.check import check_rules
from stackctl.rules.decide import Judge
from stackctl.rules.model import Context
from stackctl.rules.rules_file import parse_rules
from stackctl.rules.sample_users import load_users
from tests.growth import LINEAR, growth

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.rules.decide import Decision

BOB = Context.from_user(email="  Bob+X@Sub.Example.com ", country_code="de", risk_scores={"bot": 81})


def decide(rules: str, context: Context = BOB, default: str = "allow") -> Decision:
    return Judge(parse_rules(f"default_action: {default}\nrules: {{{rules}}}", "rules.yaml")).decide(context)


def rule(id_: str, action: str, condition: str = "true", *, priority: int = 0, enabled: str = "true") -> str:
    return (
        f"{id_}: {{priority: {priority}, enabled: {enabled}, condition: '{condition}', action: {{type: {action}}}}}, "
    )


def value(condition: str, context: Context = BOB) -> object:
    try:
        return compile_condition(condition)(context.fields())
    except EvaluationError as error:
        return f"error: {error}"


# -- the context


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        ("", ("", "")),
        (None, ("", "")),
        (" A@B.C ", ("a@b.c", "b.c")),
        ("a@b@C", ("a@b@c", "c")),
        ("nobody", ("nobody", "")),
    ],
)
def test_the_email_is_normalized_and_its_domain_follows_the_last_at(
    email: str | None, expected: tuple[str, str]
) -> None:
    context = Context.from_user(email=email)
    assert (context.email, context.email_domain) == expected


def test_everything_is_there_and_never_null() -> None:
    assert Context.from_user().fields() == {
        "email": "", "emailDomain": "", "countryCode": "", "authMethod": "password", "oauthProvider": "",
        "riskScores": {"bot": 0, "free_trial_abuse": 0},
    }  # fmt: skip
    assert Context.from_user(country_code=" de").fields()["countryCode"] == "DE"


@pytest.mark.parametrize(
    "wrong",
    [{"auth_method": "oatuh"}, {"country_code": "GER"}, {"risk_scores": {"bot": 101}}, {"risk_scores": {"bots": 1}},
     {"risk_scores": {"bot": True}}, {"oauth_provider": "github"}],
)  # fmt: skip
def test_a_user_that_can_not_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Context.from_user(**wrong)  # pyright: ignore[reportArgumentType]


# -- the order, and what each action does


def test_the_highest_priority_is_first_and_ids_break_ties() -> None:
    found = decide(rule("b", "log", priority=5) + rule("a", "log", priority=5) + rule("c", "log", priority=9))
    assert [evaluation.rule.id for evaluation in found.evaluations] == ["c", "a", "b"]


@pytest.mark.parametrize("action", ["allow", "reject"])
def test_allow_and_reject_decide_and_end(action: str) -> None:
    found = decide(rule("first", action, priority=2) + rule("second", "log", priority=1))
    assert (found.outcome, found.decided_by, len(found.evaluations)) == (action, "first", 1)
    assert found.should_allow == (action == "allow")


def test_the_first_restriction_is_remembered_and_a_later_reject_still_rejects() -> None:
    restricting = rule("one", "restrict", priority=3) + rule("two", "restrict", priority=2)
    found = decide(restricting)
    assert (found.outcome, found.restricted_by, found.decided_by) == ("default-allow", "one", None)
    found = decide(restricting + rule("last", "reject", priority=1))
    assert (found.outcome, found.restricted_by, found.decided_by) == ("reject", "one", "last")


@pytest.mark.parametrize(("default", "outcome"), [("allow", "default-allow"), ("reject", "default-reject")])
def test_without_a_decision_the_default_holds(default: str, outcome: str) -> None:
    found = decide(rule("noted", "log"), default=default)
    assert (found.outcome, found.decided_by, found.evaluations[0].status) == (outcome, None, "matched")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (rule("r", "reject", enabled="false"), "disabled"),
        ("r: {action: {type: reject}}", "missing_condition"),
        ("r: {condition: ' ', action: {type: reject}}", "missing_condition"),
        (rule("r", "reject", "email"), "error"),
        (rule("r", "reject", "email &&"), "error"),
        (rule("r", "reject", "riskScores.nope > 1"), "error"),
        (rule("r", "reject", "has(email)"), "error"),
        (rule("r", "reject", "false"), "not_matched"),
    ],
)
def test_what_does_not_match_decides_nothing(text: str, status: str) -> None:
    found = decide(text)
    assert (found.outcome, found.evaluations[0].status) == ("default-allow", status)


def test_an_error_holds_nothing_of_the_user() -> None:
    (evaluation,) = decide(rule("r", "reject", "int(email) > 1")).evaluations
    assert evaluation.error is not None
    assert "bob" not in evaluation.error


# -- the language


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("riskScores.bot > 80.5", True),
        ("1 in [1.0]", True),
        ('email == 1', False),
        ('email != 1', True),
        ('size("é")', 1),
        ('"a\\"b\\\\" == r\'a"b\\\'', True),
        ('"""a\nb""" == "a\\nb"', True),
        ("email in []", False),
        ("true || riskScores.nope == 1", True),
        ("riskScores.nope == 1 && false", False),
        ("email && false", False),
        ("-7 / 2 == -3 && -7 % 2 == -1", True),
        ("riskScores.bot == 81 ? true : email", True),
        ('email.matches("example")', True),
        ('"a" < "b" && "Z" < "a"', True),
        ('riskScores["bot"] == 81', True),
        ('[1, 2].exists(x, x == 2)', True),
        ("1 / 0 == 1", "error: division by zero"),
        ('"a" in email', "error: nothing is in a string: in takes a list"),
        ("email && true", "error: a string is not true or false"),
        ("9223372036854775807 + 1 > 0", "error: the number does not fit into 64 bits"),
    ],
)  # fmt: skip
def test_conditions_mean_what_cel_says(condition: str, expected: object) -> None:
    assert value(condition) == expected


@pytest.mark.parametrize("email", ['a"b@x', "a\\b@x", '" || true || "', "a' == 'a"])
def test_what_a_user_types_is_data(email: str) -> None:
    assert value('email == ""', Context.from_user(email=email)) is False


@pytest.mark.parametrize(
    ("condition", "at", "what"),
    [
        ("email ==", 8, "too early"),
        ('email == "a', 9, "never closed"),
        ("a $ b", 2, "'$'"),
        ('"\\d"', 1, "not a CEL escape"),
        ("(" * 500 + "true" + ")" * 500, 40, "nested"),
        ("x" * 1_000_000, 262_144, "characters"),
        ("1" + "+1" * 500, 0, "nested"),
        ("99999999999999999999 > 1", 0, "64 bits"),
    ],
)
def test_what_can_not_be_read_is_one_clear_place(condition: str, at: int, what: str) -> None:
    with pytest.raises(ConditionSyntaxError) as caught:
        parse_condition(condition)
    assert (caught.value.at, what in caught.value.reason) == (at, True)


def test_the_place_is_pointed_at() -> None:
    assert point_at("email == \n  1 $", 14) == "  1 $\n    ^"


def test_large_lists_and_long_chains_are_fine() -> None:
    new = count()  # what was compiled once is remembered

    def listed(size: int) -> None:
        text = f"{next(new)}"
        assert value("email in [" + ", ".join(f'"u{n}@{text}"' for n in range(size)) + "]") is False

    def chained(size: int) -> None:
        assert value(" || ".join([f"email == 'x{next(new)}'"] * size)) is False

    assert growth(listed, 100) < LINEAR
    assert growth(chained, 50) < LINEAR


def test_a_catastrophic_pattern_takes_linear_time() -> None:
    def matched(size: int) -> None:
        assert value('email.matches("^(a+)+$")', Context.from_user(email="a" * size + "!")) is False

    assert growth(matched, 50_000) < LINEAR
    assert str(value('email.matches("((a{1,100}){1,100}){1,100}")')).startswith("error: invalid pattern")


# -- found beforehand


@pytest.mark.parametrize(
    ("condition", "code", "suggestion"),
    [
        ("emailDomian == 'x'", "unknown-field", "emailDomain"),
        ("riskScores.bots > 1", "unknown-field", "riskScores.bot"),
        ('email.endswith("x")', "unknown-function", "endsWith"),
        ("email", "not-boolean", None),
        ("email && true", "type", 'compare it: … == ""'),
        ('"a" in email', "in-takes-a-list", 'text.contains("…") looks for a part of a text'),
        ("email == 1", "type", None),
        ('email.matches("(")', "pattern", None),
        ("has(email)", "has", "has(riskScores.bot)"),
        ("email.contains(1)", "type", None),
        ("email ==", "syntax", None),
    ],
)
def test_a_type_check_finds(condition: str, code: str, suggestion: str | None) -> None:
    (problem,) = types.check_types(condition)
    assert (problem.rule, problem.severity, problem.suggestion) == (code, "error", suggestion)


@pytest.mark.parametrize(
    "condition",
    ['email.endsWith(".ru") && !(emailDomain in ["a", "b"])', "riskScores.bot > 80.5 || size(email) == 0",
     "has(riskScores.bot) ? true : false", "[1].exists(x, x == riskScores.bot)", 'authMethod + "x" == "otpx"'],
)  # fmt: skip
def test_a_type_check_leaves_alone_what_is_right(condition: str) -> None:
    assert types.check_types(condition) == ()


@pytest.mark.parametrize(
    ("condition", "suggestion"),
    [
        ('countryCode in ["us"]', '"US"'),
        ('emailDomain == "Gmail.com"', '"gmail.com"'),
        ('authMethod == "oatuh"', '"oauth"'),
        ("riskScores.bot > 100", None),
        ('emailDomain == "bob@x.com"', '"x.com"'),
    ],
)
def test_what_never_comes_true_is_found(condition: str, suggestion: str | None) -> None:
    rules = parse_rules(f"rules: {{r: {{condition: '{condition}', action: {{type: log}}}}}}", "rules.yaml")
    (finding,) = check_rules(rules)
    assert (finding.code, finding.severity, finding.suggestion) == ("never-so", "warning", suggestion)


def test_a_finding_has_its_line_in_the_file() -> None:
    text = "rules:\n  r:\n    condition: |\n      true &&\n        nope\n    action: {type: log}\n"
    (finding,) = check_rules(parse_rules(text, "rules.yaml"))
    assert (finding.line, finding.column) == (5, 3)


# -- files


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: {a: {action: {type: log}}, a: {action: {type: log}}}", "a is there twice"),
        ("rules: {a: {priority: -1, action: {type: log}}}", "whole number of at least 0"),
        ("rules: {a: {priority: 1.5, action: {type: log}}}", "whole number of at least 0"),
        ("rules: {a: {action: {type: rejct}}}", "did you mean reject?"),
        ("rules: {a: {conditon: x, action: {type: log}}}", "did you mean condition?"),
        ("rules: {a: {}}", "no action"),
        ("rules: [a]", "not a list"),
        ("rules: {a: {enabled: maybe, action: {type: log}}}", "true or false"),
        ("default_action: deny", "one of allow, reject"),
        ("rules: {a: [", "rules.yaml:1"),
    ],
)
def test_a_bad_rules_file_is_one_error(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules(text, "rules.yaml")
    assert caught.value.code == "invalid-rules"
    assert said in caught.value.message


def test_every_mistake_is_named_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules("rules:\n  a: {action: {type: x}}\n  b: {priority: no, action: {type: log}}\n", "f")
    assert [line.split(":")[1] for line in caught.value.message.splitlines()] == ["2", "3"]


@pytest.mark.parametrize(
    ("name", "text", "row"),
    [
        ("u.csv", "email,auth_method\na@b.c,password\na@b.c\n", 3),
        ("u.csv", "email,bot\na@b.c,1\n", 1),
        ("u.csv", "email,auth_method,bot\na@b.c,password,x\n", 2),
        ("u.csv", "email,auth_method,bots\na@b.c,password,1\n", 1),
        ("u.csv", 'email,auth_method,note\n"a\n@b.c",password,x\n"a@\n\nb.c",pass,"y\nz"\n', 4),
        ("u.csv", 'email,auth_method\na@b.c,password\n"a@b.c,password\nc@b.c,otp\n', 3),
        ("u.csv", "sep=;\r\nemail;auth_method;bot\r\na@b.c;password;x\r\n", 3),
        ("u.jsonl", '{"email": "a\u2028@b.c"}\r\n\r\n{"email": 1}\r\n', 3),
        ("u.jsonl", '{"email": "a@b.c"}\n[]\n', 2),
        ("u.yaml", "- {email: a@b.c}\n- {mail: x}\n", 2),
    ],
)
def test_a_bad_row_of_users_is_named(tmp_path: Path, name: str, text: str, row: int) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        list(load_users(tmp_path / name))
    assert (caught.value.code, caught.value.details["row"]) == ("invalid-user", row)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.csv", 'email,auth_method,bot\n"A,b@X.c",oauth,7\n'),
        ("u.jsonl", '{"email": "a,b@x.c", "auth_method": "oauth", "risk_scores": {"bot": 7}}\n'),
        ("u.yaml", "users: [{email: 'a,b@x.c', auth_method: oauth, risk_scores: {bot: 7}}]\n"),
        ("u.csv", "email;auth_method;bot\r\na,b@x.c;oauth;7\r\n;;\r\n"),
        ("u.csv", "sep=|\r\nemail|auth_method|bot|\r\na,b@x.c|oauth|7||\r\n"),
        ("u.csv", 'EMAIL\tAuth Method\tBot\tNotes\n"a,b@X.c "\t oauth\t7\t"new\nline"\n'),
        ("u.tsv", "email\tauth_method\tbot\ra,b@x.c\toauth\t7\r"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_users_come_in_several_forms(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    (person,) = load_users(tmp_path / name)
    assert person.context == Context("a,b@x.c", "", "oauth", "", 7, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("email,auth_method,Email \na@b.c,password,d@b.c\n", "the column email is there twice"),
        ("email,authMethod\na@b.c,password\n", "auth_method is missing; is authmethod meant?"),
        ("email,auth_method,country-code\na@b.c,password,DE\n", "did you mean country_code?"),
    ],
)
def test_a_bad_heading_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "u.csv").write_text(text)
    with pytest.raises(ConfigError) as caught:
        list(load_users(tmp_path / "u.csv"))
    assert said in caught.value.message


def test_a_column_that_means_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("email,auth_method,Seen in\na@b.c,password,DE\n")
    told: list[str] = []
    assert len(list(load_users(tmp_path / "u.csv", told.append))) == 1
    assert len(told) == 1
    assert "Seen in is not used" in told[0]


@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xe9mail,auth_method\n", "email".encode("utf-16-le")])
def test_a_file_in_no_known_encoding_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "u.csv").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        list(load_users(tmp_path / "u.csv"))
    assert caught.value.code == "users-unreadable"
