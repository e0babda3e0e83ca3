"""Random conditions of sign-up rules."""

from __future__ import annotations

import random

STRINGS = ["", "a", "gmail.com", "bob@gmail.com", "+", "é@x.io", 'quo"te\\', "DE", "oauth", "bob+1@a.com"]
PATTERNS = ["^bob", "[0-9]+", "\\.com$", "a|b", "(?i)GMAIL", "x*"]


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
