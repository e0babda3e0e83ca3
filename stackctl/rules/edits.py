"""Changes to a set of rules, and what they would mean: for the file, for what is found in it, and for its tests."""

from __future__ import annotations

import codecs
import difflib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import ConfigError, StateError, UsageError
from stackctl.core.yaml_reader import text_of
from stackctl.rules import suites
from stackctl.rules.check import Finding, check
from stackctl.rules.files import parse
from stackctl.rules.priorities import in_order
from stackctl.rules.rewrite_file import rewritten

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stackctl.rules.model import Rule, RuleSet


@dataclass(frozen=True)
class Held:
    """A rules file as it was read. `text` is None where there is no file yet."""

    path: Path
    text: str | None
    rules: RuleSet

    def rule(self, id_: str) -> Rule:
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
    after."""

    held: Held
    text: str
    diff: str
    findings: tuple[Finding, ...]
    failures: tuple[suites.Result, ...]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]


def read(path: Path) -> Held:
    """Raises ConfigError (`rules-unreadable`, `invalid-rules`)."""
    if not path.exists():
        return Held(path, None, parse("", str(path)))
    text = text_of(path, code="rules-unreadable", hint="name a rules file with --rules")
    return Held(path, text, parse(text, str(path)))


def with_rules(rules: RuleSet, changed: Sequence[Rule]) -> RuleSet:
    """The set with these rules in place of those of the same ids, new ones at the end."""
    new = {rule.id: rule for rule in changed}
    kept = [new.pop(rule.id, rule) for rule in rules.rules]
    return replace(rules, rules=(*kept, *new.values()))


def moved(rules: RuleSet, id_: str, place: int) -> RuleSet:
    """The set with the rule at this place of the order of evaluation, from 0; few priorities change."""
    ordered = [rule for rule in rules.ordered if rule.id != id_]
    ordered.insert(place, next(rule for rule in rules.rules if rule.id == id_))
    return with_rules(rules, in_order(ordered, id_))


def planned(held: Held, wanted: RuleSet) -> Change:
    """The change from what is held. Raises ConfigError (`edit-by-hand`, and those of the suites beside the file)."""
    before = held.text or ""
    text = rewritten(before, str(held.path), wanted)
    name = str(held.path)
    diff = difflib.unified_diff(before.splitlines(), text.splitlines(), name, name, lineterm="", n=1)
    after = parse(text, name)
    known = {(one.rule_id, one.code, one.message) for one in check(held.rules)}
    new = tuple(one for one in check(after) if (one.rule_id, one.code, one.message) not in known)
    return Change(held, text, "\n".join(diff), new, _failures(held, after))


def _failures(held: Held, after: RuleSet) -> tuple[suites.Result, ...]:
    place = held.path.resolve()
    found = [suites.load(path, None) for path in suites.find(held.path.parent)]
    own = [suite for suite in found if suite.rules.resolve() == place]
    if not own or held.text is None:
        return ()
    passed = {_place(one) for one in suites.run(own, {place: held.rules}).results if one.passed}
    return tuple(one for one in suites.run(own, {place: after}).failed if _place(one) in passed)


def _place(result: suites.Result) -> tuple[Any, ...]:
    return result.suite.path, result.test.line


def write(change: Change) -> None:
    """Replace the file, whole or not at all.

    Raises StateError `changed-meanwhile` when it is no longer what was read, ConfigError `rules-unwritable`.
    """
    target = change.held.path.resolve()
    now = target.read_bytes() if target.exists() else None
    if (now.decode("utf-8-sig", "replace") if now is not None else None) != change.held.text:
        raise StateError(
            f"{change.held.path} was changed meanwhile; nothing was written", code="changed-meanwhile", hint="try again"
        )
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        mark = codecs.BOM_UTF8 if now is not None and now.startswith(codecs.BOM_UTF8) else b""
        if now is not None:
            beside.touch(0o600)  # nobody reads it who may not read the file
        beside.write_bytes(mark + change.text.encode())
        if now is not None:
            beside.chmod(target.stat().st_mode & 0o777)
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"{change.held.path} can't be written: {error.strerror}", code="rules-unwritable") from error
