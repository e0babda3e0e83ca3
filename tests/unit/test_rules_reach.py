"""What is claimed of rules without a user holds for every user; and conditions as trees."""

from __future__ import annotations

import random

import pytest

from stackctl.rules.backend.differences import check_backend as backend_problems
from stackctl.rules.cel import tree
from stackctl.rules.decide import Judge
from stackctl.rules.model import Action, Context, Rule, RuleSet
from stackctl.rules.reachability import check_reachability
from tests.rule_generator import Generator

IN_A = 'emailDomain in ["a.com", "b.com"]'


EMAILS = ["", "a", "bob@gmail.com", "a@gmail.com", "bob+1@a.com", "é@x.io", 'quo"te\\@b', "oauth@de", "+@+"]


def rules(*conditions: tuple[str, str]) -> RuleSet:
    """Rules r0, r1, … in order of evaluation, each an action and a condition."""
    return RuleSet(
        "allow",
        tuple(
            Rule(f"r{place}", f"r{place}", True, 100 - place, condition, Action(action))  # type: ignore[arg-type]
            for place, (action, condition) in enumerate(conditions)
        ),
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (rules(("log", 'email.endsWith(".ru") && emailDomain == "a.com"')), [("r0", "never-true", ())]),
        (rules(("log", 'email == "x@a.com" && emailDomain == "b.com"')), [("r0", "never-true", ())]),
        (rules(("log", 'authMethod == "otp" && oauthProvider == "github"')), [("r0", "never-true", ())]),
        (rules(("log", "riskScores.bot > 80 && riskScores.bot < 81")), [("r0", "never-true", ())]),
        (rules(("log", "riskScores.bot > 79 && riskScores.bot < 81")), []),
        (rules(("log", "riskScores.bot >= 0")), [("r0", "always-true", ())]),
        (rules(("log", 'email.startsWith("a") || !email.startsWith("a")')), [("r0", "always-true", ())]),
        (rules(("log", "1 / riskScores.bot > 3 || !(1 / riskScores.bot > 3)")), []),
        (rules(("log", 'authMethod in ["password", "otp", "oauth", "passkey"]')), [("r0", "always-true", ())]),
        (rules(("reject", IN_A), ("allow", 'emailDomain == "a.com"')), [("r1", "unreachable", ("r0",))]),
        (rules(("restrict", IN_A), ("allow", 'emailDomain == "a.com"')), []),
        (rules(("reject", IN_A), ("log", 'emailDomain == "c.com"')), []),
        (
            rules(("reject", "riskScores.bot > 50"), ("log", "true"), ("allow", "riskScores.bot < 60"),
                  ("log", 'email != ""')),
            [("r1", "always-true", ()), ("r3", "unreachable", ("r0", "r2"))],
        ),
        (rules(("reject", "1 / riskScores.bot == 1 || true"), ("log", IN_A)),
         [("r0", "always-true", ()), ("r1", "unreachable", ("r0",))]),
        (rules(("reject", 'email.matches("a+")'), ("log", 'email.matches("a+") && riskScores.bot > 1')),
         [("r1", "unreachable", ("r0",))]),
        (rules(("reject", 'email.matches("a+")'), ("log", 'email.matches("aa+")')), []),
        (rules(("reject", "nope == 1"), ("log", "true")), [("r1", "always-true", ())]),
    ],
)  # fmt: skip
def test_claims(found: RuleSet, expected: list[tuple[str, str, tuple[str, ...]]]) -> None:
    assert [(claim.rule.id, claim.kind, claim.preceding) for claim in check_reachability(found)] == expected


def test_no_user_contradicts_a_claim() -> None:
    """Random rules, held against random users whose fields are made of the constants that the rules name."""
    chance = random.Random(11)
    generator = Generator(11)
    users = [user(chance) for _ in range(400)]
    made: dict[str, int] = {}
    for _ in range(120):
        actions = [chance.choice(["allow", "reject", "restrict", "log"]) for _ in range(3)]
        found = rules(*((action, generator.condition(2)) for action in actions))
        judge = Judge(found)
        said = [{one.rule.id: one.status for one in judge.decide(person).evaluations} for person in users]
        judges = {rule.id: Judge(rules(("log", rule.condition or ""))) for rule in found.rules}
        alone = {id_: [one.decide(person).evaluations[0].status for person in users] for id_, one in judges.items()}
        for claim in check_reachability(found):
            made[claim.kind] = made.get(claim.kind, 0) + 1
            match claim.kind:
                case "never-true":
                    assert "matched" not in alone[claim.rule.id], claim
                case "always-true":
                    assert set(alone[claim.rule.id]) == {"matched"}, claim
                case "unreachable":
                    assert all(statuses.get(claim.rule.id) != "matched" for statuses in said), claim
    assert made.keys() == {"never-true", "always-true", "unreachable"}


