"""stackctl rules pull"""

from __future__ import annotations

from dataclasses import replace

from stackctl.cli.command import Run, command, uuid_argument
from stackctl.cli.rules.shared import (
    DifferenceOnly,
    RulesFile,
    Tenancy,
    Unasked,
    finish_transfer,
    rules_path,
    show_diff,
)


@command(example="stackctl rules pull --dry-run\nstackctl rules pull --rules sign-up-rules.yaml --yes")
def pull(
    run: Run, tenancy: Tenancy = None, rules: RulesFile = None, yes: Unasked = False, dry_run: DifferenceOnly = False
) -> None:
    """Write the rules that the backend enforces into the file; comments and layout of what is alike stay.

    Exit codes: 0 written, or nothing to change; 2 no such tenancy; 5 not confirmed, or the configuration is invalid.
    """
    from stackctl.backend.tenancies import chosen, read
    from stackctl.rules import backend_rules, edits

    held = edits.read(rules_path(run, rules))
    with run.database() as conn:
        found = backend_rules.read(read(conn, chosen(conn, uuid_argument(tenancy) if tenancy else None)))
    wanted = replace(found, rules=tuple(sorted(found.rules, key=lambda rule: (-rule.priority, rule.id))))
    change = edits.planned(held, wanted)
    changed = change.text != (held.text or "")
    if changed and not dry_run:
        show_diff(run, change.diff)
        if held.text is not None:
            run.confirm(f"Change {held.path}?", yes=yes)
        edits.write(change)
    document = {"changed": changed and not dry_run, "dry_run": dry_run, "file": str(held.path), "diff": change.diff}
    run.finish(document, lambda: finish_transfer(run, change.diff, changed, dry_run, f"{held.path} written"))
