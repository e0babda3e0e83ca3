"""stackctl rules add, edit, move, enable, disable, remove"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackctl.cli.command import Run, command, counted
from stackctl.cli.rules import RulesFile, app, rules_path
from stackctl.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from stackctl.rules.changes import Change, Held
    from stackctl.rules.model import RuleSet

_SHOWN = 10  # tests that fail
_FIRST, _STEP = 100, 10  # priority of a first rule, and how far below the others a new one goes


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


@command(
    app,
    "add",
    example="stackctl rules add block-disposable --condition 'emailDomain in [\"tempmail.com\"]' --action reject\n"
    "stackctl rules add risky --where 'riskScores.bot > 80' --or 'email == \"\"' --action restrict --dry-run",
)
def add(
    run: Run,
    id_: Id,
    action: Annotated[ActionName, typer.Option("--action", help="What it does.")],
    condition: Condition = None,
    where: Where = None,
    or_: Or = None,
    display_name: Name = None,
    message: Message = None,
    priority: Priority = None,
    before: Before = None,
    after: After = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Not yet enabled.")] = False,
    rules: RulesFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Add a rule to the file: below all others, unless --priority, --before or --after says where.

    Exit codes: 0 written; 2 there is such a rule; 3 the rule is wrong; 5 tests fail, and it was not confirmed.
    """
    from stackctl.rules.changes import read, with_rules
    from stackctl.rules.model import Action, Rule

    held = read(rules_path(run, rules))
    if any(rule.id == id_ for rule in held.rules.rules):
        raise UsageError(f"there is a rule {id_} already", code="rule-exists", hint=f"stackctl rules edit {id_}")
    if not id_.strip():
        raise UsageError("a rule needs an id", code="usage")
    if "." in id_:
        raise UsageError(
            f"the id {id_} has a dot, which the backend would read as a path", code="usage", hint="name it otherwise"
        )
    text = _condition(condition, where, or_)
    if text is None:
        raise UsageError("say when it matches", code="usage", hint="--condition CEL, or --where CEL")
    own = _below(held.rules) if priority is None else priority
    new = Rule(id_, display_name or id_, not disabled, own, text, Action(action.value, message))
    wanted = with_rules(held.rules, [new])
    if priority is not None and (before or after):
        raise UsageError("--priority says where it stands, as --before and --after do", code="usage")
    if before or after:
        wanted = _placed(held, wanted, id_, before, after)
    elif priority is None and held.rules.rules:
        from stackctl.rules.changes import moved

        wanted = moved(wanted, id_, len(held.rules.rules))
    _carry_out(run, held, wanted, yes=yes, dry_run=dry_run)


