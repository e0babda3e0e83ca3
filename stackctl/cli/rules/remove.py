"""stackctl rules remove"""

from __future__ import annotations

from dataclasses import replace

from stackctl.cli.command import Run, command
from stackctl.cli.rules.shared import DryRun, Ids, RulesFile, Yes, rules_path, write_change


@command(example="stackctl rules remove block-disposable")
def remove(run: Run, ids: Ids, rules: RulesFile = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Take rules out of the file; comments stay.

    Exit codes: 0 written; 2 no such rule; 3 a test names it; 5 tests fail, and it was not confirmed.
    """
    from stackctl.rules.edits import read

    held = read(rules_path(run, rules))
    gone = {held.rule(id_).id for id_ in ids}
    left = tuple(rule for rule in held.rules.rules if rule.id not in gone)
    write_change(run, held, replace(held.rules, rules=left), yes=yes, dry_run=dry_run)
