"""What differs between CEL and the backend's evaluator is found, and what is found differs: held against cel-js itself.

Another seed or another number of conditions: STACKCTL_RULES_SEED, STACKCTL_RULES_BACKEND_CASES.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest

from stackctl.rules.backend.cel_js.evaluate import BackendCondition, FailedError, UndecidedError, UnreadableError
from stackctl.rules.backend.cel_js.patterns import is_same_to_both, read_pattern
from stackctl.rules.backend.cel_js.read import find_calls, read_tokens
from stackctl.rules.backend.differences import check_backend
from stackctl.rules.backend.trial import MANY, Trial
from stackctl.rules.cel import types
from stackctl.rules.cel.evaluate import compile_condition
from stackctl.rules.cel.parse import ConditionSyntaxError, parse
from stackctl.rules.cel.patterns import compile_pattern
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.model import AUTH_METHODS, Context
from tests.cel_js_oracle import ask
from tests.growth import LINEAR, growth
from tests.rule_generator import BackendGenerator, quoted

SEED = int(os.environ.get("STACKCTL_RULES_SEED", "20261128"))
CASES = int(os.environ.get("STACKCTL_RULES_BACKEND_CASES", "400"))
TEXTS = ["", "a", "b.com", "é", "\U0001f600", "no\xa0break", "true", "oauth", "ab-b", "12.com"]


def users(condition: str, chance: random.Random, number: int) -> list[Context]:
    """Of what the condition names, as it is written and as CEL reads it, and of what it does not."""
    texts = list(TEXTS)
    for literal in re.findall(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', condition):
        texts.append(literal[1:-1])
        with contextlib.suppress(ConditionSyntaxError, EvaluationError):
            texts.append(str(compile_condition(literal)({})))
    scores = [0, 1, 2, 7, 14, 15, 50, 51, 80, 81, 99, 100]
    return [
        Context(
            chance.choice(texts) if chance.random() < 0.3 else f"{chance.choice(texts)}@{chance.choice(texts)}",
            chance.choice(["", "DE", "US"]), chance.choice(AUTH_METHODS), chance.choice(texts),
            *(chance.choice(scores) if chance.random() < 0.6 else chance.randrange(101) for _ in range(2)),
        )
        for _ in range(number)
    ]  # fmt: skip


def ours(condition: str, people: list[Context]) -> list[bool | None]:
    """What CEL says; None for an error."""
    try:
        evaluate = compile_condition(condition)
    except (ConditionSyntaxError, EvaluationError):
        return [None] * len(people)
    found: list[bool | None] = []
    for user in people:
        try:
            value = evaluate(user.fields())
        except EvaluationError:
            value = None
        found.append(value if isinstance(value, bool) else None)
    return found


def predicted(condition: str, people: list[Context]) -> list[Any]:
    """What stackctl thinks that the backend says; "undecided" where it does not know."""
    try:
        backend = BackendCondition(condition, Context().fields())
    except UnreadableError:
        return [None] * len(people)
    except UndecidedError:
        return ["undecided"] * len(people)
    found: list[Any] = []
    for user in people:
        try:
            found.append(backend.evaluate(user.fields()))
        except FailedError:
            found.append(None)
        except UndecidedError:
            found.append("undecided")
    return found


def find_user(condition: str) -> Context:
    """For whom stackctl thinks that it differs."""
    try:
        tree = parse(condition)
    except ConditionSyntaxError:
        tree = None
    trial = Trial(condition, tree, {})
    trial.find_difference(MANY)
    return trial.user or Context()


def find_alarms(conditions: list[str], chance: random.Random) -> list[str]:
    """Those that do not differ for many more users either."""
    texts = ["\U0001f600" + "a" * (length - 1) for length in range(101)]  # of this length, and longer to the backend
    long = [Context(text, "", "otp", text, len(text), len(text)) for text in texts]
    long += [Context(f"a@{text}", "DE", "oauth", text, len(text), len(text)) for text in texts]
    people = [[*users(condition, chance, 300), *long, find_user(condition)] for condition in conditions]
    answers = ask(
        {"condition": condition, "contexts": [user.fields() for user in some]}
        for condition, some in zip(conditions, people, strict=True)
    )
    return [
        condition
        for condition, some, answer in zip(conditions, people, answers, strict=True)
        if [one if isinstance(one, bool) else None for one in answer] == ours(condition, some)
    ]


def test_every_difference_is_found_and_what_is_found_differs() -> None:
    print(f"seed {SEED}, {CASES} conditions")
    chance = random.Random(SEED)
    generator = BackendGenerator(SEED)
    conditions = [generator.condition() for _ in range(CASES)]
    people = [users(condition, chance, 15) for condition in conditions]
    answers = ask(
        {"condition": condition, "contexts": [user.fields() for user in some]}
        for condition, some in zip(conditions, people, strict=True)
    )
    differing = silent = 0
    missed: list[str] = []
    wrong: list[str] = []
    suspects: list[str] = []
    for condition, some, answer in zip(conditions, people, answers, strict=True):
        theirs = [one if isinstance(one, bool) else None for one in answer]
        for user, one, guess in zip(some, theirs, predicted(condition, some), strict=True):
            if guess is not one and guess != "undecided":
                wrong.append(f"{condition!r} for {user}: {one}, not {guess}")
                break
        refused = any(problem.severity == "error" for problem in types.check_types(condition))
        found = list(check_backend(condition, refused=refused))
        mine = ours(condition, some)
        differs = theirs != mine
        differing += differs
        silent += not differs and not found
        if differs and not found:
            place = next(n for n, (a, b) in enumerate(zip(theirs, mine, strict=True)) if a is not b)
            missed.append(f"{condition!r} for {some[place]}: {answer[place]}")
        if not differs and found:
            suspects.append(condition)
    alarms = find_alarms(suspects, chance)
    print(f"{differing} differ, {silent} neither differ nor have a finding, {len(alarms)} have one and do not differ")
    assert wrong == []
    assert missed == []
    assert len(alarms) <= CASES / 100, "\n".join(alarms)


def test_patterns_are_read_as_javascript_and_re2_read_them() -> None:
    chance = random.Random(SEED)
    pieces = [
        "a", "b", "1", "@", r"\.", r"\d", r"\w", r"\s", r"\b", "[", "]", "^", "$", "-", "(", ")", "|", "*", "+",
        "?", "{2}", "{1,}", "{,2}", "{", "(?:", "(?=", "(?<=", "(?<n>", "(?P<n>", "(?i)", r"\1", r"\12", r"\101",
        r"\0", r"\x61", r"\u0061", r"\A", r"\n", r"\z", r"\a", "[^", "[]", "[^]", "[a-z]", "[[:alpha:]]", r"\]",
        r"\Q", "é", "\U0001f600", r"[\d-x]",
    ]  # fmt: skip
    found = ["".join(chance.choices(pieces, k=chance.randrange(1, 7))) for _ in range(CASES)]
    texts = ["", "a", "ab", "a1@b.com", "aa", "1", "a]", "-", "[", "^a", "\n", "é", " ", "AZz", "{2}"]
    contexts = [Context(text).fields() for text in texts]
    answers = ask({"condition": f"email.matches({quoted(pattern)})", "contexts": contexts} for pattern in found)
    for pattern, answer in zip(found, answers, strict=True):
        try:
            read_pattern(pattern, javascript=True)
            search = compile_pattern(pattern) if is_same_to_both(pattern) else None
        except ValueError:
            search = None
            assert isinstance(answer[0], str) or is_same_to_both(pattern), pattern
        assert search is None or [search(text) for text in texts] == answer, pattern


TABLE = re.findall(
    r"^\| `([^`]*)` \| .+ \| `(.+)` \|$", (Path(__file__).parents[2] / "docs/rules.md").read_text(), re.MULTILINE
)


def test_the_table_of_the_page_is_right() -> None:
    """What stands there differs and has a finding; what is to be written instead is CEL's, and has none."""
    chance = random.Random(2)
    rows = [(one.replace("\\|", "|"), other.replace("\\|", "|")) for one, other in TABLE]
    assert len(rows) > 25
    people = [[Context(), *users(f"{one} {other}", chance, 150)] for one, other in rows]
    answers = ask(
        {"condition": condition, "contexts": [user.fields() for user in some]}
        for pair, some in zip(rows, people, strict=True)
        for condition in pair
    )
    for place, ((written, instead), some) in enumerate(zip(rows, people, strict=True)):
        theirs = [[one if isinstance(one, bool) else None for one in answers[2 * place + n]] for n in (0, 1)]
        assert theirs[0] != ours(written, some), written
        assert theirs[1] == ours(instead, some), instead
        assert any(problem.severity == "warning" for problem in check_backend(written)), written
        assert [problem for problem in check_backend(instead) if problem.severity == "warning"] == [], instead


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ('email == "a" ;', "passes over the ;"),
        ('email == "\\d"', "takes it all the same"),
        ('email.matches("a(?=@)")', "JavaScript's, which takes this one"),
        ('email.matches("(a)\\\\1")', "JavaScript's, which takes this one"),
        ('email in ["a",]', None),
        ("email ==", None),
        ('1.5e1 > email && "DE" >= countryCode', "does not take 1.5e1"),  # false in CEL for who is from FR
        (
            '"+".matches("a") || email.matches("\\\\d{2}") || riskScores.nope == 1',
            "nothing but a field",
        ),  # true for a12
        ('email.matches("(a+)+b")', "can hang it for seconds"),
    ],
)
def test_what_the_backend_alone_takes_is_said(condition: str, said: str | None) -> None:
    refused = any(problem.severity == "error" for problem in types.check_types(condition))
    assert refused == ("+)+" not in condition)
    messages = [problem.message for problem in check_backend(condition, refused=refused)]
    assert len(messages) == (said is not None) and (said is None or said in messages[0])


def test_what_differs_for_few_users_alone_is_found() -> None:
    divided = "100 / riskScores.bot == 7"  # for a score of 13 or 14
    escaped = 'emailDomain.endsWith("\\a")'
    for condition in (
        f'((email != "in" || authMethod in [emailDomain]) || (riskScores.bot > 0 && {divided} || size("+") == 80))',
        f"emailDomain in ['a', 'tab'] || riskScores.free_trial_abuse % 100 == riskScores.bot && {escaped}",
    ):
        assert any(problem.severity == "warning" for problem in check_backend(condition)), condition


def test_long_conditions_take_no_longer_than_they_must() -> None:
    def listed(size: int) -> None:
        assert list(check_backend(" || ".join(f'email == "x{n}"' for n in range(size)))) == []

    def unclosed(size: int) -> None:
        assert find_calls(text := "\"\\\"'\\'" * size) == [] and read_tokens(text, [])

    assert growth(listed, 100) < LINEAR
    assert growth(unclosed, 500) < LINEAR
