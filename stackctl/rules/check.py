"""Findings about a set of rules that need no user and no database."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from stackctl.core.errors import ConfigError
from stackctl.rules import reachability
from stackctl.rules.backend import differences
from stackctl.rules.cel import types
from stackctl.rules.cel.nodes import Binary, Call, walk
from stackctl.rules.cel.parse import ConditionSyntaxError, parse, to_line_and_column
from stackctl.rules.lists import expand_lists, find_uses
from stackctl.rules.model import AUTH_METHODS, MAX_RISK, explain_bad_id, is_integer_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stackctl.rules.cel.types import Severity
    from stackctl.rules.model import Rule, RuleSet


_SHOWN_ENTRIES = 3  # of a list, that can't match
_SLOW_CONDITION = 32_768  # characters; the backend takes some 0.1 s for them
MAX_FINDINGS = 100  # in one condition
_SEVERITIES = ("error", "warning", "info")


Known: TypeAlias = "dict[tuple[str, str], list[types.Problem]]"  # by condition and action


@dataclass(frozen=True)
class Finding:
    """`line`: in the file, as far as it is known; `column`: in the condition, from 1. `code`: kind of the finding."""

    rule_id: str
    line: int
    column: int
    code: str
    severity: Severity
    message: str
    suggestion: str | None = None


def check_rules(rules: RuleSet, known: Known | None = None) -> tuple[Finding, ...]:
    """Everything that is found, in the order of the file.

    `known`: of conditions with the same lists, which are not checked again; what is found comes into it.
    """
    known = {} if known is None else known
    about: dict[str, list[Finding]] = {}
    for claim in reachability.check_reachability(rules):
        about.setdefault(claim.rule.id, []).append(_to_finding(claim))
    return tuple(finding for rule in rules.rules for finding in _check_rule(rule, about.get(rule.id, []), known))


def to_key(rule: Rule) -> tuple[str, str]:
    """What its findings depend on, apart from the lists and the other rules."""
    return rule.condition or "", rule.action.type


def _check_rule(rule: Rule, claimed: Sequence[Finding], known: Known) -> Iterator[Finding]:
    if wrong := explain_bad_id(rule.id):
        yield Finding(rule.id, rule.line, 1, "invalid-rule-id", "error", wrong)
    if is_integer_id(rule.id):
        what = "its id is a whole number: the backend evaluates it before all others, whatever its priority"
        yield Finding(rule.id, rule.line, 1, "integer-id", "warning", what, f"rule-{rule.id}")
    own = list(_check_condition(rule, known))
    yield from own
    if not any(finding.code == "never-so" for finding in own):  # which is the reason, and says it better
        yield from claimed


def _to_finding(claim: reachability.ReachabilityFinding) -> Finding:
    rule = claim.rule
    match claim.kind:
        case "never-true":
            what, suggestion = "no user can match it", None
        case "always-true":
            what = "it matches every user"
            suggestion = f"default_action: {rule.action.type}" if rule.action.type in ("allow", "reject") else None
        case "unreachable":
            what = f"whomever it matches, {' or '.join(claim.preceding)} has decided before"
            suggestion = f"a priority above that of {claim.preceding[0]}, or remove it"
    return Finding(rule.id, rule.line, 1, claim.kind, "warning", what, suggestion)


def _check_condition(rule: Rule, known: Known) -> Iterator[Finding]:
    condition = rule.condition or ""
    if not condition.strip():
        if rule.enabled:
            yield Finding(
                rule.id, rule.line, 1, "missing-condition", "warning", "it has no condition and never matches"
            )
        return
    key = to_key(rule)
    if key not in known:
        known[key] = _find_problems(rule, condition)
    found = known[key]
    left = found[MAX_FINDINGS:]
    for problem in sorted(found[:MAX_FINDINGS], key=lambda problem: problem.at):
        line, column = to_line_and_column(condition, problem.at)
        yield Finding(rule.id, rule.line + line - 1, column, problem.rule, problem.severity, problem.message,
                      problem.suggestion)  # fmt: skip
    if left:
        yield Finding(rule.id, rule.line, 1, "more", left[0].severity, f"and {len(left):,} more in this condition")


def _find_problems(rule: Rule, condition: str) -> list[types.Problem]:
    typed = types.check_types(condition, rule.lists)
    refused = any(problem.severity == "error" for problem in typed)
    found = [
        *typed,
        *_find_impossible_comparisons(condition),
        *_check_lists(rule),
        *differences.check_backend(condition, rule.lists, refused=refused),
    ]
    return sorted(found, key=lambda problem: _SEVERITIES.index(problem.severity))


def _find_impossible_comparisons(condition: str) -> Iterable[types.Problem]:
    """Comparisons that can't come true, for what the backend puts into the fields."""
    try:
        tree = parse(condition)
    except ConditionSyntaxError:
        return []
    found: list[types.Problem] = []
    for node in walk(tree):
        if isinstance(node, Binary | Call):
            for field, sign, value in types.own_constants(node):
                what, suggestion = _explain_impossible(field, sign, value)
                if what:
                    found.append(types.Problem(node.span.start, "never-so", "warning", what, suggestion))
    return found


