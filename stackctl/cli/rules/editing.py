"""What the commands that change the rules file share: their options, and how a change is shown and written."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.rules.rules_file import rules_path
from stackctl.core.errors import ConfigError, UsageError
from stackctl.core.sentences import format_count

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.cli.command import Run
    from stackctl.rules.editing import Change, RulesFile
    from stackctl.rules.model import RuleSet


MAX_FAILURES_SHOWN = 10  # tests that fail
Id = Annotated[str, typer.Argument(metavar="ID", help="The rule's id.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of rules.")]
Condition = Annotated[str | None, typer.Option("--condition", metavar="CEL", help="When it matches.")]
Where = Annotated[
    list[str] | None, typer.Option("--where", metavar="CEL", help="A condition; several are joined by &&.")
]
Or = Annotated[
    list[str] | None, typer.Option("--or", metavar="CEL", help="An alternative to all of --where; repeatable.")
]
Message = Annotated[str | None, typer.Option("--message", metavar="TEXT", help="A note for operators.")]
DisplayName = Annotated[str | None, typer.Option("--display-name", metavar="TEXT", help="Its name for people.")]
Priority = Annotated[int | None, typer.Option("--priority", min=0, help="Higher is evaluated earlier.")]
Before = Annotated[str | None, typer.Option("--before", metavar="ID", help="Evaluated right before this rule.")]
After = Annotated[str | None, typer.Option("--after", metavar="ID", help="Evaluated right after this rule.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write it even if tests fail.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the change only.")]


class ActionName(Enum):
    allow = "allow"
    reject = "reject"
    restrict = "restrict"
    log = "log"


def combine_condition(condition: str | None, where: list[str] | None, or_: list[str] | None) -> str | None:
    """One condition from --condition, or from the parts of --where and --or."""
    from stackctl.rules.cel.tree import join_conditions

    if or_ and not where:
        raise UsageError("--or is an alternative to --where", code="usage")
    if condition is not None and not condition.strip():
        hint = "`stackctl rules disable` switches a rule off"
        raise UsageError("--condition is empty: such a rule never matches", code="usage", hint=hint)
    if condition is not None and where:
        raise UsageError("--condition is the whole condition; leave out --where, or --condition", code="usage")
    return join_conditions(where, or_ or []) if where else condition


def place_rule(file: RulesFile, rules: RuleSet, id_: str, before: str | None, after: str | None) -> RuleSet:
    from stackctl.rules.editing import move_rule

    if before and after:
        raise UsageError("--before or --after, not both", code="usage")
    other = file.find_rule(before or after or "").id
    if other == id_:
        raise UsageError(f"{id_} can't stand beside itself", code="usage")
    order = [rule.id for rule in rules.ordered if rule.id != id_]
    return move_rule(rules, id_, order.index(other) + (1 if after else 0))


def confirm_and_write(run: Run, file: RulesFile, wanted: RuleSet, *, yes: bool, dry_run: bool) -> None:
    """Show what changes and what comes of it, then write it."""
    from stackctl.core.documents import Exact
    from stackctl.rules import editing

    change = editing.plan_change(file, wanted)
    nothing = change.text == (file.text or "")
    document = {
        "changed": False,
        "dry_run": dry_run,
        "file": str(file.path),
        "diff": Exact(change.diff),
        "findings": [
            {"rule_id": one.rule_id, "rule": one.code, "severity": one.severity, "message": one.message,
             "suggestion": Exact(one.suggestion)}
            for one in change.findings
        ],
        "failing_tests": [{"file": str(one.suite.path), "name": one.test.name} for one in change.failures],
        "unread_suites": list(change.unread),
    }  # fmt: skip
    if not dry_run and not nothing:
        if change.errors:
            error = change.errors[0]
            more = f", and {len(change.errors) - 1:,} more errors" if len(change.errors) > 1 else ""
            raise ConfigError(
                f"{error.rule_id}: column {error.column}: {error.message}{more}; nothing was written",
                code="invalid-rule",
                hint=f"suggestion: {error.suggestion}" if error.suggestion else "correct it, and try again",
                details=document,
            )
        if not run.json_output:
            show_change(run, change)
        if change.failures or change.unread:
            doubts = [format_count(len(change.failures), "test fails", "tests fail")] if change.failures else []
            doubts += [format_count(len(change.unread), "suite", "suites") + " can't be run"] if change.unread else []
            run.confirm(f"With this change, {' and '.join(doubts)}. Write it all the same?", yes=yes)
        editing.write_change(change)
        document["changed"] = True

    def show() -> None:
        if nothing:
            run.console.line("nothing to change")
        elif dry_run:
            show_change(run, change)
            run.console.line("nothing was written")
        else:
            run.console.line(f"{file.path} written" + (", a new file" if file.text is None else ""))

    run.finish(document, show, ok=not (dry_run and change.errors), exit_code=3)


def show_change(run: Run, change: Change) -> None:
    run.console.diff(change.diff)
    for finding in change.findings:
        style = {"error": "red", "warning": "yellow"}.get(finding.severity)
        run.console.line(f"{finding.severity} {finding.code}: {finding.rule_id}: {finding.message}", style)
    for why in change.unread[:MAX_FAILURES_SHOWN]:
        run.console.line(f"can't be run: {why}", "red")
    for result in change.failures[:MAX_FAILURES_SHOWN]:
        run.console.line(f"fails now: {result.suite.path}:{result.test.line}: {result.test.name}", "red")
    if len(change.failures) > MAX_FAILURES_SHOWN:
        more = format_count(len(change.failures) - MAX_FAILURES_SHOWN, "more test fails", "more tests fail")
        run.console.line(f"and {more} now", "red")


def switch_rules(run: Run, ids: list[str], rules: Path | None, *, on: bool, yes: bool, dry_run: bool) -> None:
    from stackctl.rules.editing import read_rules_file, replace_rules

    file = read_rules_file(rules_path(run, rules))
    changed = [replace(file.find_rule(id_), enabled=on) for id_ in dict.fromkeys(ids)]
    confirm_and_write(run, file, replace_rules(file.rules, changed), yes=yes, dry_run=dry_run)
