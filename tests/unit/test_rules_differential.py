"""Generated conditions and users: the closures, the reference interpreter and Google's engine must say the same.

Another seed or another number of conditions: STACKCTL_RULES_SEED, STACKCTL_RULES_CASES.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from stackctl.rules.evaluate import NoValue, compiled, known
from stackctl.rules.model import Context
from stackctl.rules.reference import program
from stackctl.rules.syntax import parse

if TYPE_CHECKING:
    from collections.abc import Callable

cel = pytest.importorskip("cel_expr_python.cel", reason="cel-expr-python, of the extra dev, is not installed")

SEED = int(os.environ.get("STACKCTL_RULES_SEED", "20261124"))
CASES = int(os.environ.get("STACKCTL_RULES_CASES", "400"))
STRINGS = ["", "a", "gmail.com", "bob@gmail.com", "+", "é@x.io", 'quo"te\\', "DE", "oauth", "bob+1@a.com"]
PATTERNS = ["^bob", "[0-9]+", "\\.com$", "a|b", "(?i)GMAIL", "x*"]
USERS = [
    Context(),
    Context("bob@gmail.com", "DE", "password", "", 80, 0),
    Context("bob+1@a.com", "US", "oauth", "github", 81, 100),
    Context('quo"te\\@é.io', "", "otp", "", 1, 5),
]


class Generator:
    """Conditions that pass a type check, and some that can raise."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def condition(self, depth: int = 3) -> str:
        pick = self._random.random()
        if depth == 0 or pick < 0.35:
            return self._atom()
        if pick < 0.6:
            return f"({self.condition(depth - 1)} && {self.condition(depth - 1)})"
        if pick < 0.85:
            return f"({self.condition(depth - 1)} || {self.condition(depth - 1)})"
        if pick < 0.95:
            return f"!({self.condition(depth - 1)})"
        return f"({self.condition(depth - 1)} ? {self.condition(depth - 1)} : {self.condition(depth - 1)})"

    def _atom(self) -> str:
        choose = self._random.choice
        text, number = self._text, self._number
        return choose([
            lambda: f"{text()} {choose(['==', '!=', '<', '<=', '>', '>='])} {text()}",
            lambda: f"{number()} {choose(['==', '!=', '<', '<=', '>', '>='])} {number()}",
            lambda: f"{text()}.{choose(['contains', 'startsWith', 'endsWith'])}({text()})",
            lambda: f"{text()}.matches({quoted(choose(PATTERNS))})",
            lambda: f"{text()} in [{', '.join(text() for _ in range(self._random.randrange(4)))}]",
            lambda: f"{number()} in [{', '.join(number() for _ in range(self._random.randrange(4)))}]",
            lambda: f"size({text()}) {choose(['>', '=='])} {number()}",
            lambda: f"{number()} {choose(['/', '%'])} {number()} == {number()}",
            lambda: "riskScores.nope == 1",
            lambda: choose(["true", "false", "has(riskScores.bot)", "has(riskScores.nope)"]),
        ])()  # fmt: skip

    def _text(self) -> str:
        names = ["email", "emailDomain", "countryCode", "authMethod", "oauthProvider"]
        if self._random.random() < 0.5:
            return self._random.choice(names)
        return quoted(self._random.choice(STRINGS))

    def _number(self) -> str:
        return self._random.choice(["riskScores.bot", "riskScores.free_trial_abuse", "0", "1", "80", "81", "100", "7"])


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def answer(evaluate: Callable[[dict[str, Any]], Any], fields: dict[str, Any]) -> Any:
    try:
        return evaluate(fields)
    except NoValue:
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
        assert known(parse(condition))
        engines = (compiled(condition), program(condition), oracle(environment, condition))
        for user in USERS:
            fast, reference, google = (answer(engine, user.fields()) for engine in engines)
            assert (fast, reference) == (google, google), f"{condition} for {user}"
            seen.add(google)
    assert seen == {True, False, "error"}
