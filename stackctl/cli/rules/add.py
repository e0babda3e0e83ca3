"""stackctl rules add"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.editing import (
    ActionName,
    After,
    Before,
    Condition,
    DisplayName,
    DryRun,
    Id,
    Message,
    Or,
    Priority,
    Where,
    Yes,
    combine_condition,
    confirm_and_write,
    place_rule,
)
from stackctl.cli.rules.rules_file import RulesPath, rules_path
from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from stackctl.rules.model import RuleSet

_FIRST, _STEP = 100, 10  # priority of a first rule, and how far below the others a new one goes


@command(
    example="stackctl rules add block-trash --action reject \\\n    --condition 'emailDomain == \"trash.me\"'\n"
    "stackctl rules add riskier --action restrict --dry-run \\\n    --where 'riskScores.bot > 80' --or 'email == \"\"'",
)
def add(
    run: Run,
    id_: Id,
    action: Annotated[ActionName, typer.Option("--action", help="What it does.")],
    condition: Condition = None,
    where: Where = None,
    or_: Or = None,
    display_name: DisplayName = None,
    message: Message = None,
    priority: Priority = None,
    before: Before = None,
    after: After = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Not yet enabled.")] = False,
    rules: RulesPath = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Add a rule to the file: below all others, unless --priority, --before or --after says where.

    Prints the difference, and which tests would fail.
    Exit codes: 0 written; 2 there is such a rule; 3 the rule is wrong; 5 tests fail, and it was not confirmed,
    or the file was changed meanwhile.
    """
    from stackctl.rules.editing import read_rules_file, replace_rules
    from stackctl.rules.model import Action, Rule, explain_bad_id

    file = read_rules_file(rules_path(run, rules))
    if any(rule.id == id_ for rule in file.rules.rules):
        raise UsageError(f"there is a rule {id_} already", code="rule-exists", hint=f"stackctl rules edit {id_}")
    if wrong := explain_bad_id(id_):
        raise UsageError(wrong, code="invalid-rule-id", hint="name it otherwise")
    text = combine_condition(condition, where, or_)
    if text is None:
        raise UsageError("say when it matches", code="usage", hint="--condition CEL, or --where CEL")
    own = _below(file.rules) if priority is None else priority
    new = Rule(id_, display_name or id_, not disabled, own, text, Action(action.value, message))
    wanted = replace_rules(file.rules, [new])
    if priority is not None and (before or after):
        raise UsageError("--priority says where it stands, as --before and --after do", code="usage")
    if before or after:
        wanted = place_rule(file, wanted, id_, before, after)
    elif priority is None and file.rules.rules:
        from stackctl.rules.editing import move_rule

        wanted = move_rule(wanted, id_, len(file.rules.rules))
    confirm_and_write(run, file, wanted, yes=yes, dry_run=dry_run)


def _below(rules: RuleSet) -> int:
    lowest = min((rule.priority for rule in rules.rules), default=_FIRST + _STEP)
    return lowest - _STEP if lowest > _STEP else max(lowest - 1, 0)
