"""Suites of tests for sign-up rules: sample users, and what is expected of each."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from stackctl.core.errors import ConfigError
from stackctl.core.files import replace_text
from stackctl.core.yaml_reader import Reader, construct, is_null, read_text, to_scalar
from stackctl.rules import rules_file, sample_users
from stackctl.rules.decide import Decision, Judge, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stackctl.rules.model import Context, RuleSet

ENDINGS = (".rules-test.yaml", ".rules-test.yml")
EXPECTED = ("decision", "allowed", "rule", "restricted_by", "matched")
OUTCOMES: tuple[str, ...] = get_args(Outcome)
_TOP = ("rules", "tests")
_TEST = ("name", "user", "expect")


@dataclass(frozen=True)
class Test:
    """One user and what is expected. `expect` has some of EXPECTED: what is not there may be anything.

    `node` is the test's place in the file's text, for recording.
    """

    name: str
    line: int
    context: Context
    expect: Mapping[str, Any]
    node: yaml.MappingNode


@dataclass(frozen=True)
class Suite:
    path: Path
    rules: Path
    tests: tuple[Test, ...]
    text: str


@dataclass(frozen=True)
class Result:
    """What came of one test. `differences`: the keys of `expect` that came out otherwise; `unknown_rules`: ids that it
    names, of rules that are not there (so that it fails)."""

    suite: Suite
    test: Test
    decision: Decision
    actual: Mapping[str, Any]
    differences: tuple[str, ...]
    unknown_rules: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.differences


@dataclass(frozen=True)
class Coverage:
    """How often a rule did what in all tests of its file."""

    file: Path
    rule_id: str
    enabled: bool
    deciding: bool
    matched: int
    decided: int
    errors: int


@dataclass(frozen=True)
class Report:
    """`rule_sets`: by the resolved path of their file."""

    results: tuple[Result, ...]
    coverage: tuple[Coverage, ...]
    rule_sets: Mapping[Path, RuleSet]

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if not result.passed]

    @property
    def strict_failures(self) -> list[str]:
        """What a strict run does not accept: a condition that could not be evaluated, a rule that no test matches, and
        a test that cannot fail."""
        found = [f"{one.test.name} expects nothing" for one in self.results if not one.test.expect]
        found += [
            f"{one.rule_id} can't be evaluated in {one.errors:,} of the tests" for one in self.coverage if one.errors
        ]
        return found + [
            f"{one.rule_id} is matched by no test"
            for one in self.coverage
            if one.enabled and not one.matched and not one.errors
        ]


def find_suites(folder: Path) -> list[Path]:
    """The suites in a folder and below, hidden folders and those of other tools left out."""
    found: list[Path] = []
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(one for one in folders if one[0] not in "._" and one not in ("node_modules", "venv"))
        found += [Path(here, name) for name in sorted(names) if name.endswith(ENDINGS)]
    return found


def load_suite(path: Path, rules: Path | None = None) -> Suite:
    """A suite; `rules`: the rules file instead of the one that the suite names.

    Raises ConfigError (`suite-unreadable`, `invalid-suite`).
    """
    text = read_text(path, code="suite-unreadable", hint="name a suite, e.g. sign-up.rules-test.yaml")
    reader = _Reader()
    named, tests = reader.read_suite(reader.compose(text))
    if not reader.mistakes and named is None and rules is None:
        reader.mistakes.append((1, "the suite names no rules file: rules: ./sign-up-rules.yaml"))
    if reader.mistakes:
        raise reader.to_error(
            str(path),
            code="invalid-suite",
            hint="a test is `{name: …, user: {email: …}, expect: {decision: …}}`; see docs/rules.md",
        )
    return Suite(path, rules or path.parent / str(named), tests, text)


def run_suites(suites: Sequence[Suite], rules: Mapping[Path, RuleSet] | None = None) -> Report:
    """Judge every test. `rules`: rule sets to take for these files instead of what stands in them.

    Raises ConfigError of a rules file.
    """
    given = {path.resolve(): found for path, found in (rules or {}).items()}
    sets: dict[Path, tuple[RuleSet, Judge]] = {}
    results: list[Result] = []
    for suite in suites:
        place = suite.rules.resolve()
        if place not in sets:
            found = given.get(place) or rules_file.load_rules(suite.rules)
            sets[place] = found, Judge(found)
        known, judge = sets[place]
        ids = frozenset(rule.id for rule in known.rules)
        results += [_to_result(suite, test, judge.decide(test.context), ids) for test in suite.tests]
    rule_sets = {place: one for place, (one, _) in sets.items()}
    return Report(tuple(results), tuple(_count_coverage(results, rule_sets)), rule_sets)


def describe_actual(decision: Decision) -> dict[str, Any]:
    """What a test may expect, as it is."""
    return {
        "decision": decision.outcome,
        "allowed": decision.should_allow,
        "rule": decision.decided_by,
        "restricted_by": decision.restricted_by,
        "matched": [one.rule.id for one in decision.evaluations if one.status == "matched"],
    }


def _to_result(suite: Suite, test: Test, decision: Decision, ids: frozenset[str]) -> Result:
    seen = describe_actual(decision)
    seen["matched"] = sorted(seen["matched"])
    differences = tuple(key for key, value in test.expect.items() if value != seen[key])
    named = [test.expect.get("rule"), test.expect.get("restricted_by"), *test.expect.get("matched", ())]
    unknown = tuple(dict.fromkeys(id_ for id_ in named if id_ is not None and id_ not in ids))
    return Result(suite, test, decision, seen, differences, unknown)


def _count_coverage(results: Iterable[Result], sets: Mapping[Path, RuleSet]) -> Iterable[Coverage]:
    counts: Counter[tuple[Path, str, str]] = Counter()
    for result in results:
        place = result.suite.rules.resolve()
        counts.update((place, one.rule.id, one.status) for one in result.decision.evaluations)
        if result.decision.decided_by is not None:
            counts[place, result.decision.decided_by, "decided"] += 1
    for place, rules in sets.items():
        for rule in rules.ordered:
            yield Coverage(
                file=place,
                rule_id=rule.id,
                enabled=rule.enabled,
                deciding=rule.action.type in ("allow", "reject"),
                matched=counts[place, rule.id, "matched"],
                decided=counts[place, rule.id, "decided"],
                errors=counts[place, rule.id, "error"],
            )


class _Reader(Reader):
    def read_suite(self, node: yaml.Node | None) -> tuple[str | None, tuple[Test, ...]]:
        if node is None:
            if not self.mistakes:
                self.mistakes.append((1, "the suite is empty"))
            return None, ()
        top = self.read_mapping(node, "the suite", _TOP)
        tests = top.get("tests")
        if tests is None:
            self.add_mistake(node, "the suite has no tests")
            return None, ()
        if not isinstance(tests, yaml.SequenceNode):
            self.add_mistake(tests, "tests is a list")
            return None, ()
        found = [self._read_test(one, number) for number, one in enumerate(tests.value, 1)]
        self._check_names(found)
        return self.read_string(top.get("rules"), "rules"), tuple(one for one in found if one is not None)

    def _check_names(self, tests: list[Test | None]) -> None:
        lines: dict[str, int] = {}
        for test in tests:
            if test is not None and lines.setdefault(test.name, test.line) != test.line:
                self.mistakes.append(
                    (test.line, f"{test.name} is the name of the test in line {lines[test.name]}, too")
                )

    def _read_test(self, node: yaml.Node, number: int) -> Test | None:
        keys = self.read_mapping(node, f"test {number}", _TEST)
        if not isinstance(node, yaml.MappingNode):
            return None
        name = self.read_string(keys.get("name"), f"the name of test {number}") or f"test {number}"
        if "user" not in keys:
            self.add_mistake(node, f"{name} has no user")
            return None
        expect = self._read_expect(keys["expect"], name) if "expect" in keys else {}
        try:
            context = sample_users.parse_user(construct(keys["user"]))
        except (ValueError, yaml.YAMLError) as error:
            what = (
                str(error) if isinstance(error, ValueError) else getattr(error, "problem", None) or "it can't be read"
            )
            self.add_mistake(keys["user"], f"{name}: {what}")
            return None
        return Test(name, node.start_mark.line + 1, context, expect, node)

    def _read_expect(self, node: yaml.Node, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in self.read_pairs(node, f"expect of {name}"):
            match key.value:
                case "decision":
                    found["decision"] = self.read_choice(value, f"{name}: decision", OUTCOMES, OUTCOMES[0])
                case "allowed":
                    if not isinstance(to_scalar(value), bool):
                        self.add_mistake(value, f"{name}: allowed is true or false")
                    found["allowed"] = to_scalar(value)
                case "rule" | "restricted_by" as which:
                    found[which] = None if is_null(value) else self.read_string(value, f"{name}: {which}")
                case "matched" if isinstance(value, yaml.SequenceNode):
                    found["matched"] = sorted(
                        self.read_string(one, f"{name}: a rule's id") or "" for one in value.value
                    )
                case "matched":
                    self.add_mistake(value, f"{name}: matched is a list of rule ids")
                case other:
                    near = difflib.get_close_matches(other, EXPECTED, n=1)
                    known = f"did you mean {near[0]}?" if near else f"known are {', '.join(EXPECTED)}"
                    self.add_mistake(key, f"{name}: expect has no key {other}; {known}")
        return found


def record_results(suite: Suite, results: Iterable[Result]) -> str:
    """The suite's text with today's behaviour as what is expected; all else stays as it is, to the byte.

    A test keeps the keys that it expects something of; one without any gets the decision and the rules.
    """
    text = suite.text
    for result in sorted(results, key=lambda one: -one.test.node.start_mark.index):
        if result.test.expect and result.passed:
            continue
        keys = tuple(result.test.expect) or ("decision", "rule", "restricted_by", "matched")
        text = _with_expect(text, result.test.node, _to_flow({key: result.actual[key] for key in keys}))
    return text


def _to_flow(values: Mapping[str, Any]) -> str:
    dumped = yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=1 << 20, allow_unicode=True)
    return dumped.strip()


def _with_expect(text: str, node: yaml.MappingNode, expect: str) -> str:
    for key, value in node.value:
        if key.value == "expect":
            return f"{text[: key.end_mark.index]}: {expect}{text[_end_of(value) :]}"
    last = _end_of(node.value[-1][1])
    if node.flow_style:
        return f"{text[:last]}, expect: {expect}{text[last:]}"
    at = text.find("\n", len(text[:last].rstrip()))  # behind the line's comment
    at = len(text) if at < 0 else at
    newline = "\r\n" if text[at - 1 : at] == "\r" else "\n"
    at -= len(newline) - 1
    return f"{text[:at]}{newline}{' ' * node.value[0][0].start_mark.column}expect: {expect}{text[at:]}"


def _end_of(node: yaml.Node) -> int:
    """Where a value really ends: a block's own mark stands at the next token, behind comments and empty lines."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return node.end_mark.index
    last = node.value[-1]
    return _end_of(last[1] if isinstance(last, tuple) else last)


def write_suite(suite: Suite, text: str) -> None:
    """Replace the suite's file, whole or not at all.

    Raises StateError `changed-meanwhile`, ConfigError `suite-unwritable`.
    """
    try:
        replace_text(suite.path, suite.text, text)
    except OSError as error:
        raise ConfigError(f"{suite.path} can't be written: {error.strerror}", code="suite-unwritable") from error
