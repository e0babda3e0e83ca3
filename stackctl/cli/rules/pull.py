"""stackctl rules pull"""

from __future__ import annotations

from dataclasses import replace

from stackctl.cli.command import Run, command
from stackctl.cli.rules.rules_file import RulesPath, rules_path
from stackctl.cli.rules.transfer import DryRun, Tenancy, Yes, finish_transfer, show_diff


@command(
    example="stackctl rules pull --tenancy acme --dry-run\n"
    "stackctl rules pull --tenancy acme --rules sign-up-rules.yaml --yes"
)
def pull(
    run: Run,
    tenancy: Tenancy = None,
    rules: RulesPath = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Write the rules that the backend enforces into the file; comments and layout of what is alike stay.

    What breaks the backend's own schema is told, and taken as the backend does; a rule that can be none is left out.

    Prints the difference.
    Exit codes: 0 written, or nothing to change; 2 no such tenancy; 5 not confirmed.
    """
    from stackctl.backend.tenancies import choose_tenancy, read_layers
    from stackctl.core.documents import Exact
    from stackctl.rules import editing
    from stackctl.rules.backend import configuration
    from stackctl.rules.lists import restore_lists

    file = editing.read_rules_file(rules_path(run, rules))
    with run.database() as conn:
        found, problems = configuration.read_rules(read_layers(conn, choose_tenancy(conn, tenancy)))
    for problem in problems:
        run.console.warn(problem)
    found = restore_lists(found, file.rules)
    wanted = replace(found, rules=tuple(sorted(found.rules, key=lambda rule: (-rule.priority, rule.id))))
    change = editing.plan_change(file, wanted)
    changed = change.text != (file.text or "")
    if changed and not dry_run:
        show_diff(run, change.diff)
        if file.text is not None:
            run.confirm(f"Change {file.path}?", yes=yes)
        editing.write_change(change)
    document = {
        "changed": changed and not dry_run,
        "dry_run": dry_run,
        "file": str(file.path),
        "diff": Exact(change.diff),
        "warnings": problems,
    }
    run.finish(document, lambda: finish_transfer(run, change.diff, changed, dry_run, f"{file.path} written"))
