"""stackctl rules remove"""

from __future__ import annotations

from dataclasses import replace

from stackctl.cli.command import Run, command
from stackctl.cli.rules.editing import DryRun, Ids, Yes, confirm_and_write
from stackctl.cli.rules.rules_file import RulesPath, rules_path


@command(example="stackctl rules remove old-campaign")
def remove(run: Run, ids: Ids, rules: RulesPath = None, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Take rules out of the file; comments stay.

    A test that names such a rule fails then.

    Prints the difference, and which tests would fail.
    Exit codes: 0 written; 2 no such rule; 5 tests fail, and it was not confirmed,
    or the file was changed meanwhile.
    """
    from stackctl.rules.editing import read_rules_file

    file = read_rules_file(rules_path(run, rules))
    gone = {file.find_rule(id_).id for id_ in ids}
    left = tuple(rule for rule in file.rules.rules if rule.id not in gone)
    confirm_and_write(run, file, replace(file.rules, rules=left), yes=yes, dry_run=dry_run)
