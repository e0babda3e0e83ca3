"""stackctl rules"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command, counted, group
from stackctl.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.console import Console
    from stackctl.rules.check import Finding
    from stackctl.rules.decide import Decision, Judge
    from stackctl.rules.model import RuleSet

app = group("Test sign-up rules before they lock anyone out.", example="stackctl rules check")
apps = {"rules": app}

_RISK = "NAME=0..100"

RulesFile = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="The rules file; default sign_up_rules of stackctl.yaml."),
]


class Format(Enum):
    text = "text"
    json = "json"
    github = "github"


def rules_path(run: Run, path: Path | None) -> Path:
    """The rules file of --rules, or else the configured one."""
    found = path or run.settings.get("sign_up_rules")
    if found is None:
        raise ConfigError(
            "no rules file is named", code="no-rules", hint="pass --rules FILE, or set sign_up_rules in stackctl.yaml"
        )
    return found


def _load(run: Run, path: Path | None) -> RuleSet:
    from stackctl.rules.files import load

    return load(rules_path(run, path))


@command(app, "list", example="stackctl rules list\nstackctl rules list --rules sign-up-rules.yaml --json")
def list_(run: Run, rules: RulesFile = None) -> None:
    """List the rules in the order in which they are evaluated."""
    found = _load(run, rules)
    document = {
        "default_action": found.default_action,
        "rules": [
            {
                "id": rule.id,
                "display_name": rule.display_name,
                "enabled": rule.enabled,
                "priority": rule.priority,
                "condition": rule.condition,
                "action": {"type": rule.action.type, "message": rule.action.message},
            }
            for rule in found.ordered
        ],
    }
    rows = [
        (
            rule.id,
            rule.priority,
            "on" if rule.enabled else "off",
            rule.action.type,
            " ".join((rule.condition or "").split()),
        )
        for rule in found.ordered
    ]

    def show() -> None:
        if rows:
            run.console.table(("rule", "priority", "", "action", "condition"), rows, right=("priority",))
            run.console.line()
        run.console.line(f"{counted(len(rows), 'rule', 'rules')}; otherwise {found.default_action}")

    run.finish(document, show)


@command(
    app,
    "check",
    example="stackctl rules check\nstackctl rules check --rules sign-up-rules.yaml --format github",
)
def check(
    run: Run,
    rules: RulesFile = None,
    format_: Annotated[Format, typer.Option("--format", help="How to show the findings.")] = Format.text,
) -> None:
    """Find what is wrong with rules before anybody signs up: mistakes, and comparisons that never come true.

    Exit codes: 0 nothing found but information, 1 an error or a warning.
    """
    from stackctl.rules import check as checks
    from stackctl.rules.files import load

    if format_ is Format.json:
        run.options["json_output"] = True
    elif run.json_output and format_ is not Format.text:
        raise UsageError("--json and --format github exclude each other", code="usage")
    path = rules_path(run, rules)
    found = load(path)
    findings = checks.check(found)
    ok = all(finding.severity == "info" for finding in findings)
    document = {"ok": ok, "findings": [_finding(path, finding) for finding in findings]}

    def show() -> None:
        if format_ is Format.github:
            _annotate(run.console, path, findings)
        else:
            _show_findings(run.console, path, found, findings)

    run.finish(document, show, ok=ok)


def _finding(path: Path, finding: Finding) -> dict[str, Any]:
    return {
        "file": str(path),
        "line": finding.line,
        "column": finding.column,
        "rule": finding.code,
        "rule_id": finding.rule_id,
        "severity": finding.severity,
        "message": finding.message,
        "suggestion": finding.suggestion,
    }


def _annotate(console: Console, path: Path, findings: Sequence[Finding]) -> None:
    for finding in findings:
        text = f"{finding.rule_id}: {finding.message}".replace("%", "%25").replace("\n", "%0A")
        level = "notice" if finding.severity == "info" else finding.severity
        console.line(f"::{level} file={path},line={finding.line},title={finding.code}::{text}")


def _show_findings(console: Console, path: Path, rules: RuleSet, findings: Sequence[Finding]) -> None:
    from stackctl.rules.syntax import pointed

    conditions = {rule.id: rule for rule in rules.rules}
    for finding in findings:
        style = {"error": "red", "warning": "yellow"}.get(finding.severity)
        console.line(f"{path}:{finding.line}: {finding.rule_id}: {finding.severity} {finding.code}", style)
        console.line(f"  {finding.message}")
        rule = conditions[finding.rule_id]
        if rule.condition:
            lines = rule.condition.split("\n")
            at = sum(len(line) + 1 for line in lines[: finding.line - rule.line]) + finding.column - 1
            for line in pointed(rule.condition, min(at, len(rule.condition))).split("\n"):
                console.line(f"    {line}")
        if finding.suggestion:
            console.line(f"  suggestion: {finding.suggestion}")
        console.line()
    rule_count = counted(len(rules.rules), "rule", "rules")
    console.line(f"{rule_count}: {counted(len(findings), 'finding', 'findings') if findings else 'nothing found'}")


@command(
    app,
    "eval",
    example="stackctl rules eval --email bob@tempmail.com --country-code DE --risk bot=80\n"
    "stackctl rules eval --auth-method oauth --oauth-provider github --json\n"
    "stackctl rules eval --users users.csv",
)
def eval_(
    run: Run,
    email: Annotated[str | None, typer.Option("--email", metavar="ADDRESS", help="None: a user without one.")] = None,
    auth_method: Annotated[
        str, typer.Option("--auth-method", metavar="METHOD", help="password, otp, oauth or passkey.")
    ] = "password",
    oauth_provider: Annotated[
        str | None, typer.Option("--oauth-provider", metavar="ID", help="With --auth-method oauth.")
    ] = None,
    country_code: Annotated[str | None, typer.Option("--country-code", metavar="XX", help="Two letters.")] = None,
    risk: Annotated[
        list[str] | None, typer.Option("--risk", metavar=_RISK, help="bot or free_trial_abuse; repeatable.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option("--users", metavar="FILE", help="Many sample users: .csv, .jsonl or .yaml.")
    ] = None,
    rules: RulesFile = None,
) -> None:
    """Show what the rules decide about a sample user, and why; or about every user of a file.

    A CSV has the columns email and auth_method, and may have oauth_provider, country_code, bot, free_trial_abuse.
    Exit codes: 0 evaluated, whatever the decision; 2 no such user can be; 3 a file is bad.
    """
    from stackctl.rules.decide import Judge
    from stackctl.rules.model import Context

    judge = Judge(_load(run, rules))
    if users is not None:
        _many(run, judge, users)
        return
    try:
        context = Context.of(
            email=email,
            auth_method=auth_method,
            oauth_provider=oauth_provider,
            country_code=country_code,
            risk_scores=_risks(risk or []),
        )
    except ValueError as error:
        raise UsageError(str(error), code="usage") from None
    decision = judge.decide(context)
    run.finish(document(decision), lambda: _show(run.console, decision))


def _risks(given: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in given:
        name, _, score = text.partition("=")
        if not score.isascii() or not score.isdigit():
            raise UsageError(f"--risk: {text!r} is not {_RISK}", code="usage", hint="e.g. --risk bot=80")
        found[name] = int(score)
    return found


def document(decision: Decision) -> dict[str, Any]:
    """A decision as JSON, by the names that the backend uses."""
    return {
        "context": decision.context.fields(),
        "evaluations": [
            {
                "rule_id": evaluation.rule.id,
                "display_name": evaluation.rule.display_name,
                "enabled": evaluation.rule.enabled,
                "condition": evaluation.rule.condition,
                "status": evaluation.status,
                "action": evaluation.action,
            }
            | ({"error": evaluation.error} if evaluation.error else {})
            for evaluation in decision.evaluations
        ],
        "outcome": {
            "should_allow": decision.should_allow,
            "decision": decision.outcome,
            "decision_rule_id": decision.decided_by,
            "restricted_because_of_rule_id": decision.restricted_by,
        },
    }


def _show(console: Console, decision: Decision) -> None:
    from stackctl.rules.trace import parts

    fields = decision.context.fields()
    risks = fields.pop("riskScores")
    for name, value in {**fields, **{f"riskScores.{risk}": score for risk, score in risks.items()}}.items():
        console.line(f"{name:<28}{value!r}" if isinstance(value, str) else f"{name:<28}{value}")
    console.line()
    styles = {"matched": "bold", "error": "red"}
    for evaluation in decision.evaluations:
        what = f"{evaluation.status.replace('_', ' ')}" + (
            f" ({evaluation.action})" if evaluation.status == "matched" else ""
        )
        console.line(f"{evaluation.rule.id}: {what}", styles.get(evaluation.status))
        if evaluation.error:
            console.line(f"  {evaluation.error}")
        if evaluation.status in ("matched", "not_matched", "error"):
            for part in parts(evaluation.rule.condition or "", decision.context):
                seen = ", ".join(f"{name} = {value!r}" for name, value in part.fields.items())
                value = f"error: {part.error}" if part.error else cel(part.value)
                console.line(f"  {part.text} → {value}" + (f"   ({seen})" if seen else ""))
    console.line()
    console.line(outcome(decision), "green" if decision.should_allow else "red")


def cel(value: Any) -> str:
    """A value as CEL writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def outcome(decision: Decision) -> str:
    """A decision in a few words."""
    by = f" by {decision.decided_by}" if decision.decided_by else " (no rule decides)"
    restricted = f", restricted by {decision.restricted_by}" if decision.restricted_by else ""
    return f"{'allowed' if decision.should_allow else 'rejected'}{by}{restricted}"


