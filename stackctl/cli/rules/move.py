"""stackctl rules move"""

from __future__ import annotations

from typing import Annotated

import typer

from stackctl.cli.command import Run, command
from stackctl.cli.rules.shared import After, Before, DryRun, Id, RulesFile, Yes, place_rule, rules_path, write_change
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
    rules: RulesFile = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Put a rule elsewhere in the order of evaluation; as few priorities change as possible.

    Exit codes: 0 written, or nothing to change; 2 no such rule; 5 tests fail, and it was not confirmed.
    """
    from stackctl.rules.edits import moved, read

    held = read(rules_path(run, rules))
    held.rule(id_)
    if sum((before is not None, after is not None, first, last)) != 1:
        raise UsageError("say where: one of --before, --after, --first, --last", code="usage")
    if first or last:
        wanted = moved(held.rules, id_, 0 if first else len(held.rules.rules) - 1)
    else:
        wanted = place_rule(held, held.rules, id_, before, after)
    write_change(run, held, wanted, yes=yes, dry_run=dry_run)
