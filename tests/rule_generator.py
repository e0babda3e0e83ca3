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


class BackendGenerator(Generator):
    """Conditions with what the backend's evaluator reads otherwise, or may read otherwise, now and then."""

    def condition(self, depth: int = 2) -> str:
        text = super().condition(depth)
        if depth == 2 and self._random.random() < 0.08:  # a slip of the hand
            at = self._random.randrange(len(text) + 1)
            slip = self._random.choice(["", "=", ";", "'", '"', "\\", " ", "&", "1", ")", "#", "//"])
            return text[:at] + slip + text[at + self._random.randrange(2) :]
        return text

    def _atom(self) -> str:
        choose, number = self._random.choice, self._number
        if self._random.random() < 0.5:
            return super()._atom()
        field = choose(["email", "emailDomain", "authMethod"])
        literal, other = self._literal(choose(TEXTS)), self._literal(choose(TEXTS))
        return choose([
            lambda: f"{field} {choose(['==', '!='])} {literal}",
            lambda: f"{field} in [{literal}, {other}]",
            lambda: f"{field}.{choose(['contains', 'startsWith', 'endsWith'])}({literal})",
            lambda: f"{field}.matches({quoted(choose(BOTH_PATTERNS))})",
            lambda: choose(CALLS).format(quoted(choose(TEXTS[:6]))),
            lambda: f"{number()} / {choose(['2', '3', '7', number()])} {choose(['==', '>', '<=', '!='])} {number()}",
            lambda: f"({number()} > {number()}) == true",
            lambda: f"{number()} > {number()} == {choose(['true', 'false'])}",
            lambda: f"riskScores.bot > {choose(NUMBERS)}",
            lambda: f"riskScores.bot {choose(['-1', '- 1', '-1.5', '+ 1'])} > 50",
            lambda: f"(riskScores.bot == 0 ? {choose(['true', 'false'])} : 100 / riskScores.bot > 1)",
            lambda: f"riskScores.bot > 0 && 100 / riskScores.bot == {number()}",
            lambda: choose(PARTS),
        ])()  # fmt: skip

    def _literal(self, value: str) -> str:
        """One of the ways to write it."""
        double = quoted(value).replace("\n", "\\n").replace("\x07", "\\a")
        single = "'" + double[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
        coded = '"' + "".join(f"\\u{ord(one):04x}" if ord(one) < 0x10000 else one for one in value) + '"'
        ways = [double, double, double, single, single, coded, f'"""{double[1:-1]}"""']
        if not set(value) & {"\n", '"', "\x07"}:
            ways.append(f'r"{value}"')
        return self._random.choice(ways)


TEXTS = [
    "", "a", "b.com", "a@b.com", "é@x.io", 'quo"te', "it's", "both\"'", "DE", "oauth", "back\\slash", "tab\t",
    "new\nline", "\x07", "true", "in", "email.contains", "ñ\U0001f600",
]  # fmt: skip
BOTH_PATTERNS = [
    r"^a", r"[0-9]+", r"\.com$", "a|b", "(?i)A", "x*", r"^[^@]+@b\.com$", r"\bb\b", "[]a]", "[^]a]", "a(?=@)",
    r"(a)\1", "(?P<x>a)", "(?<x>a)", r"\Aa", r"com\z", "[[:alpha:]]", r"\pL", r"^\w+@", "^.@b", "^.{3,7}$", r"\s",
    "a{,2}", "a{", "^*a", "(?s)a.b", "(?:a|b)+c", r"a\-b", "[a-c.]", "[^a-z@.]", r"\x61", "a??b", r"\d{2}",
    r"\x{61}", r"(a)\101", "[\U0001f600]", "\U0001f600+", r"[\w-]+@", "(?<!a)b", "a**", "x{2}{3}", r"\Qa.b\E",
]  # fmt: skip
CALLS = [
    "email .contains({})", "email. contains({})", "(email).contains({})", "email.contains({} )",
    "email.contains( {})", "email\n.contains({})", "email.contains ({})", "email.contains(({}))",
    "email.contains(// so\n{})",
]  # fmt: skip
NUMBERS = ["1e1", "05", ".5", "5.", "50.5", "1.5e1", "0x10", "-5", "- 5", "-0.5", "-05", "9007199254740993"]
PARTS = [
    'int("3") == 3', "double(riskScores.bot) > 50.0", 'string(riskScores.bot) == "50"', "dyn(riskScores.bot) == 50",
    'size("ab") == 2', "email.size() > 5", "size(email) > 6", "[1, 2].exists(x, x == riskScores.bot)",
    "[1, 2].size() == 2", 'riskScores.exists(k, k == "bot")', "size([1, 2]) == 2", '[email, "a"].all(x, x != "a")',
    "[50, 51][0] == riskScores.bot", "[[1]][0][0] == 1", "[1, 2][2] == 2", 'riskScores["bot"] > 50',
    "(riskScores).bot > 50", "riskScores .bot > 50", '(email) == "a"', "has(riskScores.bot)", '"bot" in riskScores',
    "!(riskScores.bot > 50)", "!!(riskScores.bot > 50)", "-riskScores.bot % 5 == 0", "--riskScores.bot > 50",
    "-riskScores.bot < -50", "email == 1", "1 == 1.0", "[1] == [1.0]", "null == null", "email == null",
    "1 in [1.0]", '"a" + "b" == email', "[1] in [[1]]", "riskScores.bot * 2 == 100",
    "riskScores.bot + riskScores.free_trial_abuse > 100", 'email == "a" // email.contains("x")\n',
    "riskScores.bot % 2 == 1", "email in []", """email == 'email.contains("a")'""", "riskScores.bot == -0.0",
    "5u == 5u", 'b"a" == b"a"', ".email == email", '{"a": 1}.a == 1', "riskScores.bot > 1.0 / 2.0",
    "riskScores.bot > 4.0 / 2.0", 'email in ["a",]', "0 * -1 == riskScores.bot",
]  # fmt: skip
