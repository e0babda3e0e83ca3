"""stackctl rules edit"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.editing import (
    ActionName,
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
)
from stackctl.cli.rules.rules_file import RulesPath, rules_path


@command(
    example='stackctl rules edit block-disposable \\\n    --condition \'emailDomain in ["tempmail.com", "trash.me"]\'\n'
    "stackctl rules edit block-disposable --action log --dry-run",
)
def edit(
    run: Run,
    id_: Id,
    action: Annotated[ActionName | None, typer.Option("--action", help="What it does.")] = None,
    condition: Condition = None,
    where: Where = None,
    or_: Or = None,
    display_name: DisplayName = None,
    message: Message = None,
    priority: Priority = None,
    rules: RulesPath = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Change what a rule says; --message '' takes the note away.

    Prints the difference, and which tests would fail.
    Exit codes: 0 written, or nothing to change; 2 no such rule; 3 the rule would be wrong; 5 tests fail, and it was
    not confirmed, or the file was changed meanwhile.
    """
    from stackctl.rules.editing import read_rules_file, replace_rules

    file = read_rules_file(rules_path(run, rules))
    rule = file.find_rule(id_)
    note = rule.action.message if message is None else message or None
    new = replace(
        rule,
        display_name=rule.display_name if display_name is None else display_name or id_,
        priority=rule.priority if priority is None else priority,
        condition=combine_condition(condition, where, or_) or rule.condition,
        action=replace(rule.action, type=action.value if action else rule.action.type, message=note),
    )
    confirm_and_write(run, file, replace_rules(file.rules, [new]), yes=yes, dry_run=dry_run)
