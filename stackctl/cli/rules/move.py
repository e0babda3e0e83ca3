"""stackctl rules move"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.editing import After, Before, DryRun, Id, Yes, confirm_and_write, place_rule
from stackctl.cli.rules.rules_file import RulesPath, rules_path
from stackctl.core.errors import UsageError


@command(
    example="stackctl rules move block-disposable --first\nstackctl rules move risky --after block-disposable",
)
def move(
    run: Run,
    id_: Id,
    before: Before = None,
    after: After = None,
    first: Annotated[bool, typer.Option("--first", help="Evaluated before all others.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Evaluated after all others.")] = False,
    rules: RulesPath = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Put a rule elsewhere in the order of evaluation; as few priorities change as possible.

    Prints the difference, and which tests would fail.
    Exit codes: 0 written, or nothing to change; 2 no such rule; 5 tests fail, and it was not confirmed,
    or the file was changed meanwhile.
    """
    from stackctl.rules.editing import move_rule, read_rules_file

    file = read_rules_file(rules_path(run, rules))
    file.find_rule(id_)
    if sum((before is not None, after is not None, first, last)) != 1:
        raise UsageError("say where: one of --before, --after, --first, --last", code="usage")
    if first or last:
        wanted = move_rule(file.rules, id_, 0 if first else len(file.rules.rules) - 1)
    else:
        wanted = place_rule(file, file.rules, id_, before, after)
    confirm_and_write(run, file, wanted, yes=yes, dry_run=dry_run)