def _many(run: Run, judge: Judge, path: Path) -> None:
    from collections import Counter

    from stackctl.rules.people import load

    counts: Counter[str] = Counter()
    results: list[tuple[int, Decision]] = []
    for person in load(path):
        decision = judge.decide(person.context)
        counts[decision.outcome] += 1
        counts["restricted"] += decision.restricted_by is not None
        results.append((person.place, decision))
    summary = {name: counts[name] for name in ("allow", "reject", "default-allow", "default-reject", "restricted")}
    rows = [(place, d.context.email, d.outcome, d.decided_by, d.restricted_by) for place, d in results]
    listed = [
        {"row": place, "email": email, "decision": outcome, "rule": rule, "restricted_by": restricted}
        for place, email, outcome, rule, restricted in rows
    ]

    def show() -> None:
        run.console.table(("row", "email", "decision", "rule", "restricted by"), rows, right=("row",))
        run.console.line()
        shown = ", ".join(f"{number:,} {name}" for name, number in summary.items() if number)
        run.console.line(f"{counted(len(rows), 'user', 'users')}" + (f": {shown}" if shown else ""))

    run.finish({"users": listed, "summary": summary}, show)


from stackctl.cli import (  # noqa: E402 after the commands above, so that help lists them first
    rules_backend,
    rules_backtest,
    rules_edit,
    rules_stats,
    rules_test,
    rules_tree,
)

# Importing them has registered their commands.
ELSEWHERE = (rules_test, rules_backtest, rules_edit, rules_tree, rules_backend, rules_stats)
