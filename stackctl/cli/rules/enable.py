"""stackctl rules enable"""

from __future__ import annotations

from stackctl.cli.command import Run, command
from stackctl.cli.rules.editing import DryRun, Ids, Yes, switch_rules
from stackctl.cli.rules.rules_file import RulesPath


@command(example="stackctl rules enable block-disposable")
def enable(run: Run, ids: Ids, rules: RulesPath = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Enable rules.

    Prints the difference, and which tests would fail.
    Exit codes: 0 written, or nothing to change; 2 no such rule; 5 tests fail, and it was not confirmed,
    or the file was changed meanwhile.
    """
    switch_rules(run, ids, rules, on=True, yes=yes, dry_run=dry_run)
