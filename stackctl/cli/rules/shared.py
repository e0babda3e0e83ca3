"""What the commands of stackctl rules share."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, counted
from stackctl.core.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from stackctl.rules.decide import Decision
    from stackctl.rules.edits import Change, Held
    from stackctl.rules.model import RuleSet

RulesFile = Annotated[
    Path | None,
    typer.Option("--rules", metavar="FILE", help="The rules file; default sign_up_rules of stackctl.yaml."),
]


def rules_path(run: Run, path: Path | None) -> Path:
    """The rules file of --rules, or else the configured one."""
    found = path or run.settings.get("sign_up_rules")
    if found is None:
        raise ConfigError(
            "no rules file is named", code="no-rules", hint="pass --rules FILE, or set sign_up_rules in stackctl.yaml"
        )
    return found


def load_rules(run: Run, path: Path | None) -> RuleSet:
    from stackctl.rules.files import load

    return load(rules_path(run, path))


def decision_document(decision: Decision) -> dict[str, Any]:
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


def format_cel(value: Any) -> str:
    """A value as CEL writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def format_outcome(decision: Decision) -> str:
    """A decision in a few words."""
    by = f" by {decision.decided_by}" if decision.decided_by else " (no rule decides)"
    restricted = f", restricted by {decision.restricted_by}" if decision.restricted_by else ""
    return f"{'allowed' if decision.should_allow else 'rejected'}{by}{restricted}"


SHOWN = 10  # tests that fail


class ActionName(Enum):
    allow = "allow"
    reject = "reject"
    restrict = "restrict"
    log = "log"


Id = Annotated[str, typer.Argument(metavar="ID", help="The rule's id.")]


Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of rules.")]


Condition = Annotated[str | None, typer.Option("--condition", metavar="CEL", help="When it matches.")]


Message = Annotated[str | None, typer.Option("--message", metavar="TEXT", help="A note for operators.")]


Name = Annotated[str | None, typer.Option("--display-name", metavar="TEXT", help="Its name for people.")]


Priority = Annotated[int | None, typer.Option("--priority", min=0, help="Higher is evaluated earlier.")]


Before = Annotated[str | None, typer.Option("--before", metavar="ID", help="Evaluated right before this rule.")]


After = Annotated[str | None, typer.Option("--after", metavar="ID", help="Evaluated right after this rule.")]


Where = Annotated[
    list[str] | None, typer.Option("--where", metavar="CEL", help="A condition; several are joined by &&.")
]


Or = Annotated[
    list[str] | None, typer.Option("--or", metavar="CEL", help="An alternative to all of --where; repeatable.")
]


Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write it though tests fail.")]


DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the change only.")]


def condition_of(condition: str | None, where: list[str] | None, or_: list[str] | None) -> str | None:
    """One condition from --condition, or from the parts of --where and --or."""
    from stackctl.rules.cel.tree import joined

    if or_ and not where:
        raise UsageError("--or is an alternative to --where", code="usage")
    if condition is not None and not condition.strip():
        hint = "`stackctl rules disable` switches a rule off"
        raise UsageError("--condition is empty: such a rule never matches", code="usage", hint=hint)
    if condition is not None and where:
        raise UsageError("--condition is the whole condition; leave out --where, or --condition", code="usage")
    return joined(where, or_ or []) if where else condition


def place_rule(held: Held, rules: RuleSet, id_: str, before: str | None, after: str | None) -> RuleSet:
    from stackctl.rules.edits import moved

    if before and after:
        raise UsageError("--before or --after, not both", code="usage")
    other = held.rule(before or after or "").id
    if other == id_:
        raise UsageError(f"{id_} can't stand beside itself", code="usage")
    order = [rule.id for rule in rules.ordered if rule.id != id_]
    return moved(rules, id_, order.index(other) + (1 if after else 0))


