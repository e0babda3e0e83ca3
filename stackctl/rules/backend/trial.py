"""A condition as CEL has it and as the backend has it, tried on users until one shows a difference."""

from __future__ import annotations

import contextlib
import random
import re
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from stackctl.rules.backend.cel_js.evaluate import BackendCondition, FailedError, UndecidedError, UnreadableError
from stackctl.rules.backend.cel_js.patterns import MAX_TRIED, make_example
from stackctl.rules.backend.cel_js.read import Token, find_calls, read_tokens
from stackctl.rules.cel.evaluate import can_compile, compile_condition
from stackctl.rules.cel.nodes import Conditional, Field, Literal, Logical, Name, Node, Unary, children, walk
from stackctl.rules.cel.parse import ConditionSyntaxError, parse
from stackctl.rules.cel.types import Problem
from stackctl.rules.cel.values import EvaluationError
from stackctl.rules.model import AUTH_METHODS, MAX_RISK, RISKS, Context

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackctl.rules.cel.values import Lists

FEW, MANY = 40, 1000  # users that are tried
WORK = 400_000  # characters of conditions that are evaluated for them, at the most
_INTERPRETED = 12  # times as much of it as one that runs as functions costs a condition that the reference evaluates
_ATTRIBUTES = {
    "email": "email", "emailDomain": "email", "countryCode": "country_code", "authMethod": "auth_method",
    "oauthProvider": "oauth_provider", "bot": "bot", "free_trial_abuse": "free_trial_abuse",
}  # fmt: skip


_T = TypeVar("_T")