def user(chance: random.Random) -> Context:
    method = chance.choice(["password", "otp", "oauth", "passkey"])
    return Context.from_user(
        email=chance.choice(
            ["", "a", "bob@gmail.com", "a@gmail.com", "bob+1@a.com", "é@x.io", 'quo"te\\@b', "oauth@de", "+@+"]
        ),
        country_code=chance.choice(["", "DE", "US"]),
        auth_method=method,
        oauth_provider=chance.choice(["", "github", "a", "gmail.com"]) if method == "oauth" else None,
        risk_scores={
            "bot": chance.choice([0, 1, 2, 7, 80, 81, 99, 100]),
            "free_trial_abuse": chance.choice([0, 1, 80, 100]),
        },
    )


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("email.contains('x')", "no single quotes"),
        ("email.contains(emailDomain)", "nothing but a string"),
        ("email.size() > 3", "no .size()"),
        ('["a"].exists(x, x == email)', "no macro exists"),
        ('email == r"a"', "no raw strings"),
        ('email.matches("(?i)a")', "(?i) is no kind of group"),
        ('email.matches("^(a+)+$")', "hang it"),
        ('email.matches("(a|b*)*c")', "hang it"),
        ('email == "a\\bc"', "it knows no escapes in strings"),
        ("riskScores.bot == 0 || 10 % riskScores.bot == 1", "an error there when this fails"),
        ("size(email) > 3", "counts UTF-16"),
        ("1e999 > 1.0", "does not take 1e999 for a number"),
        ("riskScores.bot in [1e999]", "does not take 1e999 for a number"),
    ],
)
def test_what_the_backends_evaluator_does_otherwise_is_said(condition: str, says: str) -> None:
    assert any(says in problem.message for problem in backend_problems(condition))


@pytest.mark.parametrize(
    "condition",
    ['email.matches("^[a-z]+@x\\\\.com$")', "email == 'x'", 'email.contains("a") || !(riskScores.bot > 3)',
     'email.matches("a{2}b+")'],
)  # fmt: skip
def test_what_both_understand_is_left_alone(condition: str) -> None:
    assert list(backend_problems(condition)) == []


def test_every_tree_is_read_back_as_it_was_written() -> None:
    chance = random.Random(5)
    generator = Generator(5)

    def made(depth: int) -> tree.Tree:
        if depth == 0 or chance.random() < 0.3:
            found = tree.parse_tree(generator.condition(0))
            return found if isinstance(found, tree.Leaf) else tree.Leaf('email == "\\"😀\\\\ && x || \\n"')
        kind = chance.choice(["all", "any", "not"])
        if kind == "not":
            return tree.Branch("not", (made(depth - 1),))
        return tree.Branch(kind, tuple(made(depth - 1) for _ in range(chance.randrange(2, 4))))  # type: ignore[arg-type]

    for _ in range(300):
        found = made(3)
        assert tree.parse_tree(tree.to_condition(found)) == found
        assert tree.from_document(tree.to_document(found)) == found


def test_a_condition_means_the_same_after_the_round_trip() -> None:
    generator = Generator(6)
    chance = random.Random(6)
    users = [user(chance) for _ in range(30)]
    for _ in range(200):
        condition = generator.condition()
        again = tree.to_condition(tree.parse_tree(condition))
        one, other = (Judge(rules(("log", text))) for text in (condition, again))
        for person in users:
            assert one.decide(person).evaluations[0].status == other.decide(person).evaluations[0].status


def test_a_drawing() -> None:
    found = tree.parse_tree('email == "a" && (riskScores.bot > 3 || !(authMethod == "otp"))')
    assert list(tree.draw_tree(found)) == [
        "all of",
        '├─ email == "a"',
        "└─ any of",
        "   ├─ riskScores.bot > 3",
        "   └─ not",
        '      └─ authMethod == "otp"',
    ]
    assert tree.join_conditions(['a == "x" || b', "c"], ["d && e"]) == '((a == "x" || b) && c) || (d && e)'


def test_a_large_set_is_checked_in_bounded_work() -> None:
    """Hundreds of rules with hundreds of names: fewer claims, but an answer; and a list of thousands is no trouble."""
    many = rules(
        *(
            ("reject", f'email.contains("a{n}") || emailDomain == "d{n}.com" && riskScores.bot > {n % 100}')
            for n in range(120)
        )
    )
    assert list(check_reachability(many)) == []
    names = ", ".join(f'"u{n}@x.de"' for n in range(3000))
    found = rules(("reject", f"email in [{names}]"), ("log", 'email == "u7@x.de"'))
    assert [(claim.rule.id, claim.preceding) for claim in check_reachability(found)] == [("r1", ("r0",))]
