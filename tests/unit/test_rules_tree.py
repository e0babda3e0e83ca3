"""Conditions as trees: what is read is written with the same meaning, and what is written is read as the same tree."""

from __future__ import annotations

import random
from typing import Any

import pytest

from stackctl.core.errors import UsageError
from stackctl.rules.cel.evaluate import compile_condition
from stackctl.rules.cel.tree import (
    Branch,
    Leaf,
    Tree,
    draw_tree,
    from_document,
    join_conditions,
    parse_tree,
    to_condition,
    to_document,
)
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.model import Context
from tests.rule_generator import Generator, quoted

PEOPLE = [
    Context.from_user(email=email, country_code=country, auth_method=method, risk_scores={"bot": bot})
    for email in ("bob@gmail.com", "", "é@x.io", "bob+1@a.com")
    for country in ("DE", "")
    for method, bot in (("password", 0), ("oauth", 81))
]
# Text that is awkward inside a condition: it must stay data whatever stands around it.
TEXTS = ['"', "\\", "it's", "// no comment", "é😀", "a && b || c", ") || (true", "? :", "{[(", "@example.com"]
SEED = 11


def answers(condition: str) -> list[object]:
    evaluate = compile_condition(condition)

    def answer(person: Context) -> object:
        try:
            return evaluate(person.fields())
        except EvaluationError:
            return "error"

    return [answer(person) for person in PEOPLE]


def random_tree(chance: random.Random, depth: int = 4) -> Tree:
    pick = chance.random()
    if depth == 0 or pick < 0.3:
        text = quoted(chance.choice(TEXTS))
        leaf = chance.choice(
            ["email == {}", "email.contains({})", "emailDomain in [{0}, {0}]", "({} == email ? true : false)"]
        )
        return Leaf(leaf.format(text))
    if pick < 0.5:
        return Branch("not", (random_tree(chance, depth - 1),))
    parts = tuple(random_tree(chance, depth - 1) for _ in range(chance.randrange(2, 4)))
    return Branch(chance.choice(["all", "any"]), parts)


def test_a_tree_is_written_and_read_as_itself() -> None:
    chance = random.Random(SEED)
    for _ in range(300):
        tree = random_tree(chance)
        assert parse_tree(to_condition(tree)) == tree, f"seed {SEED}: {to_condition(tree)}"
        assert from_document(to_document(tree)) == tree, f"seed {SEED}: {to_condition(tree)}"


def test_a_condition_keeps_its_meaning() -> None:
    generator = Generator(SEED)
    conditions = [generator.condition(4) for _ in range(300)]
    conditions += [
        'email == "x" // why\n && riskScores.bot > 80',
        "// first\n!(email // inside\n == emailDomain) // last",
        '("a" + email) == email || (size(email)) > 3 && !!(authMethod == "oauth")',
        '!email.contains("+") ? riskScores.bot > 80 : countryCode == "DE"',
        "!" * 60 + "email.contains('bob')",
    ]
    for condition in conditions:
        assert answers(to_condition(parse_tree(condition))) == answers(condition), condition


@pytest.mark.parametrize(
    ("tree", "condition"),
    [
        # A comment must not swallow what is written behind it.
        ({"all": ['email == "x" // note', "true"]}, 'email == "x" && true'),
        ({"not": "true // note"}, "!(true)"),
        ({"all": ["true || false // note", "(true) || (false)"]}, "(true || false) && (true || false)"),
        ({"any": ["true ? false : true", {"not": {"not": "true"}}]}, "(true ? false : true) || !!(true)"),
        ("true && false", "true && false"),
    ],
)
def test_json_becomes_a_condition(tree: Any, condition: str) -> None:
    assert to_condition(from_document(tree)) == condition


def nested(depth: int) -> Any:
    return {"all": ["true", {"any": ["true", nested(depth - 1)]}]} if depth else "true"


@pytest.mark.parametrize(
    "tree",
    [5, None, [], {}, {"all": ["true"]}, {"all": ["true", "true"], "any": []}, {"not": ["true"]}, {"not": "true ||"},
     "", "true) || (true", 'email == "\ud800"', nested(30)],
)  # fmt: skip
def test_what_is_no_tree_is_refused(tree: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_document(tree)


def test_parts_are_joined_as_they_are_meant() -> None:
    assert join_conditions(["a == 1 || b == 1 // note", "c == 1"], ["d == 1 && e == 1"]) == (
        "((a == 1 || b == 1) && c == 1) || (d == 1 && e == 1)"
    )
    with pytest.raises(UsageError, match="--or"):
        join_conditions(["true"], ["true) || (true"])


def test_a_tree_is_drawn() -> None:
    assert list(draw_tree(parse_tree('!(email == "") && (true || riskScores.bot\n  > 80) && true'))) == [
        "all of",
        "├─ not",
        '│  └─ email == ""',
        "├─ any of",
        "│  ├─ true",
        "│  └─ riskScores.bot > 80",
        "└─ true",
    ]
