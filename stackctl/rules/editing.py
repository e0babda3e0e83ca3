"""Changes to a set of rules, and what they would mean: for the file, for what is found in it, and for its tests."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError, UsageError
from stackctl.core.files import replace_text
from stackctl.core.text_diff import diff_texts
from stackctl.core.yaml_reader import read_text
from stackctl.rules import suites
from stackctl.rules.check import Finding, Known, check_rules, to_key
from stackctl.rules.model import is_integer_id
from stackctl.rules.priorities import assign_priorities
from stackctl.rules.rewrite_rules_file import rewrite_read_rules
from stackctl.rules.rules_file import parse_rules

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stackctl.rules.model import Rule, RuleSet


@dataclass(frozen=True)
class RulesFile:
    """A rules file as it was read. `text` is None where there is no file yet."""

    path: Path
    text: str | None
    rules: RuleSet

    def find_rule(self, id_: str) -> Rule:
        """Raises UsageError `unknown-rule`."""
        for rule in self.rules.rules:
            if rule.id == id_:
                return rule
        near = difflib.get_close_matches(id_, [rule.id for rule in self.rules.rules], n=1)
        raise UsageError(
            f"there is no rule {id_} in {self.path}",
            code="unknown-rule",
            hint=f"did you mean {near[0]}?" if near else "`stackctl rules list` names them",
        )


@dataclass(frozen=True)
class Change:
    """What would be written. `findings`: those of `check` that are new; `failures`: tests that pass before and fail
    after; `unread`: why suites beside the file could not be run."""

    file: RulesFile
    text: str
    diff: str
    findings: tuple[Finding, ...]
    failures: tuple[suites.Result, ...]
    unread: tuple[str, ...]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]


def read_rules_file(path: Path) -> RulesFile:
    """Raises ConfigError (`rules-unreadable`, `invalid-rules`)."""
    if not path.exists():
        return RulesFile(path, None, parse_rules("", str(path)))
    text = read_text(path, code="rules-unreadable", hint="name a rules file with --rules")
    return RulesFile(path, text, parse_rules(text, str(path)))


def replace_rules(rules: RuleSet, changed: Sequence[Rule]) -> RuleSet:
    """The set with these rules in place of those of the same ids, new ones at the end."""
    new = {rule.id: rule for rule in changed}
    kept = [new.pop(rule.id, rule) for rule in rules.rules]
    return replace(rules, rules=(*kept, *new.values()))


def move_rule(rules: RuleSet, id_: str, position: int) -> RuleSet:
    """The set with the rule at this place of the order of evaluation, from 0; few priorities change.

    Raises UsageError `rule-stays-first` for a place before, or of, a rule whose place no priority changes.
    """
    ordered = [rule for rule in rules.ordered if rule.id != id_]
    ordered.insert(position, next(rule for rule in rules.rules if rule.id == id_))
    moved = replace_rules(rules, assign_priorities([rule for rule in ordered if not is_integer_id(rule.id)], id_))
    if [rule.id for rule in moved.ordered] != [rule.id for rule in ordered]:
        fixed = id_ if is_integer_id(id_) else next(rule.id for rule in moved.ordered if is_integer_id(rule.id))
        raise UsageError(
            f"the backend evaluates {fixed} first, whatever the priorities: its id is a whole number",
            code="rule-stays-first",
            hint="give that rule an id that is not a number",
        )
    return moved


def plan_change(file: RulesFile, rules: RuleSet) -> Change:
    """What the file is to become. Raises ConfigError (`edit-by-hand`)."""
    before = file.text or ""
    name = str(file.path)
    text, after = rewrite_read_rules(before, name, file.rules, rules)
    problems = _leave_out_unchanged(file.rules, after)
    known = {(one.rule_id, one.code, one.message) for one in check_rules(file.rules, problems)}
    new = tuple(one for one in check_rules(after, problems) if (one.rule_id, one.code, one.message) not in known)
    return Change(file, text, diff_texts(before, text, name), new, *_find_failures(file, after))


def _leave_out_unchanged(before: RuleSet, after: RuleSet) -> Known:
    """What makes `check_rules` find nothing in conditions that stay as they are, each in its rule: it is not new."""
    held = {rule.id: to_key(rule) for rule in before.rules}
    changed = {to_key(rule) for rule in after.rules if held.get(rule.id) != to_key(rule)}
    return {key: [] for key in held.values() if key not in changed}


def _find_failures(file: RulesFile, after: RuleSet) -> tuple[tuple[suites.Result, ...], tuple[str, ...]]:
    place = file.path.resolve()
    own: list[suites.Suite] = []
    unread: list[str] = []
    for path in suites.find_suites(file.path.parent):
        try:
            suite = suites.load_suite(path, None)
        except ConfigError as error:
            unread.append(error.message.partition("\n")[0])
            continue
        if suite.rules.resolve() == place:
            own.append(suite)
    if not own or file.text is None:
        return (), tuple(unread)
    before = suites.run_suites(own, {place: file.rules})
    passed = {_test_key(one) for one in before.results if one.passed}
    failed = suites.run_suites(own, {place: after}).failed
    return tuple(one for one in failed if _test_key(one) in passed), tuple(unread)


def _test_key(result: suites.Result) -> tuple[Any, ...]:
    return result.suite.path, result.test.line


def write_change(change: Change) -> None:
    """Replace the file, whole or not at all.

    Raises StateError `changed-meanwhile` when it is no longer what was read, ConfigError `rules-unwritable`.
    """
    try:
        replace_text(change.file.path, change.file.text, change.text)
    except OSError as error:
        raise ConfigError(f"{change.file.path} can't be written: {error.strerror}", code="rules-unwritable") from error
