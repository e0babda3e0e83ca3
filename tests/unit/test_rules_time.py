"""No text takes any command long that reads conditions: what was trouble once, and mutated conditions.

Another seed, and texts of 100 KB instead of 30, more of each: STACKCTL_RULES_SEED, STACKCTL_RULES_LONG.
"""

from __future__ import annotations

import gc
import os
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from stackctl.__main__ import COLLECT_AFTER
from stackctl.core.errors import ConfigError
from stackctl.rules.cel.cost import MAX_LENGTH
from stackctl.rules.cel.evaluate import compile_condition
from stackctl.rules.cel.parse import ConditionSyntaxError
from stackctl.rules.cel.to_sql import to_predicate
from stackctl.rules.cel.trace import trace_condition
from stackctl.rules.cel.tree import draw_tree, from_document, parse_tree, to_document
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.check import check_rules
from stackctl.rules.decide import Judge
from stackctl.rules.model import Action, Context, Rule, RuleSet
from stackctl.rules.rewrite_rules_file import rewrite_rules
from tests.rule_generator import Generator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONG = bool(os.environ.get("STACKCTL_RULES_LONG"))
SEED = int(os.environ.get("STACKCTL_RULES_SEED", "20261124"))
SIZE, MUTATED = (100_000, 3_000) if LONG else (30_000, 60)
SECONDS = 1.0  # of the processor, for one command
BOB = Context.from_user(email="bob@example.com")


@pytest.fixture(autouse=True)
def garbage_as_the_program_collects_it() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER)
    yield
    gc.set_threshold(*before)


def rule(condition: str) -> RuleSet:
    return RuleSet("allow", (Rule("r", "", True, 1, condition, Action("reject")),))


def draw(condition: str) -> None:
    with suppress(ConditionSyntaxError, ValueError):
        tree = parse_tree(condition)
        list(draw_tree(tree))
        from_document(to_document(tree))


def judge(condition: str) -> None:
    Judge(rule(condition)).decide(BOB)
    trace_condition(rule(condition).rules[0], BOB)


def rewrite(condition: str) -> None:
    with suppress(ConfigError):
        rewrite_rules("rules:\n  a: {action: {type: log}}\n", "rules.yaml", rule(condition))


WORK: dict[str, Callable[[str], object]] = {
    "check": lambda condition: check_rules(rule(condition)),
    "eval": judge,
    "tree": draw,
    "edit": rewrite,
    "backtest": lambda condition: to_predicate(condition).as_string(None),
}


def assert_quick(condition: str, what: str) -> None:
    for name, work in WORK.items():
        start = time.process_time()
        work(condition)
        took = time.process_time() - start
        assert took < SECONDS, f"{name}: {took:.1f} s for {what} ({len(condition):,} characters): {condition[:200]}"


def joined(pattern: str, joint: str = " || ") -> str:
    number = SIZE // (len(pattern) + len(joint) + 2)
    return joint.join(pattern.replace("#", str(place)) for place in range(number))


HARD = {
    **{f"escapes behind {quote}": f"email == {quote}" + "\\n" * (SIZE // 2)
       for quote in ('"', "'", '"""', "'''", 'b"', "r'", 'br"""')},
    "escaped quotes": 'email == r"' + '\\"' * (SIZE // 2),
    "empty strings": '"" ' * (SIZE // 3),
    "quotes": "'" * SIZE,
    "nested macros": "[1, 2].all(x, " * 5_000 + "true" + ")" * 5_000,
    "macros that multiply": f"[{joined('#', ',')[:400]}].all(a, a in [1]) && " + "[1, 2, 3, 4, 5, 6, 7].all(x, " * 30
    + "true" + ")" * 30,
    "macros that double": '["aaaa"]' + ".map(x, x + x)" * 200 + " == []",
    "chained macros": "[1]" + ".map(x, x)" * 5_000,
    "a digit": "1" * SIZE,
    "numbers": f"riskScores.bot in [{joined('1', ',')}]",
    "texts": f"email in [{joined(chr(34) + 'a#' + chr(34), ',')}]",
    "unknown names": joined("nme#", "||\n"),
    "addresses": joined('email == "a#"'),
    "endings": joined('email.endsWith("a#")'),
    "patterns": joined('email.matches("a#")'),
    "countries": joined('countryCode == "u#"'),
    "a pattern": 'email.matches("' + "(a|b)*" * (SIZE // 6) + '")',
    "arithmetic": joined("1 + 1 + 1 == 1"),
    "signs": "!-" * (SIZE // 2) + "true",
    "fields": "a" + ".b" * (SIZE // 2),
    "conditionals": "(" * 39 + 'email == "a"' + " ? true : false)" * 39,
    "other conditionals": "true ? true : " * (SIZE // 14) + "true",
    "conversions": joined('int("1") == 1', " && "),
}  # fmt: skip


@pytest.mark.parametrize("what", HARD)
def test_no_text_takes_long(what: str) -> None:
    assert_quick(HARD[what], what)


PIECES = ['"', "'", '"""', "'''", 'r"', "b'", "\\n", '\\"', "\\\\", "\\", "(", ")", "[", "]", "{", "}", "?", ":", ".",
          ",", "&&", "||", "!", "-", "1.5", "0x", "1e", "in", "null", "//", "\n", ".map(x, x)", "[1].all(x, ",
          "\\n" * 40, '"' * 7]  # fmt: skip


def test_no_mutated_condition_takes_long() -> None:
    print(f"seed {SEED}, {MUTATED} conditions")
    chance, generator = random.Random(SEED), Generator(SEED)
    read = 0
    for _ in range(MUTATED):
        text = " && ".join(generator.condition() for _ in range(chance.choice([1, 5, 20])))
        for _ in range(chance.randrange(6)):
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(PIECES) + text[at + chance.choice([0, 0, 1, 5]) :]
        assert_quick(text, "a mutated condition")
        with suppress(ConditionSyntaxError, EvaluationError):
            compile_condition(text)
            read += 1
    assert 0 < read < MUTATED


def test_what_macros_multiply_to_is_an_error_that_says_so() -> None:
    (problem,) = check_rules(rule("[1, 2, 3, 4, 5, 6, 7, 8, 9].all(a, " * 5 + "true" + ")" * 5))[:1]
    assert (problem.code, problem.severity, "20,000 are the most" in problem.message) == ("cost", "error", True)
    (problem,) = check_rules(rule("int('1') == 1 || " + "true || " * MAX_LENGTH + "true"))[:1]
    assert (problem.code, problem.severity, "characters" in problem.message) == ("cost", "error", True)
    domains = ", ".join(f'"d{number}.example.com"' for number in range(200))
    assert compile_condition(f"[{domains}].exists(d, email.endsWith(d))")(BOB.fields()) is False


def test_a_hundred_findings_of_a_condition_are_enough_and_errors_come_first() -> None:
    # 150 of size, an unknown field, and that the backend makes an error of it where CEL has true.
    found = check_rules(rule(" || ".join(["size(email) > 3"] * 150 + ["nope"])))
    assert len(found) == 101
    assert [one.severity for one in found].count("error") == 1
    assert (found[-1].code, found[-1].message) == ("more", "and 52 more in this condition")


@pytest.mark.parametrize(
    "call",
    ["email.endsWith()", "has(email)", "has()", "size()", "size(email, email) > 1", "email.size(1) > 1"],
)
def test_a_call_with_other_arguments_than_it_takes_is_traced(call: str) -> None:
    parts = trace_condition(rule(f"{call} || email == 'a'").rules[0], BOB)
    assert [part.value for part in parts] == [None, False]