@command(
    app,
    "edit",
    example='stackctl rules edit block-disposable --condition \'emailDomain in ["tempmail.com", "trash.me"]\'\n'
    "stackctl rules edit block-disposable --action log --dry-run",
)
def edit(
    run: Run,
    id_: Id,
    action: Annotated[ActionName | None, typer.Option("--action", help="What it does.")] = None,
    condition: Condition = None,
    where: Where = None,
    or_: Or = None,
    display_name: Name = None,
    message: Message = None,
    priority: Priority = None,
    rules: RulesFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Change what a rule says; --message '' takes the note away.

    Exit codes: 0 written, or nothing to change; 2 no such rule; 3 the rule would be wrong; 5 tests fail, and it was not
    confirmed.
    """
    from stackctl.rules.changes import read, with_rules

    held = read(rules_path(run, rules))
    rule = held.rule(id_)
    note = rule.action.message if message is None else message or None
    new = replace(
        rule,
        display_name=rule.display_name if display_name is None else display_name or id_,
        priority=rule.priority if priority is None else priority,
        condition=_condition(condition, where, or_) or rule.condition,
        action=replace(rule.action, type=action.value if action else rule.action.type, message=note),
    )
    _carry_out(run, held, with_rules(held.rules, [new]), yes=yes, dry_run=dry_run)


@command(
    app,
    "move",
    example="stackctl rules move block-disposable --first\nstackctl rules move risky --after block-disposable",
)
def move(
    run: Run,
    id_: Id,
    before: Before = None,
    after: After = None,
    first: Annotated[bool, typer.Option("--first", help="Evaluated before all others.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Evaluated after all others.")] = False,
    rules: RulesFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Put a rule elsewhere in the order of evaluation; as few priorities change as possible.

    Exit codes: 0 written, or nothing to change; 2 no such rule; 5 tests fail, and it was not confirmed.
    """
    from stackctl.rules.changes import moved, read

    held = read(rules_path(run, rules))
    held.rule(id_)
    if sum((before is not None, after is not None, first, last)) != 1:
        raise UsageError("say where: one of --before, --after, --first, --last", code="usage")
    if first or last:
        wanted = moved(held.rules, id_, 0 if first else len(held.rules.rules) - 1)
    else:
        wanted = _placed(held, held.rules, id_, before, after)
    _carry_out(run, held, wanted, yes=yes, dry_run=dry_run)


@command(app, "enable", example="stackctl rules enable block-disposable")
def enable(run: Run, ids: Ids, rules: RulesFile = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Enable rules.

    Exit codes: 0 written, or nothing to change; 2 no such rule; 5 tests fail, and it was not confirmed.
    """
    _switch(run, ids, rules, on=True, yes=yes, dry_run=dry_run)


@command(app, "disable", example="stackctl rules disable block-disposable --dry-run")
def disable(run: Run, ids: Ids, rules: RulesFile = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Disable rules; they stay in the file.

    Exit codes: 0 written, or nothing to change; 2 no such rule; 5 tests fail, and it was not confirmed.
    """
    _switch(run, ids, rules, on=False, yes=yes, dry_run=dry_run)


@command(app, "remove", example="stackctl rules remove block-disposable")
def remove(run: Run, ids: Ids, rules: RulesFile = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Take rules out of the file; comments stay.

    Exit codes: 0 written; 2 no such rule; 3 a test names it; 5 tests fail, and it was not confirmed.
    """
    from stackctl.rules.changes import read

    held = read(rules_path(run, rules))
    gone = {held.rule(id_).id for id_ in ids}
    left = tuple(rule for rule in held.rules.rules if rule.id not in gone)
    _carry_out(run, held, replace(held.rules, rules=left), yes=yes, dry_run=dry_run)


def _switch(run: Run, ids: list[str], rules: Any, *, on: bool, yes: bool, dry_run: bool) -> None:
    from stackctl.rules.changes import read, with_rules

    held = read(rules_path(run, rules))
    changed = [replace(held.rule(id_), enabled=on) for id_ in dict.fromkeys(ids)]
    _carry_out(run, held, with_rules(held.rules, changed), yes=yes, dry_run=dry_run)


def _below(rules: RuleSet) -> int:
    lowest = min((rule.priority for rule in rules.rules), default=_FIRST + _STEP)
    return lowest - _STEP if lowest > _STEP else max(lowest - 1, 0)


def _condition(condition: str | None, where: list[str] | None, or_: list[str] | None) -> str | None:
    """One condition from --condition, or from the parts of --where and --or."""
    from stackctl.rules.tree import joined

    if or_ and not where:
        raise UsageError("--or is an alternative to --where", code="usage")
    if condition is not None and not condition.strip():
        hint = "`stackctl rules disable` switches a rule off"
        raise UsageError("--condition is empty: such a rule never matches", code="usage", hint=hint)
    if condition is not None and where:
        raise UsageError("--condition is the whole condition; leave out --where, or --condition", code="usage")
    return joined(where, or_ or []) if where else condition


def _placed(held: Held, rules: RuleSet, id_: str, before: str | None, after: str | None) -> RuleSet:
    from stackctl.rules.changes import moved

    if before and after:
        raise UsageError("--before or --after, not both", code="usage")
    other = held.rule(before or after or "").id
    if other == id_:
        raise UsageError(f"{id_} can't stand beside itself", code="usage")
    order = [rule.id for rule in rules.ordered if rule.id != id_]
    return moved(rules, id_, order.index(other) + (1 if after else 0))


def _carry_out(run: Run, held: Held, wanted: RuleSet, *, yes: bool, dry_run: bool) -> None:
    """Show what changes and what comes of it, then write it."""
    from stackctl.rules import changes

    _refuse_bytes(wanted)
    change = changes.planned(held, wanted)
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
            _show(run, change)
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
        changes.write(change)
        document["changed"] = True

    def show() -> None:
        if nothing:
            run.console.line("nothing to change")
        elif dry_run:
            _show(run, change)
            run.console.line("nothing was written")
        else:
            run.console.line(f"{held.path} written" + (", a new file" if held.text is None else ""))

    run.finish(document, show, ok=not (dry_run and change.errors), exit_code=3)


def _refuse_bytes(rules: RuleSet) -> None:
    """UsageError for what the shell passed on though it is not text: the file could not hold it."""
    for rule in rules.rules:
        try:
            "".join((rule.id, rule.display_name, rule.condition or "", rule.action.message or "")).encode()
        except UnicodeEncodeError:
            shown = rule.id.encode("ascii", "backslashreplace").decode()
            raise UsageError(f"rule {shown}: what was given is not valid UTF-8", code="usage") from None


def _show(run: Run, change: Change) -> None:
    for line in change.diff.splitlines():
        style = {"+": "green", "-": "red"}.get(line[:1]) if line[:3] not in ("+++", "---") else None
        run.console.line(line, style)
    for finding in change.findings:
        style = {"error": "red", "warning": "yellow"}.get(finding.severity)
        run.console.line(f"{finding.severity} {finding.code}: {finding.rule_id}: {finding.message}", style)
    for result in change.failures[:_SHOWN]:
        run.console.line(f"fails now: {result.suite.path}:{result.test.line}: {result.test.name}", "red")
    if len(change.failures) > _SHOWN:
        run.console.line(f"and {len(change.failures) - _SHOWN:,} more tests fail now", "red")