def _check_lists(rule: Rule) -> Iterator[types.Problem]:
    """What of the lists that the condition names can't match, would slip through, or can't be pushed."""
    condition = rule.condition or ""
    uses = list(find_uses(condition, rule.lists))
    for node, one in uses:
        at, field = node.right.span.start, types.field_path(node.left)
        wrong: dict[str, list[str]] = {}
        for entry in one.entries:
            what, _ = _explain_impossible(field, "in", entry)
            if what:
                wrong.setdefault(what, []).append(entry)
        for what, entries in wrong.items():
            shown = ", ".join(f"{entry!r} (line {one.entries[entry]})" for entry in entries[:_SHOWN_ENTRIES])
            more = f" and {len(entries) - _SHOWN_ENTRIES:,} more" if len(entries) > _SHOWN_ENTRIES else ""
            said = f"of the list {one.name} {shown}{more} can never match: {what}"
            yield types.Problem(at, "list-entry", "warning", said)
        # Who lets domains in by a list loses nothing by a subdomain that is not on it.
        if field == "emailDomain" and rule.action.type != "allow" and ".endsWith(" not in condition:
            domain = next((domain for domain in one.entries if f"a.{domain}" not in one.entries), "")
            yield types.Problem(
                at, "list-subdomain", "info",
                f"subdomains are not on the list {one.name}: it has {domain}, and a.{domain} slips through",
                f'list them, too, or add || emailDomain.endsWith(".{domain}")',
            )  # fmt: skip
    try:
        expanded = expand_lists(rule)
    except ConfigError as error:
        what = error.message.removeprefix(f"{rule.id}: ")
        yield types.Problem(uses[0][0].right.span.start, "list-size", "warning", what, error.hint)
        return
    if uses and len(expanded) > _SLOW_CONDITION:
        what = f"the backend reads its {len(expanded):,} characters with the lists written out for each sign-up"
        yield types.Problem(uses[0][0].right.span.start, "list-size", "info", what)


def _explain_impossible(field: str, sign: str, value: object) -> tuple[str, str | None]:
    equality = sign in ("==", "!=", "in")
    if field.startswith("riskScores.") and isinstance(value, int | float) and not isinstance(value, bool):
        beyond = (
            (sign in (">", ) and value >= MAX_RISK) or (sign == ">=" and value > MAX_RISK)
            or (sign == "<" and value <= 0) or (sign == "<=" and value < 0)
            or (equality and not (0 <= value <= MAX_RISK and value == int(value)))
        )  # fmt: skip
        return (f"{field} is a whole number from 0 to {MAX_RISK}", None) if beyond else ("", None)
    if not isinstance(value, str):
        return "", None
    text = sign in ("contains", "startsWith", "endsWith")
    if field == "countryCode" and (equality or text) and value != value.upper():
        return "countryCode is upper-cased", f'"{value.upper()}"'
    if field in ("email", "emailDomain") and (equality or text) and value != value.lower():
        return f"{field} is lower-cased", f'"{value.lower()}"'
    if field == "countryCode" and equality and value and len(value) != 2:
        return "countryCode is two letters, or empty", None
    if field == "emailDomain" and equality and "@" in value:
        return "emailDomain is what follows the last @", f'"{value.rpartition("@")[2]}"'
    if equality and ((field == "email" and value != value.strip()) or (field == "emailDomain" and " " in value)):
        return f"{field} has no such spaces", None
    if field == "email" and equality and value and "@" not in value:
        return "an email has an @", None
    if field == "authMethod" and equality and value not in AUTH_METHODS:
        near = difflib.get_close_matches(value, AUTH_METHODS, n=1)
        return f"authMethod is one of {', '.join(AUTH_METHODS)}", f'"{near[0]}"' if near else None
    return "", None
