"""stackctl rules check"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.github import format_annotation
from stackctl.cli.rules.rules_file import RulesPath, rules_path
from stackctl.core.errors import ConfigError, UsageError
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stackctl.core.console import Console
    from stackctl.rules.check import Finding
    from stackctl.rules.model import RuleSet


class Format(Enum):
    text = "text"
    json = "json"
    github = "github"


@command(
    example="stackctl rules check\nstackctl rules check --rules sign-up-rules.yaml --format github",
)
def check(
    run: Run,
    rules: RulesPath = None,
    format_: Annotated[Format, typer.Option("--format", help="How to show the findings.")] = Format.text,
) -> None:
    """Find what is wrong with rules before anybody signs up: mistakes, and comparisons that never come true.

    Prints each finding with its place in the condition.
    Exit codes: 0 nothing found but information; 1 an error or a warning, or a file that holds no rules; 3 no such file.
    """
    from stackctl.rules import check as checks
    from stackctl.rules.rules_file import load_rules

    if format_ is Format.json:
        run.options["json_output"] = True
    elif run.json_output and format_ is not Format.text:
        raise UsageError("--json and --format github can't be used together", code="usage")
    path = rules_path(run, rules)
    try:
        found = load_rules(path)
        findings = checks.check_rules(found)
    except ConfigError as error:
        found = None
        findings = _to_findings(error)
    ok = all(finding.severity == "info" for finding in findings)
    document = {"ok": ok, "findings": [_finding(path, finding) for finding in findings]}

    def show() -> None:
        if format_ is Format.github:
            _annotate(run.console, path, findings)
        else:
            _show_findings(run.console, path, found, findings)

    run.finish(document, show, ok=ok)


def _to_findings(error: ConfigError) -> list[Finding]:
    """What makes a file none that holds rules, as findings; an error about something else is raised again."""
    from stackctl.rules.check import Finding

    if "findings" not in error.details:
        raise error
    return [
        Finding("", mistake["line"], 1, error.code, "error", mistake["message"])
        for mistake in error.details["findings"]
    ]


def _finding(path: Path, finding: Finding) -> dict[str, Any]:
    from stackctl.core.documents import Exact

    return {
        "file": str(path),
        "line": finding.line,
        "column": finding.column,
        "rule": finding.code,
        "rule_id": finding.rule_id or None,
        "severity": finding.severity,
        "message": finding.message,
        "suggestion": Exact(finding.suggestion),
    }


def _annotate(console: Console, path: Path, findings: Sequence[Finding]) -> None:
    for finding in findings:
        text = f"{finding.rule_id}: {finding.message}" if finding.rule_id else finding.message
        level = "notice" if finding.severity == "info" else finding.severity
        console.document(format_annotation(level, text, file=path, line=finding.line, title=finding.code))


def _show_findings(console: Console, path: Path, rules: RuleSet | None, findings: Sequence[Finding]) -> None:
    from stackctl.rules.cel.parse import point_at

    conditions = {rule.id: rule for rule in rules.rules} if rules else {}
    for finding in findings:
        style = {"error": "red", "warning": "yellow"}.get(finding.severity)
        about = f"{finding.rule_id}: " if finding.rule_id else ""
        console.line(f"{path}:{finding.line}: {about}{finding.severity} {finding.code}", style)
        console.line(f"  {finding.message}")
        rule = conditions.get(finding.rule_id)
        if rule and rule.condition:
            lines = rule.condition.split("\n")
            at = sum(len(line) + 1 for line in lines[: finding.line - rule.line]) + finding.column - 1
            for line in point_at(rule.condition, min(at, len(rule.condition))).split("\n"):
                console.line(f"    {line}", exact=True)
        if finding.suggestion:
            console.line(f"  suggestion: {finding.suggestion}", exact=True)
        console.line()
    rule_count = f"{format_count(len(rules.rules), 'rule', 'rules')}: " if rules else ""
    console.line(f"{rule_count}{format_count(len(findings), 'finding', 'findings') if findings else 'nothing found'}")
