"""Generated conditions and users: the closures, the reference interpreter and Google's engine must say the same.

Another seed or another number of conditions: STACKCTL_RULES_SEED, STACKCTL_RULES_CASES.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.rules.cel.evaluate import can_compile, compile_condition
from stackctl.rules.cel.parse import parse
from stackctl.rules.cel.reference import compile_with_reference
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.model import Context
from tests.rule_generator import Generator

if TYPE_CHECKING:
    from collections.abc import Callable

cel = pytest.importorskip("cel_expr_python.cel", reason="cel-expr-python, of the extra dev, is not installed")

SEED = int(os.environ.get("STACKCTL_RULES_SEED", "20261124"))
CASES = int(os.environ.get("STACKCTL_RULES_CASES", "400"))
USERS = [
    Context(),
    Context("bob@gmail.com", "DE", "password", "", 80, 0),
    Context("bob+1@a.com", "US", "oauth", "github", 81, 100),
    Context('quo"te\\@é.io', "", "otp", "", 1, 5),
]


def answer(evaluate: Callable[[dict[str, Any]], Any], fields: dict[str, Any]) -> Any:
    try:
        return evaluate(fields)
    except EvaluationError:
        return "error"


def oracle(environment: Any, condition: str) -> Callable[[dict[str, Any]], Any]:
    expression = environment.compile(condition)

    def evaluate(fields: dict[str, Any]) -> Any:
        result = expression.eval(data=fields)
        return result.value() if str(result.type()) == "BOOL" else "error"

    return evaluate


def test_three_engines_agree() -> None:
    print(f"seed {SEED}, {CASES} conditions, {len(USERS)} users")
    generator = Generator(SEED)
    string, scores = cel.Type.STRING, cel.Type.Map(cel.Type.STRING, cel.Type.INT)
    names = ("email", "emailDomain", "countryCode", "authMethod", "oauthProvider")
    environment = cel.NewEnv(variables={**dict.fromkeys(names, string), "riskScores": scores})
    seen: set[Any] = set()
    for _ in range(CASES):
        condition = generator.condition()
        assert can_compile(parse(condition))
        engines = (compile_condition(condition), compile_with_reference(condition), oracle(environment, condition))
        for user in USERS:
            fast, reference, google = (answer(engine, user.fields()) for engine in engines)
            assert fast == google, f"{condition} for {user}"
            # An empty list in a branch that is not taken trips cel-python's interpreter (IndexError).
            assert reference == google or (reference == "error" and "[]" in condition), f"{condition} for {user}"
            seen.add(google)
    assert seen == {True, False, "error"}