class Trial:
    """A condition as CEL has it and as the backend has it, for users made of its constants."""

    def __init__(self, condition: str, tree: Node | None, lists: Lists) -> None:
        self._condition = condition
        self._tree = tree
        self._lists = lists
        self._ours = self._theirs = None
        self._unread: Token | None = None
        self._cost = len(condition)
        self.user: Context | None = None  # who showed the difference that was found
        self.is_thorough = True  # whether a difference that no user shows is hardly one
        if any(call.method == "matches" and len(call.argument) > MAX_TRIED for call in find_calls(condition)):
            self.is_thorough = False
            return
        if tree is not None:
            with contextlib.suppress(EvaluationError, ConditionSyntaxError):  # or too costly to try
                self._ours = compile_condition(condition)
                self._cost *= 1 if can_compile(tree) else _INTERPRETED
        try:
            self._theirs = BackendCondition(condition, Context().fields())
        except UndecidedError:
            self.is_thorough = False
        except UnreadableError as error:
            self._unread = error.token

    def find_difference(self, users: int, *, plain: bool = False) -> Problem | None:
        """What the first user shows for whom the two differ, or may differ. `plain`: of those without emoji alone.

        Where CEL takes nothing of it, rather one for whom the backend says true.
        """
        if (self._theirs is None and self._unread is None) or (self._unread and self._ours is None):
            return None
        number = min(users, max(2, WORK // max(1, self._cost)))
        self.is_thorough = number >= FEW
        found: Problem | None = None
        for user in chain(islice(self._make_users(), number), self._combine_users(number) if users > FEW else ()):
            if plain and not (user.email + user.oauth_provider).isascii():
                continue
            fields = {**user.fields(), **self._lists}
            ours = self._answer(fields)
            for theirs in self._answer_there(fields):
                if theirs is not ours:
                    if theirs or not found:
                        found, self.user = self._explain(user, theirs, ours), user
                    if theirs or ours is not None:
                        return found
        return found

    def _answer(self, fields: dict[str, Any]) -> bool | None:
        try:
            answer = self._ours(fields) if self._ours else None
        except EvaluationError:
            return None
        return answer if isinstance(answer, bool) else None

    def _answer_there(self, fields: dict[str, Any]) -> set[bool | None]:
        """The answer, or both where it can't be told."""
        if self._theirs is None:
            return {None}
        found: set[bool | None] = set()
        for guess in (None, True, False):
            try:
                found.add(self._theirs.evaluate(fields, guess))
            except FailedError:
                found.add(None)
            except UndecidedError:
                continue
            if guess is None:
                break
        return found

    def _explain(self, user: Context, theirs: bool | None, ours: bool | None) -> Problem:
        at = 0
        there = "an error" if theirs is None else str(theirs).lower()
        about = f"for {shorten(user.email) or 'no address'}, bot {user.bot}"
        if self._unread:
            at = self._unread.start
            place = self._unread.text or "its end"
            what = f"the backend's evaluator can't read it from {place} on: an error for everybody"
        elif ours is None:
            what = f"the backend's evaluator takes it all the same: {there} {about}"
        else:
            what = f"the backend's evaluator differs: it is {there} {about}, and {str(ours).lower()} in CEL"
        if self._theirs and self._theirs.passed and self._ours is None:
            at = self._theirs.passed[0]
            what += f", for it passes over the {self._condition[at]}"
        return Problem(at, "backend", "warning", what)

    def _make_users(self) -> Iterator[Context]:
        """Different ones each time the same: of the texts and numbers in the condition, and of some others."""
        texts, numbers = self._find_constants()
        countries = ["", "AA", "DE", "ZZ", *(text for text in texts if re.fullmatch("[A-Z]{2}", text))]
        has_scores = "riskScores" in self._condition
        has_others = any(name in self._condition for name in ("countryCode", "authMethod", "oauthProvider"))
        chance = random.Random(1).random
        yield Context()
        while True:
            one, other = _choose(texts, chance()), _choose(texts, chance())
            email = _choose((one, one + other, f"{one}@{other}", f"{one}@{other}"), chance())
            others = (
                (_choose(countries, chance()), _choose(AUTH_METHODS, chance()), _choose((other, ""), chance()))
                if has_others
                else ("", "password", "")
            )
            scores = (
                [_choose(numbers, chance()) if chance() < 0.7 else int(chance() * (MAX_RISK + 1)) for _ in RISKS]
                if has_scores
                else (0, 0)
            )
            yield Context(email, *others, *scores)

    def _combine_users(self, number: int) -> Iterator[Context]:
        """Each of what makes one comparison true and another false, or differ: by chance alone, hardly any is both."""
        if self._tree is None or self._ours is None or self._theirs is None:
            return
        people = list(islice(self._make_users(), number))
        parts = [self._find_answers(part, people) for part in _find_comparisons(self._tree)]
        parts = [answers for answers in parts if len(answers) > 1]
        chance = random.Random(2)
        for user in people if len(parts) > 1 else ():
            chosen: dict[str, Any] = {}
            for answers in chance.sample(parts, len(parts)):
                chosen |= chance.choice(chance.choice(answers))
            yield replace(user, **chosen)

    def _find_answers(self, part: Node, people: list[Context]) -> list[list[dict[str, Any]]]:
        """For each answer of a part, here and there, what some of the users that it is given for have of its fields."""
        trial = Trial(self._condition[part.span.start : part.span.end], part, self._lists)
        names = {node.name for node in walk(part) if isinstance(node, Name | Field)}
        names |= {node.value for node in walk(part) if isinstance(node, Literal) and isinstance(node.value, str)}
        attributes = [attribute for name, attribute in _ATTRIBUTES.items() if name in names]
        found: dict[object, list[dict[str, Any]]] = {}
        for user in people:
            fields = {**user.fields(), **self._lists}
            some = found.setdefault((trial._answer(fields), frozenset(trial._answer_there(fields))), [])
            if len(some) < FEW:
                some.append({attribute: getattr(user, attribute) for attribute in attributes})
        return list(found.values())

    def _find_constants(self) -> tuple[list[str], list[int]]:
        texts = dict.fromkeys(["", "a", "b.com", "\U0001f600", "a\xa0b"])
        if "authMethod" in self._condition:
            texts |= dict.fromkeys(AUTH_METHODS)
        numbers = dict.fromkeys([0, 1, 2, 50, 99, 100])
        calls = self._theirs.calls if self._theirs else find_calls(self._condition)
        for call in calls[:100]:
            texts[call.argument] = None
            if call.method == "matches" and (example := make_example(call.argument)) is not None:
                texts[example] = None
        for token in self._theirs.tokens if self._theirs else read_tokens(self._condition, calls)[0]:
            if token.kind == "string":
                texts[token.text[1:-1]] = None
            elif token.kind in ("int", "float"):
                number = int(min(float(token.text.rstrip("uU")), 1000))
                numbers |= dict.fromkeys((number - 1, number, number + 1))
        if self._ours is not None:
            for node in walk(parse(self._condition)):
                if isinstance(node, Literal) and isinstance(node.value, str):
                    texts[node.value] = None
        for one in self._lists.values():
            texts |= dict.fromkeys(islice(one.entries, 2))
        if "size" in self._condition:
            numbers |= dict.fromkeys([len(text) for text in texts])
            texts |= dict.fromkeys(["\U0001f600" + "a" * (number - 1) for number in islice(numbers, 20)])
        if "/" in self._condition:
            some = [number for number in islice(numbers, 20) if number > 0]
            numbers |= dict.fromkeys([one for a in some for b in some for one in (a * b, a * b + 1, a // b)])
        return list(texts), [number for number in numbers if 0 <= number <= MAX_RISK]


def _choose(of: Sequence[_T], chance: float) -> _T:
    """As Random.choice, which takes five times as long."""
    return of[int(chance * len(of))]


def _find_comparisons(node: Node) -> Iterator[Node]:
    """The parts that `&&`, `||`, `!` and `?:` are between."""
    if isinstance(node, Logical | Conditional) or (isinstance(node, Unary) and node.operator == "!"):
        for part in children(node):
            yield from _find_comparisons(part)
    else:
        yield node


def shorten(text: str) -> str:
    """For a message."""
    return text if len(text) <= 40 else text[:39] + "…"