def write_change(run: Run, held: Held, wanted: RuleSet, *, yes: bool, dry_run: bool) -> None:
    """Show what changes and what comes of it, then write it."""
    from stackctl.rules import edits

    refuse_bytes(wanted)
    change = edits.planned(held, wanted)
    nothing = change.text == (held.text or "")
    document = {
        "changed": False,
        "dry_run": dry_run,
        "file": str(held.path),
        "diff": change.diff,
        "findings": [
            {"rule_id": one.rule_id, "rule": one.code, "severity": one.severity, "message": one.message,
             "suggestion": one.suggestion}
            for one in change.findings
        ],
        "failing_tests": [{"file": str(one.suite.path), "name": one.test.name} for one in change.failures],
    }  # fmt: skip
    if not dry_run and not nothing:
        if not run.json_output:
            show_change(run, change)
        if change.errors:
            error = change.errors[0]
            raise ConfigError(
                f"{error.rule_id}: {error.message}; nothing was written",
                code="invalid-rule",
                hint=error.suggestion or "`stackctl rules check` says more",
                details=document,
            )
        if change.failures:
            tests = counted(len(change.failures), "test fails", "tests fail")
            run.confirm(f"{tests} with this change. Write it all the same?", yes=yes)
        edits.write(change)
        document["changed"] = True

    def show() -> None:
        if nothing:
            run.console.line("nothing to change")
        elif dry_run:
            show_change(run, change)
            run.console.line("nothing was written")
        else:
            run.console.line(f"{held.path} written" + (", a new file" if held.text is None else ""))

    run.finish(document, show, ok=not (dry_run and change.errors), exit_code=3)


def refuse_bytes(rules: RuleSet) -> None:
    """UsageError for what the shell passed on though it is not text: the file could not hold it."""
    for rule in rules.rules:
        try:
            "".join((rule.id, rule.display_name, rule.condition or "", rule.action.message or "")).encode()
        except UnicodeEncodeError:
            shown = rule.id.encode("ascii", "backslashreplace").decode()
            raise UsageError(f"rule {shown}: what was given is not valid UTF-8", code="usage") from None


def show_change(run: Run, change: Change) -> None:
    for line in change.diff.splitlines():
        style = {"+": "green", "-": "red"}.get(line[:1]) if line[:3] not in ("+++", "---") else None
        run.console.line(line, style)
    for finding in change.findings:
        style = {"error": "red", "warning": "yellow"}.get(finding.severity)
        run.console.line(f"{finding.severity} {finding.code}: {finding.rule_id}: {finding.message}", style)
    for result in change.failures[:SHOWN]:
        run.console.line(f"fails now: {result.suite.path}:{result.test.line}: {result.test.name}", "red")
    if len(change.failures) > SHOWN:
        run.console.line(f"and {len(change.failures) - SHOWN:,} more tests fail now", "red")


Tenancy = Annotated[
    str | None, typer.Option("--tenancy", metavar="TENANCY", help="Whose rules; not needed where there is but one.")
]


Unasked = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


DifferenceOnly = Annotated[bool, typer.Option("--dry-run", help="Show the difference only.")]


def show_diff(run: Run, diff: str) -> None:
    if not run.json_output:
        for line in diff.splitlines():
            run.console.line(line, {"+": "green", "-": "red"}.get(line[:1]))


def finish_transfer(run: Run, diff: str, changed: bool, dry_run: bool, done: str) -> None:
    if not changed:
        run.console.line("nothing to change")
    elif dry_run:
        show_diff(run, diff)
        run.console.line("nothing was written")
    else:
        run.console.line(done)


def switch_rules(run: Run, ids: list[str], rules: Any, *, on: bool, yes: bool, dry_run: bool) -> None:
    from stackctl.rules.edits import read, with_rules

    held = read(rules_path(run, rules))
    changed = [replace(held.rule(id_), enabled=on) for id_ in dict.fromkeys(ids)]
    write_change(run, held, with_rules(held.rules, changed), yes=yes, dry_run=dry_run)
